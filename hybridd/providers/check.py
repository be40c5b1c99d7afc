"""The conformance check for plugin authors: ``hybridd plugin check ./my_plugin``.

Starts the program against a real hub on a temporary socket, puts it through the protocol and says, rule by rule, what
it kept and what it broke. A rule that cannot be tried (the provider has no key, does not stream) is skipped with the
reason.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw

from hybridd.bus import EventBus
from hybridd.clocks import SystemClock
from hybridd.config.resolved import ProviderSpec
from hybridd.contracts import protocol as wire
from hybridd.errors import EXIT_FAILURE, EXIT_OK, HybriddError, InvalidRequest
from hybridd.providers.calls import CallFailed, OnEvents, PluginCall
from hybridd.providers.check_report import Report, Rule, command_for, render
from hybridd.providers.check_server import CheckLink
from hybridd.providers.hub import Hub
from hybridd.providers.link import Timing
from hybridd.providers.session import Session
from hybridd.providers.spawn import SpawnContext

NAME = "checked"
CALL_SECONDS = 30.0
SMALL_CREDIT = 64
# Before a cancel, so that it meets a call at work and not one still in the pipe.
RUNNING_SECONDS = 0.05
# A provider that is not set up answers with one of these: nothing is wrong with its protocol.
NOT_TRIED = frozenset({"auth", "payment", "forbidden", "gone", "rate_limited", "unavailable", "not_found", "timeout"})


class Broken(Exception):
    """A rule was broken; the message says how."""


class Skipped(Exception):
    """A rule could not be tried; the message says why."""


async def check(
    target: str | Path | Sequence[str],
    *,
    settings: dict[str, Any] | None = None,
    environ: dict[str, str] | None = None,
    timing: Timing | None = None,
) -> Report:
    """Checks one plugin. ``settings`` is what it finds under the provider name ``checked`` in ``initialize``.

    Raises:
        ValueError: there is nothing to run.
    """
    command = command_for(target)
    report = Report(command=command)
    environment = dict(os.environ) if environ is None else environ
    with tempfile.TemporaryDirectory(prefix="hybridd-check-") as directory:
        run = _Run(report, Path(directory) / "s", command, settings or {}, environment, timing or Timing(start=15.0))
        await run.all()
    return report


class _Run:
    def __init__(
        self,
        report: Report,
        socket: Path,
        command: list[str],
        settings: dict[str, Any],
        environ: dict[str, str],
        timing: Timing,
    ) -> None:
        clock = SystemClock()
        self._report = report
        self._socket = socket
        self._environ = environ
        # The author runs this by hand: the program sees the author's whole environment.
        self._spec = ProviderSpec(
            name=NAME,
            plugin=NAME,
            account=NAME,
            process=NAME,
            command=tuple(command),
            environment=tuple(environ),
            plugin_config=settings,
        )
        self._timing = timing
        cwd = Path.cwd()
        self._hub = Hub(
            clock=clock,
            bus=EventBus(clock),
            spawn=SpawnContext(socket=socket, environ=environ, timing=timing, cwd=cwd),
        )
        self._sessions: list[Session] = []
        self._provider = ""
        self._model = ""
        self._methods: list[str] = []

    async def all(self) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: CheckLink(self._hub, self._sessions), str(self._socket))
        try:
            await self._hub.apply({NAME: self._spec})
            steps: list[tuple[str, Callable[[], Awaitable[str | None]]]] = [
                ("connects and initializes", self._initializes),
                ("registers a provider", self._registers),
                ("answers heartbeats", self._heartbeat),
                ("answers a call", self._plain),
                ("streams", self._streams),
                ("keeps to its credit", self._credit),
                ("answers heartbeats during a call", self._heartbeat_in_call),
                ("answers once after a cancel", self._cancel),
                ("keeps the deadline", self._deadline),
                ("answers a probe", self._probe),
                ("refuses an unknown method", self._unknown_method),
                ("ignores unknown members and notifications", self._unknown_members),
                ("keeps the protocol throughout", self._no_violation),
                ("shuts down when asked", self._shuts_down),
            ]
            for name, step in steps:
                if not await self._try(name, step):
                    break
        finally:
            views = self._hub.plugin_views()
            self._report.stderr = views[0].stderr if views else []
            await self._hub.close(1.0)
            server.close()

    async def _try(self, name: str, step: Callable[[], Awaitable[str | None]]) -> bool:
        """Records the verdict; False when going on makes no sense."""
        rules = self._report.rules
        try:
            rules.append(Rule(name, "pass", await step() or ""))
        except Skipped as why:
            rules.append(Rule(name, "skip", str(why)))
        except (Broken, HybriddError) as why:
            rules.append(Rule(name, "fail", str(why)))
            return bool(self._sessions and self._provider and not self._session.closed)
        return True

    @property
    def _session(self) -> Session:
        return self._sessions[0]

    # rules

    async def _initializes(self) -> str:
        process = self._hub.process_of(NAME)
        assert process is not None
        await process.settled(self._timing.start + 1)
        if not self._sessions:
            raise Broken(process.reason or f"it did not connect within {self._timing.start:g} s")
        session = self._session
        if session.info is None:
            raise Broken(session.closed or process.reason or "it did not send initialize")
        return f"{session.info.name} {session.info.version}"

    async def _registers(self) -> str:
        session = self._session
        if not session.providers:
            process = self._hub.process_of(NAME)
            raise Broken(session.closed or (process.reason if process else "") or "it registered no provider")
        self._provider = NAME if NAME in session.providers else sorted(session.providers)[0]
        runtime = self._hub.providers[self._provider]
        models = list(runtime.models.values())
        if models:
            able = next((model for model in models if "generate" in model.methods), models[0])
            self._model, self._methods = able.id, able.methods
        state = f", {runtime.state}: {runtime.reason}" if runtime.reason else ""
        return f"{self._provider} with {len(models)} models{state}"

    async def _heartbeat(self) -> str:
        deadline = asyncio.get_running_loop().time() + 2.0
        began = time.perf_counter()  # the loop's clock ticks in milliseconds
        call = self._session.start_call("", "ping", wire.Ping(), deadline=deadline, on_events=None)
        try:
            await call.outcome()
        except CallFailed as error:
            raise Broken(f"no answer to ping: {error.message}") from None
        return f"{(time.perf_counter() - began) * 1000:.2f} ms"

    async def _plain(self) -> str:
        result = await self._result(self._generate(stream=False))
        if isinstance(result.body, msgspec.UnsetType):
            raise Broken("the answer has no body")
        body = msgspec.json.decode(result.body)
        if not isinstance(body, dict) or not isinstance(body.get("choices"), list) or not body["choices"]:
            raise Broken("the body is not an OpenAI answer: it has no choices")
        if not isinstance(body["choices"][0].get("message"), dict):
            raise Broken("the first choice has no message")
        return "with usage" if result.usage is not None else "without usage: it will be counted as the whole estimate"

    async def _streams(self) -> str:
        frames: list[list[Raw]] = []
        result = await self._result(self._generate(stream=True, on_events=frames.append))
        if not frames:
            raise Broken("no stream/chunk before the final answer")
        if not isinstance(result.body, msgspec.UnsetType):
            raise Broken("the final answer of a stream has no body")
        events = [msgspec.json.decode(event) for frame in frames for event in frame]
        if not any(choice.get("finish_reason") for event in events for choice in event.get("choices") or []):
            raise Broken("no chunk has a finish_reason")
        if len(frames[0]) != 1:
            return f"{len(events)} events; the first one should travel alone, it is the time to the first token"
        return f"{len(events)} events in {len(frames)} frames"

    async def _credit(self) -> str:
        """With little credit and none granted, the plugin must stop; granted more, it must go on."""
        taken: list[int] = []
        calls: list[PluginCall] = []
        loop = asyncio.get_running_loop()

        def on_events(events: list[Raw]) -> None:
            taken.append(sum(map(len, events)))
            loop.call_soon(lambda: calls[0].grant(taken[-1]))

        calls.append(self._generate(stream=True, on_events=on_events, credit=SMALL_CREDIT))
        await self._result(calls[0])
        return f"{len(taken)} frames under a credit of {SMALL_CREDIT} bytes"

    async def _heartbeat_in_call(self) -> str:
        call = self._generate(stream=False)
        try:
            return await self._heartbeat()
        finally:
            await self._ended(call)

    async def _cancel(self) -> str:
        call = self._generate(stream=False)
        await asyncio.sleep(RUNNING_SECONDS)
        call.cancel("conformance check")
        try:
            await call.result()
        except CallFailed as error:
            if error.owner_gone is not None:
                raise Broken(f"no final answer within {self._timing.cancel:g} s of the cancel") from None
            return f"answered {error.error.kind}"
        return "had already answered"

    async def _deadline(self) -> str:
        call = self._generate(stream=False, seconds=0.2)
        try:
            await call.result()
        except CallFailed as error:
            if error.owner_gone is not None:
                raise Broken("no final answer by the deadline") from None
            return f"answered {error.error.kind}"
        return "answered in time"

    async def _probe(self) -> str:
        try:
            result = await self._hub.probe(self._provider, 5.0)
        except CallFailed as error:
            if error.error.kind == "unsupported":
                raise Skipped("it does not probe") from None
            raise Broken(error.message) from None
        return "ok" if result.ok else result.reason

    async def _unknown_method(self) -> str:
        loop = asyncio.get_running_loop()
        call = self._session.start_call(
            self._provider, "conformance/unknown", wire.Ping(), deadline=loop.time() + 2, on_events=None
        )
        try:
            await call.outcome()
        except CallFailed as error:
            if error.owner_gone is not None:
                raise Broken("no answer; JSON-RPC asks for the error -32601") from None
            return error.message
        raise Broken("it answered with a result; JSON-RPC asks for the error -32601")

    async def _unknown_members(self) -> str:
        self._session.notify_raw(b'{"jsonrpc":"2.0","method":"conformance/unknown","params":{"x":1},"later":true}')
        return await self._heartbeat()

    async def _no_violation(self) -> None:
        if self._session.closed:
            raise Broken(self._session.closed)

    async def _shuts_down(self) -> str:
        process = self._hub.process_of(NAME)
        assert process is not None
        exited = process.exited
        await self._session.shutdown(2.0)
        if exited is None:
            raise Broken("it had already ended")
        await asyncio.wait([exited], timeout=5.0)
        if not exited.done():
            raise Broken("its process was still there 5 s after shutdown")
        if exited.result() != 0:
            raise Broken(f"its process exited with {exited.result()}, not 0")
        return "exit code 0"

    # calling

    def _generate(
        self,
        *,
        stream: bool,
        on_events: OnEvents | None = None,
        seconds: float = CALL_SECONDS,
        credit: int = wire.DEFAULT_CREDIT_BYTES,
    ) -> PluginCall:
        if not self._model:
            raise Skipped("no model is registered")
        if "generate" not in self._methods:
            raise Skipped(f"model {self._model} does not generate")
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": "Say hello in three words."}],
            "max_tokens": 16,
            "stream": stream,
        }
        params = wire.Generate(
            provider=self._provider,
            model=self._model,
            body=Raw(msgspec.json.encode(body)),
            stream=stream,
            credit=credit,
            trace_id="check",
        )
        deadline = asyncio.get_running_loop().time() + seconds
        return self._hub.start_call(self._provider, "generate", params, deadline=deadline, on_events=on_events)

    async def _result(self, call: PluginCall) -> wire.CallResult:
        try:
            return await call.result()
        except CallFailed as error:
            if error.owner_gone is None and error.error.kind in NOT_TRIED and not self._session.closed:
                raise Skipped(f"the provider answered {error.error.kind}: {error.message}") from None
            raise Broken(f"{error.error.kind}: {error.message}") from None

    @staticmethod
    async def _ended(call: PluginCall) -> None:
        """Waits for the end, whatever it is."""
        try:
            await call.result()
        except CallFailed:
            return


def main(path: str | Path | Sequence[str], as_json: bool = False) -> int:
    """Prints the report; returns the exit code.

    Raises:
        InvalidRequest: there is nothing at ``path`` that could be started.
    """
    import uvloop

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            report = runner.run(check(path))
    except ValueError as error:
        raise InvalidRequest(str(error), param="path") from None
    if as_json:
        body = {"ok": report.ok, **msgspec.to_builtins(report)}
        sys.stdout.write(msgspec.json.encode(body).decode() + "\n")
    else:
        sys.stdout.write(render(report))
    return EXIT_OK if report.ok else EXIT_FAILURE
