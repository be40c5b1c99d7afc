"""The WebSocket under the SDK: the sans-I/O client of ``websockets`` on a bare Unix-socket transport.

Measured with the same minimal plugin behind ``scripts/bench_parts/link.py``, aiohttp's client and this one are equally
fast (61,000 calls/s at 32 concurrent, the daemon's side being the limit), but this one does not import aiohttp: a
plugin that needs no HTTP client starts in half the time. There is no queue and no task per message, and all messages
of one loop tick leave in one write.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from random import getrandbits
from typing import Any, cast

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from hybridd.contracts.protocol import MAX_MESSAGE_BYTES
from hybridd.frames import Boundary, TextFrames, apply_mask

URI = "ws://localhost/v1/plugins/connect"


class ConnectRefused(Exception):
    """The daemon answered the handshake with something else than 101."""


def client_frame(payload: bytes) -> tuple[bytes, bytes]:
    """Header and masked payload of one text frame (RFC 6455 §5.2; clients mask)."""
    size = len(payload)
    # Masks keep scripts in browsers from steering proxies (RFC 6455 §10.3); a Unix socket has none, so that the kernel
    # need not be asked for each.
    mask = getrandbits(32).to_bytes(4)
    if size < 126:
        head = bytes((0x81, 0x80 | size))
    elif size < 65536:
        head = struct.pack("!BBH", 0x81, 0xFE, size)
    else:
        head = struct.pack("!BBQ", 0x81, 0xFF, size)
    return head + mask, apply_mask(payload, mask)


class ClientLink(asyncio.Protocol):
    """One connection to the daemon. ``on_message`` gets every text message, on the loop, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_message: Callable[[bytes], None]) -> None:
        self._loop = loop
        self._on_message = on_message
        self._conn = ClientProtocol(parse_uri(URI), max_size=MAX_MESSAGE_BYTES + 4096)
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._flushing = False
        self._frames = TextFrames(masked=False, limit=MAX_MESSAGE_BYTES)
        self._boundary = Boundary(masked=False)
        self._plain = False
        self._fragments: list[bytes] = []
        self._in_fragments = False
        self._writable: asyncio.Future[None] | None = None
        self.opened: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[str] = loop.create_future()

    @classmethod
    async def connect(cls, path: str, on_message: Callable[[bytes], None], timeout: float) -> ClientLink:
        """Connects and finishes the handshake.

        Raises:
            OSError: nobody listens on ``path``.
            ConnectRefused: the daemon refused us; the message says why.
            TimeoutError: no answer within ``timeout`` seconds.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(timeout):
            _, link = await loop.create_unix_connection(lambda: cls(loop, on_message), path)
            await link.opened
        return link

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._conn.send_request(self._conn.connect())
        self._write_control()

    def data_received(self, data: bytes) -> None:
        conn = self._conn
        if self._plain:
            messages, data = self._frames.split(data)
            for message in messages:
                self._on_message(message)
            if not data:
                return
        if self.opened.done():
            self._boundary.fed(len(data))
        conn.receive_data(data)
        for event in conn.events_received():
            if isinstance(event, Frame):
                self._boundary.frame(len(event.data))
                self._on_frame(event)
            elif isinstance(event, Response):
                self._on_response(event)
        self._write_control()
        if conn.parser_exc is not None or conn.close_rcvd is not None:
            self._end()
        # Between messages, with nothing half-read in the parser, the plain frames may be taken off in front of it.
        self._plain = (
            self._boundary.reached and not self._in_fragments and not conn.reader.buffer and self.opened.done()
        )

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self.opened.done():
            self.opened.set_exception(
                ConnectRefused(f"the connection was closed during the handshake ({exc or 'EOF'})")
            )
        self._set_lost(f"connection lost: {exc}" if exc else "the daemon closed the connection")
        self.resume_writing()

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None:
            if not self._writable.done():
                self._writable.set_result(None)
            self._writable = None

    # sending

    def send(self, payload: bytes, *, flush: bool = False) -> None:
        """Queues one message for the write at the end of this loop tick; ``flush`` writes now."""
        if self._transport is None:
            return
        self._out += client_frame(payload)
        if flush:
            self._flush()
        elif not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    async def drain(self) -> None:
        """Waits while the socket's buffer is full."""
        while self._writable is not None:
            await self._writable

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Says goodbye and closes once everything queued is written."""
        self._flush()
        if self._transport is None:
            return
        if self._conn.state.name == "OPEN":
            self._conn.send_close(code, reason[:120])
            self._write_control()
        self._transport.close()

    def _flush(self) -> None:
        self._flushing = False
        if self._out and self._transport is not None:
            out, self._out = self._out, []
            self._transport.write(b"".join(out))

    def _write_control(self) -> None:
        data = b"".join(self._conn.data_to_send())
        if data and self._transport is not None:
            self._transport.write(data)

    # receiving

    def _on_frame(self, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
            self._in_fragments = not frame.fin
            if frame.fin:
                self._on_message(cast(bytes, frame.data))
            else:
                self._fragments = [cast(bytes, frame.data)]
        elif opcode is Opcode.CONT:
            self._in_fragments = not frame.fin
            self._fragments.append(cast(bytes, frame.data))
            if frame.fin:
                whole, self._fragments = b"".join(self._fragments), []
                self._on_message(whole)
        # PING is answered by the sans-I/O layer; PONG needs nothing; CLOSE is seen in data_received.

    def _on_response(self, response: Response) -> None:
        if self.opened.done():
            return
        refusal: Any = self._conn.handshake_exc
        if refusal is None:
            self.opened.set_result(None)
            return
        body = bytes(response.body or b"")[:500].decode("utf-8", "replace")
        self.opened.set_exception(ConnectRefused(f"HTTP {response.status_code} {body}".strip()))
        self._end()

    def _end(self) -> None:
        close = self._conn.close_rcvd
        if close is not None:
            self._set_lost(f"the daemon closed the connection: {close.code} {close.reason}".strip())
        elif self._conn.parser_exc is not None:
            self._set_lost(f"broken connection: {self._conn.parser_exc}")
        if self._transport is not None:
            self._transport.close()

    def _set_lost(self, reason: str) -> None:
        if not self.lost.done():
            self.lost.set_result(reason)
