"""How a step is shared, and where prompts go: the pure parts of the scheduler."""

from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from plugins.llama_cpp.batching import ALONE_PATIENCE, PATIENCE, SMALLEST, Pace, shares
from plugins.llama_cpp.prefix import MIN_COPY, Slots, common

NEEDS = st.lists(st.integers(2, 5000), max_size=12)


def tokens(*values: int) -> array[int]:
    return array("i", values)


@given(NEEDS, st.integers(0, 4096))
def test_shares(needs: list[int], budget: int) -> None:
    """Nobody gets more than it needs, nothing of the budget is left while somebody needs it, the oldest gets half."""
    given_ = shares(needs, budget)
    assert all(0 <= got <= need for got, need in zip(given_, needs, strict=True))
    assert sum(given_) == min(budget, sum(needs))
    if needs:
        assert given_[0] >= min(needs[0], budget // 2)


def test_short_prompts_pass_long_ones() -> None:
    """What the oldest leaves goes to who is done soonest; equal prompts are done in the order they came."""
    assert shares([4000, 900, 20], 256) == [128, 108, 20]
    assert shares([207, 207, 207], 256) == [207, 49, 0]
    assert shares([], 10) == []


def test_pace() -> None:
    """A step is as long as patience allows at the measured speed, but never so small that prompts get slower."""
    pace = Pace(2048, 512)
    assert pace.budget(3, [1000]) == SMALLEST
    for _ in range(50):
        pace.measured(200, 0.1)  # 2,000 tokens a second
    assert abs(pace.budget(3, [1000]) - PATIENCE * 2000) <= 1
    assert abs(pace.budget(0, [5000]) - ALONE_PATIENCE * 2000) <= 1
    assert pace.budget(0, [207, 207]) == 207
    assert pace.budget(0, [30, 207]) == SMALLEST
    assert pace.budget(0, []) == 0
    for _ in range(50):
        pace.measured(100, 100.0)
    assert pace.budget(1, [1000]) == SMALLEST
    assert Pace(64, 32).budget(60, [1000]) == 4


@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.integers(0, 3), max_size=40), st.integers(0, 50))
def test_common(left: list[int], right: list[int], limit: int) -> None:
    """The common beginning is the one found token by token."""
    limit = min(limit, len(left), len(right))
    expected = 0
    while expected < limit and left[expected] == right[expected]:
        expected += 1
    assert common(tokens(*left), tokens(*right), limit) == expected


def filled(slots: Slots, *contents: array[int]) -> Slots:
    for slot, content in zip(slots.all, contents, strict=False):
        slots.take(slot, content, len(content))
        slots.release(slot)
    return slots


def test_going_on() -> None:
    """A prompt goes to the slot it continues; its last token is evaluated again although it is known."""
    slots = filled(Slots(3), tokens(1, 2, 3), tokens(1, 2, 3, 4, 5))
    place = slots.choose(tokens(1, 2, 3, 4, 5))
    assert place is not None
    assert (place.slot.id, place.source, place.reuse) == (1, None, 4)
    place = slots.choose(tokens(9, 9))
    assert place is not None
    assert (place.slot.id, place.reuse) == (2, 0)


def test_a_conversation_is_not_destroyed_for_its_beginning() -> None:
    """Where only the beginning is common, it is copied to the slot that was unused longest, and few tokens are not."""
    long = array("i", range(1, 1001))
    slots = filled(Slots(2), tokens(7), long)
    place = slots.choose(long[:100] + tokens(5000))
    assert place is not None
    assert (place.slot.id, place.source, place.reuse) == (0, slots.all[1], 100)
    place = slots.choose(long[: MIN_COPY - 1] + tokens(5000))
    assert place is not None
    assert (place.slot.id, place.source, place.reuse) == (0, None, 0)


def test_busy_slots_lend_their_beginning() -> None:
    """A running answer's tokens can be copied, its slot cannot be had; with none idle nobody is placed."""
    slots = Slots(2)
    running = array("i", range(1, 101))
    slots.take(slots.all[0], running, 90)
    place = slots.choose(running + tokens(500))
    assert place is not None
    assert (place.slot.id, place.source, place.reuse) == (1, slots.all[0], 90)
    assert slots.choose(running, exact=True).reuse == 90  # type: ignore[union-attr]  # the line above shows it is there
    slots.all[0].length = 80
    assert slots.choose(tokens(*running[:50], 999), exact=True).reuse == 0  # type: ignore[union-attr]  # as above
    slots.take(slots.all[1], tokens(1), 0)
    assert slots.choose(running) is None


def test_the_longest_unused_gives_its_cells() -> None:
    """Cells are given up in the order of their last use, never those of a running answer, and not twice."""
    slots = filled(Slots(3), tokens(1), tokens(2), tokens(3))
    slots.take(slots.all[0], tokens(1, 2), 2)
    assert slots.oldest() is slots.all[1]
    slots.all[1].length = 0
    assert slots.oldest() is slots.all[2]
    slots.all[2].length = 0
    assert slots.oldest() is None


def test_slots_with_cells_of_their_own_stay_together() -> None:
    """Where each slot has cells of its own, a newcomer goes beside those at work, since llama.cpp computes only
    neighbours in one go; where cells are shared, the longest unused slot is taken wherever it is."""
    for own, expected in ((512, 3), (0, 0)):
        slots = filled(Slots(6, own=own), *(tokens(n) for n in range(1, 7)))
        slots.take(slots.all[4], tokens(9), 1)
        place = slots.choose(tokens(100, 101))
        assert place is not None
        assert place.slot.id == expected


def test_cells_of_its_own_are_copied_whole() -> None:
    """A beginning is copied from another slot only if it is worth the copy of all the cells of a slot."""
    long = array("i", range(1, 1001))
    for own, reused in ((2048, 100), (8192, 0)):
        place = filled(Slots(2, own=own), tokens(7), long).choose(long[:100] + tokens(5000))
        assert place is not None
        assert place.reuse == reused
