"""The Logs screen: what it holds, and what it shows of a real daemon."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import pytest

from hybridd import i18n
from hybridd.contracts.views import LogPage, LogView, PluginView
from tests.fakes.upstream import FakeUpstream, rule
from tests.house import House as Daemon
from tests.house import lab
from tests.tui.support import Driver, dashboard
from tui.deltas import apply
from tui.events import Event, answer
from tui.house import House
from tui.logbook import MOST, PAGE, Logbook
from tui.screens.log_detail import LogDetail
from tui.screens.log_lines import detail_lines, fold, leads
from tui.screens.logs import Logs
from tui.screens.requests import Requests
from tui.shapes import Connection
from tui.text import ASCII, RICH, plain

CHATTER = "while [ ! -e $0 ]; do sleep 0.02; done; seq -f 'chatter %g' 190 >&2; exec sleep 600"


def record(number: int, message: str = "hello", **more: Any) -> LogView:
    return LogView(number, 1_795_226_000.0 + number, more.pop("level", "info"), "hybridd.test", message, **more)


def paged(ids: Sequence[int], following: int | None, lost: int = 0) -> LogPage:
    return LogPage([record(one) for one in ids], following, "info", len(ids), lost, None, 0.0)


@pytest.fixture(autouse=True)
def _english_again() -> Iterator[None]:
    yield
    i18n.use(None)


# ---- the book -----------------------------------------------------------------------------------------------------


def test_what_came_by_itself_and_pages_become_one_list() -> None:
    """Live records first, then the newest page and older ones: each once, newest first."""
    book = Logbook()
    for number in (8, 9, 10, 9):
        book.take(record(number))
    assert [one.id for one in book.rows()] == [10, 9, 8]
    call = book.next_call()
    assert call is not None
    assert call.path == f"/v1/logs?limit={PAGE}"
    book.page(paged([9, 8, 7, 6], 6))
    assert [one.id for one in book.rows()] == [10, 9, 8, 7, 6]
    call = book.next_call()
    assert call is not None
    assert call.path == f"/v1/logs?limit={PAGE}&before=6"
    book.page(paged([5, 4], None))
    assert [one.id for one in book.rows()] == [10, 9, 8, 7, 6, 5, 4]
    assert book.next_call() is None


def test_nothing_is_shown_across_a_gap() -> None:
    """After records that came too fast, what is older waits until the pages reach it; a page that is too old helps
    nothing."""
    book = Logbook()
    book.take(record(1))
    book.page(paged([1], None))
    book.gap(last=1000, count=999)
    book.take(record(1001))
    assert book.left_out == 999
    book.page(paged([900, 899], 899))
    assert [one.id for one in book.rows()] == [1001, 1]  # both ends of the gap, which is counted
    book.page(paged([1001, 1000, 999], 999))
    assert book.joined
    assert [one.id for one in book.rows()] == [1001, 1000, 999]
    book.page(paged([998], None, lost=10))
    assert [one.id for one in book.rows()] == [1001, 1000, 999, 998, 1]
    assert book.lost == 10


def test_a_restarted_daemon_adds_to_what_is_known() -> None:
    """The records of the run before stay: they may say why it ended."""
    book = Logbook()
    book.take(record(5))
    book.page(paged([5], None))
    book.begin()
    assert [one.id for one in book.rows()] == [5]
    book.page(paged([2001, 2000], None))
    assert [one.id for one in book.rows()] == [2001, 2000, 5]


def test_the_book_is_bounded() -> None:
    """In number and in text, whatever comes by itself."""
    book = Logbook()
    for number in range(MOST + 500):
        book.take(record(number + 1))
    assert len(book) == MOST
    assert book.records[0].id == 501
    for number in range(1000):
        book.take(record(MOST + 1000 + number, "x" * 16_000))
    assert 100 < len(book) < 300


def test_events_fill_the_house() -> None:
    """Records, gaps and answers of a stream or of a recording; something of another shape is counted and ignored."""
    house = House()
    assert apply(house, Event(1, 1.0, "log", json.loads(json.dumps(asdict_of(record(7)))))) == {"logs"}
    assert apply(house, Event(2, 2.0, "log", {"left_out": 3, "first": 8, "last": 10})) == {"logs"}
    assert house.logs.left_out == 3
    assert apply(house, Event(3, 3.0, "log", {"id": "x"})) == set()
    assert house.misread == 1
    body = {"logs": [asdict_of(record(10))], "next": None, "level": "info", "kept": 1, "lost": 0, "first": 10,
            "oldest": 1.0}  # fmt: skip
    apply(house, answer("logs", body, 4.0))
    assert [one.id for one in house.logs.rows()] == [10, 7]


def asdict_of(one: LogView) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__struct_fields__}


# ---- lines --------------------------------------------------------------------------------------------------------


def test_folding_loses_nothing() -> None:
    """Every character of a long line is shown, what is indented stays so, wide characters are not cut in two."""
    text = "x" * 50 + "\n    indented and then rather long for it\n漢字" + "漢" * 30
    lines = fold(text, 20)
    assert max(len(line) + sum(ord(one) > 0x2000 for one in line) for line in lines) <= 20
    assert "".join(lines).replace(" ", "") == text.replace("\n", "").replace(" ", "")
    assert "    indented and" in lines
    assert fold("", 20) == [""]


@pytest.mark.parametrize("signs", [RICH, ASCII])
def test_a_whole_record(signs: Any) -> None:
    """Message, level in words, fields, the trace, and that it was shortened; nothing steers the terminal."""
    one = record(
        1, "first line\n\x1b[31msecond", level="error", provider="groq", fields={"data": {"a": [1]}, "path": "/x"},
        exception="Traceback:\n  frame\nValueError: Ouch", cut=True,
    )  # fmt: skip
    text = "\n".join(plain(line) for line in detail_lines(one, 60, signs, one.at + 5))
    for part in ("first line", "second", "error", "5 s ago", "groq", '"a": [', "/x", "EXCEPTION", "ValueError: Ouch",
                 "16 KiB"):  # fmt: skip
        assert part in text
    assert "\x1b" not in text


def test_where_records_lead() -> None:
    """To the request, the alert, the local model, the provider; of a plugin's words to the provider it serves."""
    house = House()
    house.plugins["groq"] = PluginView("groq", "ready", 1, 0, ["groq"], 0.0)
    full = record(1, request="req_660bb14fe416a", provider="groq", fields={"alert": "QuotaLow", "id": 3})
    assert [where[:2] for where in leads(full, house)] == [
        ("requests", "req_660bb14fe416a"), ("alerts", "3"), ("requests", "provider=groq"),
    ]  # fmt: skip
    told = record(2)
    told.component = "hybridd.plugin.groq"
    assert [where[1] for where in leads(told, house)] == ["provider=groq"]
    assert leads(record(3), house) == []


# ---- on a daemon --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("switch")


@pytest.fixture(scope="module")
def talkative(upstream: FakeUpstream, switch: Path):
    """A daemon with a plugin that has printed 720 lines, one that waits with 190 until it may, and an alert."""
    provider = {"plugin": "chatter", "command": ["sh", "-c", CHATTER, str(switch / "go")]}
    lines = [
        {"plugin": f"early{number}", "command": ["sh", "-c", "seq -f 'early %g' 180 >&2; exec sleep 600"]}
        for number in range(4)
    ]
    providers = {
        "parked": lab(upstream.base_url, models={"locked": {}}),
        "chatter": provider,
        "lab": lab(upstream.base_url),
    }
    providers |= {f"early{number}": one for number, one in enumerate(lines)}
    with Daemon({"providers": providers}) as running:
        upstream.script([rule({"status": 401}, model="locked")])
        running.chat("parked:locked", max_tokens=1)
        upstream.reset()
        yield running


def screen_of(driver: Driver) -> Logs:
    return cast(Logs, driver.app.screen)


async def shown(driver: Driver) -> Logs:
    await driver.press("8")
    await driver.until(lambda: isinstance(driver.app.screen, Logs) and screen_of(driver).book.joined)
    return screen_of(driver)


def count(driver: Driver, message: str) -> int:
    return sum(one.message.startswith(message) for one in driver.app.house.logs.records)


async def test_the_log_and_its_older_pages(talkative: Daemon) -> None:
    """The newest page is asked for when the screen is first shown, and the older ones as the end comes near."""
    async with dashboard(talkative.socket) as driver:
        assert not driver.app.house.logs.joined
        screen = await shown(driver)
        await driver.until(lambda: len(screen.rows.shown) >= PAGE)
        await driver.until(lambda: not screen._asking)
        for _ in range(3):
            await driver.press("end")
            await driver.until(lambda: not screen._asking)
        assert not screen.book.more
        assert "since the start" in driver.text
        assert "ready" in {one.message for one in screen.rows.shown}
        assert count(driver, "early") == 720
        ids = [one.id for one in screen.rows.shown]
        assert ids == list(range(ids[0], ids[-1] - 1, -1))


async def test_filter_level_sort(talkative: Daemon) -> None:
    """Words and column=part as in any table, also in what is not shown of a row; l keeps a level and worse."""
    async with dashboard(talkative.socket) as driver:
        screen = await shown(driver)
        await driver.press("slash", *"level=warning")
        await driver.until(lambda: screen.rows.shown and all(one.level == "warning" for one in screen.rows.shown))
        assert "parked is parked" in driver.text
        await driver.press("escape")
        await driver.press("slash", *"provider_parked", "enter")
        await driver.until(lambda: len(screen.rows.shown) == 1)
        await driver.press("escape")
        await driver.press("l", "l")
        await driver.until(lambda: "warning and worse" in driver.text)
        assert {one.level for one in screen.rows.shown} <= {"warning", "error", "critical"}
        await driver.press("l")
        await driver.until(lambda: not screen.rows.shown)
        assert "Nothing of this level" in driver.text
        await driver.press("L", "L", "L")
        await driver.press("s", "s")
        await driver.until(lambda: "worst first" in driver.text)
        assert screen.rows.shown[0].level == "warning"


async def test_the_whole_record_leads_on(talkative: Daemon) -> None:
    """Enter shows all of a record; from there Enter goes to the alert and O to the calls of its provider; y and Y
    copy it."""
    async with dashboard(talkative.socket, size=(100, 30)) as driver:
        screen = await shown(driver)
        await driver.press("slash", *"provider_parked", "enter")
        await driver.until(lambda: len(screen.rows.shown) == 1)
        await driver.press("enter")
        await driver.until(lambda: isinstance(driver.app.screen, LogDetail) and "provider_parked:parked" in driver.text)
        assert "hybridd.monitor" in driver.text
        await driver.press("Y")
        assert json.loads(driver.app.clipboard)["provider"] == "parked"
        await driver.press("y")
        assert "alert      ProviderParked" in driver.app.clipboard
        await driver.press("O")
        await driver.until(lambda: isinstance(driver.app.screen, Requests))
        assert driver.screen.rows.filter_text == "provider=parked" or "provider=parked" in driver.text
        await driver.press("8")
        await driver.until(lambda: isinstance(driver.app.screen, Logs))
        await driver.press("enter")
        await driver.until(lambda: isinstance(driver.app.screen, LogDetail))
        await driver.press("enter")
        await driver.until(lambda: driver.screen.NAME == "alerts" and "parked is parked" in driver.text)


async def test_live_pause_and_follow(talkative: Daemon) -> None:
    """A new record appears by itself; in a pause it is only counted; p goes on."""
    async with dashboard(talkative.socket) as driver:
        screen = await shown(driver)
        talkative.http.post("/v1/reload", json={})
        await driver.until(lambda: screen.rows.shown[0].message == "configuration reloaded")
        assert "following" in driver.text
        await driver.press("p")
        before = len(screen.rows.shown)
        talkative.http.post("/v1/reload", json={})
        await driver.until(lambda: "PAUSED: 1 new" in driver.text)
        assert len(screen.rows.shown) == before
        await driver.press("p")
        await driver.until(lambda: len(screen.rows.shown) == before + 1)
        await driver.press("down")
        assert "f follows again" in driver.text
        await driver.press("f")
        assert screen.rows.cursor == 0


async def test_what_came_too_fast_is_fetched(talkative: Daemon, switch: Path) -> None:
    """190 lines at once: the stream tells fifty of them and how many not, and the screen asks for those."""
    async with dashboard(talkative.socket) as driver:
        screen = await shown(driver)
        gaps: list[int] = []
        book, gap = screen.book, screen.book.gap

        def noticed(last: int, count: int) -> None:
            gaps.append(count)
            gap(last, count)

        book.gap = noticed  # type: ignore[method-assign]
        (switch / "go").touch()
        await driver.until(lambda: count(driver, "chatter") == 190 and book.joined)
        assert sum(gaps) >= 100
        ids = [one.id for one in screen.rows.shown]
        assert ids == list(range(ids[0], ids[-1] - 1, -1))


async def test_export(talkative: Daemon, tmp_path: Path) -> None:
    """What is shown, as CSV with its fields and as JSON."""
    async with dashboard(talkative.socket) as driver:
        driver.app.folder = tmp_path
        screen = await shown(driver)
        await driver.press("slash", *"level=warning", "enter")
        await driver.until(lambda: len(screen.rows.shown) < 10)
        await driver.press("e", "c")
        await driver.press("e", "j")
        (table,) = tmp_path.glob("*.csv")
        (plain_data,) = tmp_path.glob("*.json")
        rows = list(csv.DictReader(table.open()))
        assert "provider_parked" in rows[-1]["fields"]
        assert json.loads(plain_data.read_text())[-1]["fields"]["alert"] == "ProviderParked"


async def test_the_past_has_no_log(talkative: Daemon) -> None:
    """Gone to a time before the start it says that the log is kept only since then; nothing is made up."""
    async with dashboard(talkative.socket) as driver:
        screen = await shown(driver)
        await driver.press("left_curly_bracket")
        await driver.until(lambda: driver.app.past is not None and "PAUSED" in driver.text)
        await driver.until(lambda: not screen.rows.shown)
        assert "there is no log" in driver.text
        assert "since the daemon started" in driver.text
        await driver.press("G")
        await driver.until(lambda: screen.rows.shown)


async def test_an_older_daemon_says_so(talkative: Daemon) -> None:
    """A question that the daemon refuses is told on the screen, and asked again after the next connection only."""
    async with dashboard(talkative.socket) as driver:
        screen = await shown(driver)
        screen.book.begin()
        query, asked = driver.app.query_daemon, []

        async def refuse(call: Any, **more: Any) -> Any:
            asked.append(call.path)
            return await query(call._replace(path="/v1/nothing"), **more)

        driver.app.query_daemon = refuse  # type: ignore[method-assign]
        screen.fill()
        await driver.until(lambda: "There is nothing at /v1/nothing" in driver.text)
        screen.fill()
        assert len(asked) == 1
        driver.app.query_daemon = query  # type: ignore[method-assign]
        again = Connection("live", driver.app.house.connection.since + 1, ever=True)
        driver.app._deliver([Event(0, driver.app.house.now, "connection", asdict(again))])
        await driver.until(lambda: screen.book.joined)


async def test_in_portuguese(talkative: Daemon, tmp_path: Path) -> None:
    """Titles, levels and sentences are translated; what the daemon says is not. A level is found by either word."""
    config = tmp_path / "c.json"
    config.write_text(json.dumps({"tui": {"language": "pt-BR"}}))
    async with dashboard(talkative.socket, config=config) as driver:
        screen = await shown(driver)
        for typed in ("aviso", "level=warning"):
            await driver.press("slash", *typed, "enter")
            await driver.until(lambda: screen.rows.shown and len(screen.rows.shown) < 10)
            assert "MENSAGEM" in driver.text
            assert "! aviso" in driver.text
            assert "parked is parked" in driver.text
            await driver.press("escape")
