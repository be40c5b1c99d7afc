"""Which sequence's cells a new prompt can go on from. Pure: the cells themselves are :class:`context.Context`'s.

A slot is one of llama.cpp's sequences. After an answer its tokens stay in the cache until somebody needs the cells; a
prompt that begins with them is evaluated from there on.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

# Copying fewer tokens than this from another slot is not worth a copy.
MIN_COPY = 16
# Where each slot has cells of its own, llama.cpp copies all of them, used or not. A cell is copied some hundred times
# faster than a token is evaluated; that share of a slot must be of use at least.
_COPIED_SHARE = 32


class Slot:
    """``tokens[:length]`` are in its cells. ``busy``: a request is on it. ``used``: when last, counted up."""

    __slots__ = ("busy", "id", "length", "tokens", "used")

    def __init__(self, id: int) -> None:
        self.id = id
        self.tokens = array("i")
        self.length = 0
        self.busy = False
        self.used = 0


class Place(NamedTuple):
    """Take ``slot`` and keep ``reuse`` tokens: its own, or those of ``source``, which are to be copied."""

    slot: Slot
    source: Slot | None
    reuse: int


class Slots:
    """All slots of a context. ``own``: cells of each where they do not share them; 0: they do."""

    def __init__(self, count: int, *, own: int = 0) -> None:
        self.all = [Slot(id) for id in range(count)]
        self._own = own > 0
        self._min_copy = max(MIN_COPY, own // _COPIED_SHARE)
        self._clock = 0

    @property
    def idle(self) -> list[Slot]:
        return [slot for slot in self.all if not slot.busy]

    def take(self, slot: Slot, tokens: array[int], length: int) -> None:
        """A request works on ``slot``; ``tokens`` is its own growing list."""
        slot.tokens, slot.length, slot.busy = tokens, length, True
        self._touch(slot)

    def release(self, slot: Slot) -> None:
        """The request is over; what it evaluated stays for others."""
        slot.tokens = slot.tokens[: slot.length]
        slot.busy = False
        self._touch(slot)

    def oldest(self) -> Slot | None:
        """The idle slot whose cells are to be given up first; None when no idle slot has any."""
        held = [slot for slot in self.all if slot.length and not slot.busy]
        return min(held, key=lambda slot: slot.used) if held else None

    def choose(self, prompt: array[int], *, exact: bool = False, reuse: bool = True) -> Place | None:
        """Where ``prompt`` goes; None when every slot is busy.

        Args:
            prompt: at least its last token is always evaluated, because its output is wanted.
            exact: memory that cannot be cut (a recurrent state) is of use only if the prompt begins with all of it.
            reuse: False: start from nothing.
        """
        idle = self.idle
        if not idle:
            return None
        last = self._next(idle)
        if not reuse:
            return Place(last, None, 0)
        best, length = None, 0
        for slot in self.all:
            found = common(prompt, slot.tokens, min(len(prompt) - 1, slot.length))
            if exact and found < slot.length:
                found = 0
            if found > length or (found == length > 0 and best is not None and best.busy and not slot.busy):
                best, length = slot, found
        if best is None:
            return Place(last, None, 0)
        # What would be lost by taking it over: the rest of somebody's conversation.
        if not best.busy and (2 * length >= best.length or len(idle) == 1):
            return Place(best, None, length)
        if length < self._min_copy:
            return Place(last, None, 0)
        return Place(self._next([slot for slot in idle if slot is not best]), best, length)

    def _next(self, idle: list[Slot]) -> Slot:
        """The one to be taken over when nothing in it is of use: empty ones first, then the longest unused.

        Slots with cells of their own are computed together only where their numbers follow each other (llama.cpp's
        ``split_equal``): there, a neighbour of those at work comes first.
        """
        busy = [slot.id for slot in self.all if slot.busy] if self._own else []
        low, high = (min(busy) - 1, max(busy) + 1) if busy else (0, len(self.all))
        return min(idle, key=lambda slot: (not low <= slot.id <= high, slot.length > 0, slot.used))

    def _touch(self, slot: Slot) -> None:
        self._clock += 1
        slot.used = self._clock


def common(left: array[int], right: array[int], limit: int) -> int:
    """How many tokens both begin with, ``limit`` at most."""
    if limit <= 0 or left[0] != right[0]:
        return 0
    size = left.itemsize
    a, b = left[:limit].tobytes(), right[:limit].tobytes()
    if a == b:
        return limit
    low, high = 1, limit  # a[:low] == b[:low]; a[:high] != b[:high]
    while high - low > 1:
        middle = (low + high) // 2
        if a[low * size : middle * size] == b[low * size : middle * size]:
            low = middle
        else:
            high = middle
    return low
