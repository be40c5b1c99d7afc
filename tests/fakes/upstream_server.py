"""The fake upstream's HTTP/1.1 server: asyncio.Protocol on httptools; a request without a timetable costs one dict lookup.

    connection ─► Connection (parse, one answer at a time, in order) ─► Upstream.answer(request) ─► bytes | Plan
                                                                        └ rules, limiters, log, counters
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import struct
from collections import deque
from time import monotonic, monotonic_ns, time
from typing import Any, cast

import httptools
import msgspec

from tests.fakes.upstream_admin import ADMIN_PREFIX, Waiter, administer
from tests.fakes.upstream_answers import HANG, Plan, build, error_body, plain_answer, timetable
from tests.fakes.upstream_behaviour import Behaviour, Rule
from tests.fakes.upstream_limits import Limiter, limit_headers, refusal_body
from tests.fakes.upstream_log import CLIENT_GONE, COMPLETE, CUT, ArrivalLog, FileLog
from tests.fakes.upstream_openai import SLOT, Ask, Kind, kind_of, prompt_tokens, reply

MOST_CACHED = 4096
MOST_PIPELINED = 64
_SLOT = SLOT.encode()
_DEFAULT = Behaviour()
_decode_ask = msgspec.json.Decoder(Ask).decode


class Request:
    """One request on its way: filled in by the parser, numbered when its headers are whole."""

    __slots__ = (
        "at", "n", "row", "log", "method", "url", "path", "query", "kind", "admin", "authorization",
        "ask", "body", "prompt", "keep_alive", "holds", "whole",
    )  # fmt: skip

    def __init__(self, at: int) -> None:
        self.at = at
        self.url = b""
        self.authorization: bytes | None = None
        self.ask: Ask | None = None
        self.body = b""
        self.prompt = 0
        self.keep_alive = True
        self.holds: list[Limiter] | None = None
        self.whole = False
        self.n = 0
        self.row = -1
        self.log: ArrivalLog
        self.method: str
        self.path: str
        self.query: str
        self.kind: Kind | None
        self.admin: bool


class ActiveRule:
    """A rule in force, with what it has used up."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.left = rule.times
        self.hits = 0
        self.instant = rule.behaviour.instant
        self._limiters: dict[tuple[int, str], Limiter] = {}

    def limiters(self, request: Request) -> list[Limiter]:
        """The counters that this request falls under, in the order of the script."""
        found = []
        for index, limit in enumerate(self.rule.behaviour.limits):
            value = ""
            if limit.by == "model":
                value = request.ask.model if request.ask else ""
            elif limit.by == "authorization":
                value = (request.authorization or b"").decode("latin-1")
            key = (index, value)
            if key not in self._limiters:
                self._limiters[key] = Limiter(limit)
            found.append(self._limiters[key])
        return found


class Upstream:
    """Everything the server knows: script, arrivals, counters. Belongs to one event loop."""

    def __init__(self, log_file: FileLog | None = None) -> None:
        self.rules: list[ActiveRule] = []
        self.log = ArrivalLog()
        self.log_file = log_file
        self.waiters: list[Waiter] = []
        self.connections: set[Connection] = set()
        self.open_connections = self.max_open_connections = self.total_connections = 0
        self.active = self.max_active = 0
        self._wires: dict[tuple[Any, ...], tuple[bytes, int]] = {}
        self._routes: dict[bytes, tuple[str, str, Kind | None, bool]] = {}
        self._digests: dict[bytes, str] = {}

    def set_rules(self, rules: list[Rule], *, append: bool = False) -> None:
        fresh = [ActiveRule(rule) for rule in rules]
        self.rules = [*self.rules, *fresh] if append else fresh
        self._wires.clear()

    def clear_log(self) -> None:
        self.log = ArrivalLog(self.log.first_n + len(self.log))

    # ---- a request's way through

    def route(self, request: Request) -> None:
        """Fills in path, query and endpoint."""
        known = self._routes.get(request.url)
        if known is None:
            path, _, query = request.url.decode("latin-1").partition("?")
            known = (path, query, kind_of(path), path.startswith(ADMIN_PREFIX))
            if len(self._routes) < MOST_CACHED:
                self._routes[request.url] = known
        request.path, request.query, request.kind, request.admin = known

    def arrive(self, request: Request) -> None:
        """The headers are whole: from here on the request counts."""
        authorization = request.authorization
        digest = None
        if authorization is not None:
            digest = self._digests.get(authorization)
            if digest is None:
                digest = hashlib.sha256(authorization).hexdigest()[:12]
                if len(self._digests) < MOST_CACHED:
                    self._digests[authorization] = digest
        log = request.log = self.log
        request.row = log.arrive(request.at, request.method, request.path, digest)
        request.n = log.first_n + request.row
        self.active += 1
        self.max_active = max(self.max_active, self.active)
        if self.waiters:
            self.notify()

    def complete(self, request: Request) -> None:
        """The body is whole."""
        request.whole = True
        body = request.body
        if body:
            try:
                ask = request.ask = _decode_ask(body)
                request.prompt = prompt_tokens(ask)
            except (msgspec.DecodeError, UnicodeDecodeError):
                pass
        request.log.complete(request.row, request.ask.model if request.ask else None, body)
        if self.log_file is not None:
            self.log_file.append(request.log.line(request.row))

    def finish(self, request: Request, status: int | None, outcome: int) -> None:
        """The answer is out, or will never be."""
        if self.log_file is not None and not request.whole:
            self.log_file.append(request.log.line(request.row, complete=False))
        request.log.finish(request.row, status, outcome)
        self.active -= 1
        for limiter in request.holds or ():
            limiter.release()
        if self.waiters:
            self.notify()

    def notify(self) -> None:
        for waiter in self.waiters:
            waiter.look(self.log)
        self.waiters = [waiter for waiter in self.waiters if not waiter.future.done()]

    # ---- deciding

    def answer(self, request: Request) -> tuple[bytes, int] | Plan:
        """Bytes to send at once with their status, or a plan to play."""
        rule = self._match(request) if self.rules else None
        if rule is None or rule.instant:
            return self._instant(request, rule)
        now = time()
        behaviour = rule.rule.behaviour.resolved(now)
        if behaviour.hang:
            return HANG
        number = b"%012d" % request.n
        headers: dict[str, str] = {}
        if limiters := rule.limiters(request):
            tokens = self._cost(request, behaviour)
            verdicts = [limiter.decide(request.at, tokens) for limiter in limiters]
            refusal = next(((x.limit, v) for x, v in zip(limiters, verdicts, strict=True) if v.refused), None)
            if refusal is None:
                verdicts = [limiter.admit(request.at, tokens) for limiter in limiters]
                request.holds = limiters
            for limiter, verdict in zip(limiters, verdicts, strict=True):
                headers.update(limit_headers(limiter.limit, verdict, now))
            if refusal is not None:
                headers.update(limit_headers(*refusal, now))
                body = msgspec.json.encode(refusal_body(*refusal, request.ask.model if request.ask else ""))
                refused = plain_answer(429, body, {**headers, "x-request-id": f"req-{SLOT}"})
                return timetable(refused, _DEFAULT, number, keep_alive=request.keep_alive)
        answer = build(request.kind, request.method, request.ask, behaviour, request.prompt, now)
        answer.headers = {**headers, **answer.headers}
        return timetable(answer, behaviour, number, keep_alive=request.keep_alive)

    def _match(self, request: Request) -> ActiveRule | None:
        ask = request.ask
        for rule in self.rules:
            if rule.left != 0 and rule.rule.match.accepts(
                path=request.path,
                model=ask.model if ask else None,
                authorization=request.authorization.decode("latin-1") if request.authorization else None,
                method=request.method,
                stream=bool(ask and ask.stream),
            ):
                rule.hits += 1
                if rule.left is not None:
                    rule.left -= 1
                return rule
        return None

    def _instant(self, request: Request, rule: ActiveRule | None) -> tuple[bytes, int]:
        ask, kind = request.ask, request.kind
        key: tuple[Any, ...] | None = None
        if ask is not None and kind != "embeddings":
            most = ask.max_completion_tokens or ask.max_tokens
            streaming = ask.stream and (ask.include_usage, 1)
            key = (request.path, ask.model, request.prompt, streaming, most, rule, request.method, request.keep_alive)
            known = self._wires.get(key)
            if known is not None:
                return known[0].replace(_SLOT, b"%012d" % request.n), known[1]
        behaviour = _DEFAULT if rule is None else rule.rule.behaviour
        answer = build(kind, request.method, ask, behaviour, request.prompt, time())
        wire = answer.wire(keep_alive=request.keep_alive)
        if key is not None:
            if len(self._wires) >= MOST_CACHED:
                self._wires.clear()
            self._wires[key] = (wire, answer.status)
        return wire.replace(_SLOT, b"%012d" % request.n), answer.status

    def _cost(self, request: Request, behaviour: Behaviour) -> int:
        """Tokens that the answer is going to use."""
        if request.ask is None or request.kind not in ("chat", "completions"):
            return request.prompt
        usage = reply(request.ask, behaviour, request.prompt, request.kind).usage or {}
        return int(usage.get("total_tokens", request.prompt))


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
        self.administrative = False
        self.closing = False

    # ---- transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.parser = httptools.HttpRequestParser(self)
        state = self.upstream
        state.connections.add(self)
        state.total_connections += 1
        state.open_connections += 1
        state.max_open_connections = max(state.max_open_connections, state.open_connections)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = True
        self.parser = None
        if self.timer is not None:
            self.timer.cancel()
        if self.waiting is not None:
            self.waiting.cancel()
        self.upstream.connections.discard(self)
        if not self.administrative:
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
        except httptools.HttpParserUpgrade:
            self._refuse()
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
            self.upstream.arrive(request)
        elif not self.administrative:
            self.administrative = True
            self.upstream.open_connections -= 1
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
        cut = plan.end == "reset" or (plan.end == "close" and request.keep_alive)
        self.current = None
        self.upstream.finish(request, plan.status, CUT if cut else COMPLETE)
        if plan.end == "keep":
            self._next()
        else:
            self._close(reset=plan.end == "reset")

    def _next(self) -> None:
        while self.queue and self.current is None and not self.closing:
            if len(self.queue) == MOST_PIPELINED:
                self.transport.resume_reading()
            self._begin(self.queue.popleft())

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
