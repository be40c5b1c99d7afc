"""The load generator: callers that keep one prebuilt request in flight each, over raw connections.

On two cores the generator competes with what it measures, so it must cost little: no HTTP library, no task per call,
about 10 µs for an answer with a length. It still reads every answer whole (Content-Length or chunked) and looks at the
status and, where asked, at the body: an answer that is not what it should be is counted as such, never as a success.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import repeat
from time import perf_counter
from typing import Any, NamedTuple, cast

from scripts.bench_parts.answers import AnswerReader, BadAnswer

CONNECTING_AT_ONCE = 64
CONNECT_TIMEOUT_S = 10.0
GRACE_S = 30.0
"""How long calls in flight may take after the last one was begun."""

REFUSALS = (429, 503)
"""What admission control answers with; every other error status is a failure, whatever reason it gives."""

Check = Callable[[bytes], bool]
Requests = bytes | Iterator[bytes]
"""One request for every call, or each call its own."""


class Target(NamedTuple):
    """Where to call: a Unix socket's path, or a host and port; and the model's name there.

    ``closes``: the server ends the connection after a stream without saying so, and each call needs a new one.
    """

    name: str
    model: str
    path: str | None = None
    host: str = "127.0.0.1"
    port: int = 0
    closes: bool = False


class Result:
    """What came of a run. Times in seconds: ``latencies`` to the whole answer, ``firsts`` to the body's first byte (or
    to where ``run``'s ``begun`` first held)."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.firsts: list[float] = []
        self.refused: Counter[str] = Counter()
        """Answers of admission control (429, 503) that carry an OpenAI-shaped error, by ``"status code"``."""
        self.errors: Counter[str] = Counter()
        """Everything else: other statuses, broken answers, lost connections, no answer in time, wrong bodies."""
        self.seconds = 0.0

    @property
    def answered(self) -> int:
        return len(self.latencies)

    @property
    def per_second(self) -> float:
        return self.answered / self.seconds if self.seconds else 0.0

    def described(self) -> str:
        """``12 × 200, 3 × 429 quota_exhausted, 1 × connection lost``."""
        parts = [f"{self.answered:,} × 200"]
        parts += [f"{count:,} × {what}" for what, count in (self.refused + self.errors).most_common()]
        return ", ".join(parts)


def chat_request(model: str, *, stream: bool = False, prompt: str = "", **more: Any) -> bytes:
    """The bytes of one chat request; ``more`` goes into its JSON body."""
    message = {"role": "user", "content": prompt or "Write a function that adds two numbers."}
    body: dict[str, Any] = {"model": model, "messages": [message], "max_tokens": 100, **more}
    if stream:
        body["stream"] = True
    data = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer sk-bench\r\n"
        "Accept: */*\r\nUser-Agent: hybridd-bench\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


async def run(
    target: Target,
    request: Requests,
    *,
    callers: int = 1,
    calls: int | None = None,
    seconds: float | None = None,
    warm_up: int = 0,
    check: Check | None = None,
    begun: Check | None = None,
    grace: float = GRACE_S,
) -> Result:
    """Keeps ``callers`` calls in flight until ``calls`` were begun or ``seconds`` are over, then waits for the answers.

    The clock starts when every caller is connected. The first ``warm_up`` answers of each caller are not counted.
    ``begun`` says of a body, as far as it came, whether what ``firsts`` times is in it; servers that send an empty
    first event at once are not faster for it.

    Raises:
        OSError: the target cannot be connected to.
        ValueError: neither ``calls`` nor ``seconds`` is given.
    """
    if calls is None and seconds is None:
        raise ValueError("calls or seconds is needed")
    load = _Load(target, request, calls, warm_up, check, begun)
    crew = [_Caller(load) for _ in range(callers)]
    gate = asyncio.Semaphore(CONNECTING_AT_ONCE)

    async def connect(caller: _Caller) -> None:
        async with gate, asyncio.timeout(CONNECT_TIMEOUT_S):
            await load.connect(caller)

    try:
        await asyncio.gather(*map(connect, crew))
        began = perf_counter()
        load.until = began + seconds if seconds is not None else float("inf")
        load.active = callers
        for caller in crew:
            caller.proceed()
        budget = (seconds if seconds is not None else 0.0) + grace
        done, _ = await asyncio.wait({load.finished}, timeout=budget)
        if not done:
            load.result.errors["no answer in time"] += load.active
        load.result.seconds = perf_counter() - began
    finally:
        load.over = True
        for caller in crew:
            caller.close()
    return load.result


class _Load:
    """What the callers of one run share."""

    def __init__(
        self,
        target: Target,
        request: Requests,
        calls: int | None,
        warm_up: int,
        check: Check | None,
        begun: Check | None,
    ) -> None:
        self.target, self.check, self.begun = target, check, begun
        self.requests = repeat(request) if isinstance(request, bytes) else request
        self.left = calls if calls is not None else -1
        self.warm_up = warm_up
        self.until = float("inf")
        self.active = 0
        self.over = False
        self.result = Result()
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def connect(self, caller: _Caller) -> None:
        loop = asyncio.get_running_loop()
        if self.target.path is not None:
            await loop.create_unix_connection(lambda: caller, self.target.path)
        else:
            await loop.create_connection(lambda: caller, self.target.host, self.target.port)

    def take(self, now: float) -> bool:
        """Whether one more call may begin."""
        if self.left == 0 or now >= self.until or self.over:
            return False
        self.left -= 1
        return True

    def leave(self) -> None:
        self.active -= 1
        if self.active == 0 and not self.finished.done():
            self.finished.set_result(None)


class _Caller(asyncio.Protocol):
    """One connection with at most one call in flight; connects again when the server closed after an answer."""

    def __init__(self, load: _Load) -> None:
        self.load = load
        self.reader = AnswerReader()
        self.transport: asyncio.Transport | None = None
        self.warm_up = load.warm_up
        self.began = 0.0
        self.first = 0.0
        self.counted = True
        self.waiting = False
        self.reopening = False
        self.left = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def proceed(self) -> None:
        """Begins the next call, or leaves."""
        now = perf_counter()
        if self.warm_up:
            self.warm_up -= 1
            self._begin(now, counted=False)
        elif self.load.take(now):
            self._begin(now, counted=True)
        else:
            self._leave()

    def _begin(self, now: float, *, counted: bool) -> None:
        if self.transport is None or self.transport.is_closing():
            self._again(counted)
            return
        self.counted = counted
        self.reader.reset()
        self.waiting = True
        self.first = 0.0
        self.began = now
        self.transport.write(next(self.load.requests))

    def data_received(self, data: bytes) -> None:
        now = perf_counter()
        reader = self.reader
        if not self.waiting:
            self._fail("bytes without a question")
            return
        try:
            whole = reader.feed(data)
        except BadAnswer as error:
            self._fail(str(error))
            return
        if not self.first and reader.body_seen and (self.load.begun is None or self.load.begun(reader.body)):
            self.first = now
        if not whole:
            return
        self.waiting = False
        if self.counted:
            self._record(now)
        if reader.closing or self.load.target.closes:
            self.close()
        self.proceed()

    def _record(self, now: float) -> None:
        result, reader = self.load.result, self.reader
        if reader.status != 200:
            name = _refusal(reader.status, reader.body)
            explained = reader.status in REFUSALS and not name.endswith("?")
            (result.refused if explained else result.errors)[name] += 1
        elif self.load.check is not None and not self.load.check(reader.body):
            result.errors["200 with a wrong body"] += 1
        else:
            result.latencies.append(now - self.began)
            result.firsts.append((self.first or now) - self.began)

    def _again(self, counted: bool) -> None:
        """Calls on a new connection, once the end of the old one has been told."""
        self.counted = counted
        if self.transport is None:
            self.task = asyncio.ensure_future(self._connect())
        else:
            self.reopening = True
            self.transport.abort()

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self.load.connect(self)
        except (OSError, TimeoutError) as error:
            self._fail(f"cannot connect again: {type(error).__name__}")
        else:
            self._begin(perf_counter(), counted=self.counted)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.load.over:
            return
        if self.reopening:
            self.reopening = False
            self.task = asyncio.ensure_future(self._connect())
        elif self.waiting:
            self._fail("connection lost")

    def _fail(self, why: str) -> None:
        self.waiting = False
        self.load.result.errors[why] += 1
        self.close()
        self._leave()

    def _leave(self) -> None:
        if not self.left:
            self.left = True
            self.load.leave()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()


def _refusal(status: int, body: bytes) -> str:
    """``"429 quota_exhausted"``, or ``"503 ?"`` when the answer names no reason."""
    try:
        code = json.loads(body)["error"]["code"]
    except (ValueError, KeyError, TypeError):
        code = None
    return f"{status} {code or '?'}"
