"""The Overview at every size, with a real daemon and with houses made for the purpose."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from hybridd.contracts.views import Forecast, LimitView, ModelView, ProviderView
from tests.house import House as Daemon
from tests.tui.support import dashboard
from tui.house import Cost, Gpu, Host, House, Request, Resident
from tui.screens.overview_blocks import LAST_COLUMNS, heights, now_lines, rule
from tui.screens.overview_rows import columns, forecast_text, provider_rows, used_text
from tui.text import ASCII, RICH, Line, plain
from tui.widgets.columns import layout, row_line

SIZES = [(60, 20), (80, 24), (160, 50), (300, 80)]
NOW = 1_795_000_000.0


def provider(name: str, state: str = "ready", **more: object) -> ProviderView:
    reason = "" if state == "ready" else f"{state} because"
    models = [ModelView("m1")]
    return ProviderView(name, "p", state, reason, models, name, NOW, **more)  # type: ignore[arg-type]  # of the test


def limit(provider: str, used: float = 1, *, unit: str = "requests", whole: float = 15, **more: object) -> LimitView:
    given = {"window": "60s", "reserved": 0.0, "remaining": whole - used, "buffer": 0.0, "reset": None, **more}
    return LimitView(f"{provider}/{unit}", provider, provider, unit, limit=whole, used=used, source="config", **given)  # type: ignore[arg-type]  # of the test


def house(*providers: ProviderView, limits: tuple[LimitView, ...] = ()) -> House:
    made = House(now=NOW)
    made.providers = {one.name: one for one in providers}
    made.limits = {one.key: one for one in limits}
    return made


def drawn(made: House, width: int = 80, signs=RICH) -> list[str]:
    shown = layout(columns(width), width)
    return [plain(row_line(row, shown, signs)) for row in provider_rows(made)]


def test_rows_are_ordered_by_trouble_then_by_name() -> None:
    """What is broken, what is used up, what will run out, what works, what is not set up."""
    soon = Forecast(NOW + 600, NOW + 300, NOW + 900, 1.0)
    made = house(
        provider("zeta"), provider("alpha"), provider("off", "disabled"), provider("new", "not_configured"),
        provider("dead", "parked"), provider("empty"), provider("soon"), provider("gone", "retired"),
        limits=(limit("empty", 15), limit("soon", forecast=soon), limit("alpha"), limit("zeta")),
    )  # fmt: skip
    assert [row.provider.name for row in provider_rows(made) if row.first] == [
        "dead", "empty", "soon", "gone", "alpha", "zeta", "new", "off",
    ]  # fmt: skip


def test_a_state_is_a_word_and_a_reason_a_sentence() -> None:
    """What is out of use says why in place of its figures."""
    made = house(provider("dead", "parked"), provider("new", "not_configured"), limits=(limit("dead"),))
    parked, fresh = drawn(made)
    assert "parked" in parked
    assert "parked because" in parked
    assert "▓" not in parked
    assert "not set up" in fresh


def test_figures_do_not_jump() -> None:
    """Other figures leave every column where it was."""
    few = drawn(house(provider("lab"), limits=(limit("lab", 1),)))[0]
    many = drawn(house(provider("lab"), limits=(limit("lab", 12, reserved=2.0, remaining=1.0),)))[0]
    assert len(few) == len(many) == 80
    assert few.index("/15") == many.index("/15")
    assert few.index("req/min") == many.index("req/min")


@pytest.mark.parametrize("width", [60, 78, 80, 96, 104, 160, 300])
def test_rows_fill_their_width(width: int) -> None:
    """Exactly as wide as there is room, at any width."""
    made = house(provider("lab"), provider("gone", "retired"), limits=(limit("lab"), limit("lab", unit="usd")))
    assert {len(line) for line in drawn(made, width)} == {width}
    assert all(line.isascii() for line in drawn(made, width, ASCII))


def test_forecasts() -> None:
    """Used up with its return, the moment with its interval, drift, or nothing to say."""
    later = limit("a", forecast=Forecast(NOW + 3600, NOW + 1800, NOW + 5400, 1.0))
    assert forecast_text(later, NOW, 20, RICH)[0].endswith("±30m !")
    assert forecast_text(limit("a", 15, reset=NOW + 60), NOW, 30, RICH)[0].startswith("used up, back ")
    assert forecast_text(limit("a", 14), NOW, 20, RICH)[0] == "low !"
    assert forecast_text(limit("a", drift=37.0), NOW, 20, RICH)[0] == "drift +37"
    assert forecast_text(limit("a"), NOW, 20, RICH) == ("ok", "dim")


def test_below_78_columns_a_forecast_is_a_mark() -> None:
    """The sign stays when its sentence has no room."""
    made = house(provider("lab"), limits=(limit("lab", 15),))
    assert drawn(made, 60)[0].endswith("!")


def test_amounts() -> None:
    """Used and held of the whole; money in dollars; per cent where figures would not fit."""
    assert used_text(limit("a", 9, reserved=2.0), 11) == "9+2/15"
    assert used_text(limit("a", 0.04, unit="usd", whole=0.1), 11) == "$0.04/0.10"
    assert used_text(limit("a", 92_000, unit="total_tokens", whole=100_000), 11) == "92 %"


def test_local_models_are_a_row_of_memory() -> None:
    """What is loaded, and how much of the memory it takes."""
    made = house(provider("local"))
    memory = {"device": {"weights": 3 * 2**30, "kv": 2**27}, "host": {}}
    made.local = {"tiny": Resident("tiny", "ready", memory=memory)}
    made.machine = {"gpus": [{"name": "g", "total": 4 * 2**30, "free": 2**30}], "ram_total": 1}
    (row,) = drawn(made)
    assert "1 loaded" in row
    assert "VRAM" in row
    assert "3.1/4.0 GiB" in row


def test_now_keeps_its_columns() -> None:
    """With and without data the words stand in the same place; below 72 columns there are no sparklines."""
    quiet, busy = House(now=NOW), House(now=NOW)
    busy.host = Host(cpu_percent=12.0, memory_total=16 * 2**30, memory_available=11 * 2**30)
    busy.host.gpus = [Gpu(0, "g", 4, 2, 2, 64.0, 61.0)]
    busy.costs = {"": Cost(today=0.02, month=0.41)}
    busy.rates.add(NOW - 2, 310.0, hit=True)
    for signs in (RICH, ASCII):
        for before, after in zip(now_lines(quiet, 80, signs), now_lines(busy, 80, signs), strict=True):
            assert len(plain(before)) == len(plain(after)) <= 80
            for word in ("latency", "cache", "RAM", "GPU", "month"):
                assert plain(before).find(word) == plain(after).find(word)
    text = said(now_lines(busy, 80, RICH))
    assert "310 ms" in text
    assert "61 °C" in text
    assert "▁" not in said(now_lines(busy, 70, RICH))


def said(lines: list[Line]) -> str:
    return "\n".join(plain(line) for line in lines)


def test_the_last_requests_say_what_happened() -> None:
    """Tokens and time, or the fall-back, or the failure, in words."""

    def line(**more: object) -> str:
        request = Request("req_1", NOW, provider="lab", model="m1", task="code_generation", **more)  # type: ignore[arg-type]  # of the test
        return plain(row_line(request, layout(LAST_COLUMNS, 80), RICH))

    assert "412→188 tok" in line(input_tokens=412, output_tokens=188, latency_ms=640.0, status=200)
    assert "640 ms" in line(input_tokens=412, output_tokens=188, latency_ms=640.0, status=200)
    assert "fell back: groq" in line(fell_back="groq tok/min until 14:02:31", status=200)
    assert "failed: no_feasible_provider" in line(error_code="no_feasible_provider", status=503)
    assert "cached" in line(cache="hit", status=200)


@pytest.mark.parametrize("width", [47, 54, 80, 120])
def test_the_last_requests_are_whole(width: int) -> None:
    """Beside the providers, too, tokens and time stand in full; a sentence takes the room of both."""
    request = Request("req_1", NOW, provider="openrouter", model="qwen3-coder", task="summarization", status=200,
                      input_tokens=2041, output_tokens=950, latency_ms=917.0)  # fmt: skip
    text = plain(row_line(request, layout(LAST_COLUMNS, width), RICH))
    assert "2,041→950" in text
    assert text.endswith("917 ms")
    assert "openrou" in text


def test_a_forecast_is_as_long_as_fits() -> None:
    """First the interval goes, then the word; the moment and its sign stay whole."""
    later = limit("a", forecast=Forecast(NOW + 36_000, NOW + 30_000, NOW + 42_000, 1.0))
    texts = [forecast_text(later, NOW, width, RICH)[0] for width in range(12, 30)]
    assert all(text.endswith(" !") for text in texts)
    assert all(cell_len(text) <= width for width, text in enumerate(texts, 12))
    assert texts[-1].startswith("out ")
    assert "±" in texts[-1]
    assert "±" not in texts[2]
    assert forecast_text(limit("a", drift=-5.0), NOW, 20, RICH) == ("drift -5", "dim")


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_a_rule_is_as_wide_as_its_block(width: int) -> None:
    """The hint goes before the title is cut."""
    for title in ("NOW", "LEFT, LAST 15 MINUTES, rolling: no resets"):
        assert cell_len(plain(rule(title, width, RICH, "-+ time"))) == width
    assert "-+" not in plain(rule("LEFT, LAST 15 MINUTES", 30, RICH, "-+ time"))


def test_quotas_that_are_fine_give_way() -> None:
    """Every provider is in sight before the second calm quota of any; what needs a look stays."""
    limits = tuple(
        limit(name, used, unit=unit)
        for name, used in (("a", 15), ("b", 1), ("c", 1))
        for unit in ("requests", "input_tokens", "output_tokens")
    )
    made = house(provider("a"), provider("b"), provider("c"), limits=limits)
    assert len(provider_rows(made)) == 9
    rows = provider_rows(made, room=6)
    assert [row.provider.name for row in rows] == ["a", "a", "a", "b", "b", "c"]
    assert len(provider_rows(made, room=2)) == 5


@pytest.mark.parametrize("rows", [18, 22, 40, 78])
@pytest.mark.parametrize("providers", [1, 6, 40])
@pytest.mark.parametrize("alerts", [0, 2, 30])
def test_heights_use_every_row(rows: int, providers: int, alerts: int) -> None:
    """No row is left over or given twice, and nothing that exists is left without one."""
    for_providers, last, for_alerts = heights(rows, providers, alerts, now=True)
    assert for_providers + last + for_alerts + 3 + 2 == rows
    assert min(for_providers, last, for_alerts) >= 1


@pytest.mark.parametrize("size", SIZES)
async def test_a_real_daemon_at_every_size(house: Daemon, size: tuple[int, int]) -> None:
    """Providers, the last requests and the alerts are all in sight, and nothing is wider than the terminal."""
    async with dashboard(house.socket, size) as driver:
        await driver.until(lambda: "used up" in driver.text or "back" in driver.text or "!" in driver.text)
        text = driver.text
        for word in ("PROVIDER", "lab", "small", "specialists", "LAST", "ALERTS", "lab:m1", "not set up"):
            assert word in text
        assert ("NOW" in text) == (size[0] >= 64)
        assert ("FORECAST" in text) == (size[0] >= 78)
        assert ("MONTH" in text) == (size[0] >= 160)
        assert len(driver.lines) == size[1]
        beside = any("PROVIDER" in line and "LAST" in line for line in driver.lines)
        assert beside == (size[0] >= 140)


async def test_it_follows_the_daemon(house: Daemon) -> None:
    """A call shows at once: the request, the quota and the cost, without anything being asked again."""
    async with dashboard(house.socket) as driver:
        app = driver.app
        before = app.house.limits["lab/requests/60s"].used
        answer = house.chat("lab:m1", max_tokens=3)
        await driver.until(lambda: answer.headers["x-hybridd-request-id"] in app.house.request_ids)
        await driver.until(lambda: app.house.limits["lab/requests/60s"].used > before)
        assert app.house.requests[-1].provider == "lab"


async def test_a_filter_moves_nothing_else(house: Daemon) -> None:
    """It looks at every quota, says whose it is, and leaves the blocks below where they are; Esc brings all back."""
    async with dashboard(house.socket) as driver:
        await driver.until(lambda: "cost/mo" in driver.text)
        before = driver.lines
        await driver.press("slash", *"lab/usd", "enter")
        await driver.until(lambda: "small" not in driver.lines[2] and "cost/mo" in driver.lines[2])
        assert driver.lines[2].startswith("lab ")
        assert [line[:6] for line in driver.lines].index("─ LAST") == [line[:6] for line in before].index("─ LAST")
        await driver.press("escape")
        await driver.until(lambda: driver.lines[2:6] == before[2:6])


async def test_ascii_is_ascii(house: Daemon) -> None:
    """With --ascii not a single other character is drawn, on the screen or in the dialogues over it."""
    async with dashboard(house.socket, ascii_only=True) as driver:
        assert driver.text.isascii()
        assert "#" in driver.text
        for key in ("question_mark", "e", "ctrl+o"):
            await driver.press(key)
            assert driver.text.isascii(), driver.text
            await driver.press("escape")


async def test_acknowledge_and_read_only(house: Daemon) -> None:
    """a acknowledges the first alert; in read-only mode the key does nothing and the help does not name it."""
    async with dashboard(house.socket, read_only=True) as driver:
        await driver.until(lambda: driver.app.house.open_alerts())
        number = driver.app.house.live_alerts()[0].id
        await driver.press("a", "question_mark")
        assert "read-only" in driver.text or "Acknowledge" not in driver.text
        assert "Acknowledge" not in driver.text
        assert driver.app.house.alerts[number].state == "open"
    async with dashboard(house.socket) as driver:
        await driver.until(lambda: driver.app.house.open_alerts())
        number = driver.app.house.live_alerts()[0].id
        await driver.press("a")
        await driver.until(lambda: driver.app.house.alerts[number].state == "acknowledged")


async def test_no_colour(house: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR leaves shades of grey, and everything still has its word."""
    monkeypatch.setenv("NO_COLOR", "1")
    async with dashboard(house.socket) as driver:
        assert driver.app.no_color
        assert "not set up" in driver.text
        assert driver.app.screen.has_class("-nocolour")


async def test_too_small(house: Daemon) -> None:
    """A terminal that is too small says what it has and what it needs, and draws again when it has grown."""
    async with dashboard(house.socket, (40, 12)) as driver:
        assert "This terminal is 40×12" in driver.text
        assert "needs 60×20" in driver.text
        await driver.pilot.resize_terminal(80, 24)
        await driver.until(lambda: "PROVIDER" in driver.text)
        assert "This terminal" not in driver.text
