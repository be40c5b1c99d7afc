"""Counters on the wall clock: calendar hours, days and months in a zone."""

from __future__ import annotations

from collections.abc import Sequence

from hybridd.contracts.quotas import Quota
from hybridd.ledger.counters import Counter
from hybridd.ledger.history import History
from hybridd.ledger.reservation import Reservation
from hybridd.ledger.windows import QUARTER_NS, Periods

KEPT_PERIODS = 16
"""Periods remembered: far more than a wall clock can step back unnoticed."""


class CalendarCounter(Counter):
    __slots__ = ("periods", "skew", "used")

    def __init__(self, quota: Quota, skew_ns: int) -> None:
        super().__init__(quota)
        assert quota.window.calendar is not None
        self.periods = Periods(quota.window.calendar, quota.window.zone)
        self.skew = skew_ns
        # start of a period → what ended calls used in it
        self.used: dict[int, int] = {}

    def fits(self, need: int, now: int, wall: int) -> bool:
        first, last = wall - self.skew, wall + self.skew
        start, end = self.periods.at(first)
        room = self.cap - self.hold - need
        if self.used.get(start, 0) > room:
            return False
        while end <= last:
            start, end = self.periods.at(end)
            if self.used.get(start, 0) > room:
                return False
        return self.observed is None or need <= self.theirs(now)

    def end(self, need: int, charged: int, end: int, now: int, call: Reservation, end_wall: int) -> None:
        self.book(need, charged, end, now, call.id)
        self.hold -= need
        if not charged:
            return
        used, skew, admitted = self.used, self.skew, call.admitted_wall_ns
        first = (admitted if admitted < end_wall else end_wall) - skew  # min() costs a call here
        last = (end_wall if admitted < end_wall else admitted) + skew
        start, stop = self.periods.at(first)
        used[start] = used.get(start, 0) + charged
        while stop <= last:
            start, stop = self.periods.at(stop)
            used[start] = used.get(start, 0) + charged
        if len(used) > KEPT_PERIODS:
            self._forget()

    def _forget(self) -> None:
        """Far more than the clock can step back without somebody noticing."""
        for start in sorted(self.used)[:-KEPT_PERIODS]:
            del self.used[start]

    def held(self, now: int, wall: int) -> int:
        touched = self.periods.touched(wall - self.skew, wall + self.skew)
        return self.hold + max(self.used.get(start, 0) for start, _ in touched)

    def own_wait(self, need: int, now: int, wall: int) -> int:
        if self.fits_own(need, wall, self.hold):
            return 0
        at, hold = wall, self.hold
        while True:
            blocked = [
                end
                for start, end in self.periods.touched(at - self.skew, at + self.skew)
                if self.used.get(start, 0) + hold + need > self.cap
            ]
            if not blocked:
                return at - wall
            # Open calls may end before a later period begins, so only what has ended counts there.
            at, hold = blocked[-1] + self.skew, 0

    def fits_own(self, need: int, wall: int, hold: int) -> bool:
        touched = self.periods.touched(wall - self.skew, wall + self.skew)
        return all(self.used.get(start, 0) + hold + need <= self.cap for start, _ in touched)

    def reset_wait(self, now: int, wall: int) -> int | None:
        return self.periods.at(wall)[1] - wall

    def rebuild(self, histories: Sequence[History], now: int, wall: int) -> None:
        """Past calls of a period that is not over are those that can have been counted at or after its start."""
        super().rebuild(histories, now, wall)
        newest = max((history.last_quarter(now) for history in histories), default=0)
        last = max(wall + self.skew, newest * QUARTER_NS)
        # The period before is kept too: the wall clock may be set back a little.
        first = self.periods.at(self.periods.at(wall - self.skew)[0] - 1)[0]
        for count, (start, _) in enumerate(self.periods.touched(first, last)):
            if count >= KEPT_PERIODS:
                break
            used = sum(history.since_quarter(start, self.unit, now) for history in histories)
            if used:
                self.used[start] = used
