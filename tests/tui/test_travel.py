"""Going to a time: every screen shows the past, says what it lacks, and comes back."""

from __future__ import annotations

from datetime import datetime

from tests.house import House as Daemon
from tests.tui.support import Driver, dashboard, driven, said
from tui.app import Dashboard
from tui.settings import Options


async def go(driver: Driver, at: float) -> None:
    await driver.press("g")
    await driver.press(*f"{datetime.fromtimestamp(at):%Y-%m-%dT%H:%M}", "enter")
    await driver.until(lambda: driver.app.past is not None and driver.app.past.as_of == at)
    await driver.until(lambda: "PAUSED" in driver.text)


async def test_every_screen_shows_the_moment_gone_to(seeded: Daemon) -> None:
    """Two hours ago 70 were left, ci had asked, an alert was open; what is not recorded is said."""
    then = seeded.then  # type: ignore[attr-defined]  # set by the fixture
    async with dashboard(seeded.socket) as driver:
        await go(driver, then)
        assert f"PAUSED at {datetime.fromtimestamp(then):%Y-%m-%d %H:%M:%S}" in driver.text
        assert "paused" in driver.lines[0]
        assert "Not recorded: " in driver.text
        assert "parked" in driver.text
        assert "42 %" in driver.text
        await driver.press("2")
        await driver.until(lambda: "req/day" in driver.text and "PAUSED" in driver.text)
        assert "28/100" in driver.text
        assert "small" not in driver.text
        await driver.press("5")
        await driver.until(lambda: "lab is parked until you act." in driver.text)
        assert "! open" in driver.text
        assert "small has no" not in driver.text
        await driver.press("3")
        await driver.until(lambda: "PAUSED" in driver.text and "lab:m1" in driver.text)
        assert len(driver.app.shown.requests) == 1


async def test_steps_lead_back_and_forth_and_home(seeded: Daemon) -> None:
    """``[`` five minutes back, ``{`` an hour, ``]`` and ``}`` forward; the present ends it, and so does ``G``."""
    async with dashboard(seeded.socket) as driver:
        app = driver.app
        await driver.press("left_square_bracket", "left_curly_bracket")
        await driver.until(lambda: app.past is not None and app.house.now - (app.past.as_of or 0) > 3900)
        first = app.shown.as_of
        await driver.press("right_square_bracket")
        await driver.until(lambda: app.shown.as_of != first)
        assert first is not None
        assert app.shown.as_of == first + 300
        await driver.press("right_curly_bracket", "right_square_bracket")
        await driver.until(lambda: app.past is None)
        assert "PAUSED" not in driver.text
        await driver.press("left_square_bracket")
        await driver.until(lambda: app.past is not None)
        await driver.press("G")
        await driver.until(lambda: app.past is None)
        await driver.press("left_square_bracket")
        await driver.until(lambda: "PAUSED" in driver.text)
        await driver.press("escape")
        await driver.until(lambda: app.past is None and "PAUSED" not in driver.text)


async def test_the_past_cannot_be_changed_and_the_present_goes_on(seeded: Daemon) -> None:
    """Keys that change something are gone, what happens meanwhile is there on the way back."""
    async with dashboard(seeded.socket) as driver:
        await driver.press("5")
        await driver.press("left_square_bracket")
        await driver.until(lambda: "PAUSED" in driver.text)
        assert driver.app.locked
        assert driver.screen.check_action("acknowledge", ()) is False
        before = len(driver.app.house.requests)
        seeded.chat("lab:m1", "meanwhile", max_tokens=3)
        await driver.until(lambda: len(driver.app.house.requests) > before)
        assert "PAUSED" in driver.text
        shown = driver.app.shown.requests
        assert len(shown) < len(driver.app.house.requests)
        await driver.press("G")
        await driver.until(lambda: driver.app.shown is driver.app.house and not driver.app.locked)


async def test_a_limits_history_ends_at_the_moment_gone_to(seeded: Daemon) -> None:
    """Nothing of later is drawn or counted."""
    then = seeded.then  # type: ignore[attr-defined]  # set by the fixture
    async with dashboard(seeded.socket, (80, 30)) as driver:
        driver.app.go("limits", "lab/requests/day")
        await driver.until(lambda: "WHO USED IT" in driver.text)
        await go(driver, then)
        detail = driver.screen
        await driver.until(lambda: detail.found and all(row["client"] == "ci" for row in detail.found))
        await driver.until(lambda: max(at for at, _ in detail.points) <= then)
        assert detail.points[-1][1] == 70.0
        assert "forecasts are not recorded" in driver.text


async def test_what_is_no_time_is_refused_in_the_dialogue(seeded: Daemon) -> None:
    """The dialogue says what is wrong and stays; Esc leaves it."""
    async with dashboard(seeded.socket) as driver:
        await driver.press("g", *"99:99", "enter")
        await driver.until(lambda: "no time of day" in driver.text)
        await driver.press("escape")
        await driver.until(lambda: "Go to a time" not in driver.text)
        assert driver.app.past is None


async def test_a_recording_says_that_it_has_no_past(seeded: Daemon, tmp_path) -> None:
    """There is no daemon to ask; the dashboard goes on."""
    recorded = tmp_path / "events.ndjson"
    async with dashboard(seeded.socket, record=recorded):
        pass
    async with driven(Dashboard(Options(replay=recorded, speed=0))) as driver:
        await driver.until(lambda: driver.app.house.connection.state == "ended")
        await driver.press("left_square_bracket")
        await driver.until(lambda: "This is a recording" in said(driver))
        assert driver.app.past is None
