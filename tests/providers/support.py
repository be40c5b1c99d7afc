"""A hub behind the real server on a real socket, and plugins to connect to it: scripted ones and real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw

from hybridd.api.bind import bind
from hybridd.api.plugin_link import plugin_endpoint
from hybridd.api.server import build_server
from hybridd.bus import EventBus
from hybridd.clocks import SystemClock
from hybridd.config.resolved import ProviderSpec
from hybridd.contracts import protocol as wire
from hybridd.plugin.link import ClientLink
from hybridd.providers import Hub, PluginCall, SpawnContext, Timing

ROOT = Path(__file__).resolve().parents[2]
FAST = Timing(
    initialize=1.0,
    start=10.0,
    heartbeat=0.5,
    deadline_grace=0.05,
    cancel=0.3,
    abandon=0.5,
    backoff_first=0.05,
    backoff_max=0.2,
    drain=5.0,
    stop=1.0,
)


class House:
    """What a test holds: the hub, its socket, and short ways to do things."""

    def __init__(self, directory: Path, hub: Hub, socket: Path) -> None:
        self.directory = directory
        self.hub = hub
        self.socket = socket

    def program(self, name: str, source: str) -> tuple[str, ...]:
        path = self.directory / f"{name}.py"
        path.write_text(source, encoding="utf-8")
        return (sys.executable, str(path))

    def spec(self, name: str, source: str | None = None, **changes: Any) -> ProviderSpec:
        fields: dict[str, Any] = {
            "name": name,
            "plugin": name,
            "account": name,
            "process": name,
            "command": self.program(name, source) if source is not None else None,
            "environment": ("PYTHONPATH",),
            **changes,
        }
        return ProviderSpec(**fields)

    def generate(
        self,
        provider: str,
        *,
        prompt: str = "hello big world",
        seconds: float = 10.0,
        on_events: Callable[[list[Raw]], None] | None = None,
        **body: Any,
    ) -> PluginCall:
        request = {"model": "m", "messages": [{"role": "user", "content": prompt}], **body}
        stream = on_events is not None
        credit = body.pop("credit", wire.DEFAULT_CREDIT_BYTES)
        params = wire.Generate(
            provider, "m", Raw(msgspec.json.encode({**request, "stream": stream})), stream=stream, credit=credit
        )
        deadline = asyncio.get_running_loop().time() + seconds
        return self.hub.start_call(provider, "generate", params, deadline=deadline, on_events=on_events)

    async def until(self, condition: Callable[[], Any], timeout: float = 10.0) -> None:
        """Waits for a condition; polls because many different things can change it."""
        async with asyncio.timeout(timeout):
            while not condition():
                await asyncio.sleep(0.005)

    @contextlib.asynccontextmanager
    async def raw(self, name: str = "raw", *, register: bool = True, **fields: Any) -> AsyncIterator[RawPlugin]:
        """A scripted plugin in this process, connected, initialized and registered."""
        plugin = await RawPlugin.connect(self.socket)
        try:
            if register:
                await plugin.initialize(name, **fields)
                await plugin.register(name)
            yield plugin
        finally:
            plugin.link.close()
            await asyncio.wait([plugin.link.lost], timeout=2)


class RawPlugin:
    """Speaks the protocol word by word. ``inbox`` has every message of the daemon, decoded."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.link: ClientLink

    @classmethod
    async def connect(cls, socket: Path) -> RawPlugin:
        plugin = cls()
        plugin.link = await ClientLink.connect(
            str(socket), lambda data: plugin.inbox.put_nowait(msgspec.json.decode(data)), 5.0
        )
        return plugin

    def send(self, message: dict[str, Any] | bytes) -> None:
        payload = message if isinstance(message, bytes) else json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.link.send(payload, flush=True)

    async def next(self, method: str | None = None, timeout: float = 5.0) -> dict[str, Any]:
        """The next message; with ``method``, the next of that method (pings are answered on the way)."""
        async with asyncio.timeout(timeout):
            while True:
                message = await self.inbox.get()
                if message.get("method") == "ping" and method != "ping":
                    self.send({"id": message["id"], "result": {}})
                    continue
                if method is None or message.get("method") == method:
                    return message

    async def initialize(self, name: str = "raw", **fields: Any) -> dict[str, Any]:
        params = {"protocolVersions": ["1"], "plugin": {"name": name}, "instanceId": f"{name}-1", **fields}
        self.send({"id": 1, "method": "initialize", "params": params})
        return await self.next()

    async def register(self, provider: str, **fields: Any) -> dict[str, Any]:
        params = {"provider": provider, "models": [{"id": "m"}], **fields}
        self.send({"id": 2, "method": "provider/register", "params": params})
        return await self.next()

    async def lost(self, timeout: float = 5.0) -> str:
        """The reason the daemon gave when it closed the connection."""
        async with asyncio.timeout(timeout):
            return await asyncio.shield(self.link.lost)


@contextlib.asynccontextmanager
async def house(timing: Timing = FAST, **environ: str) -> AsyncIterator[House]:
    directory = Path(tempfile.mkdtemp(prefix="hy"))  # short: a socket's path holds 107 bytes
    bound = bind(directory / "run" / "s", environ={})
    clock = SystemClock()
    context = SpawnContext(
        socket=bound.path,
        environ={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        timing=timing,
        cwd=directory,
    )
    hub = Hub(clock=clock, bus=EventBus(clock), spawn=context, rng=random.Random(7))
    server = build_server(plugin_endpoint, hub=hub, graceful_seconds=1)
    serving = asyncio.create_task(server.serve([bound.socket]))
    await server.listening.wait()
    try:
        yield House(directory, hub, bound.path)
    finally:
        await hub.close(1.0)
        server.stop()
        await serving
        bound.close()
        shutil.rmtree(directory)


ECHO = """
from hybridd.plugin import Model, Provider, Result, Usage, run

class Echo(Provider):
    name = "echo"
    async def models(self):
        return [Model(id="m", context=100)]
    async def generate(self, request, stream):
        if request.stream:
            for word in request.prompt_text.split():
                await stream.send(word + " ")
            return Result(usage=Usage(input_tokens=1, output_tokens=2))
        return request.prompt_text

run(Echo)
"""
