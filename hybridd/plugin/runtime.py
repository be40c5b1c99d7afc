"""A plugin's life: connect, initialize, register, serve until told to stop or the daemon has gone.

One task per call and none per message. Heartbeats are answered from the loop itself, so they prove that the loop
turns: a provider that blocks it is noticed.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import signal
import sys
import uuid
from collections.abc import Callable
from typing import Any, NoReturn

import msgspec

from hybridd import locations
from hybridd.contracts import protocol as wire
from hybridd.plugin.calls import Calls
from hybridd.plugin.link import ClientLink, ConnectRefused
from hybridd.plugin.provider import Host, LoadFailed, Plugin, PluginConfig, Provider

CONNECT_SECONDS = 5.0
STOP_SECONDS = 5.0

_ID = re.compile(rb'\{"jsonrpc":"2\.0","id":([0-9]{1,15}),')
_decode = msgspec.json.Decoder(wire.Envelope).decode


def _any(future: asyncio.Future[Any]) -> asyncio.Future[Any]:
    """``asyncio.wait`` wants futures of one type."""
    return future


class PluginError(Exception):
    """The plugin cannot go on; the message is what the supervisor shows."""


class Runtime(Host):
    """Serves one :class:`Plugin` over one connection."""

    def __init__(self, plugin: Plugin, socket: str, *, token: str | None = None, instance_id: str = "") -> None:
        self.plugin = plugin
        self.providers: dict[str, Provider] = {}
        self._socket = socket
        self._token = token
        self._instance_id = instance_id or uuid.uuid4().hex
        self._next_id = 0
        self._pending: dict[int, asyncio.Future[wire.Envelope]] = {}
        self._link: ClientLink | None = None
        self._calls: Calls | None = None
        self._stopping: asyncio.Future[float] | None = None

    async def run(self) -> str:
        """Serves until shut down; returns the reason of the end.

        Raises:
            PluginError: no daemon, refused, or the connection broke.
        """
        loop = asyncio.get_running_loop()
        self._stopping = loop.create_future()
        try:
            self._link = await ClientLink.connect(self._socket, self._on_message, CONNECT_SECONDS)
        except (OSError, TimeoutError) as error:
            raise PluginError(f"no daemon answers on {self._socket}: {error or 'timed out'}") from None
        except ConnectRefused as error:
            raise PluginError(f"the daemon refused the connection: {error}") from None
        self._calls = Calls(loop, self._link, self.providers)
        try:
            config = await self._initialize()
            for provider in await self.plugin.build(config):
                provider.host = self
                self.providers[provider.name] = provider
            await asyncio.gather(*(self._start(provider) for provider in self.providers.values()))
            return await self._until_stopped(self._link)
        finally:
            await self._shut(self._link)

    def stop(self, grace: float = STOP_SECONDS) -> None:
        """Asks for a graceful end: calls in flight get ``grace`` seconds."""
        if self._stopping is not None and not self._stopping.done():
            self._stopping.set_result(grace)

    # Host

    async def changed(self, provider: Provider) -> None:
        models, quotas = await provider.models(), await provider.quotas()
        await self._request(
            "provider/register",
            wire.Register(
                provider=provider.name, models=models, quotas=quotas, state=provider.state, reason=provider.reason
            ),
        )

    def notify(self, method: str, params: msgspec.Struct) -> None:
        if self._link is not None:
            self._link.send(b'{"jsonrpc":"2.0","method":%b,"params":%b}' % (wire.encode(method), wire.encode(params)))

    # life

    async def _initialize(self) -> PluginConfig:
        plugin = self.plugin
        answer = await self._request(
            "initialize",
            wire.Initialize(
                protocol_versions=list(wire.PROTOCOL_VERSIONS),
                plugin=wire.PluginInfo(name=plugin.name, version=plugin.version),
                instance_id=self._instance_id,
                token=self._token,
                capabilities=plugin.capabilities,
            ),
        )
        result = msgspec.json.decode(answer.result, type=wire.InitializeResult)
        return PluginConfig(
            providers=result.providers,
            protocol_version=result.protocol_version,
            heartbeat_seconds=result.heartbeat_ms / 1000,
            daemon=result.daemon,
        )

    async def _start(self, provider: Provider) -> None:
        """A provider that cannot start is registered as degraded with the reason: its siblings live on. A model that
        cannot be loaded is the end of the process, once the daemon knows why.

        Raises:
            PluginError: the model could not be loaded.
        """
        try:
            await provider.start()
        except LoadFailed as error:
            failed = wire.Register(
                provider=provider.name, state="degraded", reason=error.failure.message, failure=error.failure
            )
            await self._request("provider/register", failed)
            raise PluginError(error.failure.message) from None
        except Exception as error:  # noqa: BLE001  # whatever an author's start raises is a state to report
            provider.state, provider.reason = "degraded", f"start failed: {type(error).__name__}: {error}"
            provider.log("error", provider.reason)
        await self.changed(provider)

    async def _until_stopped(self, link: ClientLink) -> str:
        assert self._stopping is not None
        await asyncio.wait([_any(self._stopping), _any(link.lost)], return_when=asyncio.FIRST_COMPLETED)
        if not self._stopping.done():
            raise PluginError(link.lost.result())
        assert self._calls is not None
        await self._calls.drain(self._stopping.result())
        return "shut down"

    async def _shut(self, link: ClientLink) -> None:
        if self._calls is not None:
            await self._calls.cancel_all()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await asyncio.gather(*(provider.stop() for provider in self.providers.values()), return_exceptions=True)
        except TimeoutError:
            print("a provider did not stop in time", file=sys.stderr)  # noqa: T201  # stderr is the plugin's log
        link.close()

    # messages

    async def _request(self, method: str, params: msgspec.Struct) -> wire.Envelope:
        link = self._link
        if link is None:
            raise PluginError("not connected")
        self._next_id += 1
        number = self._next_id
        future: asyncio.Future[wire.Envelope] = asyncio.get_running_loop().create_future()
        self._pending[number] = future
        link.send(
            b'{"jsonrpc":"2.0","id":%d,"method":%b,"params":%b}' % (number, wire.encode(method), wire.encode(params)),
            flush=True,
        )
        try:
            await asyncio.wait([_any(future), _any(link.lost)], return_when=asyncio.FIRST_COMPLETED)
            if not future.done():
                raise PluginError(f"{method}: {link.lost.result()}")
        finally:
            self._pending.pop(number, None)
        answer = future.result()
        if answer.error is not None:
            raise PluginError(f"{method} refused: {answer.error.message}")
        return answer

    def _on_message(self, data: bytes) -> None:
        try:
            message = _decode(data)
        except RecursionError:
            self._refuse_deep(data)
            return
        except msgspec.MsgspecError as error:
            print(f"the daemon sent something that is not a message: {error}", file=sys.stderr)  # noqa: T201  # as above
            return
        method = message.method
        if method is None:
            future = self._pending.get(message.id) if isinstance(message.id, int) else None
            if future is not None and not future.done():
                future.set_result(message)
        elif method == "ping":
            self._answer(message.id, b"{}")
        elif method == "shutdown":
            if self._calls is not None:
                self._calls.draining = True  # what follows in the same read is refused already
            self._answer(message.id, b"{}")
            params = msgspec.json.decode(message.params or b"{}", type=wire.Shutdown)
            self.stop(params.grace_ms / 1000)
        elif self._calls is not None:
            self._calls.dispatch(message)

    def _refuse_deep(self, data: bytes) -> None:
        """A request nested more deeply than the decoder goes still gets its one answer: its id stands at the front."""
        found = _ID.match(data)
        if found is not None and self._calls is not None:
            self._calls.refuse(int(found[1]), wire.INVALID_PARAMS, "the request is nested too deeply")

    def _answer(self, number: int | str | None, result: bytes) -> None:
        if self._link is not None and number is not None:
            self._link.send(b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (wire.encode(number), result))


async def serve(plugin: Plugin | type[Provider], socket: str | None = None) -> str:
    """Connects to ``socket`` (default: ``HYBRIDD_SOCKET`` or the usual place) and serves until stopped.

    Raises:
        PluginError: see :meth:`Runtime.run`.
    """
    if isinstance(plugin, type):
        plugin = Plugin.of(plugin)
    runtime = Runtime(plugin, socket or str(locations.socket_path()), token=os.environ.pop(wire.TOKEN_VARIABLE, None))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, runtime.stop)
    return await runtime.run()


def run(plugin: Plugin | type[Provider], *, prepare: Callable[[], None] | None = None) -> NoReturn:
    """Serves ``plugin`` and ends the process: exit code 0 after a shutdown, 1 with one line on stderr otherwise.

    ``prepare``: called if the daemon has started the process before its turn; for imports that take their time.
    """
    import uvloop

    if os.environ.pop(wire.HELD_VARIABLE, None):
        if prepare is not None:
            prepare()
        if not sys.stdin.buffer.read(1):  # the daemon needs it no more, or has gone
            sys.exit(0)

    # What start-up made lives as long as the process; the default thresholds would cost a tenth of the time of a busy
    # plugin in looking at it again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(plugin))
    except PluginError as error:
        name = plugin.name or getattr(plugin, "__name__", "plugin")
        print(f"{name}: {error}", file=sys.stderr)  # noqa: T201  # the supervisor keeps this line
        sys.exit(1)
    sys.exit(0)
