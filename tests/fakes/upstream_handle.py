"""Python handles of the fake upstream: the same methods on a server in a child process and in this event loop."""

from __future__ import annotations

import asyncio
import http.client
import os
import select
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any, Self, TypeVar
from urllib.parse import urlencode

import msgspec

from tests.fakes import upstream_admin as admin
from tests.fakes.upstream_admin import Count, RuleState, Stats
from tests.fakes.upstream_behaviour import Behaviour, Match, Rule, parse_rules
from tests.fakes.upstream_log import Arrival, FileLog
from tests.fakes.upstream_server import Connection
from tests.fakes.upstream_state import Upstream

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 3.0
CALL_TIMEOUT_S = 15.0
ROOT = Path(__file__).resolve().parents[2]

T = TypeVar("T")
Rules = Iterable[Rule | Mapping[str, Any]]


class UpstreamRefused(ValueError):
    """The server refused an admin request; the message is its own."""


def rule(
    behaviour: Behaviour | Mapping[str, Any],
    *,
    times: int | None = None,
    path: str | None = None,
    model: str | None = None,
    authorization: str | None = None,
    method: str | None = None,
    stream: bool | None = None,
) -> Rule:
    """One rule of a script; raises `msgspec.ValidationError` for a behaviour with an unknown key."""
    match = Match(path=path, model=model, authorization=authorization, method=method, stream=stream)
    checked = behaviour if isinstance(behaviour, Behaviour) else msgspec.convert(behaviour, Behaviour)
    return Rule(behaviour=checked, match=match, times=times)


class _Handle:
    """What both handles share: addresses. `url` is the server's root, `base_url` what an OpenAI client is given."""

    host = "127.0.0.1"
    port = 0

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def script(self, rules: Rules) -> None:
        """Replaces the script; raises `UpstreamRefused` for a bad one, keeping the old."""
        self._set(rules, append=False)

    def add(self, behaviour: Behaviour | Mapping[str, Any], **matching: Any) -> None:
        """Appends one rule, with the arguments of `rule`."""
        self._set([rule(behaviour, **matching)], append=True)

    def reset(self) -> None:
        """Forgets the script and the log, for the next test of a shared server."""
        self.script([])
        self.clear_log()

    def max_in_window(
        self, seconds: float, *, model: str | None = None, path: str | None = None, method: str | None = None
    ) -> int:
        """The most arrivals in any half-open window of that length, exactly."""
        return self.count(seconds, model=model, path=path, method=method).max

    def _set(self, rules: Rules, *, append: bool) -> None:
        raise NotImplementedError

    def clear_log(self) -> None:
        raise NotImplementedError

    def count(
        self, seconds: float, *, model: str | None = None, path: str | None = None, method: str | None = None
    ) -> Count:
        raise NotImplementedError


class FakeUpstream(_Handle):
    """The server in a child process, ended with the block or with this process, whichever comes first.

    Calls block for the milliseconds they take; as the server is elsewhere, they may be made from a running event loop.
    Raises `UpstreamRefused` for a refused admin request and `OSError` when the child does not answer in time.
    """

    def __init__(self, *, port: int = 0, log_file: str | Path | None = None) -> None:
        self._wanted_port = port
        self._log_file = log_file
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def start(self) -> Self:
        """Starts the child and returns when it listens; after `stop` it may be started again (see `port`)."""
        command = [
            sys.executable,
            "-m",
            "tests.fakes.upstream",
            "--exit-on-stdin-eof",
            "--port",
            f"{self._wanted_port}",
        ]
        if self._log_file is not None:
            command += ["--log", str(Path(self._log_file).absolute())]
        self._child = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            self.port = msgspec.json.decode(self._first_line(), type=dict[str, int])["port"]
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Ends the child: politely, then by force. Connections to it break; its port refuses until `start`."""
        child, self._child = self._child, None
        if child is None:
            return
        child.terminate()
        try:
            child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(STOP_TIMEOUT_S)
        for pipe in (child.stdin, child.stdout):
            assert pipe is not None
            pipe.close()

    def _first_line(self) -> bytes:
        assert self._child is not None
        assert self._child.stdout is not None
        pipe, line, until = self._child.stdout.fileno(), b"", monotonic() + START_TIMEOUT_S
        while not line.endswith(b"\n"):
            if not select.select([pipe], [], [], max(0.0, until - monotonic()))[0]:
                raise TimeoutError("the fake upstream did not start in time")
            data = os.read(pipe, 4096)
            if not data:
                raise OSError("the fake upstream ended before it listened; its stderr says why")
            line += data
        return line

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.to_thread(self.stop)

    def _set(self, rules: Rules, *, append: bool) -> None:
        self._call("POST", f"/__script?append={int(append)}", Any, msgspec.json.encode(list(rules)))

    def rules(self) -> list[RuleState]:
        """The script with what each rule has used up."""
        return self._call("GET", "/__script", list[RuleState])

    def log(self, *, bodies: bool = False, after: int = 0) -> list[Arrival]:
        """Arrivals since the log was cleared, numbered above `after`; with their request bodies when asked."""
        return self._call("GET", f"/__log?bodies={int(bodies)}&after={after}", list[Arrival])

    def clear_log(self) -> None:
        self._call("DELETE", "/__log", Any)

    def count(
        self, seconds: float, *, model: str | None = None, path: str | None = None, method: str | None = None
    ) -> Count:
        """The fullest window of that length and the total, of all arrivals or of those that match."""
        chosen = {"window": seconds, "model": model, "path": path, "method": method}
        query = urlencode({name: value for name, value in chosen.items() if value is not None})
        return self._call("GET", f"/__count?{query}", Count)

    def stats(self) -> Stats:
        return self._call("GET", "/__stats", Stats)

    def wait(self, *, arrivals: int = 0, finished: int = 0, timeout_s: float = 5) -> None:
        """Blocks until so many requests arrived and ended since the log was cleared; raises `TimeoutError`."""
        path = f"/__wait?arrivals={arrivals}&finished={finished}&timeout={timeout_s}"
        if not self._call("GET", path, dict[str, bool], timeout_s=timeout_s + CALL_TIMEOUT_S)["reached"]:
            raise TimeoutError(f"after {timeout_s} s: {self.stats()}")

    async def wait_async(self, *, arrivals: int = 0, finished: int = 0, timeout_s: float = 5) -> None:
        """`wait` without blocking the event loop."""
        await asyncio.to_thread(self.wait, arrivals=arrivals, finished=finished, timeout_s=timeout_s)

    def _call(
        self,
        method: str,
        path: str,
        result: type[T] | Any,
        body: bytes | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> T:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise UpstreamRefused(msgspec.json.decode(data)["error"]["message"])
        decoded: T = msgspec.json.decode(data, type=result)
        return decoded


class InProcessUpstream(_Handle):
    """The server in the running event loop, for unit tests: `async with InProcessUpstream() as fake`."""

    def __init__(self, *, port: int = 0, log_file: str | Path | None = None) -> None:
        self._wanted_port = port
        self._log_file = log_file
        self._server: asyncio.Server | None = None
        self.state = Upstream()

    async def start(self) -> Self:
        self.state.log_file = FileLog(self._log_file) if self._log_file is not None else None
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self.state), self.host, self._wanted_port, backlog=1024, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """Stops listening and breaks every connection."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for connection in list(self.state.connections):
            connection.transport.abort()
        await asyncio.wait_for(server.wait_closed(), STOP_TIMEOUT_S)
        async with asyncio.timeout(STOP_TIMEOUT_S):
            while self.state.connections:
                await asyncio.sleep(0)
        if self.state.log_file is not None:
            self.state.log_file.close()
            self.state.log_file = None

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    def _set(self, rules: Rules, *, append: bool) -> None:
        try:
            self.state.set_rules(parse_rules(msgspec.json.encode(list(rules))), append=append)
        except ValueError as error:
            raise UpstreamRefused(str(error)) from error

    def rules(self) -> list[RuleState]:
        return admin.script(self.state)

    def log(self, *, bodies: bool = False, after: int = 0) -> list[Arrival]:
        return list(self.state.log.rows(bodies=bodies, after=after))

    def clear_log(self) -> None:
        self.state.clear_log()

    def count(
        self, seconds: float, *, model: str | None = None, path: str | None = None, method: str | None = None
    ) -> Count:
        return admin.count(self.state, seconds, model=model, path=path, method=method)

    def stats(self) -> Stats:
        return admin.stats(self.state)

    async def wait_async(self, *, arrivals: int = 0, finished: int = 0, timeout_s: float = 5) -> None:
        """Until so many requests arrived and ended since the log was cleared; raises `TimeoutError`."""
        if not await admin.wait(self.state, arrivals=arrivals, finished=finished, timeout_s=timeout_s):
            raise TimeoutError(f"after {timeout_s} s: {self.stats()}")
