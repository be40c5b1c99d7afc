"""Window arithmetic: pure functions and small structures of integers. No clock, no I/O.

All instants are nanoseconds. Rolling windows live on CLOCK_BOOTTIME, calendar periods on UTC wall time.

Why the rules are exact (``docs/ledger.md`` has the long form). A provider sees a call arrive somewhere between our
admission *a* and its end *e*. Take any window of the provider's, and among the calls that arrive in it the one we
admitted last. Every other one of them arrived after the window began, so its *e* lies after that beginning too; a call
counts until at least *e* + window, hence all of them were still counted at that last admission, which found room.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from heapq import heappop, heappush
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from hybridd.clocks import NS
from hybridd.contracts.quotas import Calendar
from hybridd.errors import ConfigError

NEVER = 1 << 62
MIN_SLACK_NS = 10_000_000
QUARTER_NS = 900 * NS
"""Every calendar boundary of a present-day zone falls on a quarter of an hour of UTC."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)  # noqa: UP017  # datetime.UTC is the same object; this reads better


def bucket_ns(window_seconds: int) -> int:
    """Width of a rolling window's buckets: window/1000."""
    return window_seconds * (NS // 1000)


def slack_ns(window_seconds: int) -> int:
    """max(10 ms, window/1000): covers clock rates that differ by up to 0.1 % and a provider's own rounding."""
    return max(MIN_SLACK_NS, bucket_ns(window_seconds))


def hold_ns(window_seconds: int) -> int:
    """How long after *e* an amount still counts."""
    return window_seconds * NS + slack_ns(window_seconds)


def round_up(instant: int, width: int) -> int:
    """The first multiple of ``width`` that is not before ``instant``."""
    return -(-instant // width) * width


def age_ns(*, same_boot: bool, then_boot: int, then_wall: int, now_boot: int, now_wall: int) -> int:
    """How long ago something recorded as (boot time, wall time) happened.

    Within a boot the boot clock answers exactly. Across boots: the wall difference, but never less than the machine
    has been up, because it happened before this boot began. Negative only within a boot, for an instant to come.
    """
    if same_boot:
        return now_boot - then_boot
    return max(now_wall - then_wall, now_boot)


class SlidingLog:
    """Amounts with the instant at which each stops counting, coalesced in buckets whose end is rounded UP.

    Adding and expiring are O(1) amortised (a heap push for each new bucket, of which a window has about a thousand).
    Instants may come in any order: lingering calls and arrival-counted ones do not end in the order they were added.
    """

    __slots__ = ("amounts", "due", "next", "width")

    def __init__(self, width: int) -> None:
        self.width = width
        self.amounts: dict[int, int] = {}
        self.due: list[int] = []
        self.next = NEVER

    def add(self, until: int, amount: int) -> None:
        """``amount`` counts until ``until``, rounded up to a bucket's end."""
        end = -(-until // self.width) * self.width
        amounts = self.amounts
        if end in amounts:
            amounts[end] += amount
        else:
            amounts[end] = amount
            heappush(self.due, end)
            self.next = min(self.next, end)

    def take_back(self, until: int, amount: int) -> int:
        """Stops counting ``amount`` added under the same ``until``; returns what was still there."""
        end = round_up(until, self.width)
        if end not in self.amounts:
            return 0
        self.amounts[end] -= amount
        return amount

    def expire(self, now: int) -> int:
        """Forgets everything due at ``now`` and returns the sum."""
        due, amounts = self.due, self.amounts
        freed = 0
        while due and due[0] <= now:
            freed += amounts.pop(heappop(due))
        self.next = due[0] if due else NEVER
        return freed

    def free_at(self, amount: int) -> int | None:
        """The instant by which at least ``amount`` has stopped counting; None when the log holds less than that."""
        self.due.sort()  # a sorted list is a heap, so this costs nothing later
        for end in self.due:
            amount -= self.amounts[end]
            if amount <= 0:
                return end
        return None

    def items(self) -> Iterator[tuple[int, int]]:
        """(instant, amount), earliest first."""
        self.due.sort()
        return ((end, self.amounts[end]) for end in self.due)


class Periods:
    """The calendar periods of one zone: a partition of time into [start, end), in UTC nanoseconds.

    A day or month begins at the first instant of its local date: 23, 25 or (where a zone skips a date) 0 hours are all
    fine. An hour runs from one full local hour to the next, so that a zone half an hour off UTC, or one that shifts by
    half an hour, still gets a partition.
    """

    __slots__ = ("_end", "_start", "kind", "zone")

    def __init__(self, kind: Calendar, zone: str) -> None:
        """Raises ConfigError for a zone nobody knows."""
        try:
            self.zone = ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ConfigError(
                f"unknown time zone {zone!r}: use an IANA name such as UTC or America/Sao_Paulo"
            ) from error
        self.kind = kind
        self._start = 0
        self._end = 0

    def at(self, wall: int) -> tuple[int, int]:
        """(start, end) of the period that contains ``wall``."""
        if not self._start <= wall < self._end:
            find = self._hour if self.kind == "hour" else self._day if self.kind == "day" else self._month
            self._start, self._end = find(wall)
        return self._start, self._end

    def touched(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Every period that has an instant in the closed interval [first, last], in order."""
        start, end = self.at(first)
        while True:
            yield start, end
            if end > last:
                return
            start, end = self.at(end)

    def _hour(self, wall: int) -> tuple[int, int]:
        start = wall // QUARTER_NS * QUARTER_NS
        while not self._full_hour(start):
            start -= QUARTER_NS
        end = start + QUARTER_NS
        while end <= wall or not self._full_hour(end):
            end += QUARTER_NS
        return start, end

    def _full_hour(self, wall: int) -> bool:
        return self._local(wall).minute == 0

    def _day(self, wall: int) -> tuple[int, int]:
        date = self._local(wall).replace(tzinfo=None)
        day = datetime(date.year, date.month, date.day)  # a local date; the zone is applied in _first
        # Where clocks go back across midnight the local date is ambiguous; the partition by first instants is not.
        while self._first(day) > wall:
            day -= timedelta(days=1)
        while self._first(day + timedelta(days=1)) <= wall:
            day += timedelta(days=1)
        return self._first(day), self._first(day + timedelta(days=1))

    def _month(self, wall: int) -> tuple[int, int]:
        local = self._local(wall)
        index = local.year * 12 + local.month - 1
        while self._first_of_month(index) > wall:
            index -= 1
        while self._first_of_month(index + 1) <= wall:
            index += 1
        return self._first_of_month(index), self._first_of_month(index + 1)

    def _first_of_month(self, index: int) -> int:
        return self._first(datetime(index // 12, index % 12 + 1, 1))  # a local date, as above

    def _local(self, wall: int) -> datetime:
        return datetime.fromtimestamp(wall // NS, self.zone)

    def _first(self, midnight: datetime) -> int:
        """First instant of a local date. In a gap (no midnight that day) fold 0 reads the offset before the change,
        which lands exactly on the change; where midnight comes twice fold 0 is the first."""
        return (midnight.replace(tzinfo=self.zone) - _EPOCH) // timedelta(seconds=1) * NS
