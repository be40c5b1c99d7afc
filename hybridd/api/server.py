"""uvicorn, set up for one Unix socket: the fast parsers or nothing, no headers nobody reads, no polling while idle."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import uvicorn

from hybridd.api.peer import PeerProtocol
from hybridd.api.plugin_link import PluginLink
from hybridd.contracts.protocol import MAX_MESSAGE_BYTES
from hybridd.errors import StateError
from hybridd.providers.hub import Hub

logger = logging.getLogger("hybridd.api")

KEEP_ALIVE_SECONDS = 75
BACKLOG = 2048


class Server(uvicorn.Server):
    """A uvicorn server whose signals, stop and sockets are the daemon's.

    ``should_exit = True`` (uvicorn's own word) or :meth:`stop` ends :meth:`serve`: no new connections, requests in
    flight get ``timeout_graceful_shutdown`` seconds. Plugin links are the hub's and stay.
    """

    def __init__(self, config: uvicorn.Config, state: dict[str, Any]) -> None:
        super().__init__(config)
        self._state = state
        self._stop: asyncio.Event | None = None
        self.listening = asyncio.Event()

    # uvicorn polls this attribute ten times a second; an event costs nothing while idle.
    @property
    def should_exit(self) -> bool:
        return self._exit

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        self._exit = value
        stop = getattr(self, "_stop", None)
        if value and stop is not None:
            stop.set()

    def stop(self) -> None:
        self.should_exit = True

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves until told to stop. Signals are the daemon's business.

        Raises:
            StateError: the running loop is not uvloop, or a fast parser is missing.
        """
        require_fast_parts(self.config)
        self._stop = asyncio.Event()
        if self.should_exit:
            self._stop.set()
        await self._serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.lifespan.state.update(self._state)
        await super().startup(sockets)
        self.server_state.default_headers = self.config.encoded_headers
        self.listening.set()

    async def main_loop(self) -> None:
        assert self._stop is not None
        await self._stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        requests = [task for task in self.server_state.tasks if self._is_request(task)]
        if requests:
            _, late = await asyncio.wait(requests, timeout=self.config.timeout_graceful_shutdown)
            for task in late:
                task.cancel()
            if late:
                logger.warning("%d requests were cut at the stop's deadline", len(late))
                await asyncio.wait(late, timeout=1.0)
        for connection in list(self.server_state.connections):
            connection.transport.close()

    @staticmethod
    def _is_request(task: asyncio.Task[None]) -> bool:
        # The parked endpoint of a plugin link ends with its link.
        return not task.done() and task.get_name() != PluginLink.TASK


def build_server(
    app: Any, *, hub: Hub | None = None, graceful_seconds: float = 10.0, state: dict[str, Any] | None = None
) -> Server:
    """The server for ``app``. Serve it with ``await server.serve(sockets=[bound.socket])``.

    Every scope's ``state`` holds ``hub``, what ``state`` gives, and the connection's ``peer``.
    """
    config = uvicorn.Config(
        app,
        loop="none",
        http=PeerProtocol,
        ws=PluginLink,
        # The protocol's cap plus room for the envelope around a body of the largest allowed size.
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_ping_interval=None,
        ws_ping_timeout=None,
        ws_per_message_deflate=False,
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(graceful_seconds)),
    )
    return Server(config, {"hub": hub, **(state or {})})


def require_fast_parts(config: uvicorn.Config) -> None:
    """uvloop runs the loop and httptools parses: falling back in silence would cost half of the throughput.

    Raises:
        StateError: one of them is not in use.
    """
    import uvloop

    loop = asyncio.get_running_loop()
    if not isinstance(loop, uvloop.Loop):
        raise StateError(f"hybridd runs on uvloop, not on {type(loop).__module__}.{type(loop).__name__}")
    if not issubclass(config.http if isinstance(config.http, type) else object, PeerProtocol):
        raise StateError("hybridd's server needs the httptools protocol")
