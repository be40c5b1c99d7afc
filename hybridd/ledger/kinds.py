"""Which counter a quota needs, and the one for limits whose window nobody knows."""

from __future__ import annotations

from hybridd.contracts.quotas import Quota
from hybridd.ledger.counters import UNKNOWN_WINDOW_NS, Counter
from hybridd.ledger.observed import Observed
from hybridd.ledger.periodic import CalendarCounter
from hybridd.ledger.reservation import Reservation
from hybridd.ledger.rolling import ArrivalCounter, OpenCounter, RollingCounter


class ReportCounter(Counter):
    """A limit whose window nobody knows. Without a live figure it lets at most ``limit`` through each minute: one
    answer then brings the next figure, and a burst right after a reset cannot run past the limit."""

    __slots__ = ()

    def fits(self, need: int, now: int, wall: int) -> bool:
        return need <= self.theirs(now)

    def theirs(self, now: int) -> int:
        if self.observed is None:
            self.observation_over(now)
        return super().theirs(now)

    def observation_over(self, now: int) -> None:
        self.observed = Observed(
            self.limit, base=self.mark(now), until=now + UNKNOWN_WINDOW_NS, as_of=now, assumed=True
        )

    def end(self, need: int, charged: int, end: int, now: int, call: Reservation, end_wall: int) -> None:
        self.book(need, charged, end, now, call.id)
        self.hold -= need

    def held(self, now: int, wall: int) -> int:
        return self.limit - self.quota.buffer - self.theirs(now)

    def own_wait(self, need: int, now: int, wall: int) -> int:
        return 0

    def reset_wait(self, now: int, wall: int) -> int | None:
        self.theirs(now)
        return None if self.observed is None else self.observed.until - now


def make_counter(quota: Quota, skew_ns: int) -> Counter:
    """The kind of counter a quota needs."""
    if quota.unit == "concurrent":
        return OpenCounter(quota)
    if quota.window.calendar is not None:
        return CalendarCounter(quota, skew_ns)
    if quota.window.seconds is not None:
        return ArrivalCounter(quota) if quota.counted == "arrival" else RollingCounter(quota)
    return ReportCounter(quota)
