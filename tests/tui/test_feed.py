"""The subscription: batches, reconnecting, and never losing what is known."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.house import House
from tests.tui.conftest import config
from tests.tui.support import dashboard
from tui import feed
from tui.events import Event
from tui.feed import Feed, backoff


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_backoff_grows_and_is_bounded(attempt: int, chance: float) -> None:
    """Never nothing, never longer than the longest; the second try waits longer than the first could."""
    wait = backoff(attempt, chance)
    assert feed.FIRST_WAIT / 2 <= wait <= feed.LONGEST_WAIT
    assert backoff(attempt + 1, chance) >= wait


class Collected:
    def __init__(self) -> None:
        self.batches: list[list[Event]] = []
        self.woken = asyncio.Event()

    def __call__(self, batch: list[Event]) -> None:
        self.batches.append(batch)
        self.woken.set()

    @property
    def events(self) -> list[Event]:
        return [event for batch in self.batches for event in batch]

    async def until(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.events) < count:
                self.woken.clear()
                await self.woken.wait()


async def test_a_flood_comes_in_few_batches(tmp_path) -> None:
    """Thousands of events: all of them, in order, in as many batches as tenths of a second."""
    got = Collected()
    source = Feed(tmp_path / "none.sock", got, chance=lambda: 1.0)
    source._loop = asyncio.get_running_loop()
    began = source._loop.time()
    sent = 5000
    for number in range(sent):
        source.put(Event(number, 0.0, "host", {}))
        await asyncio.sleep(0)  # the loop gets its turn after each
    await got.until(sent)
    assert [event.seq for event in got.events] == list(range(sent))
    assert len(got.batches) <= 2 + (source._loop.time() - began) / feed.FOCUSED_SECONDS


async def test_a_single_event_does_not_wait(tmp_path) -> None:
    """After a pause the next event is delivered at once."""
    got = Collected()
    source = Feed(tmp_path / "none.sock", got)
    source._loop = asyncio.get_running_loop()
    source.interval = 60.0
    source.put(Event(1, 0.0, "host", {}))
    await got.until(1)


async def test_nobody_there(tmp_path) -> None:
    """Each try that fails is told, with the sentence why and when the next is due; stopping ends it at once."""
    got = Collected()
    source = Feed(tmp_path / "none.sock", got, wall=lambda: 1000.0, chance=lambda: 0.0)
    source.start()
    await got.until(2)
    await asyncio.to_thread(source.stop)
    first, second = (event.data for event in got.events[:2])
    assert (first["state"], first["attempt"], second["attempt"], first["ever"]) == ("lost", 1, 2, False)
    assert "No daemon answers" in first["reason"]
    assert first["retry_at"] == pytest.approx(1000.0 + feed.FIRST_WAIT / 2)
    assert not source._thread.is_alive()


async def test_a_daemon_that_goes_and_comes_back(upstream) -> None:
    """The last data stay, dimmed and with their age; r and the backoff find the daemon again, and all is live."""
    house = House(config(upstream.base_url))
    try:
        house.start()
        async with dashboard(house.socket) as driver:
            app = driver.app
            assert "● live" in driver.lines[0]
            await asyncio.to_thread(house.kill)
            await driver.until(lambda: "DISCONNECTED" in driver.text)
            assert "disconnected" in driver.lines[0]
            assert "the last data are" in driver.text
            assert "lab" in driver.text
            await driver.until(lambda: driver.lines[-3].startswith("─ ALERTS"))  # nothing was pushed out of sight
            assert app.screen.has_class("-stale")
            await asyncio.to_thread(house.start)
            await driver.press("r")
            await driver.until(lambda: "● live" in driver.lines[0])
            assert "DISCONNECTED" not in driver.text
            assert not app.screen.has_class("-stale")
    finally:
        house.__exit__(None, None, None)
