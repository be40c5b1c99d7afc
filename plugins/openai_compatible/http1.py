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
from typing import Any, Protocol

import httptools

from plugins.openai_compatible.response import Disconnected, HttpError, InvalidResponse, Response

MAX_HEADER_BYTES = 64 * 1024
READ_BUFFER_BYTES = 256 * 1024
_JOINED_BYTES = 64 * 1024

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\ud7ff\ue000-\U0010ffff]*")
_TARGET = re.compile(r"[\x21-\x7e]+")


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


class Connection(asyncio.Protocol):
    """One connection. The methods named ``on_…`` are called by the parser."""

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: Owner) -> None:
        self.idle_since = 0.0
        self.loop = loop
        self._owner = owner
        self._transport: Any = None
        self._parser: Any = httptools.HttpResponseParser(self)
        # What aiohttp allows too: an odd head is no reason to lose an answer that was paid for.
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
    def closing(self) -> bool:
        return bool(self._transport.is_closing())

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
        self._transport = transport
        self._unread.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None:
            self.abort()  # nobody has asked
            return
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
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
