"""The answer of one exchange, as its caller reads it, and the ways in which an exchange can fail."""

from __future__ import annotations

import asyncio
from typing import Protocol

from plugins.openai_compatible.inflate import CannotInflate, Inflater

# What one piece of a body costs beside its bytes: a host that sends one byte a chunk must not cost forty times as much.
_PIECE_BYTES = 64


class HttpError(Exception):
    """An exchange that did not end well.

    ::

        HttpError
          ConnectFailed    no connection was opened: no byte of the request has left
          InvalidResponse  what came is no HTTP, too much of it, or cannot be unpacked
          Disconnected     the connection ended before the answer did
    """


class ConnectFailed(HttpError):
    pass


class InvalidResponse(HttpError):
    pass


class Disconnected(HttpError):
    pass


class Line(Protocol):
    """The connection that an answer comes on."""

    def resume(self) -> None:
        """There is room for more of the body."""

    def abandon(self) -> None:
        """Nobody wants the rest."""


class Response:
    """One answer. ``status`` and ``headers`` (names in lower case, the last of equal names) count after ``head``."""

    __slots__ = (
        "_complete", "_connection", "_error", "_inflater", "_parts", "_size", "_waiter",
        "head", "headers", "status",
    )  # fmt: skip

    def __init__(self, connection: Line, head: asyncio.Future[None]) -> None:
        self.head = head
        self.status = 0
        self.headers: dict[str, str] = {}
        self._connection: Line | None = connection
        self._parts: list[bytes] = []
        self._size = 0
        self._complete = False
        self._error: Exception | None = None
        self._inflater: Inflater | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def content_length(self) -> int | None:
        """The body's length as told, in bytes on the wire; the parser has checked the figure."""
        told = self.headers.get("content-length", "")
        return int(told) if told.isdecimal() else None

    def at_eof(self) -> bool:
        return self._complete and not self._parts and (self._inflater is None or not self._inflater.pending)

    async def readany(self) -> bytes:
        """What has come since the last time, unpacked; waits when that is nothing; b"" at the end.

        Raises:
            HttpError: the body broke off, is framed wrongly or cannot be unpacked.
        """
        inflater = self._inflater
        if inflater is None:
            return await self._received()
        try:
            while not (out := inflater.take()):
                data = await self._received()
                if not data:
                    inflater.close()
                    return b""
                inflater.feed(data)
        except CannotInflate as error:
            raise InvalidResponse(str(error)) from None
        if inflater.pending:
            await asyncio.sleep(0)  # a little may unpack to very much: timers must not wait for its end
        return out

    async def _received(self) -> bytes:
        while not self._parts:
            if self._error is not None:
                raise self._error
            if self._complete:
                return b""
            self._waiter = self.head.get_loop().create_future()
            await self._waiter
        parts = self._parts
        self._parts, self._size = [], 0
        if self._connection is not None:
            self._connection.resume()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Nothing more is wanted: an exchange that is not over ends with its connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon()
        if self.head.done() and not self.head.cancelled():
            self.head.exception()  # seen, whoever may have stopped waiting for it

    # what the connection tells

    def begin(self, status: int, headers: dict[str, str]) -> None:
        self.status, self.headers = status, headers
        encoding = headers.get("content-encoding")
        if encoding is not None:
            self._inflater = Inflater.of(encoding)
        if not self.head.done():
            self.head.set_result(None)

    def add(self, data: bytes) -> int:
        """Takes a piece of the body in; returns about how much memory waits to be read."""
        self._parts.append(data)
        self._size += len(data) + _PIECE_BYTES
        if self._waiter is not None:
            self._wake()
        return self._size

    def end(self, error: Exception | None = None) -> None:
        self._connection = None
        if error is None:
            self._complete = True
        elif not self.head.done():
            self.head.set_exception(error)
        else:
            self._error = error
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
