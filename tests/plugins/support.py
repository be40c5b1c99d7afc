"""Driving plugins in tests: a provider in this process, or a real plugin process behind a stand-in daemon."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
from websockets.asyncio.server import ServerConnection, unix_serve

from hybridd.plugin import CallFailure, Provider, Request, Result, Stream

ROOT = Path(__file__).resolve().parents[2]
CREDIT = 1 << 30


def chat(text: str = "hello there", **more: Any) -> dict[str, Any]:
    return {"model": "m1", "messages": [{"role": "user", "content": text}], **more}


class RecordingWire:
    """Takes the frames a Stream sends; ``credit`` is not its business."""

    def __init__(self) -> None:
        self.frames: list[list[Any]] = []
        self.arrived = asyncio.Event()

    def send(self, payload: bytes, *, flush: bool = False) -> None:
        self.frames.append(msgspec.json.decode(payload)["params"]["events"])
        self.arrived.set()

    async def drain(self) -> None:
        """Never full."""

    @property
    def events(self) -> list[Any]:
        return [event for frame in self.frames for event in frame]

    @property
    def text(self) -> str:
        return text_of(self.events)


def text_of(events: list[Any]) -> str:
    return "".join(
        choice.get("delta", {}).get("content") or choice.get("text") or ""
        for event in events
        for choice in event.get("choices", [])
    )


def make_request(
    body: dict[str, Any] | bytes, *, stream: bool = False, endpoint: str = "chat", deadline: float = 10.0
) -> Request:
    raw = body if isinstance(body, bytes) else msgspec.json.encode({**body, **({"stream": True} if stream else {})})
    return Request(
        id=1,
        provider="lab",
        model="m1" if isinstance(body, bytes) else str(body.get("model", "m1")),
        raw=raw,
        stream=stream,
        endpoint=endpoint,
        deadline=deadline,
        trace_id="t",
        loop=asyncio.get_running_loop(),
    )


async def call(
    provider: Provider, body: dict[str, Any] | bytes, *, endpoint: str = "chat", deadline: float = 10.0
) -> Result:
    """A call that does not stream, answered in this process."""
    request = make_request(body, endpoint=endpoint, deadline=deadline)
    answer: Any
    if endpoint == "embed":
        answer = await provider.embed(request)
    elif endpoint == "predict":
        answer = await provider.predict(request)
    else:
        answer = await provider.generate(request, Stream(request, RecordingWire(), CREDIT))
    assert isinstance(answer, Result)
    return answer


async def stream(
    provider: Provider, body: dict[str, Any] | bytes, *, endpoint: str = "chat", deadline: float = 10.0
) -> tuple[Result | CallFailure, RecordingWire]:
    """A streaming call in this process: how it ended, and what was sent on."""
    wire = RecordingWire()
    request = make_request(body, stream=True, endpoint=endpoint, deadline=deadline)
    try:
        answer = await provider.generate(request, Stream(request, wire, CREDIT))
    except CallFailure as failure:
        return failure, wire
    assert isinstance(answer, Result)
    return answer, wire


async def failure_of(work: Any) -> CallFailure:
    """The failure that the call ends in."""
    try:
        answer = await work
    except CallFailure as failure:
        return failure
    raise AssertionError(f"answered instead of failing: {answer!r}")


class PluginProcess:
    """The daemon's end of one real plugin process: what it registered, said and logged; calls to it."""

    def __init__(self) -> None:
        self.registered: dict[str, dict[str, Any]] = {}
        self.notes: list[dict[str, Any]] = []
        self.events: dict[int, list[Any]] = {}
        self.process: asyncio.subprocess.Process
        self.stderr = b""
        self._socket: ServerConnection | None = None
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._changed = asyncio.Condition()
        self._providers: dict[str, Any] = {}
        self._number = 0

    async def serve(self, socket: ServerConnection) -> None:
        self._socket = socket
        async for message in socket:
            await self._take(msgspec.json.decode(message))

    async def _take(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params", {})
        async with self._changed:
            if method == "initialize":
                answer = {"protocolVersion": "1", "heartbeatMs": 5000, "providers": self._providers, "daemon": "test"}
                await self._write({"id": message["id"], "result": answer})
            elif method == "provider/register":
                self.registered[params["provider"]] = params
                await self._write({"id": message["id"], "result": {}})
            elif method == "stream/chunk":
                self.events.setdefault(params["id"], []).extend(params["events"])
            elif method is not None:
                self.notes.append({"method": method, **params})
            else:
                self._pending[message["id"]].set_result(message)
            self._changed.notify_all()

    async def _write(self, message: dict[str, Any]) -> None:
        assert self._socket is not None
        await self._socket.send(msgspec.json.encode({"jsonrpc": "2.0", **message}).decode())

    async def until(self, reached: Any, seconds: float = 15.0) -> None:
        """Waits until ``reached(self)`` is true after some message."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: reached(self))

    def start(self, method: str, provider: str, body: Any, **more: Any) -> tuple[int, asyncio.Future[dict[str, Any]]]:
        self._number += 1
        number = self._number
        future = self._pending[number] = asyncio.get_running_loop().create_future()
        params = {"provider": provider, "model": body.get("model", "") if body else "", "body": body,
                  "deadlineMs": 15000, "traceId": f"t{number}", **more}  # fmt: skip
        if method == "probe":
            params = {"provider": provider, "deadlineMs": 5000}
        asyncio.get_running_loop().create_task(self._write({"id": number, "method": method, "params": params}))
        return number, future

    async def ask(self, method: str, provider: str, body: Any = None, **more: Any) -> dict[str, Any]:
        async with asyncio.timeout(20):
            return await self.start(method, provider, body, **more)[1]

    async def cancel(self, number: int) -> None:
        await self._write({"method": "cancel", "params": {"id": number, "reason": "client gone"}})


@contextlib.asynccontextmanager
async def plugin_process(
    module: str, providers: dict[str, Any], directory: Path, *, env: dict[str, str] | None = None
) -> AsyncIterator[PluginProcess]:
    """``python -m <module>`` as the supervisor starts it, registered; ended and reaped with the block."""
    daemon = PluginProcess()
    daemon._providers = providers
    socket = directory / "s"
    async with unix_serve(daemon.serve, str(socket), compression=None, max_size=None):
        daemon.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, cwd=directory,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HYBRIDD_SOCKET": str(socket),
                 "HOME": str(directory), **{k: v for k, v in os.environ.items() if k.startswith("COV")}, **(env or {})},
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            await daemon.until(lambda one: len(one.registered) >= max(1, len(providers)))
            yield daemon
        finally:
            with contextlib.suppress(ProcessLookupError):
                daemon.process.terminate()
            try:
                _, daemon.stderr = await asyncio.wait_for(daemon.process.communicate(), 10)
            except TimeoutError:
                daemon.process.kill()
                _, daemon.stderr = await daemon.process.communicate()
