"""HTTP/1.1 as a client: one exchange at a time on one connection, parsed by httptools (Node's llhttp).

::

    Connection.start(request) ── writes; gives a Response at once
    await response.head       ── status and headers are there, or why they never will be
    await response.readany()  ── what has come of the body since; b"" at its end
    response.close()          ── before the end: the connection is closed at once

A connection goes back to its pool only after a complete message that allows it, with nothing behind it.
"""

from __future__ import annotations

import asyncio
import re
import select
from collections.abc import Mapping
from typing import Any, Protocol, cast

import httptools

from plugins.openai_compatible.inflate import CannotInflate, Inflater

MAX_HEADER_BYTES = 64 * 1024
READ_BUFFER_BYTES = 256 * 1024
# What one piece of a body costs beside its bytes: a host that sends one byte a chunk must not cost forty times as much.
_PIECE_BYTES = 64
_JOINED_BYTES = 64 * 1024

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\ud7ff\ue000-\U0010ffff]*")
_TARGET = re.compile(r"[\x21-\x7e]+")


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


def head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """The head of a request, each line ended, without the empty line after the last.

    Raises:
        ValueError: something in it could end its line; the sentence repeats no value, which may be a key.
    """
    if not _TARGET.fullmatch(target):
        raise ValueError("the address holds a character that cannot be sent")
    lines = [f"{method} {target} HTTP/1.1\r\n"]
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a header name")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"the value of the header {name} holds a character that cannot be sent")
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode()


class Owner(Protocol):
    """Who keeps connections between exchanges."""

    def give(self, connection: Connection) -> None:
        """The exchange is over and the connection can be used again."""

    def lost(self, connection: Connection) -> None:
        """The connection has ended."""


class Response:
    """One answer. ``status`` and ``headers`` (names in lower case, the last of equal names) count after ``head``."""

    __slots__ = (
        "_complete", "_connection", "_error", "_inflater", "_parts", "_size", "_waiter",
        "head", "headers", "status",
    )  # fmt: skip

    def __init__(self, connection: Connection, head: asyncio.Future[None]) -> None:
        self.head = head
        self.status = 0
        self.headers: dict[str, str] = {}
        self._connection: Connection | None = connection
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


class Connection(asyncio.Protocol):
    """One connection. The methods named ``on_…`` are called by the parser."""

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: Owner) -> None:
        self.idle_since = 0.0
        self.loop = loop
        self._owner = owner
        self._transport: Any = None
        self._parser: Any = httptools.HttpResponseParser(self)
        # As every browser and aiohttp: odd but harmless heads are no reason to lose an answer.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._unread = select.poll()
        self._response: Response | None = None
        self._headers: dict[str, str] = {}
        self._head_bytes = 0
        self._overhead = 0
        self._headed = self._interim = self._until_eof = self._complete = self._keep = self._paused = False

    def start(self, head: bytes, body: bytes) -> Response:
        """Sends a request; the caller makes sure that no exchange is under way."""
        response = self._response = Response(self, self.loop.create_future())
        self._headers = {}
        self._head_bytes = self._overhead = 0
        self._headed = self._complete = False
        if len(body) <= _JOINED_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        return response

    @property
    def usable(self) -> bool:
        """Whether an idle connection is still what it was: the host has neither hung up nor said anything since."""
        return not self._transport.is_closing() and not self._unread.poll(0)

    def resume(self) -> None:
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def abandon(self) -> None:
        self._response = None
        self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._unread.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None:
            self.abort()  # nobody has asked
            return
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._keep = False
            if not self._complete:
                own = error.__context__ if isinstance(error.__context__, HttpError) else None
                self._fail(own or InvalidResponse(str(error)))
                return
        if self._complete:
            self._finish(response)
        elif self._overhead > MAX_HEADER_BYTES:
            self._fail(InvalidResponse(f"more than {MAX_HEADER_BYTES} bytes in a row that are no body"))

    def eof_received(self) -> None:
        self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(exc)
        self._owner.lost(self)
        self._parser = None  # it holds our methods, and so us

    def _ended(self, exc: Exception | None) -> None:
        response, self._response = self._response, None
        if response is None:
            return
        if self._headed and self._until_eof and exc is None:
            response.end()
        else:
            where = "in the middle of the answer" if self._headed else "before the answer"
            response.end(Disconnected(str(exc) if exc else f"the connection was closed {where}"))

    def _fail(self, error: HttpError) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.end(error)
        self.abort()

    def _finish(self, response: Response) -> None:
        """The message is complete. An answer that came before the request was out leaves no usable connection."""
        self._response = None
        if self._keep and not self._transport.is_closing() and not self._transport.get_write_buffer_size():
            self.resume()
            self._owner.give(self)
        else:
            self.abort()
        response.end()

    # httptools

    def on_message_begin(self) -> None:
        if self._complete:
            raise InvalidResponse("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEADER_BYTES:
            raise InvalidResponse(f"its headers are larger than {MAX_HEADER_BYTES} bytes")
        if not self._headed:  # else a trailer
            self._headers[name.lower().decode("latin-1")] = value.decode("utf-8", "surrogateescape")

    def on_headers_complete(self) -> None:
        status, headers = self._parser.get_status_code(), self._headers
        if 100 <= status < 200 and status != 101:
            self._interim, self._headers = True, {}
            return
        coding = headers.get("transfer-encoding")
        if coding is not None:
            self._until_eof = coding.rpartition(",")[2].strip().lower() != "chunked"
        else:
            self._until_eof = "content-length" not in headers
        self._headed = True
        if self._response is not None:
            self._response.begin(status, headers)

    def on_body(self, data: bytes) -> None:
        self._overhead = 0
        response = self._response
        if response is not None and response.add(data) > READ_BUFFER_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
        else:
            self._complete, self._keep = True, self._parser.should_keep_alive()
