"""The WebSocket of plugins: frames go straight from the transport to the session and back.

uvicorn's own path puts each message through a queue, an ASGI event and a wake-up of a task, and pauses reading after
each. A routed call crosses this link twice or more, so an accepted ``/v1/plugins/connect`` leaves that path: its
frames are handed over synchronously, and everything sent within one loop tick leaves in one write.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode

from hybridd.contracts.protocol import MAX_MESSAGE_BYTES
from hybridd.errors import HybriddError, NotFound, PermissionRefused
from hybridd.frames import Boundary, TextFrames
from hybridd.providers.hub import Hub
from hybridd.providers.link import Peer
from hybridd.providers.session import Session

PATH = "/v1/plugins/connect"


def server_head(size: int) -> bytes:
    """The header of one unmasked text frame (RFC 6455 §5.2)."""
    if size < 126:
        return bytes((0x81, size))
    if size < 65536:
        return struct.pack("!BBH", 0x81, 126, size)
    return struct.pack("!BBQ", 0x81, 127, size)


class Wire:
    """A :class:`hybridd.providers.link.Link` over one accepted WebSocket."""

    def __init__(self, protocol: PluginLink) -> None:
        self._protocol = protocol
        self._transport = protocol.transport
        self._loop = protocol.loop
        self._out: list[bytes] = []
        self._flushing = False

    def send(self, text: bytes) -> None:
        self._out += (server_head(len(text)), text)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        self._flushing = False
        if self._out:
            out, self._out = self._out, []
            if not self._transport.is_closing():
                self._transport.write(b"".join(out))

    def close(self, code: int, reason: str) -> None:
        """Says why and closes; what was sent before still leaves."""
        self.flush()
        if self._transport.is_closing():
            return
        protocol = self._protocol
        if not protocol.close_sent and protocol.conn.state.name == "OPEN":
            protocol.close_sent = True
            # A close frame's reason holds at most 123 bytes (RFC 6455 §5.5).
            protocol.conn.send_close(code, reason.encode()[:120].decode("utf-8", "ignore"))
            self._transport.write(b"".join(protocol.conn.data_to_send()))
        self._transport.close()

    @property
    def buffered(self) -> int:
        return 0 if self._transport.is_closing() else self._transport.get_write_buffer_size()


class PluginLink(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol until a session is attached; from then on frames go straight to the session."""

    TASK = "plugin link"

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, {**app_state, "link": self}, _loop)
        self.session: Session | None = None
        self._frames = TextFrames(masked=True, limit=MAX_MESSAGE_BYTES)
        self._boundary = Boundary(masked=True)
        self._plain = False
        self._fragments: list[bytes] = []
        self._in_fragments = False

    def attach(self, hub: Hub, peer: Peer) -> None:
        """From now on frames are the session's."""
        self.session = hub.accept(Wire(self), peer)
        # Plugins outlive HTTP at shutdown: calls in flight still need them. The hub closes them.
        self.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        session = self.session
        if session is None:
            super().data_received(data)
            return
        conn = self.conn
        if self._plain:
            messages, data = self._frames.split(data)
            for message in messages:
                session.on_message(message)
            if not data:
                return
        self._boundary.fed(len(data))
        conn.receive_data(data)
        for event in conn.events_received():
            if isinstance(event, Frame):
                self._boundary.frame(len(event.data))
                self._on_frame(session, event)
        if conn.writes and not self.transport.is_closing():
            self.transport.write(b"".join(conn.data_to_send()))
        if conn.parser_exc is not None:
            session.drop(f"broken WebSocket: {conn.parser_exc}")
        if conn.close_rcvd is not None:
            self.transport.close()
        # Between messages, with nothing half-read in the parser, plain frames may be taken off in front of it.
        self._plain = self._boundary.reached and not self._in_fragments

    def connection_lost(self, exc: Exception | None) -> None:
        if self.session is not None:
            self.connections.add(self)  # the base class removes it
            self.session.on_lost(f"connection lost: {exc}" if exc else "it closed the connection")
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """uvicorn's graceful stop: plugin links wait for the hub."""
        if self.session is None:
            super().shutdown()

    def _on_frame(self, session: Session, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode is Opcode.TEXT and frame.fin:
            session.on_message(cast(bytes, frame.data))
        elif opcode is Opcode.CLOSE:
            close = self.conn.close_rcvd
            session.on_lost(f"it closed the connection: {close.code} {close.reason}".strip() if close else "closed")
        elif opcode not in (Opcode.PING, Opcode.PONG):  # those the sans-I/O layer answers
            self._on_fragment(session, frame)

    def _on_fragment(self, session: Session, frame: Frame) -> None:
        if frame.opcode is Opcode.BINARY:
            session.drop("a binary frame; messages are text")
            return
        if frame.opcode is Opcode.TEXT:
            self._fragments = []
        self._in_fragments = not frame.fin
        self._fragments.append(cast(bytes, frame.data))
        if frame.fin:
            whole, self._fragments = b"".join(self._fragments), []
            session.on_message(whole)


async def plugin_endpoint(scope: Any, receive: Any, send: Any) -> None:
    """The ASGI endpoint of ``/v1/plugins/connect``. ``scope["state"]`` holds ``hub``, ``peer`` and ``link``."""
    connect = await receive()
    if connect["type"] != "websocket.connect":
        return
    state = scope["state"]
    refusal = _refusal(scope, state)
    if refusal is not None:
        await _send_refusal(send, refusal)
        return
    link: PluginLink = state["link"]
    task = asyncio.current_task()
    assert task is not None
    task.set_name(PluginLink.TASK)
    link.attach(state["hub"], state["peer"])
    await send({"type": "websocket.accept"})
    # Parked until the connection has ended: uvicorn answers 500 when the application returns earlier.
    while (await receive())["type"] != "websocket.disconnect":
        pass


def _refusal(scope: Any, state: dict[str, Any]) -> HybriddError | None:
    if scope["path"] != PATH:
        return NotFound(f"no WebSocket at {scope['path']}; plugins connect to {PATH}")
    if any(name == b"origin" for name, _ in scope["headers"]):
        return PermissionRefused("browsers may not connect (the request has an Origin)")
    if not isinstance(state.get("peer"), Peer):
        return PermissionRefused("plugins connect over the Unix socket only")
    return None


async def _send_refusal(send: Any, error: HybriddError) -> None:
    import json

    body = json.dumps(error.to_body()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "websocket.http.response.start", "status": error.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body, "more_body": False})
