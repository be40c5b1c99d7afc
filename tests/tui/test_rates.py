"""Calls per second and latency from a ring of seconds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.rates import KEPT, SECONDS, Rates, tokens_per_second


@given(st.lists(st.tuples(st.integers(1000, 1000 + SECONDS - 2), st.floats(0, 1e4)), max_size=60))
def test_every_call_is_counted_once(calls: list[tuple[int, float]]) -> None:
    """In whatever order they are told, all calls of the window are in its cells."""
    rates = Rates()
    now = 1000 + SECONDS - 1
    for at, latency in sorted(calls):
        rates.add(at, latency)
    cells = rates.calls(now, SECONDS // 5, 5)
    assert round(sum(cells) * 5) == len([at for at, _ in calls if at > now - 1 - SECONDS])


def test_time_passes() -> None:
    """What is older than the window is gone, without anybody clearing it."""
    rates = Rates()
    rates.add(1000.5, 20, hit=True)
    assert rates.per_second(1002, 10) == 0.1
    assert (rates.latency(1002), rates.cache_share(1002)) == (20, 1.0)
    assert rates.latency(1200) is None
    assert not rates.empty(1200)
    assert rates.empty(1000 + 2 * SECONDS)
    rates.add(1000.5 + SECONDS, 40)
    assert rates.latency(1001 + SECONDS) == 40


def test_a_flood_costs_no_memory() -> None:
    """A second keeps so many latencies, however many calls it has."""
    rates = Rates()
    for number in range(10_000):
        rates.add(1000, number)
    assert rates.per_second(1001, 1) == 10_000
    assert max(len(slot.latencies) for slot in rates._ring) == KEPT


def test_medians() -> None:
    """The middle one; gaps where nothing was called."""
    rates = Rates()
    for latency in (1, 2, 900):
        rates.add(1000, latency)
    assert rates.latencies(1001, 2, 1) == [None, 2]
    assert rates.local_tokens(1001) == 0


def test_local_tokens_are_where_they_were_written() -> None:
    """An answer of ten seconds counts in each of them, not in the one it ended in; an instant one in that one."""
    rates = Rates()
    rates.add(1010.0, 12_000, local_tokens=400, silent_ms=2_000)
    assert rates.local_speeds(1010.0, 2, 5) == pytest.approx([40.0, 40.0])
    assert rates.local_tokens(1010.0) == pytest.approx(40.0)
    rates.add(1020.5, 0.0, local_tokens=30)
    assert rates.local_speeds(1021.0, 1, 1) == pytest.approx([30.0])


@given(st.floats(1e6, 2e6), st.floats(0, 1e6), st.integers(1, 10_000))
def test_no_token_is_lost(at: float, latency: float, tokens: int) -> None:
    """However long an answer took, the ring holds all its tokens that it has room for."""
    rates = Rates()
    rates.add(at, latency, local_tokens=tokens)
    assert sum(slot.tokens for slot in rates._ring) == pytest.approx(tokens, rel=1e-6)


@pytest.mark.parametrize(
    ("tokens", "latency", "first", "overhead", "speed"),
    [
        (101, 2000.0, 1000.0, None, 100.0),
        (100, 3000.0, None, 2000.0, 100.0),
        (100, 1000.0, None, None, 100.0),
        (1, 1000.0, 10.0, None, None),
        (50, 1000.0, 999.9, None, None),
        (None, 1000.0, None, None, None),
    ],
)
def test_the_speed_of_an_answer(
    tokens: int | None, latency: float, first: float | None, overhead: float | None, speed: float | None
) -> None:
    """From the first token on, or without the time a load took; one token, or all at once, tell no speed."""
    assert tokens_per_second(tokens, latency, first, overhead) == speed
