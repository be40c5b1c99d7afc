"""The fake upstream's HTTP/1.1 connections: an asyncio.Protocol on httptools; it decides nothing.

connection ─► Connection (parse; one answer at a time, in order) ─► Upstream.answer(request) ─► bytes | Plan
                                                                    └ rules, limiters, log, counters
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from time import monotonic, monotonic_ns
from typing import Any, cast

import httptools
import msgspec

from tests.fakes.upstream_admin import administer
from tests.fakes.upstream_answers import HANG, Plan, error_body, plain_answer
from tests.fakes.upstream_log import CLIENT_GONE, COMPLETE, CUT
from tests.fakes.upstream_state import Request, Upstream

MOST_PIPELINED = 64


class Connection(asyncio.Protocol):
    """One client connection. Answers leave one at a time in the order of the requests, whatever was pipelined."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.loop = asyncio.get_running_loop()
        self.parser: httptools.HttpRequestParser | None = None
        self.transport: asyncio.Transport
        self.now = 0
        self.incoming: Request | None = None
        self.parts: list[bytes] = []
        self.expects_continue = False
        self.current: Request | None = None
        self.queue: deque[Request] = deque()
        self.plan = HANG
        self.position = 0
        self.started = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self.waiting: asyncio.Future[Any] | None = None
        self.writable = True
        self.counted = False
        self.pumping = False
        self.closing = False

    # ---- transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.parser = httptools.HttpRequestParser(self)
        self.upstream.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = True
        self.parser = None
        if self.timer is not None:
            self.timer.cancel()
        if self.waiting is not None:
            self.waiting.cancel()
        self.upstream.connections.discard(self)
        if self.counted:
            self.upstream.open_connections -= 1
        for request in (self.current, *self.queue, self.incoming):
            if request is not None and request.row >= 0:
                sent = request is self.current and any(data for _, data in self.plan.segments[: self.position])
                self.upstream.finish(request, self.plan.status if sent else None, CLIENT_GONE)
        self.current = self.incoming = None
        self.queue.clear()

    def data_received(self, data: bytes) -> None:
        self.now = monotonic_ns()
        parser = self.parser
        if parser is None or self.closing:
            return
        try:
            parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise
        except httptools.HttpParserError:
            self._refuse()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        if self.current is not None:
            self._play()

    # ---- parser

    def on_message_begin(self) -> None:
        self.incoming = Request(self.now)
        self.parts = []

    def on_url(self, url: bytes) -> None:
        assert self.incoming is not None
        self.incoming.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) == 13 and name.lower() == b"authorization":
            assert self.incoming is not None
            self.incoming.authorization = value
        elif len(name) == 6 and name.lower() == b"expect":
            self.expects_continue = True

    def on_headers_complete(self) -> None:
        request, parser = self.incoming, self.parser
        assert request is not None
        assert parser is not None
        request.method = parser.get_method().decode("latin-1")
        request.keep_alive = parser.should_keep_alive()
        self.upstream.route(request)
        if not request.admin:
            if not self.counted:
                self.counted = True
                self.upstream.count_connection()
            self.upstream.arrive(request)
        if self.expects_continue:
            self.expects_continue = False
            if self.current is None:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self.parts.append(body)

    def on_message_complete(self) -> None:
        request = self.incoming
        assert request is not None
        self.incoming = None
        request.body = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
        if not request.admin:
            self.upstream.complete(request)
        if self.current is None:
            self._begin(request)
        else:
            self.queue.append(request)
            if len(self.queue) >= MOST_PIPELINED:
                self.transport.pause_reading()

    # ---- answering

    def _begin(self, request: Request) -> None:
        if request.admin:
            self._administer(request)
            return
        answer = self.upstream.answer(request)
        if isinstance(answer, Plan):
            self.current = request
            self.plan, self.position, self.started = answer, 0, monotonic()
            self._play()
            return
        self.transport.write(answer[0])
        self.upstream.finish(request, answer[1], COMPLETE)
        if not request.keep_alive:
            self._close()

    def _play(self) -> None:
        """Sends every segment that is due, then sleeps until the next one, then ends as planned."""
        self.timer = None
        segments = self.plan.segments
        elapsed = monotonic() - self.started
        due = []
        while self.writable and self.position < len(segments) and segments[self.position][0] <= elapsed:
            due.append(segments[self.position][1])
            self.position += 1
        if due:
            self.transport.write(b"".join(due))
        if self.position == len(segments):
            self._end()
        elif self.writable:
            # uvloop's timers count whole milliseconds and may fire early; one that does simply waits again.
            self.timer = self.loop.call_later(max(0.001, segments[self.position][0] - elapsed), self._play)

    def _end(self) -> None:
        plan, request = self.plan, self.current
        if plan.end == "hang" or request is None:
            return
        self.current = None
        self.upstream.finish(request, plan.status, CUT if plan.broken else COMPLETE)
        if plan.end == "keep":
            self._next()
        else:
            self._close(reset=plan.end == "reset")

    def _next(self) -> None:
        """Takes up what was pipelined; not re-entered from the answers that it starts, so that no queue is too long."""
        if self.pumping:
            return
        self.pumping = True
        while self.queue and self.current is None and not self.closing:
            if len(self.queue) == MOST_PIPELINED:
                self.transport.resume_reading()
            self._begin(self.queue.popleft())
        self.pumping = False

    def _close(self, *, reset: bool = False) -> None:
        """Closes once everything written is out; with `reset` the peer sees RST."""
        self.closing = True
        if reset:
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.close()

    def _refuse(self) -> None:
        """What was sent is not HTTP."""
        if self.current is None:
            self.transport.write(plain_answer(400, error_body("not an HTTP/1.1 request")).wire(keep_alive=False))
        self._close()

    def _administer(self, request: Request) -> None:
        result = administer(self.upstream, request.method, request.path, request.query, request.body)
        if not isinstance(result, asyncio.Future):
            self.transport.write(plain_answer(*result).wire(keep_alive=request.keep_alive))
            if not request.keep_alive:
                self._close()
            return
        self.current, self.plan, self.position = request, HANG, 0
        self.waiting = result

        def reached(future: asyncio.Future[bool]) -> None:
            if future.cancelled() or self.closing:
                return
            self.current = self.waiting = None
            body = msgspec.json.encode({"reached": future.result()})
            self.transport.write(plain_answer(200, body).wire(keep_alive=True))
            self._next()

        result.add_done_callback(reached)
