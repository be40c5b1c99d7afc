"""The compact past: exact while young, never coarser than a thousandth of its age, never too early."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from hybridd.clocks import NS
from hybridd.ledger.history import History
from hybridd.ledger.windows import QUARTER_NS

DAY = 86_400 * NS
MS = 1_000_000


def vector(n: int) -> tuple[int, int, int, int, int, int, int, int]:
    return (1, n, 2 * n, 3 * n, 4, 5, 6, 1)


def test_a_busy_month_stays_small_and_pessimistic() -> None:
    """50,000 calls over 30 days: few groups, each sum right, and every end at most max(10 ms, age/1000) late."""
    rng = random.Random(5)
    ends = sorted(rng.randrange(30 * DAY) for _ in range(50_000))
    history = History(35 * DAY)
    for end in ends:
        history.add(end, end, vector(1), end)
    now = 30 * DAY
    history.fold(now)
    history._compact(now)
    groups = list(history.rolling(now))
    assert len(groups) < 14_000
    assert sum(amounts[0] for _, amounts in groups) == 50_000
    for window in (60 * NS, 3_600 * NS, DAY, 7 * DAY):
        true = sum(1 for end in ends if end > now - window)
        coarse = sum(1 for end in ends if end > now - window - window // 500)
        assert true <= sum(amounts[0] for end, amounts in groups if end > now - window) <= coarse


def test_beyond_the_horizon_nothing_is_kept() -> None:
    """Ends older than the horizon go, and with them their quarters of an hour."""
    history = History(DAY)
    for minute in range(60 * 24 * 40):
        end = minute * 60 * NS
        history.add(end, end, vector(1), end)
    history.fold(40 * DAY)
    history._compact(40 * DAY)
    assert sum(amounts[0] for _, amounts in history.rolling(40 * DAY)) == 60 * 24 + 1
    assert len(history.quarters) <= 2 * 96 + 1


@given(st.lists(st.tuples(st.integers(0, 10 * DAY), st.integers(1, 9)), max_size=60), st.integers(0, 900))
def test_quarters_are_exact(calls: list[tuple[int, int]], boundary: int) -> None:
    """What was used since a calendar boundary is the exact sum, whatever the order of the calls."""
    history = History(35 * DAY)
    for end, n in calls:
        history.add(end, end, vector(n), 10 * DAY)
    since = boundary * QUARTER_NS
    assert history.since_quarter(since, 1, 10 * DAY) == sum(n for end, n in calls if end >= since)


@given(st.lists(st.integers(0, 10 * DAY), max_size=60))
def test_young_ends_are_exact_to_ten_milliseconds(ends: list[int]) -> None:
    """Before any compaction an end is late by less than 10 ms, never early."""
    history = History(35 * DAY)
    for end in ends:
        history.add(end, end, vector(1), 10 * DAY)
    groups = list(history.rolling(10 * DAY))
    assert sum(amounts[0] for _, amounts in groups) == len(ends)
    for instant in ends:
        by_then = sum(1 for end in ends if end > instant)
        assert by_then <= sum(a[0] for end, a in groups if end > instant)
        assert sum(a[0] for end, a in groups if end > instant + 10 * MS) <= by_then
