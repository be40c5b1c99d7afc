"""hybridd.deadlines: many deadlines behind one timer, on a clock the test turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.deadlines import Deadlines


class Handle:
    def __init__(self, at: float, callback: Callable[..., object]) -> None:
        self.at, self.callback, self.cancelled = at, callback, False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """The two things Deadlines asks of an event loop; time passes when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.handles: list[Handle] = []

    def time(self) -> float:
        return self.now

    def call_at(self, at: float, callback: Callable[..., object]) -> Handle:
        handle = Handle(at, callback)
        self.handles.append(handle)
        return handle

    @property
    def armed(self) -> list[Handle]:
        return [handle for handle in self.handles if not handle.cancelled]

    def turn_to(self, now: float) -> None:
        while due := sorted((h for h in self.armed if h.at <= now), key=lambda h: h.at):
            self.now = max(self.now, due[0].at)
            self.handles.remove(due[0])
            due[0].callback()
        self.now = now


def make() -> tuple[Loop, Deadlines]:
    loop = Loop()
    return loop, Deadlines(loop)  # type: ignore[arg-type]  # the two methods it uses


def test_each_is_called_once_at_its_time() -> None:
    """Three deadlines fire in their order, each at its own time, from one armed timer."""
    loop, deadlines = make()
    fired: list[tuple[str, float]] = []
    for name, at in (("b", 2.0), ("a", 1.0), ("c", 3.0)):
        deadlines.set(name, at, lambda name=name: fired.append((name, loop.now)))
    assert len(loop.armed) == 1
    loop.turn_to(10.0)
    assert fired == [("a", 1.0), ("b", 2.0), ("c", 3.0)]
    assert loop.armed == []


def test_cancelled_and_closed_ones_stay_silent() -> None:
    """A cancelled deadline is not called, and after close nothing is, nor is a timer left."""
    loop, deadlines = make()
    fired: list[str] = []
    deadlines.set("a", 1.0, fired.append, "a")
    deadlines.set("b", 2.0, fired.append, "b")
    deadlines.cancel("a")
    deadlines.cancel("never set")
    loop.turn_to(1.5)
    assert fired == []
    deadlines.close()
    assert loop.armed == []
    loop.turn_to(5.0)
    assert fired == []


def test_a_callback_may_cancel_and_set_others() -> None:
    """What a callback cancels in the same instant is not called; what it sets is."""
    loop, deadlines = make()
    fired: list[str] = []

    def first() -> None:
        fired.append("first")
        deadlines.cancel("second")
        deadlines.set("third", 1.2, fired.append, "third")

    deadlines.set("first", 1.0, first)
    deadlines.set("second", 1.0, fired.append, "second")
    loop.turn_to(2.0)
    assert fired == ["first", "third"]


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 50), st.booleans()), max_size=40))
def test_the_last_word_for_each_key_counts(steps: list[tuple[int, float, bool]]) -> None:
    """Whatever is set, set again and cancelled: exactly the last deadline of each key fires, never early."""
    loop, deadlines = make()
    wanted: dict[int, float] = {}
    fired: dict[int, Any] = {}

    def fire(key: int) -> None:
        assert key not in fired
        fired[key] = loop.now

    for key, at, cancelled in steps:
        if cancelled:
            deadlines.cancel(key)
            wanted.pop(key, None)
        else:
            deadlines.set(key, at, fire, key)
            wanted[key] = at
    loop.turn_to(100.0)
    assert fired.keys() == wanted.keys()
    assert all(fired[key] >= at for key, at in wanted.items())


async def test_within_cancels_only_what_takes_too_long() -> None:
    """A body that overstays leaves as TimeoutError, a quick one does not, and a task cancelled from outside stays
    cancelled."""
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(loop)
    with deadlines.within(30):
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError), deadlines.within(0.01):
        await loop.create_future()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0

    async def overstay() -> None:
        with deadlines.within(30):
            await loop.create_future()

    cancelled = asyncio.create_task(overstay())
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    deadlines.close()


async def test_the_innermost_limit_that_is_over_speaks() -> None:
    """Nested limits: the inner one's TimeoutError can be handled inside the outer one."""
    deadlines = Deadlines(asyncio.get_running_loop())
    with deadlines.within(30):
        with pytest.raises(TimeoutError), deadlines.within(0.01):
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(0)
    deadlines.close()
