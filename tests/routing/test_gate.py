"""Admission control."""

from __future__ import annotations

import asyncio

import pytest

from hybridd.errors import Overloaded
from hybridd.routing.gate import Gate


async def test_places_are_given_in_order_and_all_come_back():
    """Never more than the capacity inside, first come first served, and nothing leaks."""
    gate = Gate(2, 100, 10)
    order: list[int] = []
    inside = 0

    async def caller(number: int) -> None:
        nonlocal inside
        await gate.enter()
        inside += 1
        assert inside <= 2
        order.append(number)
        await asyncio.sleep(0)
        inside -= 1
        gate.leave()

    await asyncio.gather(*(caller(number) for number in range(50)))
    assert order == list(range(50))
    assert gate.in_flight == 0
    await gate.idle()


async def test_new_places_go_to_those_who_wait():
    """A larger capacity lets the waiting in at once, in order, and nobody else."""
    gate = Gate(1, 10, 10)
    await gate.enter()
    waiting = [asyncio.ensure_future(gate.enter()) for _ in range(4)]
    await asyncio.sleep(0)
    gate.configure(3, 10, 10)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [one.done() for one in waiting] == [True, True, False, False]
    assert (gate.in_flight, gate.waiting) == (3, 2)
    for _ in range(5):
        gate.leave()
        await asyncio.sleep(0)
    assert (gate.in_flight, gate.waiting) == (0, 0)


async def test_a_full_queue_refuses_with_a_reason():
    """Beyond the waiting room, callers are refused at once."""
    gate = Gate(1, 1, 10)
    await gate.enter()
    waiting = asyncio.ensure_future(gate.enter())
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as caught:
        await gate.enter()
    assert caught.value.retry_after is not None
    gate.leave()
    await waiting


async def test_a_wait_ends_in_a_refusal():
    """Who waited too long is refused and leaves no trace."""
    gate = Gate(1, 5, 0.01)
    await gate.enter()
    with pytest.raises(Overloaded):
        await gate.enter()
    assert gate.waiting == 0
    gate.leave()
    assert gate.try_enter()


async def test_a_cancelled_waiter_passes_its_place_on():
    """A waiter cancelled in the very tick it was given the place does not lose it for the others."""
    gate = Gate(1, 5, 10)
    await gate.enter()
    first, second = asyncio.ensure_future(gate.enter()), asyncio.ensure_future(gate.enter())
    await asyncio.sleep(0)
    gate.leave()
    first.cancel()
    await asyncio.wait_for(second, 5)
    gate.leave()
    assert gate.in_flight == 0


async def test_closing_refuses_newcomers_and_waiters():
    """A stopping daemon lets nobody in and tells those who wait."""
    gate = Gate(1, 5, 10)
    await gate.enter()
    waiting = asyncio.ensure_future(gate.enter())
    await asyncio.sleep(0)
    gate.close()
    for attempt in (waiting, asyncio.ensure_future(gate.enter())):
        with pytest.raises(Overloaded) as caught:
            await attempt
        assert caught.value.error_code == "stopping"
    gate.leave()
    await gate.idle()
