"""Continuous batching: one thread, one context, many sequences.

::

    waiting ──admit──► in a slot: prompt piece by piece ──► decoding ──► over
       ▲                    │              │ its reader is behind: left out of the batch, later out of its slot
       └────── no cells: the youngest goes back, with all it has said ────┘

Each step is one batch: a token of every sequence that decodes, and pieces of prompts (:mod:`composing`). The event loop
hands over sequences and cancels through a queue and is woken once a step, for all sequences together.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue

from hybridd.plugin import CallFailure
from plugins.llama_cpp import sampling
from plugins.llama_cpp.admission import Admission
from plugins.llama_cpp.composing import Composer, Entry
from plugins.llama_cpp.context import ABORTED, DONE, NO_CELLS, Context
from plugins.llama_cpp.figures import Figures
from plugins.llama_cpp.logprobs import Found, Scored
from plugins.llama_cpp.native import last_error
from plugins.llama_cpp.sequence import Channel, Sequence

# Where steps are shorter than this, the words of several go out together: waking the loop, the daemon and the reader
# for each would take more from the next step than it gives anybody. First and last words never wait.
_GATHER_S = 0.015


class Broken(Exception):
    """llama.cpp failed in a way that leaves its memory in an unknown state; the message says how."""


class Scheduler:
    """Owns the context and everything in it from :meth:`start` to :meth:`stop`."""

    def __init__(
        self,
        context: Context,
        loop: asyncio.AbstractEventLoop,
        *,
        mixed: bool = True,
        broken: Callable[[str], None] | None = None,
    ) -> None:
        """``broken`` is told on the loop when the engine cannot go on; all requests have failed then. ``mixed``: see
        :class:`~plugins.llama_cpp.composing.Composer`."""
        self.figures = Figures()
        self._context = context
        self._model = context.model
        self._loop = loop
        self._broken = broken
        self._inbox: SimpleQueue[Sequence | None] = SimpleQueue()
        self._active: list[Sequence] = []
        self._admission = Admission(context)
        self._composer = Composer(context, self._admission, mixed=mixed)
        self._cancels = False
        self._crowded = False  # cells ran out, and nothing was computed since: nobody else comes in
        self._touched: dict[Channel, None] = {}
        self._urgent = False  # somebody's first words, or last
        self._delivered = 0.0
        self._wasteful: Sequence | None = None
        self._numbers = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._live, name="llama", daemon=True)

    # event loop

    def start(self) -> None:
        self._thread.start()

    def submit(self, sequences: Iterable[Sequence]) -> None:
        for sequence in sequences:
            sequence.channel.resume = self._poke
            self._inbox.put(sequence)

    def cancel(self, sequences: Iterable[Sequence]) -> None:
        """They end before the next step, or in this one if most of it would be for nothing."""
        open_ones = [sequence for sequence in sequences if not sequence.over]
        for sequence in open_ones:
            sequence.cancelled = True
            if sequence is self._wasteful:
                self._context.abort()
        if open_ones:
            self._cancels = True
            self._poke()

    def stop(self, timeout: float = 10.0) -> bool:
        """Ends the thread; what is under way fails. Returns False when it hangs."""
        self._stopping = True
        self._context.abort()
        self._poke()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def waiting(self) -> int:
        return self._admission.length + self._inbox.qsize()

    @property
    def active(self) -> int:
        return len(self._active)

    def _poke(self) -> None:
        self._inbox.put(None)

    # scheduler's thread

    def _live(self) -> None:
        reason = ""
        try:
            idle = True
            while not self._stopping:
                if idle or not self._inbox.empty():
                    self._receive(wait=idle)
                idle = not self._stopping and not self._step()
        except Broken as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001  # whatever it is, no request may wait for ever for this thread
            traceback.print_exc(file=sys.stderr)
            reason = f"{type(error).__name__}: {error}"
        self._fail_all(reason or "the model is being unloaded")
        if reason and self._broken is not None:
            self._call_loop(self._broken, reason)

    def _receive(self, *, wait: bool) -> None:
        """Takes what was handed over; with nothing to do, waits for something."""
        try:
            sequence = self._inbox.get(block=wait)
            while True:
                if sequence is not None:
                    self._numbers += 1
                    sequence.number = self._numbers
                    self._admission.add(sequence)
                sequence = self._inbox.get_nowait()
        except Empty:
            return

    def _step(self) -> bool:
        """One batch; False when there was nothing to compute."""
        began = time.perf_counter()
        if self._cancels:  # the flag first, then the look: a cancel that comes in between is seen next time
            self._cancels = False
            self._context.resume()
            self._drop_cancelled()
        if self._admission.length and not (self._crowded and self._active):
            for sequence in self._admission.admit(self._active):
                self._begin(sequence, began)
        entries = self._composer.fill(self._active)
        # What was said goes out now: from here on the interpreter's lock is free for the loop's thread.
        if self._touched and (self._urgent or not entries or began - self._delivered >= _GATHER_S):
            self._delivered, self._urgent = began, False
            self._deliver()
        if not entries:
            return False
        self._wasteful = self._composer.wasteful(entries)
        self.figures.since = before = time.perf_counter()
        code = self._context.run()
        computed = time.perf_counter()
        self._wasteful = None
        decoded = 0
        if code == DONE:
            self._composer.done(computed - before)
            self._crowded = False
            decoded = self._take_outputs(entries)
        else:
            self._recover(code, entries)
        self.figures.step(began, before, computed, prompts=self._composer.prompts, decoded=decoded)
        return True

    def _begin(self, sequence: Sequence, now: float) -> None:
        try:
            if sequence.sampler is None:
                sequence.begun_at = now
                sequence.sampler = sampling.Sampler(
                    self._model, sequence.sampling, seed=sequence.seed, prompt=sequence.tokens,
                    context=self._context.room, grammar=sequence.grammar,
                )  # fmt: skip
        except CallFailure as failure:
            self._end(sequence, failure=failure)
            return
        self._active.append(sequence)
        self._active.sort(key=lambda one: one.number)

    def _take_outputs(self, entries: list[Entry]) -> int:
        """Returns how many tokens were chosen."""
        chosen = 0
        for sequence, count, row in entries:
            sequence.past += count
            sequence.evaluated += count
            assert sequence.slot is not None
            sequence.slot.length = sequence.past
            if row >= 0 and not sequence.cancelled:
                self._choose(sequence, row)
                chosen += 1
        return chosen

    def _choose(self, sequence: Sequence, row: int) -> None:
        """The next token of one sequence, and what follows from it."""
        assert sequence.sampler is not None
        try:
            token = sequence.sampler.sample(self._context, row)
        except CallFailure as failure:
            self._end(sequence, failure=failure)
            return
        if not sequence.primed:
            sequence.primed = True
            sequence.first_at = time.perf_counter()
            self._admission.release_followers(sequence)
        if self._model.ends(token):
            self._end(sequence, "stop")
            return
        sequence.tokens.append(token)
        sequence.produced += 1
        choice = sequence.choice
        scored = self._score(sequence, row, token) if sequence.logprobs is not None else None
        extra = {"timings": sequence.timings().body()} if sequence.timed else None
        # A grammar knows control tokens by their names: what it let through must be what is said.
        piece = self._model.special_piece(token) if sequence.grammar else self._model.piece(token)
        chunk = choice.feed(token, piece, scored, extra)
        if chunk is not None:
            self._say(sequence.channel, chunk)
        if choice.stopped:
            self._end(sequence, "stop")
        elif sequence.produced >= sequence.limit:
            self._end(sequence, "length")

    def _score(self, sequence: Sequence, row: int, token: int) -> Scored:
        chosen = sampling.logprobs(self._context, row, token, sequence.logprobs or 0)
        piece = self._model.special_piece
        return Scored(
            Found(token, piece(token), chosen.logprob), tuple(Found(one, piece(one), log) for one, log in chosen.top)
        )

    # ends and troubles

    def _end(self, sequence: Sequence, reason: str = "", failure: Exception | None = None) -> None:
        sequence.ended_at = time.perf_counter()
        sequence.over = True
        sequence.reason = reason
        if sequence in self._active:
            self._active.remove(sequence)
        if sequence.sampler is not None:
            sequence.sampler.close()
            sequence.sampler = None
        self._admission.leave(sequence)
        self._admission.release_followers(sequence)
        if reason:
            closing = sequence.closing(sequence) if sequence.closing is not None else None
            for chunk in sequence.choice.finish(reason, closing):
                self._say(sequence.channel, chunk)
        sequence.channel.end(failure)
        self._urgent = True
        self._touched[sequence.channel] = None

    def _say(self, channel: Channel, chunk: bytes) -> None:
        channel.put(chunk)
        if channel.sent == 1:
            self._urgent = True
        self._touched[channel] = None

    def _drop_cancelled(self) -> None:
        gone = [sequence for sequence in self._active if sequence.cancelled] + self._admission.take_cancelled()
        for sequence in gone:
            self._end(sequence, failure=CallFailure("cancelled", "cancelled", sent="maybe"))

    def _recover(self, code: int, entries: list[Entry]) -> None:
        """The batch was not computed: back to where each of its sequences was, and another way next time.

        Raises:
            Broken: there is none.
        """
        for sequence, _, _ in entries:
            assert sequence.slot is not None
            sequence.past = sequence.slot.length = self._context.keep(sequence.slot.id, sequence.past)
        self._composer.failed()
        self.figures.retries += 1
        if code == ABORTED:
            return
        if code != NO_CELLS:
            raise Broken(f"llama_decode answered {code}: {last_error() or 'no reason given'}")
        self._crowded = True
        if self._admission.evict() or self._composer.shrink(entries):
            return
        if len(self._active) > 1:
            behind = [sequence for sequence in self._active if sequence.channel.full]
            self._send_back((behind or self._active)[-1])
        else:
            failure = CallFailure(
                "too_large",
                f"the context of {self._context.cells} tokens is full after {entries[0].sequence.past}",
                sent="yes", upstream_code="context_length_exceeded",
            )  # fmt: skip
            self._end(entries[0].sequence, failure=failure)

    def _send_back(self, sequence: Sequence) -> None:
        """Gives its cells to the others; it goes on later from all it has said."""
        self._active.remove(sequence)
        self._admission.send_back(sequence)
        self.figures.sent_back += 1

    def _deliver(self) -> None:
        touched, self._touched = list(self._touched), {}
        self._call_loop(_wake, touched)

    def _call_loop(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self._stopping = True

    def _fail_all(self, reason: str) -> None:
        self._receive(wait=False)
        left: deque[Sequence] = deque([*self._active, *self._admission.everybody()])
        while left:
            sequence = left.popleft()
            left.extend(sequence.followers)
            sequence.followers = []
            if not sequence.over:
                self._end(sequence, failure=CallFailure("unavailable", reason, sent="maybe"))
        self._deliver()


def _wake(channels: list[Channel]) -> None:
    for channel in channels:
        channel.wake()
