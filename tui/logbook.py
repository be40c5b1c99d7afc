"""What is known of the daemon's log: records that came by themselves, and pages that were asked for.

Records have numbers without gaps within one run of the daemon, so it is known from which on nothing is missing. Older
ones are shown once the pages in between are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hybridd.client import wire
from hybridd.client.wire import Call
from hybridd.contracts.views import LogPage, LogView

MOST = 5000
MOST_CHARACTERS = 4_000_000
PAGE = 500


class Logbook:
    """``records``: oldest first. ``joined``: what came by itself and the newest page follow one another; ``more``: the
    daemon may keep older ones; ``whole_from``: from this id on nothing is missing, None: nothing is known; ``pages``:
    so many have come.

    ``left_out``: records that came too fast to be told and were not asked for yet; ``lost``: those of this run that the
    daemon no longer keeps; ``level``: what is less is not logged at all; ``since``: the time of the oldest record kept.
    """

    def __init__(self) -> None:
        self.records: list[LogView] = []
        self.joined = False
        self.more = True
        self.whole_from: int | None = None
        self.pages = 0
        self.left_out = 0
        self.lost = 0
        self.level = ""
        self.since: float | None = None
        self._characters = 0

    def __len__(self) -> int:
        return len(self.records)

    @property
    def newest(self) -> int:
        return self.records[-1].id if self.records else 0

    def begin(self) -> None:
        """A new connection: something may have been logged meanwhile, by another run of the daemon even."""
        self.joined, self.more, self.whole_from, self.left_out = False, True, None, 0

    def take(self, record: LogView) -> None:
        """It came by itself."""
        if record.id <= self.newest:
            return
        if self.whole_from is None:
            self.whole_from = record.id
        self.records.append(record)
        self._grown([record])

    def gap(self, last: int, count: int) -> None:
        """``count`` records up to the id ``last`` were not told."""
        self.joined, self.more, self.whole_from = False, True, last + 1
        self.left_out += count

    def page(self, page: LogPage) -> None:
        """An answer of the daemon without a filter. One that does not reach what came since is of no use."""
        self.pages += 1
        self.lost, self.level, self.since = page.lost, page.level, page.oldest
        whole = self.whole_from
        reaches = not page.logs or whole is None or page.logs[0].id >= whole - 1
        if not reaches:
            return
        self.joined, self.left_out = True, 0
        if not page.logs:
            self.more = False
            return
        oldest = page.logs[-1].id
        if whole is None or oldest <= whole:
            self.whole_from = oldest
            self.more = page.next is not None
        known = {one.id for one in self.records}
        new = [one for one in page.logs if one.id not in known]
        self.records = sorted([*self.records, *new], key=lambda one: one.id)
        self._grown(new)

    def _grown(self, new: Sequence[LogView]) -> None:
        """By these: the oldest make room."""
        self._characters += sum(map(_characters, new))
        drop = 0
        while len(self.records) - drop > MOST or (self._characters > MOST_CHARACTERS and drop < len(self.records) - 1):
            self._characters -= _characters(self.records[drop])
            drop += 1
        del self.records[:drop]

    @property
    def full(self) -> bool:
        return len(self.records) >= MOST or self._characters > MOST_CHARACTERS * 0.9

    def rows(self) -> list[LogView]:
        """Newest first, as far down as nothing is missing in between."""
        if self.joined and self.more and self.whole_from is not None:
            return [one for one in reversed(self.records) if one.id >= self.whole_from]
        return self.records[::-1]

    def next_call(self) -> Call | None:
        """The query for what is missing: the newest page, then older ones; None: nothing is."""
        if not self.joined:
            return wire.get("/v1/logs", limit=PAGE)
        if self.more and not self.full:
            return wire.get("/v1/logs", limit=PAGE, before=self.whole_from)
        return None


def _characters(record: LogView) -> int:
    return 500 + len(record.message) + len(record.exception or "") + sum(map(_length, record.fields.values()))


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str) else 20
