"""Who rests and until when."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from hybridd.clocks import ManualClock
from hybridd.routing.cooldown import LONGEST_BACKOFF_SECONDS, Cooldowns

LAB = ("lab", None)


def make() -> tuple[Cooldowns, ManualClock]:
    clock = ManualClock()
    return Cooldowns(clock, random.Random(1)), clock


def test_a_hint_benches_until_then_and_one_trial_follows():
    """The target rests for the hinted time, then exactly one call may try."""
    rests, clock = make()
    rests.cool(("lab", "m1"), "slow down", hint_seconds=30, began_wall_ns=0)
    assert rests.blocking("lab", "m1") is not None
    assert rests.blocking("lab", "m2") is None
    clock.advance(30)
    assert rests.blocking("lab", "m1") is None
    rests.begin("lab", "m1")
    assert rests.blocking("lab", "m1") is not None
    rests.succeeded("lab", "m1")
    assert rests.blocking("lab", "m1") is None


def test_an_abandoned_trial_frees_the_place():
    """A trial that ended without a verdict lets the next call try."""
    rests, clock = make()
    rests.cool(LAB, "x", hint_seconds=1, began_wall_ns=0)
    clock.advance(2)
    rests.begin("lab", "m")
    rests.abandon("lab", "m")
    assert rests.blocking("lab", "m") is None


def test_a_burst_is_one_failure():
    """32 calls of one burst are one strike, 32 of the next one failure: nothing doubles."""
    rests, clock = make()
    for _ in range(2):
        assert rests.blocking("lab", None) is None
        began = clock.wall_ns()
        clock.advance(1)
        for _ in range(32):
            rests.cool(LAB, "down", hint_seconds=None, began_wall_ns=began)
    rest = rests.blocking("lab", None)
    assert rest is not None
    assert rest.failures == 1
    wait = rests.retry_after(rest)
    assert wait is not None
    assert wait <= 2.5


def test_one_failure_alone_benches_nobody():
    """A single 500 is forgotten after a success or a minute; the second in a row benches."""
    rests, clock = make()

    def fail() -> None:
        began = clock.wall_ns()
        clock.advance(0.1)
        rests.cool(LAB, "500", hint_seconds=None, began_wall_ns=began)

    fail()
    assert rests.blocking("lab", "m") is None
    rests.succeeded("lab", "m")
    fail()
    clock.advance(61)
    fail()
    assert rests.blocking("lab", "m") is None
    fail()
    assert rests.blocking("lab", "m") is not None


def test_a_429_without_a_hint_benches_at_once():
    """The provider asked for it."""
    rests, clock = make()
    rests.cool(LAB, "429", hint_seconds=None, began_wall_ns=clock.wall_ns(), limited=True)
    assert rests.blocking("lab", "m") is not None


def test_a_tombstone_is_for_ever():
    """Nothing but a changed configuration brings a retired provider back."""
    rests, clock = make()
    rests.retire("lab", "gone")
    rests.cool(LAB, "later", hint_seconds=1, began_wall_ns=0)
    rests.succeeded("lab", "m")
    rests.unpark()
    clock.advance(10**8)
    rest = rests.blocking("lab", "m")
    assert rest is not None
    assert rest.state == "retired"
    assert rests.retry_after(rest) is None
    rests.forget("lab")
    assert rests.blocking("lab", "m") is None


def test_a_reload_unparks():
    """A parked provider may be tried at once after a reload."""
    rests, _ = make()
    rests.park(LAB, "401")
    assert rests.blocking("lab", "m") is not None
    rests.unpark()
    assert rests.blocking("lab", "m") is None


@given(st.lists(st.tuples(st.sampled_from(["cool", "hint", "park", "wait"]), st.floats(0, 10_000)), max_size=30))
def test_a_later_failure_never_shortens_a_deadline(steps):
    """Whatever fails next, the deadline only moves forward; without hints nobody rests over 375 s."""
    rests, clock = make()
    latest = 0
    hinted = False
    for what, seconds in steps:
        if what == "wait":
            clock.advance(seconds)
            continue
        if what == "park":
            rests.park(LAB, "x")
        else:
            rests.cool(LAB, "x", hint_seconds=seconds if what == "hint" else None, began_wall_ns=clock.wall_ns())
        rest = rests.all().get(LAB)
        if rest is None:
            continue
        assert rest.until_wall_ns is not None
        assert rest.until_wall_ns >= latest
        latest = rest.until_wall_ns
        hinted = hinted or what in ("hint", "park")
        if not hinted:
            assert latest - clock.wall_ns() <= LONGEST_BACKOFF_SECONDS * 1.25 * 1e9
