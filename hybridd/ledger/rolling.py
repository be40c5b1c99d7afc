"""Counters on the boot clock: rolling windows, arrival-counted ones, and open calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hybridd.clocks import NS
from hybridd.contracts.quotas import Quota
from hybridd.ledger.counters import Counter
from hybridd.ledger.history import History
from hybridd.ledger.reservation import Reservation
from hybridd.ledger.windows import NEVER, SlidingLog, bucket_ns, hold_ns, round_up

OPEN_RETRY_NS = NS
"""Waiting time told when only the end of an open call can make room: nobody knows when, so look again soon."""


class RollingCounter(Counter):
    __slots__ = ("after", "log")

    def __init__(self, quota: Quota) -> None:
        super().__init__(quota)
        seconds = quota.window.seconds or 0
        self.after = hold_ns(seconds)
        self.log = SlidingLog(bucket_ns(seconds))

    def fits(self, need: int, now: int, wall: int) -> bool:
        log = self.log
        if now >= log.next:
            self.hold -= log.expire(now)
        if self.hold + need > self.cap:
            return False
        return self.observed is None or need <= self.theirs(now)

    def end(self, need: int, charged: int, end: int, now: int, call: Reservation, end_wall: int) -> None:
        self.book(need, charged, end, now, call.id)
        self.hold += charged - need
        if charged:
            self.log.add(end + self.after, charged)

    def held(self, now: int, wall: int) -> int:
        self.hold -= self.log.expire(now)
        return self.hold

    def own_wait(self, need: int, now: int, wall: int) -> int:
        missing = self.held(now, wall) + need - self.cap
        if missing <= 0:
            return 0
        at = self.log.free_at(missing)
        if at is None:
            # Open calls must end first: at the earliest now, and then they count for another window.
            logged = sum(self.log.amounts.values())
            later = self.log.free_at(max(0, missing - (self.hold - logged)))
            at = max(round_up(now + self.after, self.log.width), later or 0)
        return at - now

    def reset_wait(self, now: int, wall: int) -> int | None:
        self.held(now, wall)
        return None if self.log.next == NEVER else self.log.next - now

    def returns(self, now: int, wall: int) -> Iterable[tuple[int, int]]:
        return ((at - now, amount) for at, amount in self.log.items())

    def rebuild(self, histories: Sequence[History], now: int, wall: int) -> None:
        super().rebuild(histories, now, wall)
        unit, after = self.unit, self.after
        for history in histories:
            for end, amounts in history.rolling(now):
                if end + after > now and amounts[unit]:
                    self.hold += amounts[unit]
                    self.log.add(end + after, amounts[unit])


class ArrivalCounter(RollingCounter):
    """For providers known to count arrivals: from the first byte on, the call's end no longer matters."""

    __slots__ = ()

    def first_byte(self, need: int, at: int) -> None:
        if need:
            self.log.add(at + self.after, need)

    def adopt(self, need: int, call: Reservation, now: int) -> None:
        super().adopt(need, call, now)
        if call.first_byte_boot_ns is not None:
            self.first_byte(need, call.first_byte_boot_ns)

    def end(self, need: int, charged: int, end: int, now: int, call: Reservation, end_wall: int) -> None:
        first = call.first_byte_boot_ns
        if first is None:
            super().end(need, charged, end, now, call, end_wall)
            return
        self.book(need, charged, end, now, call.id)
        if charged < need:
            self.hold -= self.log.take_back(first + self.after, need - charged)
        elif charged > need:
            self.hold += charged - need
            self.log.add(end + self.after, charged - need)


class OpenCounter(RollingCounter):
    """``concurrent``: one for each open call, until *e* (an instant in the future when the call lingers)."""

    __slots__ = ()

    def __init__(self, quota: Quota) -> None:
        super().__init__(quota)
        self.after = 0
        self.log = SlidingLog(1)

    def fits(self, need: int, now: int, wall: int) -> bool:
        log = self.log
        if now >= log.next:
            self.hold -= log.expire(now)
        return self.hold + need <= self.cap

    def end(self, need: int, charged: int, end: int, now: int, call: Reservation, end_wall: int) -> None:
        if charged and end > now:
            self.book(need, charged, end, now, call.id)
            self.log.add(end, charged)
        else:
            self.book(need, charged, now, now, call.id)
            self.hold -= need

    def theirs(self, now: int) -> int:
        """A figure of open calls is stale when it arrives; only a reported limit is respected."""
        return NEVER

    def own_wait(self, need: int, now: int, wall: int) -> int:
        missing = self.held(now, wall) + need - self.cap
        if missing <= 0:
            return 0
        at = self.log.free_at(missing)
        return OPEN_RETRY_NS if at is None else at - now
