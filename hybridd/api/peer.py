"""Who is calling: SO_PEERCRED, read once per connection, for HTTP and WebSocket alike.

Own uid and root are let in; everybody else gets a 403 and a line in the log.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import select
import socket
import struct
from collections.abc import Callable, MutableMapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from hybridd.errors import HybriddError, InvalidRequest, PermissionRefused
from hybridd.providers.link import Peer

logger = logging.getLogger("hybridd.api")

MAX_HEAD_BYTES = 64 * 1024
HALF_CLOSED_SECONDS = 0.5
# How long a refused client may take to read why.
REFUSED_SECONDS = 1.0

_UCRED = struct.Struct("3i")


def peer_of(transport: asyncio.BaseTransport) -> Peer | None:
    """The peer of a Unix-socket connection; None on TCP."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family != socket.AF_UNIX:
        return None
    pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(pid=pid, uid=uid, gid=gid)


def admitted(peer: Peer, own_uid: int) -> bool:
    return peer.uid in (own_uid, 0)


class PeerProtocol(HttpToolsProtocol):
    """uvicorn's protocol with a gate. ``scope["state"]`` holds the ``peer``, and this object as ``connection``.

    ``on_lost`` is called when the client goes away: a route that waits for a provider sets it, which costs nothing,
    where a task awaiting ``http.disconnect`` would cost a task for each request. ``lost`` stays true afterwards.
    """

    own_uid = os.getuid()
    # Half a head, then silence: as long as a body may pause.
    head_seconds = 30.0
    _head_timer: asyncio.TimerHandle | None = None
    _idle_timer: asyncio.TimerHandle | None = None
    _idle_since: float | None = None
    _refused = False
    _heading = True
    _ended = False
    _head_bytes = 0
    on_lost: Callable[[], object] | None = None
    lost = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._head_timer is not None:
            self._head_timer.cancel()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        super().connection_made(transport)
        # uvicorn asks every connection for an access logger; ours never has one.
        self.access_log = False
        peer = peer_of(transport)
        if peer is None:
            return
        if admitted(peer, self.own_uid):
            self.app_state = {**self.app_state, "peer": peer, "connection": self}
            return
        logger.warning(
            "refused a connection: pid %d has uid %d, only %d and 0 may connect", peer.pid, peer.uid, self.own_uid
        )
        self._refuse(PermissionRefused(f"uid {peer.uid} may not use this hybridd"))

    def whole_body(self, scope: MutableMapping[str, Any]) -> bytearray | None:
        """The request's body when all of it is here already; None when it must be waited for."""
        cycle = self.cycle
        if cycle.scope is not scope or cycle.more_body or cycle.disconnected or cycle.response_complete:
            return None
        body, cycle.body = cycle.body, bytearray()
        cycle.waiting_for_100_continue = False
        return body

    def answer_whole(self, scope: MutableMapping[str, Any], status: int, head: bytes, body: bytes) -> bool:
        """Sends a complete answer in one write; False when this request needs uvicorn's own way.

        uvicorn checks every header with two regular expressions and writes head and body apart, which costs a routed
        call 15 % of the loop's time. ``head`` is our own, each line ending with CRLF; ``content-length`` is added here.
        """
        cycle = self.cycle
        if (
            cycle.scope is not scope
            or cycle.response_started
            or cycle.disconnected
            or self.flow.write_paused
            or not cycle.keep_alive
            or scope["method"] == "HEAD"
        ):
            return False
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        self.transport.write(b"%bcontent-length: %d\r\n%b\r\n%b" % (STATUS_LINE[status], len(body), head, body))
        cycle.message_event.set()
        cycle.on_response()
        return True

    def on_response_complete(self) -> None:
        """As uvicorn's, but with one timer for a connection's idle time instead of a new one after each answer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._look_idle)

    def handle_websocket_upgrade(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        super().handle_websocket_upgrade()

    def _look_idle(self) -> None:
        """Closes a connection that has waited for a request long enough; otherwise looks again when it may have."""
        self._idle_timer = None
        if self.transport.is_closing():
            return
        cycle, now = self.cycle, self.loop.time()
        if not self._heading or (cycle is not None and not cycle.response_complete):
            self._idle_since = now  # a request is being received or answered
        left = (self._idle_since or now) + self.timeout_keep_alive - now
        if left <= 0:
            self.transport.close()
        else:
            self._idle_timer = self.loop.call_later(left, self._look_idle)

    def send_400_response(self, msg: str) -> None:
        """Invalid HTTP gets the same error shape as everything else."""
        if not self._refused:
            self._refuse(InvalidRequest(msg, code="invalid_http"))

    def data_received(self, data: bytes) -> None:
        if self._refused or self.transport.is_closing():
            return
        self._ended = False
        super().data_received(data)
        # httptools collects a request's head without end. What came with the end of a body was that body, as a rule.
        if self._heading and not self._ended and not self._refused:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                message = f"the request's head is longer than {MAX_HEAD_BYTES} bytes"
                self._refuse(InvalidRequest(message, code="head_too_large", status=431))
            elif self._head_timer is None:
                self._head_timer = self.loop.call_later(self.head_seconds, self._head_overdue)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio asks for the answer, uvicorn gives none
        """``socat`` and ``nc -N`` close their side after the request and wait for the answer. Whoever is gone
        altogether shows as POLLHUP; after half a close nothing else tells, so it is looked at now and then."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body or self._gone():
            return False
        cycle.keep_alive = False
        self.loop.call_later(HALF_CLOSED_SECONDS, self._look_after_half_close)
        return True

    def _look_after_half_close(self) -> None:
        if self.transport.is_closing():
            return
        if self._gone():
            self.transport.close()
        else:
            self.loop.call_later(HALF_CLOSED_SECONDS, self._look_after_half_close)

    def _gone(self) -> bool:
        sock = self.transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(sock.fileno(), 0)  # POLLHUP and POLLERR are always told
        return bool(poll.poll(0))

    def _head_overdue(self) -> None:
        self._head_timer = None
        if self._heading and not self._refused and not self.transport.is_closing():
            message = f"the request's head was not complete within {self.head_seconds:g} s"
            self._refuse(InvalidRequest(message, code="request_timeout", status=408))

    def on_headers_complete(self) -> None:
        self._heading = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._heading, self._ended, self._head_bytes = True, True, 0
        super().on_message_complete()

    def _refuse(self, error: HybriddError) -> None:
        body = json.dumps(error.to_body()).encode()
        head = [STATUS_LINE[error.status]]
        for name, value in self.server_state.default_headers:
            head += [name, b": ", value, b"\r\n"]
        head.append(b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body))
        self._refused = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(b"".join((*head, body)))
        # Closing with unread input would reset the connection and take the answer with it: the rest is read and
        # thrown away until the client has seen the end.
        self.transport.write_eof()
        self.loop.call_later(REFUSED_SECONDS, self.transport.close)
