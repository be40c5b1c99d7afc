"""One answer on its way: what was asked, how far it is, and the way back to the task that waits for it."""

from __future__ import annotations

import asyncio
import os
import time
from array import array
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from plugins.llama_cpp.choice import Choice
from plugins.llama_cpp.responses import Timings
from plugins.llama_cpp.sampling_params import Sampling

if TYPE_CHECKING:
    from plugins.llama_cpp.prefix import Slot
    from plugins.llama_cpp.sampling import Sampler

# Chunks that may wait for a slow reader before its sequences are paused.
WINDOW = 32
_SEEDS = 2**32 - 1  # the last value means "random" to llama.cpp


def seed_for(parameters: Sampling, choice: int) -> int:
    """The seed of one of a request's answers: the request's own, counted up; random when it names none."""
    if parameters.seed is None:
        return int.from_bytes(os.urandom(4)) % _SEEDS
    return (parameters.seed + choice) % _SEEDS


class Channel:
    """From the scheduler's thread to one request's task: chunks, the end, or a failure.

    ``sent`` is written by the scheduler alone and ``taken`` by the event loop alone: no lock is needed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, sequences: int) -> None:
        self.loop = loop
        self.failure: Exception | None = None
        self.stalled = False
        self.resume: Callable[[], None] | None = None
        self.sent = 0
        self.taken = 0
        self._chunks: deque[bytes] = deque()
        self._open = sequences
        self._waiter: asyncio.Future[None] | None = None

    # scheduler's thread

    def put(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self.sent += 1

    def end(self, failure: Exception | None = None) -> None:
        """One of its sequences is over."""
        self.failure = self.failure or failure
        self._open -= 1

    @property
    def full(self) -> bool:
        """Its reader is far behind. ``stalled`` is set before the second look: then the reader's next step sees it."""
        if self.sent - self.taken < WINDOW:
            return False
        self.stalled = True
        return self.sent - self.taken >= WINDOW

    # event loop

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self) -> list[bytes]:
        """Everything since the last call; waits for some. Empty: all is over.

        Raises:
            CallFailure: one of the sequences failed.
        """
        while True:
            chunks = [self._chunks.popleft() for _ in range(len(self._chunks))]
            self.taken += len(chunks)
            if chunks and self.stalled and self.resume is not None:
                self.stalled = False
                self.resume()
            if chunks:
                return chunks
            if self.failure is not None:
                raise self.failure
            if self._open <= 0 and not self._chunks:
                return []
            self._waiter = self.loop.create_future()
            if self._chunks or self._open <= 0 or self.failure is not None:
                continue
            try:
                await self._waiter
            finally:
                self._waiter = None


class Sequence:
    """``tokens``: the prompt and what came after it; ``past`` of them are in the cells of ``slot``.

    ``limit``: tokens of the answer. ``leader``: another answer to the same prompt; this one starts when that one's
    prompt is evaluated, and goes on from its cells.
    """

    __slots__ = (
        "asked_at", "begun_at", "cache", "cancelled", "channel", "choice", "closing", "ended_at", "evaluated",
        "first_at", "followers", "grammar", "leader", "limit", "logprobs", "number", "over", "passed", "past", "primed",
        "produced", "prompt", "reason", "reused", "sampler", "sampling", "seed", "slot", "timed", "tokens",
    )  # fmt: skip

    def __init__(
        self,
        prompt: array[int],
        *,
        choice: Choice,
        channel: Channel,
        sampling: Sampling,
        seed: int,
        limit: int,
        grammar: str = "",
        logprobs: int | None = None,
        cache: bool = True,
        timed: bool = False,
        leader: Sequence | None = None,
        closing: Callable[[Sequence], Mapping[str, Any]] | None = None,
    ) -> None:
        """``closing`` makes the members of the last chunk; ``timed``: each chunk says how fast it went."""
        self.prompt = len(prompt)
        self.tokens = array("i", prompt)
        self.choice = choice
        self.channel = channel
        self.sampling = sampling
        self.seed = seed
        self.limit = limit
        self.grammar = grammar
        self.logprobs = logprobs
        self.cache = cache
        self.timed = timed
        self.leader = leader
        self.closing = closing
        self.followers: list[Sequence] = []
        self.number = 0
        self.slot: Slot | None = None
        self.sampler: Sampler | None = None
        self.past = 0
        self.reused = 0
        self.evaluated = 0
        self.produced = 0
        self.passed = 0
        self.primed = False
        self.over = False
        self.cancelled = False
        self.reason = ""
        self.asked_at = time.perf_counter()
        self.begun_at = self.first_at = self.ended_at = 0.0

    @property
    def need(self) -> int:
        """Tokens to evaluate before the next one can be chosen."""
        return len(self.tokens) - self.past

    def timings(self) -> Timings:
        """Up to the end, or so far."""
        now = self.ended_at or time.perf_counter()
        first = self.first_at or now
        return Timings(
            prompt_n=self.prompt - self.reused,
            prompt_ms=(first - (self.begun_at or first)) * 1000,
            predicted_n=self.produced,
            predicted_ms=(now - first) * 1000,
            cache_n=self.reused,
        )
