"""For every schedule, alignment of the provider's window and network jitter: arrivals never exceed the limit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from hybridd.clocks import NS
from hybridd.ledger.windows import Periods
from tests.ledger.provider import Call, Gate, OurGate, play, schedules, worst_open, worst_period, worst_rolling
from tests.ledger.support import quota
from tests.ledger.wrong_gates import CalendarAtAdmission, DebitAtAdmission, SlotsUntilClosed, TokenBucket, TwoWindows

WINDOW_S = 20
WINDOW_MS = WINDOW_S * 1000
HOUR_MS = 3_600_000
LIMIT = 3
SEARCH = settings(max_examples=5_000, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
CHECK = settings(max_examples=250, deadline=None)
# The schedule starts just before a full hour of wall time.
HOUR_OFFSET = 1_790_000_000 * NS // (3_600 * NS) * (3_600 * NS) + 3_570 * NS - 1_000 * NS


@CHECK
@given(schedules(WINDOW_MS))
def test_rolling_requests_never_exceed_the_limit(schedule: list[Call]) -> None:
    """No window of the provider's sees more than N requests."""
    arrivals = play(OurGate(quota("requests", LIMIT, f"{WINDOW_S}s")), schedule)
    assert worst_rolling(arrivals, WINDOW_S * NS) <= LIMIT


@CHECK
@given(schedules(WINDOW_MS, tokens=400), st.sampled_from([1, 999, 1_000]))
def test_rolling_tokens_never_exceed_the_limit(schedule: list[Call], limit: int) -> None:
    """No window sees more than N tokens, whether calls use all they reserved or less."""
    arrivals = play(OurGate(quota("input_tokens", limit, f"{WINDOW_S}s")), schedule)
    assert worst_rolling(arrivals, WINDOW_S * NS) <= limit


@CHECK
@given(schedules(WINDOW_MS))
def test_arrival_counted_requests_never_exceed_the_limit(schedule: list[Call]) -> None:
    """The same when the amount is freed one window after the first byte, which never comes before the arrival."""
    gate = OurGate(quota("requests", LIMIT, f"{WINDOW_S}s", counted="arrival"))
    arrivals = play(gate, schedule, arrival_is_first_byte=True)
    assert worst_rolling(arrivals, WINDOW_S * NS) <= LIMIT


@CHECK
@given(schedules(HOUR_MS // 60))
def test_calendar_requests_never_exceed_the_limit(schedule: list[Call]) -> None:
    """No calendar hour sees more than N requests, although the provider's clock is up to the skew off ours."""
    arrivals = play(OurGate(quota("requests", LIMIT, "hour")), schedule, wall_offset=HOUR_OFFSET)
    assert worst_period(arrivals, Periods("hour", "UTC"), HOUR_OFFSET) <= LIMIT


@CHECK
@given(schedules(WINDOW_MS))
def test_open_calls_never_exceed_the_limit(schedule: list[Call]) -> None:
    """Never more than N calls are open at the provider, lingering ones included."""
    assert worst_open(play(OurGate(quota("concurrent", LIMIT)), schedule)) <= LIMIT


@CHECK
@given(schedules(WINDOW_MS), st.integers(1, 5))
def test_exactly_n_of_a_burst_are_admitted(schedule: list[Call], limit: int) -> None:
    """Of a burst into an idle quota exactly N get through, not N - 1."""
    burst = [Call(0, call.lasts, call.arrives, call.answered) for call in schedule]
    arrivals = play(OurGate(quota("requests", limit, f"{WINDOW_S}s")), burst)
    assert len(arrivals) == min(limit, len(burst))


WRONG: list[tuple[str, Callable[[], Gate]]] = [
    ("token bucket", lambda: TokenBucket(LIMIT, WINDOW_S * NS)),
    ("debit at admission", lambda: DebitAtAdmission(LIMIT, WINDOW_S * NS)),
    ("two windows", lambda: TwoWindows(LIMIT, WINDOW_S * NS)),
]


@pytest.mark.parametrize("make", [make for _, make in WRONG], ids=[name for name, _ in WRONG])
def test_negative_control_rolling(make: Callable[[], Gate]) -> None:
    """The checker finds a schedule that breaks each of the well-known wrong counters."""
    broken = find(
        schedules(WINDOW_MS), lambda s: worst_rolling(play(make(), s), WINDOW_S * NS) > LIMIT, settings=SEARCH
    )
    # ... and ours holds on that very schedule.
    ours = play(OurGate(quota("requests", LIMIT, f"{WINDOW_S}s")), broken)
    assert worst_rolling(ours, WINDOW_S * NS) <= LIMIT


def test_negative_control_calendar() -> None:
    """Debiting the hour of admission alone is found out."""
    hours = Periods("hour", "UTC")
    find(
        schedules(HOUR_MS // 60),
        lambda s: (
            worst_period(play(CalendarAtAdmission(LIMIT), s, wall_offset=HOUR_OFFSET), hours, HOUR_OFFSET) > LIMIT
        ),
        settings=SEARCH,
    )


def test_negative_control_open() -> None:
    """Freeing the slot when the connection closes is found out: the provider may still receive the call."""
    find(schedules(WINDOW_MS), lambda s: worst_open(play(SlotsUntilClosed(LIMIT), s)) > LIMIT, settings=SEARCH)
