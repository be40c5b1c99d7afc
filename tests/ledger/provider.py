"""A provider as hybridd must imagine it, and a property checker that works for any admission, ours or a wrong one.

A schedule is a list of calls: when each is asked for, how long it takes, where between its dispatch and its end it
arrives at the provider, whether its answer is seen, and what it uses. The checker plays it against an admission and
then looks at the arrivals through every window the provider could have: a window of length W with more than N in it
exists, whatever its alignment, exactly when some N + 1 successive arrivals lie within W.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Protocol

from hypothesis import strategies as st

from hybridd.clocks import NS
from hybridd.contracts.protocol import Usage
from hybridd.contracts.quotas import Amounts, Quota
from hybridd.ledger import Ending
from hybridd.ledger.admission import Admission
from hybridd.ledger.reservation import Reservation, charge, vector_of
from hybridd.ledger.windows import Periods

MS = 1_000_000
START_BOOT = 1_000 * NS
SKEW_NS = 5 * NS


@dataclass(frozen=True)
class Call:
    """Times in ms. ``arrives``: 0 at dispatch … 1 at the end, linger included. ``shift``: of the provider's clock."""

    gap: int
    lasts: int
    arrives: float
    answered: bool
    linger: int = 0
    tokens: int = 1
    used: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True)
class Arrival:
    at: int
    end: int
    amount: int
    shift_ns: int


class Gate(Protocol):
    """What the checker needs of an admission. Instants are boot ns; the wall clock runs beside it."""

    def admit(self, now: int, wall: int, tokens: int) -> object | None: ...

    def first_byte(self, ticket: object, at: int) -> None: ...

    def end(self, ticket: object, now: int, wall: int, call: Call, used: int) -> None: ...


class OurGate:
    """The ledger's own admission, without a database."""

    def __init__(self, quota: Quota) -> None:
        self.admission = Admission(SKEW_NS, 35 * 86_400 * NS)
        self.quota = quota
        self.admission.configure([quota], START_BOOT, 0, keep=lambda _: False)
        self.ids = 0

    def admit(self, now: int, wall: int, tokens: int) -> Reservation | None:
        binding = self.admission.binding(self.quota.account, "m1")
        amounts = Amounts(1, tokens, 0)
        vector = vector_of(amounts)
        if self.admission.blocked(binding, vector, now, wall):
            return None
        self.ids += 1
        call = Reservation(self.ids, 0, "lab", "t", binding, amounts, vector, None, 0, now, wall)
        self.admission.take(call)
        return call

    def first_byte(self, ticket: object, at: int) -> None:
        assert isinstance(ticket, Reservation)
        ticket.first_byte_boot_ns = at
        for counter in ticket.binding.counters:
            counter.first_byte(ticket.vector[counter.unit], at)

    def end(self, ticket: object, now: int, wall: int, call: Call, used: int) -> None:
        assert isinstance(ticket, Reservation)
        ending = Ending(kind="ok", usage=Usage(used, 0)) if call.answered else Ending(kind="cut")
        _, charged = charge(ticket.vector, None, ending)
        linger = 0 if call.answered else call.linger * MS
        self.admission.end(ticket, charged, now + linger, now, wall + linger)


def play(
    gate: Gate, schedule: list[Call], *, wall_offset: int = 0, arrival_is_first_byte: bool = False
) -> list[Arrival]:
    """Runs the schedule; the arrivals of the calls that were admitted, in the provider's order."""
    now = START_BOOT
    pending: list[tuple[int, int, str, object, Call, int]] = []
    arrivals: list[Arrival] = []
    order = 0

    def happen(until: int) -> None:
        pending.sort(key=lambda event: event[:2])
        while pending and pending[0][0] <= until:
            at, _, what, ticket, call, used = pending.pop(0)
            if what == "byte":
                gate.first_byte(ticket, at)
            else:
                gate.end(ticket, at, at + wall_offset, call, used)

    for call in schedule:
        now += call.gap * MS
        happen(now)
        ticket = gate.admit(now, now + wall_offset, call.tokens)
        if ticket is None:
            continue
        order += 1
        closed = now + call.lasts * MS
        last = closed + (0 if call.answered else call.linger * MS)
        at = now + int((last - now) * call.arrives)
        used = max(1, int(call.tokens * call.used)) if call.answered else call.tokens
        if arrival_is_first_byte and call.answered:
            pending.append((at, order, "byte", ticket, call, used))
        pending.append((closed, 10_000 + order, "end", ticket, call, used))
        arrivals.append(Arrival(at, last, used, int(call.shift * SKEW_NS)))
    happen(1 << 61)
    return sorted(arrivals, key=lambda arrival: arrival.at)


def worst_rolling(arrivals: list[Arrival], window_ns: int) -> int:
    """The largest sum that any window [t, t + W] of the provider's sees (both ends included: the hardest reading)."""
    times = [arrival.at for arrival in arrivals]
    sums = [0]
    for arrival in arrivals:
        sums.append(sums[-1] + arrival.amount)
    return max((sums[bisect_right(times, at + window_ns)] - sums[index] for index, at in enumerate(times)), default=0)


def worst_period(arrivals: list[Arrival], periods: Periods, wall_offset: int) -> int:
    """The largest sum in any calendar period, by a provider's clock that is wrong by up to the skew."""
    sums: dict[int, int] = {}
    for arrival in arrivals:
        start, _ = periods.at(arrival.at + wall_offset + arrival.shift_ns)
        sums[start] = sums.get(start, 0) + arrival.amount
    return max(sums.values(), default=0)


def worst_open(arrivals: list[Arrival]) -> int:
    """The most calls a provider has open at one instant, in [arrival, end)."""
    edges = sorted(edge for a in arrivals if a.at < a.end for edge in ((a.end, -1), (a.at, 1)))
    most = level = 0
    for _, step in edges:
        level += step
        most = max(most, level)
    return most


def schedules(window_ms: int, *, tokens: int = 1, size: int = 60) -> st.SearchStrategy[list[Call]]:
    """Calls whose gaps and durations range from nothing to more than the window, with instants that like to coincide
    with its length (a hair before, at, and after it)."""
    edge = st.sampled_from([-1, 0, 1, window_ms // 1000, -(window_ms // 1000)]).map(lambda d: max(0, window_ms + d))
    short = st.integers(0, window_ms // 50)
    times = st.one_of(short, short, st.just(0), st.integers(0, window_ms * 2), edge)
    call = st.builds(
        Call,
        gap=times,
        lasts=times,
        arrives=st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1)),
        answered=st.booleans(),
        linger=st.sampled_from([0, 50, window_ms // 3]),
        tokens=st.integers(1, tokens),
        used=st.floats(0, 1),
        shift=st.one_of(st.sampled_from([-1.0, 0.0, 1.0]), st.floats(-1, 1)),
    )
    return st.lists(call, min_size=1, max_size=size)
