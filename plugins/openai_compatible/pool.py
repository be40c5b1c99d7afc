"""The kept-alive connections of one route. How many calls run at once is the ledger's business, not the pool's."""

from __future__ import annotations

import asyncio
import ssl

from plugins.openai_compatible.connect import Dialer, Route
from plugins.openai_compatible.http1 import Connection
from plugins.openai_compatible.response import ConnectFailed

# Below the 60 s after which common load balancers hang up: a call must not meet the host's own clock.
KEEPALIVE_SECONDS = 55.0


class Pool:
    """Connections that wait for their next exchange, the one used last in front, so that the rest can age."""

    def __init__(self, route: Route, context: ssl.SSLContext | None, *, keepalive: float = KEEPALIVE_SECONDS) -> None:
        self._dialer = Dialer(route, context)
        self._keepalive = keepalive
        self._idle: dict[Connection, None] = {}
        self._all: set[Connection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def take(self) -> Connection | None:
        """A kept connection that is alive: one that the host has closed, or said something on, is never taken."""
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.usable:
                return connection
            connection.abort()
        return None

    async def connect(self, seconds: float) -> Connection:
        """A new connection.

        Raises:
            ConnectFailed: it did not open within ``seconds``, TLS included.
        """
        connection = Connection(asyncio.get_running_loop(), self)
        await self._dialer.open(connection, seconds)
        if self._closed or connection.closing:
            connection.abort()
            raise ConnectFailed("the connection was closed as soon as it was open")
        self._all.add(connection)
        return connection

    def close(self) -> None:
        """Closes every connection, the busy ones too."""
        self._closed = True
        self._idle.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for connection in list(self._all):
            connection.abort()

    # the connections' owner

    def give(self, connection: Connection) -> None:
        loop = connection.loop
        connection.idle_since = loop.time()
        self._idle[connection] = None
        if self._timer is None:
            self._timer = loop.call_later(self._keepalive, self._sweep, loop)

    def lost(self, connection: Connection) -> None:
        self._idle.pop(connection, None)
        self._all.discard(connection)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Closes what has been idle for too long; the connections lie in the order in which they became idle."""
        self._timer = None
        now = loop.time()
        for connection in list(self._idle):
            left = connection.idle_since + self._keepalive - now
            if left > 0.001:
                self._timer = loop.call_later(left, self._sweep, loop)
                break
            del self._idle[connection]
            connection.abort()
