"""A bare WebSocket server on a Unix socket for the conformance check: the hub's real session, no HTTP stack."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import cast

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from hybridd.contracts.protocol import MAX_MESSAGE_BYTES
from hybridd.providers.hub import Hub
from hybridd.providers.link import Peer
from hybridd.providers.session import Session

_UCRED = struct.Struct("3i")


class CheckLink(asyncio.Protocol):
    """One plugin connection; a :class:`hybridd.providers.link.Link`."""

    def __init__(self, hub: Hub, sessions: list[Session]) -> None:
        self._hub = hub
        self._sessions = sessions
        self._conn = ServerProtocol(max_size=MAX_MESSAGE_BYTES)
        self._transport: asyncio.Transport | None = None
        self._session: Session | None = None
        self._fragments: list[bytes] = []

    # Link

    def send(self, text: bytes) -> None:
        if self._conn.state.name == "OPEN":
            self._conn.send_text(text)
            self._write()

    def close(self, code: int, reason: str) -> None:
        if self._conn.state.name == "OPEN":
            self._conn.send_close(code, reason.encode()[:120].decode("utf-8", "ignore"))
            self._write()
        if self._transport is not None:
            self._transport.close()

    @property
    def buffered(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._conn.receive_data(data)
        for event in self._conn.events_received():
            if isinstance(event, Request):
                self._accept(event)
            elif isinstance(event, Frame) and self._session is not None:
                self._on_frame(self._session, event)
        self._write()
        if self._conn.close_expected() and self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._session is not None:
            close = self._conn.close_rcvd
            said = f": {close.code} {close.reason}".rstrip() if close is not None else ""
            self._session.on_lost(f"it closed the connection{said}")

    def _accept(self, request: Request) -> None:
        assert self._transport is not None
        response = self._conn.accept(request)
        self._conn.send_response(response)
        if response.status_code != 101:
            return
        sock = self._transport.get_extra_info("socket")
        pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        self._session = self._hub.accept(self, Peer(pid=pid, uid=uid, gid=gid))
        self._sessions.append(self._session)

    def _on_frame(self, session: Session, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.CONT):
            self._fragments.append(cast(bytes, frame.data))
            if frame.fin:
                whole, self._fragments = b"".join(self._fragments), []
                session.on_message(whole)
        elif frame.opcode is Opcode.BINARY:
            session.drop("a binary frame; messages are text")

    def _write(self) -> None:
        data = b"".join(self._conn.data_to_send())
        if data and self._transport is not None:
            self._transport.write(data)
