"""Calls per second and latency from a ring of seconds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tui.rates import KEPT, SECONDS, Rates


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
