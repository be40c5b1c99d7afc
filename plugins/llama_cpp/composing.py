"""The next batch: a token of everybody who decodes, and pieces of prompts. Runs in the scheduler's thread.

Between two batches the processor's caches hold the model, not us, so what runs there is several times slower than it
looks: the usual batch, that of the step before one token further, is made in a way of its own.
"""

from __future__ import annotations

from typing import NamedTuple

from plugins.llama_cpp.admission import Admission
from plugins.llama_cpp.batching import Pace, shares
from plugins.llama_cpp.context import Context
from plugins.llama_cpp.sequence import Sequence

# A step may be cut off for a cancel when this share of it, and so many tokens, would be for nothing.
_WASTED_SHARE = 0.5
_WASTED_TOKENS = 64


class Entry(NamedTuple):
    """``size`` tokens of one sequence; ``row``: of the output that is wanted; -1 while the prompt is not at its end."""

    sequence: Sequence
    size: int
    row: int


class Composer:
    """``prompts``: tokens of prompts in the last batch."""

    def __init__(self, context: Context, admission: Admission, *, mixed: bool = True) -> None:
        """``mixed``: prompts and decoded tokens share a batch; otherwise they take turns."""
        self.prompts = 0
        self._context = context
        self._admission = admission
        self._mixed = mixed
        self._pace = Pace(context.capacity, context.micro_batch)
        self._limit = 0  # of prompt tokens, after cells ran out; 0: none
        self._before: list[Sequence] = []
        self._entries: list[Entry] = []

    def fill(self, active: list[Sequence]) -> list[Entry]:
        """Who decodes comes first, then pieces of prompts, oldest first. Empty: there is nothing to compute."""
        ready = [one for one in active if not one.channel.full]
        prompts = [one for one in ready if len(one.tokens) - one.past > 1]
        if not prompts:
            return self._decode(ready)
        decoding = [one for one in ready if len(one.tokens) - one.past == 1]
        if decoding and self.prompts and not self._mixed:
            return self._decode(decoding)
        return self._evaluate(decoding, prompts)

    def done(self, seconds: float) -> None:
        """The batch was computed in that time."""
        self._limit = 0
        self._pace.measured(self.prompts, seconds)

    def failed(self) -> None:
        """The batch was not computed; what it would have been is forgotten."""
        self._before = []

    def shrink(self, entries: list[Entry]) -> bool:
        """No cells: fewer tokens of prompts next time. False when there are none to leave out."""
        largest = max(entry.size for entry in entries)
        if largest > 1:
            self._limit = max(1, largest // 2)
        return largest > 1

    def wasteful(self, entries: list[Entry]) -> Sequence | None:
        """Whose cancel would make this batch not worth finishing."""
        if not self.prompts:
            return None
        largest = max(entries, key=lambda entry: entry.size)
        if largest.size < max(_WASTED_TOKENS, _WASTED_SHARE * self._context.rows):
            return None
        # A recurrent state cannot be taken back: the others would lose all they have.
        return largest.sequence if len(entries) == 1 or not self._context.model.recurrent else None

    def _decode(self, ready: list[Sequence]) -> list[Entry]:
        self.prompts = 0
        if len(ready) > self._context.capacity:
            ready = ready[: self._context.capacity]
        self._admission.make_room(len(ready))
        ready = self._ordered(ready)
        if ready and ready == self._before:
            self._context.again([one.tokens[-1] for one in ready])
            return self._entries
        self._context.begin()
        self._entries = self._put_tokens(ready)
        self._before = ready
        return self._entries

    def _evaluate(self, decoding: list[Sequence], prompts: list[Sequence]) -> list[Entry]:
        """Pieces of prompts, behind the tokens of who decodes if they may share a batch."""
        context = self._context
        needs = [one.need for one in prompts]
        budget = self._pace.budget(len(decoding), needs)
        if self._limit:
            budget = min(budget, self._limit)
        given = shares(needs, budget)
        decoding = decoding[: context.capacity - 1] if self._mixed else []
        self.prompts = sum(given)
        self._admission.make_room(len(decoding) + self.prompts)
        self._before = []
        context.begin()
        entries = self._put_tokens(self._ordered(decoding))
        for sequence, count in zip(prompts, given, strict=True):
            if count:
                assert sequence.slot is not None
                end = sequence.past + count
                last = end == len(sequence.tokens)
                row = context.put_run(sequence.tokens, sequence.past, end, sequence.slot.id, outputs=int(last))
                entries.append(Entry(sequence, count, row if last else -1))
        return entries

    def _ordered(self, decoding: list[Sequence]) -> list[Sequence]:
        """llama.cpp computes sequences with cells of their own together only in the order of their numbers."""
        return decoding if self._context.unified else sorted(decoding, key=_slot)

    def _put_tokens(self, ready: list[Sequence]) -> list[Entry]:
        entries = []
        for sequence in ready:
            assert sequence.slot is not None
            row = self._context.put(sequence.tokens[-1], sequence.past, sequence.slot.id)
            entries.append(Entry(sequence, 1, row))
        return entries


def _slot(sequence: Sequence) -> int:
    assert sequence.slot is not None
    return sequence.slot.id
