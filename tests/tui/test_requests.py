"""The Requests screen on a real daemon."""

from __future__ import annotations

import asyncio
import csv
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from tests.fakes.upstream import FakeUpstream, rule
from tests.house import House, lab
from tests.tui.conftest import config
from tests.tui.support import Driver, dashboard, said
from tui.events import Event
from tui.screens.pick_model import PickModel
from tui.screens.playground import Playground
from tui.screens.request_detail import RequestDetail
from tui.screens.requests import Requests
from tui.shapes import Connection, Request
from tui.widgets.prompt import Prompt

MANY = 430


@pytest.fixture(scope="module")
def busy(upstream: FakeUpstream):
    """A daemon with more requests than the dashboard asks for at first."""
    made = config(upstream.base_url)
    made["providers"]["lab"] = lab(upstream.base_url)
    made["providers"]["rare"] = lab(upstream.base_url, models={"odd": {}})
    with House(made) as running:
        running.chat("rare:odd", "the first of all", max_tokens=1)
        for number in range(MANY):
            running.chat("lab:m1", f"question {number}", max_tokens=1)
        running.chat("small:m1", max_tokens=3)
        running.chat("task:code_generation", max_tokens=3)
        yield running


def screen_of(driver: Driver) -> Requests:
    return cast(Requests, driver.app.screen)


async def shown(driver: Driver) -> Requests:
    await driver.press("3")
    await driver.until(lambda: isinstance(driver.app.screen, Requests) and screen_of(driver).rows.shown)
    return screen_of(driver)


async def test_older_pages_come_as_the_end_comes_near(busy: House) -> None:
    """The newest 200 are there at once; End brings the following page, again and again, to the first request."""
    async with dashboard(busy.socket) as driver:
        screen = await shown(driver)
        await driver.until(lambda: len(screen.rows.shown) >= 200)
        assert len(screen.rows.shown) < MANY
        for _ in range(4):
            await driver.press("end")
            await driver.until(lambda: not screen._asking)
        assert len(screen.rows.shown) == MANY + 3
        assert "rare:odd" in driver.lines[-2]
        assert "all 433" in driver.text


async def test_a_filter_finds_what_is_not_held(busy: House) -> None:
    """While typing, what is held is filtered at once; what only the daemon has follows."""
    async with dashboard(busy.socket) as driver:
        screen = await shown(driver)
        await driver.press("slash", *"rare:odd")
        await driver.until(lambda: screen.rows.shown)
        assert [one.provider for one in screen.rows.shown] == ["rare"]
        await driver.press("escape")
        await driver.until(lambda: len(screen.rows.shown) >= 200)


async def test_sorting_is_over_everything_recorded(busy: House) -> None:
    """By time, oldest first, the first row is the first request ever, though it was never held."""
    async with dashboard(busy.socket) as driver:
        screen = await shown(driver)
        await driver.press("s")
        await driver.until(lambda: screen.rows.shown[0].provider == "rare")
        times = [one.at for one in screen.rows.shown]
        assert times == sorted(times)
        await driver.press("S")
        await driver.until(lambda: screen.rows.shown[0].requested == "task:code_generation")


async def test_what_was_missed_is_fetched(busy: House) -> None:
    """After a disconnection, whatever ended meanwhile is asked for until something known comes."""
    async with dashboard(busy.socket) as driver:
        screen = await shown(driver)
        await driver.until(lambda: len(screen.rows.shown) >= 200)
        known = driver.app.house.requests
        oldest = known[0]
        known.clear()
        known.append(oldest)
        again = Connection("live", driver.app.house.connection.since + 1, ever=True)
        driver.app._deliver([Event(0, driver.app.house.now, "connection", asdict(again))])
        await driver.until(lambda: len(screen.listing._held) == 1 and screen.rows.shown[0].id != oldest.id)
        assert screen.rows.shown[0].requested == "task:code_generation"
        await driver.until(lambda: len(screen.rows.shown) == MANY + 3)


async def test_follow_and_pause(house: House) -> None:
    """New requests appear on top; in a pause they are only counted; from further down, f goes back to the newest."""
    async with dashboard(house.socket) as driver:
        screen = await shown(driver)
        first = house.chat("lab:m1", max_tokens=1).headers["x-hybridd-request-id"]
        await driver.until(lambda: screen.rows.shown[0].id == first)
        assert "following" in driver.text
        await driver.press("p")
        before = len(screen.rows.shown)
        house.chat("lab:m1", max_tokens=1)
        await driver.until(lambda: "PAUSED: 1 new" in driver.text)
        assert len(screen.rows.shown) == before
        await driver.press("p", "down")
        chosen = screen.rows.selected
        assert "f follows again" in driver.text
        house.chat("lab:m1", max_tokens=1)
        await driver.until(lambda: len(screen.rows.shown) == before + 2)
        assert screen.rows.selected == chosen
        await driver.press("f")
        assert screen.rows.cursor == 0
        assert "following" in driver.text


async def test_one_request_is_explained_and_routed_again(house: House) -> None:
    """Enter shows every passed over candidate with its reason and a bar for each call; w says who would answer now."""
    async with dashboard(house.socket, size=(100, 40)) as driver:
        screen = await shown(driver)
        target = next(one for one in screen.rows.shown if one.task == "code_generation")
        screen.rows.select(target.id)
        await driver.press("enter")
        await driver.until(lambda: "TIME" in driver.text and "WHY" in driver.text)
        assert "passed over (quota)" in driver.text
        assert "2 lab:m1" in driver.text
        assert "▒" in driver.text
        await driver.press("w")
        await driver.until(lambda: "IF IT WERE ASKED NOW" in driver.text)
        assert driver.text.count("chosen") == 1
        await driver.press("escape")
        assert driver.app.screen is screen


async def test_repeat_and_ask_another_where_no_text_is_kept(house: House) -> None:
    """R goes to the Playground with whom it was put to then, m with whom one chooses; the text is to be typed."""
    async with dashboard(house.socket, size=(100, 40)) as driver:
        screen = await shown(driver)
        target = next(one for one in screen.rows.shown if one.task == "code_generation")
        for key, typed, model in (("R", "", "task:code_generation"), ("m", "small:m1", "small:m1")):
            driver.app.go("requests", target.id)
            await driver.until(lambda: isinstance(driver.app.screen, RequestDetail) and "WHY" in driver.text)
            assert "the daemon keeps no text" in driver.text
            await driver.press(key)
            if typed:
                await driver.until(lambda: isinstance(driver.app.screen, PickModel))
                await driver.press(*typed, "enter")
            await driver.until(lambda: isinstance(driver.app.screen, Playground))
            await driver.until(lambda model=model: driver.screen.panes[0].model == model)  # type: ignore[misc]
            assert f"It goes to {model}" in said(driver)


async def test_repeat_and_ask_another_with_the_text(house: House) -> None:
    """Of what this dashboard has asked, question and answer are shown; R and m ask the same again, at once."""
    async with dashboard(house.socket, size=(100, 40)) as driver:
        driver.app.go("playground", "lab:m1")
        await driver.until(lambda: isinstance(driver.app.screen, Playground) and driver.screen.query("Prompt:focus"))
        driver.screen.query_one(Prompt).insert("Is it kept?")
        await driver.press("enter")
        await driver.until(lambda: driver.app.session.turns[-1].state == "done")
        turn = driver.app.session.turns[-1]
        for key, typed in (("R", ""), ("m", "task:code")):
            driver.app.go("requests", turn.request_id)
            await driver.until(lambda: isinstance(driver.app.screen, RequestDetail) and "WHY" in driver.text)
            assert "> Is it kept?" in driver.text
            assert turn.text.split()[0] in driver.text
            await driver.press(key)
            if typed:
                await driver.until(lambda: isinstance(driver.app.screen, PickModel))
                await driver.press(*typed, "enter")
            count = 3 if typed else 2
            await driver.until(lambda count=count: len(driver.app.session.turns) == count)  # type: ignore[misc]
            again = driver.app.session.turns[-1]
            await driver.until(lambda again=again: again.state == "done")  # type: ignore[misc]
            assert again.prompt == "Is it kept?"
            assert again.model == ("task:code_generation" if typed else "lab:m1")


async def test_a_live_row_says_what_the_record_says(house: House) -> None:
    """Client, our own time and why another one answered are in the event as they are in the daemon's list."""
    async with dashboard(house.socket) as driver:
        answer = house.chat("task:code_generation", max_tokens=1, headers={"x-hybridd-client": "notebook"})
        wanted = answer.headers["x-hybridd-request-id"]
        await driver.until(lambda: wanted in driver.app.house.request_ids)
        live = next(one for one in driver.app.house.requests if one.id == wanted)
        assert live.client == "notebook"
        recorded = None
        while recorded is None:  # it is written a moment after it is told
            found = house.http.get("/v1/requests", params={"q": wanted}).json()["requests"]
            recorded = msgspec.convert(found[0], Request) if found else None
        assert recorded.fell_back is not None
        assert abs((recorded.overhead_ms or 0) - (live.overhead_ms or 0)) < 0.01
        for name in ("client", "tier", "fell_back", "attempts", "status"):
            assert getattr(recorded, name) == getattr(live, name)


async def test_who_types_asks_one_question_at_a_time(busy: House) -> None:
    """Every key asks at once when no answer is awaited, and the last text is what is shown in the end."""
    async with dashboard(busy.socket) as driver:
        screen = await shown(driver)
        open_now, most, calls, answered = 0, 0, [], asyncio.Event()
        ask = driver.app.query_daemon

        async def counted(call: Any, **more: Any) -> Any:
            nonlocal open_now, most
            open_now += 1
            most = max(most, open_now)
            calls.append(call.path)
            await answered.wait()
            try:
                return await ask(call, **more)
            finally:
                open_now -= 1

        driver.app.query_daemon = counted  # type: ignore[method-assign]
        await driver.press("slash", *"rare:odd")
        assert len(calls) == 1
        answered.set()
        await driver.until(lambda: screen.rows.shown and not screen._asking)
        assert [one.provider for one in screen.rows.shown] == ["rare"]
        assert most == 1
        assert "q=rare%3Aodd" in calls[-1]


async def test_how_it_ended_can_be_typed(house: House) -> None:
    """The words of the column OUTCOME filter like every other text that is seen."""
    async with dashboard(house.socket) as driver:
        screen = await shown(driver)
        house.chat("lab:nothing-of-the-kind")
        await driver.press("slash", *"fell")
        await driver.until(lambda: screen.rows.shown and all(one.fell_back for one in screen.rows.shown))


async def test_stepping_through_the_table(house: House) -> None:
    """n and N go to the next and the previous row without going back."""
    async with dashboard(house.socket) as driver:
        screen = await shown(driver)
        first, second = screen.rows.shown[:2]
        await driver.press("enter")
        await driver.until(lambda: first.id in driver.text)
        await driver.press("n")
        await driver.until(lambda: second.id in driver.text)
        await driver.press("N")
        await driver.until(lambda: first.id in driver.text)


async def test_coming_from_elsewhere(house: House) -> None:
    """Another screen sends the user to one request, or to a filter."""
    async with dashboard(house.socket) as driver:
        wanted = house.http.get("/v1/requests").json()["requests"][-1]["id"]
        driver.app.go("requests", wanted)
        await driver.until(lambda: isinstance(driver.app.screen, RequestDetail) and wanted in driver.text)
        driver.app.go("requests", "provider=small")
        await driver.until(
            lambda: isinstance(driver.app.screen, Requests) and screen_of(driver).rows.filter_text == "provider=small"
        )
        await driver.until(lambda: {one.provider for one in screen_of(driver).rows.shown} == {"small"})


async def test_a_request_that_is_unknown_is_said(house: House) -> None:
    """An id that was never given out is no crash but a sentence."""
    async with dashboard(house.socket) as driver:
        driver.app.go("requests", "req_0000000000001")
        await driver.until(lambda: "There is no request" in driver.text)


async def test_a_request_opened_without_the_daemon_is_asked_for_when_it_is_back(upstream: FakeUpstream) -> None:
    """What the table knew of it is shown meanwhile; its candidates come with the daemon."""
    with House({"providers": {"lab": lab(upstream.base_url)}}) as house:
        house.chat("lab:m1", max_tokens=3)
        async with dashboard(house.socket) as driver:
            await shown(driver)
            house.stop()
            await driver.until(lambda: driver.app.house.connection.state == "lost")
            await driver.press("enter")
            await driver.until(lambda: "No daemon answers" in driver.lines[-2] or "not known here" in driver.text)
            await driver.until(lambda: driver.screen.error)
            house.start()
            driver.app.action_reconnect()
            await driver.until(lambda: driver.screen.whole and not driver.screen.error)


async def test_a_failed_request_says_why() -> None:
    """Nobody answered: the table has the status, the detail the reason of each candidate."""
    with FakeUpstream() as fake, House({"providers": {"lab": lab(fake.base_url)}}) as house:
        fake.script([rule({"status": 401})])
        house.chat("lab:m1")
        async with dashboard(house.socket, size=(100, 24)) as driver:
            await shown(driver)
            assert "nobody (lab:m1)" in driver.text
            assert "failed 50" in driver.text
            await driver.press("enter")
            await driver.until(lambda: "passed over" in driver.text)
            assert "the host answered 401" in driver.text


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (160, 50)])
async def test_all_sizes(house: House, size: tuple[int, int]) -> None:
    """The columns that matter most are there on the smallest terminal; further ones come with room."""
    async with dashboard(house.socket, size=size) as driver:
        await shown(driver)
        head = driver.lines[2]
        assert "ANSWERED BY" in head
        assert "TOOK" in head
        assert ("CLIENT" in head) == (size[0] >= 160)


async def test_export(house: House, tmp_path: Path) -> None:
    """The table as CSV has the rows that are shown, with plain numbers."""
    async with dashboard(house.socket) as driver:
        driver.app.folder = tmp_path
        screen = await shown(driver)
        await driver.press("e", "c")
        await driver.until(lambda: list(tmp_path.glob("*.csv")))
        with next(tmp_path.glob("*.csv")).open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(screen.rows.shown)
        assert float(rows[0]["latency_ms"]) > 0


async def test_new_rows_do_not_move_what_is_read(busy: House) -> None:
    """Scrolled down by the wheel or by keys, the lines that are seen stay while new requests come on top."""
    async with dashboard(busy.socket) as driver:
        screen = await shown(driver)
        await driver.until(lambda: len(screen.rows.shown) >= 200)
        screen.rows.scroll_to(y=60, animate=False, immediate=True)
        await driver.pilot.pause()
        before, count = driver.lines[3:10], len(screen.rows.shown)
        busy.chat("lab:m1", max_tokens=1)
        await driver.until(lambda: len(screen.rows.shown) == count + 1)
        await driver.pilot.pause()
        assert driver.lines[3:10] == before
        assert screen.rows.scroll_offset.y == 61
