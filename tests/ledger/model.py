"""A slow, obvious ledger: a list of calls, and every question answered by going through all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hybridd.clocks import NS, ManualClock
from hybridd.contracts.quotas import Quota, Unit
from hybridd.ledger.windows import Periods

SKEW = 5 * NS


def round_up(instant: int, width: int) -> int:
    return (instant + width - 1) // width * width


@dataclass(eq=False)
class Call:
    """One call. ``end`` is e on the present boot's clock, ``None`` while open; ``stored`` what its row says of it."""

    model: str
    requests: int
    tokens: int
    admitted_wall: int
    first_byte: int | None = None
    dispatched: int | None = None
    contained: set[int] = field(default_factory=set)  # calls that had ended when this one was dispatched
    counters: list[Counter] = field(default_factory=list)  # those in force then
    charged: tuple[int, int] | None = None  # (calls, tokens)
    end: int | None = None
    end_wall: int = 0
    stored: tuple[int, int, int] | None = None  # boot, e on that boot's clock, e on the wall

    def reserved(self, unit: Unit) -> int:
        return {"requests": self.requests, "total_tokens": self.tokens, "concurrent": 1}[unit]

    def counts(self, unit: Unit) -> int:
        """The reservation while open, the charge afterwards."""
        if self.charged is None:
            return self.reserved(unit)
        calls, tokens = self.charged
        return {"requests": calls, "total_tokens": tokens, "concurrent": calls}[unit]


@dataclass
class Figure:
    remaining: int
    until: int
    as_of: int
    as_of_wall: int
    boot: int
    carrier: Call
    contained: set[int]


@dataclass(eq=False)
class Counter:
    """``past``: the calls that had ended when the ledger made this counter (known to it from history only)."""

    quota: Quota
    past: set[int]
    figure: Figure | None = None
    reported_as_of: int | None = None

    @property
    def after(self) -> int:
        seconds = self.quota.window.seconds or 0
        return seconds * NS + max(10_000_000, seconds * 1_000_000)

    @property
    def bucket(self) -> int:
        return (self.quota.window.seconds or 0) * 1_000_000


class Model:
    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.boot = 1
        self.calls: list[Call] = []
        self.counters: dict[tuple[str, str], Counter] = {}
        self.disk: dict[str, Figure] = {}
        self.waiting: dict[str, Figure] = {}

    # -- what counts -------------------------------------------------------------------------------------------

    def bound(self, counter: Counter) -> list[Call]:
        return [call for call in self.calls if counter.quota.binds("acc", call.model)]

    def held(self, counter: Counter, now: int, wall: int) -> int:
        calls = self.bound(counter)
        if counter.quota.window.calendar:
            periods = Periods(counter.quota.window.calendar, counter.quota.window.zone)
            touched = periods.touched(wall - SKEW, wall + SKEW)
            return max(sum(self.in_period(counter, call, start, end) for call in calls) for start, end in touched)
        return sum(self.rolling(counter, call, now) for call in calls)

    def in_period(self, counter: Counter, call: Call, start: int, end: int) -> int:
        amount = call.counts(counter.quota.unit)
        if call.end is None:
            return amount
        last = max(call.admitted_wall, call.end_wall) + SKEW
        first = min(call.admitted_wall, call.end_wall) - SKEW
        known_from_history = id(call) in counter.past
        return amount if last >= start and (known_from_history or first < end) else 0

    def rolling(self, counter: Counter, call: Call, now: int) -> int:
        unit = counter.quota.unit
        amount = call.counts(unit)
        if unit == "concurrent":
            return amount if call.end is None or call.end > now else 0
        by_end = call.end is None or round_up(call.end + counter.after, counter.bucket) > now
        if counter.quota.counted == "end" or call.first_byte is None or id(call) in counter.past:
            return amount if by_end else 0
        reserved = call.reserved(unit)
        by_arrival = round_up(call.first_byte + counter.after, counter.bucket) > now
        excess = max(0, amount - reserved)
        return (min(amount, reserved) if by_arrival else 0) + (excess if by_end else 0)

    def theirs(self, counter: Counter, now: int) -> int | None:
        figure = counter.figure
        if figure is None or now >= figure.until:
            return None
        missing = [c for c in self.bound(counter) if id(c) not in figure.contained and c is not figure.carrier]
        spent = sum(call.counts(counter.quota.unit) for call in missing)
        return figure.remaining - spent - counter.quota.buffer

    def remaining(self, counter: Counter, now: int, wall: int) -> int:
        room = counter.quota.limit - counter.quota.buffer - self.held(counter, now, wall)
        theirs = self.theirs(counter, now)
        return room if theirs is None else min(room, theirs)

    def fits(self, model: str, requests: int, tokens: int, later: int = 0) -> bool:
        now, wall = self.clock.boot_ns() + later, self.clock.wall_ns() + later
        needs = Call(model, requests, tokens, wall)
        return all(
            needs.reserved(counter.quota.unit) <= self.remaining(counter, now, wall)
            for counter in self.counters.values()
            if counter.quota.binds("acc", model) and needs.reserved(counter.quota.unit)
        )

    # -- what happens ------------------------------------------------------------------------------------------

    def ended(self, before: int | None = None) -> set[int]:
        """Calls whose e is past (or strictly before an instant)."""
        now = self.clock.boot_ns()
        return {id(c) for c in self.calls if c.end is not None and (c.end <= now if before is None else c.end < before)}

    def all_ended(self) -> set[int]:
        return {id(call) for call in self.calls if call.end is not None}

    def configure(self, quotas: list[Quota]) -> None:
        before, self.counters = self.counters, {}
        for quota in quotas:
            name = quota.key, quota.counted
            counter = before.get(name) or Counter(quota, self.all_ended())
            counter.quota = quota
            self.counters[name] = counter
        self.attach()

    def end(self, call: Call, charged: tuple[int, int], linger: int) -> None:
        call.charged = charged
        call.end = self.clock.boot_ns() + linger
        call.end_wall = self.clock.wall_ns() + linger
        call.stored = self.boot, call.end, call.end_wall

    def observe(self, counter: Counter, remaining: int, reset: int, call: Call) -> None:
        assert call.dispatched is not None
        now, wall = self.clock.boot_ns(), self.clock.wall_ns()
        if counter.reported_as_of is not None and call.dispatched < counter.reported_as_of:
            return
        counter.reported_as_of = call.dispatched
        known_then = counter in call.counters
        contained = call.contained if known_then else self.ended(before=call.dispatched)
        until = min(now + reset, now + counter.after)
        as_of_wall = wall - (now - call.dispatched)
        counter.figure = Figure(remaining, until, call.dispatched, as_of_wall, self.boot, call, set(contained))
        self.disk[counter.quota.key] = counter.figure

    def restart(self, lost: set[int], quotas: list[Quota], linger: int) -> None:
        """Rows are read again: calls that were open, or whose end was lost, are unknown from now on."""
        now, wall = self.clock.boot_ns(), self.clock.wall_ns()
        self.calls = [call for call in self.calls if call.dispatched is not None]
        for call in self.calls:
            if call.end is None or id(call) in lost:
                call.first_byte = None
                call.charged = (call.requests, call.tokens)
                call.end, call.end_wall = now + linger, wall + linger
                call.stored = self.boot, call.end, call.end_wall
            assert call.stored is not None
            call.end = now - self.age(*call.stored)
        self.counters = {}
        self.waiting = {key: self.in_this_boot(figure) for key, figure in self.disk.items()}
        self.configure(quotas)

    def age(self, boot: int, then_boot: int, then_wall: int) -> int:
        now, wall = self.clock.boot_ns(), self.clock.wall_ns()
        return now - then_boot if boot == self.boot else max(wall - then_wall, now)

    def in_this_boot(self, figure: Figure) -> Figure:
        now, wall = self.clock.boot_ns(), self.clock.wall_ns()
        as_of = now - self.age(figure.boot, figure.as_of, figure.as_of_wall)
        until = figure.until
        if figure.boot != self.boot:
            until = now + figure.as_of_wall + (figure.until - figure.as_of) - wall
        return Figure(figure.remaining, until, as_of, figure.as_of_wall, figure.boot, figure.carrier, set())

    def attach(self) -> None:
        now = self.clock.boot_ns()
        for counter in self.counters.values():
            figure = self.waiting.pop(counter.quota.key, None)
            if figure is None or (counter.reported_as_of is not None and figure.as_of < counter.reported_as_of):
                continue
            counter.reported_as_of = figure.as_of
            if figure.until > now:
                figure.until = min(figure.until, now + counter.after)
                figure.contained = self.ended(before=figure.as_of)
                counter.figure = figure

    def describe(self) -> dict[str, Any]:
        now, wall = self.clock.boot_ns(), self.clock.wall_ns()
        return {
            key: (self.held(counter, now, wall), max(0, self.remaining(counter, now, wall)))
            for (key, _), counter in self.counters.items()
        }
