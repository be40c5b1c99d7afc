"""When a failed plugin may start again, and how much a plugin may say."""

from __future__ import annotations

import random

from hypothesis import example, given
from hypothesis import strategies as st

from hybridd.providers.limits import Backoff, RateCap


def backoff(seed: int = 0) -> Backoff:
    return Backoff(first=1.0, longest=60.0, failures=5, window=600.0, rng=random.Random(seed))


def test_doubles_with_jitter_then_breaks():
    """1, 2, 4, 8 seconds with up to half as much again, and the fifth failure opens the breaker for the window."""
    policy = backoff()
    for number, now in enumerate((0.0, 2.0, 5.0, 11.0)):
        delay, broken = policy.failed(now)
        assert 2**number <= delay <= 1.5 * 2**number
        assert not broken
    assert policy.failed(20.0) == (580.0, True)


def test_old_failures_are_forgotten():
    """A failure that has left the window counts no more: the next delay is a first one."""
    policy = backoff()
    policy.failed(0.0)
    delay, broken = policy.failed(600.0)
    assert 1.0 <= delay <= 1.5
    assert not broken


def test_incurable_failures_open_at_once():
    """A failure that trying again cannot cure waits a whole window."""
    assert backoff().open(50.0) == (600.0, True)


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=40), st.integers(0, 9))
@example(gaps=[0.0, 0.0, 0.0, 415.0, 0.0, 0.0, 0.0, 0.0, 0.0], seed=0)
def test_never_five_starts_within_the_window(gaps, seed):
    """Following its delays, a process that dies at once never fails more than five times within ten minutes."""
    policy = backoff(seed)
    now, failures = 0.0, []
    for gap in gaps:
        now += gap
        failures.append(now)
        delay, broken = policy.failed(now)
        assert 0 <= delay <= 600
        assert broken or delay <= 60
        now += delay
        recent = [at for at in failures if now - at < 600 - 1e-6]  # sums of floats
        assert len(recent) <= 4


def test_rate_cap_admits_exactly_its_figure():
    """Within one second exactly the cap is admitted; the next second starts afresh."""
    now = 10.0
    cap = RateCap(lambda: now, per_second=3)
    assert [cap.allow() for _ in range(4)] == [True, True, True, False]
    now = 11.0
    assert cap.allow()
