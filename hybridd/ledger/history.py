"""What ended when, kept small: from this a quota that is added, changed or learned later finds its past.

One :class:`History` for each (account, model). Rows stay the durable truth; this is their sum in memory, so that
``configure`` and ``observe`` stay synchronous: reading rows instead would need either a pause in which a reload
refuses calls, or a pause in which a new quota does not know its past, and rows still queued for the writer would have
to be merged in. Two forms, because windows come in two kinds:

* rolling: amounts by end, in groups that never span more than a thousandth of their age (10 ms when young). A window
  that looks back as far as *age* is at least *age* long, so a group is never coarser than that window's own buckets;
* calendar: amounts by quarter of an hour of UTC of the last instant at which the call can have been counted
  (e + skew). Every calendar boundary falls on a quarter of an hour, so this is exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from hybridd.ledger.reservation import Vector
from hybridd.ledger.windows import MIN_SLACK_NS, QUARTER_NS

COARSEST = 1000
FOLD_AT = 4096
COMPACT_FROM = 4096

Entry = tuple[int, int, Vector]


def _sum(vectors: Iterable[Vector]) -> Vector:
    return tuple(map(sum, zip(*vectors, strict=True)))  # type: ignore[return-value]  # eight columns in, eight sums out


class History:
    """Amounts of ended calls of one account and model. Instants are boot-time (ends) and wall-time (quarters) ns."""

    __slots__ = ("_compact_at", "ends", "horizon_ns", "quarters", "recent")

    def __init__(self, horizon_ns: int) -> None:
        self.horizon_ns = horizon_ns
        # (last end, first end, amounts), oldest first
        self.ends: list[Entry] = []
        self.quarters: dict[int, Vector] = {}
        # (end, quarter, amounts) not yet folded in: appending is all that the hot path pays
        self.recent: list[tuple[int, int, Vector]] = []
        self._compact_at = COMPACT_FROM

    def add(self, end: int, wall: int, amounts: Vector, now: int) -> None:
        """A call that ended at ``end``; ``wall`` is the last wall instant at which it can have been counted."""
        self.recent.append((end, wall // QUARTER_NS, amounts))
        if len(self.recent) >= FOLD_AT:
            self.fold(now)

    def load(self, end: int, begin: int, quarter: int, amounts: Vector) -> None:
        """A group read from rows: it ended within [begin, end], all in one quarter."""
        self.ends.append((end, begin, amounts))
        self._add_quarter(quarter, amounts)

    def fold(self, now: int) -> None:
        """Brings everything into its compact form; ``now`` is boot time."""
        recent, self.recent = self.recent, []
        for quarter, group in groupby(sorted(recent, key=_quarter_of), key=_quarter_of):
            self._add_quarter(quarter, _sum(amounts for _, _, amounts in group))
        recent.sort(key=_end_of)
        for _, together in groupby(recent, key=_bucket_of):
            members = list(together)
            self.ends.append((members[-1][0], members[0][0], _sum(amounts for _, _, amounts in members)))
        self.ends.sort(key=_end_of)
        if len(self.ends) >= self._compact_at:
            self._compact(now)

    def rolling(self, now: int) -> Iterator[tuple[int, Vector]]:
        """(end, amounts), oldest first. An end is never earlier than the true one."""
        self.fold(now)
        return ((end, amounts) for end, _, amounts in self.ends)

    def since_quarter(self, wall: int, unit: int, now: int) -> int:
        """The amount that can have been counted at or after ``wall``, a calendar boundary."""
        self.fold(now)
        first = wall // QUARTER_NS
        return sum(amounts[unit] for quarter, amounts in self.quarters.items() if quarter >= first)

    def last_quarter(self, now: int) -> int:
        self.fold(now)
        return max(self.quarters, default=0)

    def _add_quarter(self, quarter: int, amounts: Vector) -> None:
        before = self.quarters.get(quarter)
        self.quarters[quarter] = amounts if before is None else _sum((before, amounts))

    def _compact(self, now: int) -> None:
        """Merges neighbours as far as their age allows and forgets what is past the horizon."""
        merged: list[Entry] = []
        for entry in self.ends:
            end, _, amounts = entry
            if end < now - self.horizon_ns:
                continue
            if merged:
                _, first, before = merged[-1]
                if end - first <= max(MIN_SLACK_NS, (now - end) // COARSEST):
                    merged[-1] = (end, first, _sum((before, amounts)))
                    continue
            merged.append(entry)
        self.ends = merged
        self._compact_at = max(COMPACT_FROM, 2 * len(merged))
        if len(self.quarters) > 2 * self.horizon_ns // QUARTER_NS:
            newest = max(self.quarters)
            keep = newest - self.horizon_ns // QUARTER_NS
            self.quarters = {quarter: amounts for quarter, amounts in self.quarters.items() if quarter >= keep}


def _end_of(entry: tuple[int, int, Vector]) -> int:
    return entry[0]


def _quarter_of(entry: tuple[int, int, Vector]) -> int:
    return entry[1]


def _bucket_of(entry: tuple[int, int, Vector]) -> int:
    return entry[0] // MIN_SLACK_NS
