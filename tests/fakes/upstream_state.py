"""What the fake upstream knows and decides: the script in force, arrivals, counters, the answer to each request.

A request without a timetable costs one dict lookup: its bytes are built once and kept.
"""

from __future__ import annotations

import hashlib
from time import time
from typing import TYPE_CHECKING, Any

import msgspec

from tests.fakes.upstream_admin import ADMIN_PREFIX, Waiter
from tests.fakes.upstream_answers import HANG, Plan, build, plain_answer, timetable
from tests.fakes.upstream_behaviour import Behaviour, Rule
from tests.fakes.upstream_limits import Limiter, limit_headers, refusal_body
from tests.fakes.upstream_log import ArrivalLog, FileLog
from tests.fakes.upstream_openai import SLOT, Ask, Kind, kind_of, prompt_tokens, reply

if TYPE_CHECKING:
    from tests.fakes.upstream_server import Connection

MOST_CACHED = 4096
_SLOT = SLOT.encode()
_DEFAULT = Behaviour()
_decode_ask = msgspec.json.Decoder(Ask).decode


class Request:
    """One request on its way: filled in by the parser, numbered when its headers are whole."""

    __slots__ = (
        "admin",
        "ask",
        "at",
        "authorization",
        "body",
        "holds",
        "keep_alive",
        "kind",
        "log",
        "method",
        "n",
        "path",
        "prompt",
        "query",
        "row",
        "url",
        "whole",
    )

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

    def count_connection(self) -> None:
        """A connection carried its first request that is not administration."""
        self.total_connections += 1
        self.open_connections += 1
        self.max_open_connections = max(self.max_open_connections, self.open_connections)

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
