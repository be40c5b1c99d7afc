"""Who gets a slot and its cells, and who gives them up. Runs in the scheduler's thread.

First come, first served; a request whose prompt does not fit yet lets later ones pass, but only so often. Cells of
answers that are over are kept for prompts that begin alike, and given up, longest unused first, when they are needed.
"""

from __future__ import annotations

from collections import deque

from plugins.llama_cpp.context import Context
from plugins.llama_cpp.prefix import Slots
from plugins.llama_cpp.sequence import Sequence

# So many later requests may pass one that waits for cells.
PASSES = 8
# Cells that an answer is expected to grow by before others end: less would mean sending back and forth.
GROWTH = 64


class Admission:
    def __init__(self, context: Context) -> None:
        self.slots = Slots(context.sequences, own=0 if context.unified else context.room)
        self._context = context
        # Cells are shared only where the cache is; a recurrent state has none to share.
        self._cells = context.cells if context.unified and context.memory else 0
        self._waiting: deque[Sequence] = deque()
        self._parked: list[Sequence] = []
        self._free = 0  # cells at least, as last counted; what is freed meanwhile is found when they end

    @property
    def length(self) -> int:
        return len(self._waiting) + len(self._parked)

    def add(self, sequence: Sequence) -> None:
        leader = sequence.leader
        if leader is not None and not leader.primed and not leader.over:
            leader.followers.append(sequence)
        else:
            self._waiting.append(sequence)

    def release_followers(self, leader: Sequence) -> None:
        """Its prompt is evaluated (or never will be): the other answers to it may start, before whoever came later."""
        for sequence in reversed(leader.followers):
            self._waiting.appendleft(sequence)
        leader.followers.clear()

    def admit(self, active: list[Sequence]) -> list[Sequence]:
        """Those that got a slot now, with what could be reused already in it."""
        if self._parked:
            self._unpark()
        admitted: list[Sequence] = []
        passed = 0  # who stays in front of the one looked at
        while passed < len(self._waiting):
            sequence = self._waiting[passed]
            if self._place(sequence, [*active, *admitted]):
                del self._waiting[passed]
                admitted.append(sequence)
                for one in list(self._waiting)[:passed]:
                    one.passed += 1
            elif self._park(active):
                continue
            elif not self.slots.idle or sequence.passed >= PASSES:
                break
            else:
                passed += 1
        return admitted

    def send_back(self, sequence: Sequence) -> None:
        """Out of its slot, first in the queue; unless its reader is behind anyway."""
        self.leave(sequence)
        if sequence.channel.full:
            self._parked.append(sequence)
        else:
            self._waiting.appendleft(sequence)

    def leave(self, sequence: Sequence) -> None:
        """It needs its slot no more; what it evaluated stays for others unless it must not."""
        slot = sequence.slot
        if slot is None:
            return
        sequence.slot = None
        sequence.past = 0
        self.slots.release(slot)
        if not sequence.cache:
            slot.length = self._context.keep(slot.id, 0)

    def make_room(self, rows: int) -> None:
        """Gives up kept cells so that ``rows`` more tokens find some."""
        self._free -= rows
        if self._free >= 0 or not self._cells:
            return
        while (free := self._cells - self._held() - rows) < 0 and self.evict():
            continue
        self._free = free

    def evict(self) -> bool:
        """Gives up the cells that were used longest ago; False when none are kept."""
        slot = self.slots.oldest()
        if slot is None:
            return False
        slot.length = self._context.keep(slot.id, 0)
        return True

    def take_cancelled(self) -> list[Sequence]:
        gone = [sequence for sequence in (*self._waiting, *self._parked) if sequence.cancelled]
        if gone:
            self._waiting = deque(sequence for sequence in self._waiting if not sequence.cancelled)
            self._parked = [sequence for sequence in self._parked if not sequence.cancelled]
        return gone

    def everybody(self) -> list[Sequence]:
        """All that wait; afterwards none do."""
        found = [*self._waiting, *self._parked]
        self._waiting.clear()
        self._parked.clear()
        return found

    def _place(self, sequence: Sequence, active: list[Sequence]) -> bool:
        if self._cells and active and self._planned(active) + _growing(sequence) > self._cells:
            return False
        place = self.slots.choose(sequence.tokens, exact=self._context.model.recurrent, reuse=sequence.cache)
        if place is None:
            return False
        slot, source, reuse = place
        kept = self._context.keep(slot.id, reuse) if source is None else self._context.copy(source.id, slot.id, reuse)
        sequence.slot = slot
        sequence.past = kept
        if sequence.sampler is None:  # otherwise it comes back to what it had itself
            sequence.reused = min(kept, sequence.prompt)
        self.slots.take(slot, sequence.tokens, kept)
        return True

    def _planned(self, active: list[Sequence]) -> int:
        # Cells that are shared count for each: how long they stay shared is not known.
        return sum(map(_growing, active))

    def _held(self) -> int:
        return sum(slot.length for slot in self.slots.all)

    def _park(self, active: list[Sequence]) -> bool:
        """A reader that is behind gives its slot and its cells to one that is not."""
        behind = [sequence for sequence in active if sequence.channel.full]
        if not behind:
            return False
        sequence = behind[0]
        active.remove(sequence)
        self.leave(sequence)
        self._parked.append(sequence)
        return True

    def _unpark(self) -> None:
        back = [sequence for sequence in self._parked if not sequence.channel.full]
        for sequence in reversed(back):
            self._parked.remove(sequence)
            self._waiting.appendleft(sequence)


def _growing(sequence: Sequence) -> int:
    return len(sequence.tokens) + min(GROWTH, sequence.limit - sequence.produced)
