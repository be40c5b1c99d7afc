"""Limits and one limit: on a real daemon, and the words and figures of limits made for the purpose."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from hybridd import i18n
from hybridd.contracts.views import Forecast, LimitView
from tests.fakes.upstream import FakeUpstream
from tests.house import House as Daemon
from tests.house import lab
from tests.tui.support import dashboard
from tui.house import House
from tui.screens.limit_detail import LimitDetail
from tui.screens.limit_lines import SPANS, fact_lines, fan_of, first_span, groups_of, plot_of, shares, used_of
from tui.screens.limits import COLUMNS, columns, quotas
from tui.text import ASCII, RICH, plain
from tui.widgets.columns import layout, row_line

NOW = 1_795_000_000.0
DAY = "lab/requests/day"


def limit(**more: Any) -> LimitView:
    given = {
        "key": "lab/requests/60s", "provider": "lab", "account": "lab", "unit": "requests", "window": "60s",
        "limit": 100.0, "used": 40.0, "reserved": 3.0, "remaining": 55.0, "buffer": 2.0, "reset": NOW + 30,
        "source": "config", **more,
    }  # fmt: skip
    return LimitView(**given)


def words(view: LimitView, *, past: bool = False, width: int = 100) -> str:
    return "\n".join(plain(line).rstrip() for line in fact_lines(view, NOW, width, RICH, past=past))


# ---- pure ----------------------------------------------------------------------------------------------------------


def test_a_limit_says_whose_count_differs() -> None:
    """Own count against the provider's, how old that is, and what a difference means."""
    assert "own only: the provider reports no figure" in words(limit())
    drifted = words(limit(observed_remaining=50.0, observed_at=NOW - 40, drift=7.0))
    assert "own 43, provider 50 (40 s ago): 7 more than ours; something else spends this account" in drifted
    assert "they agree" in words(limit(observed_remaining=57.0, observed_at=NOW, drift=0.0))
    assert "7 less than ours" in words(limit(observed_remaining=60.0, drift=-7.0))


def test_a_limit_says_what_is_held_kept_left_and_when_it_returns() -> None:
    """Every part of the bar in figures; a calendar quota returns as a whole, a rolling one bit by bit."""
    said = words(limit())
    assert "40 used + 3 held of 100, 2 kept as buffer" in said
    assert "55 may still be used; the next part returns" in said
    assert "in debt" in words(limit(debt=5.0))
    assert "all of it returns" in words(limit(window="month", zone="Europe/Berlin"))
    assert "calendar month, Europe/Berlin" in words(limit(window="month", zone="Europe/Berlin"))


@pytest.mark.parametrize(
    ("forecast", "said"),
    [
        (None, "no pace to speak of"),
        (Forecast(None, None, None, 2.0), "does not run out before capacity returns, at 2/s"),
        (Forecast(None, NOW + 5, None, 0.5), "hardly runs out; at the earliest"),
        (Forecast(NOW + 9, NOW + 5, None, 0.5), "to never), at 30/min"),
        (Forecast(NOW + 9, NOW + 5, NOW + 20, 1 / 60), "at 1/min"),
    ],
)
def test_a_forecast_is_told_with_its_interval(forecast: Forecast | None, said: str) -> None:
    """Point, 80 % interval and pace; what is open is said to be open."""
    assert said in words(limit(forecast=forecast))


def test_the_past_claims_nothing_that_is_not_recorded() -> None:
    """No forecast, no provider's figure."""
    said = words(limit(forecast=Forecast(NOW + 9, NOW + 5, None, 0.5), observed_remaining=1.0), past=True)
    assert "forecasts are not recorded" in said
    assert "what the provider reported then is not recorded" in said


def test_the_plot_reaches_as_far_ahead_as_the_forecast() -> None:
    """At most half of what is seen of the past; without a forecast it ends now."""
    assert plot_of(limit(), [], 3600, NOW).end == NOW
    soon = plot_of(limit(forecast=Forecast(NOW + 600, NOW + 500, NOW + 900, 1)), [], 3600, NOW)
    assert NOW + 900 < soon.end < NOW + 1100
    late = plot_of(limit(forecast=Forecast(NOW + 9e5, NOW + 8e5, NOW + 1e6, 1)), [], 3600, NOW)
    assert late.end == NOW + 1800
    assert fan_of(limit(forecast=Forecast(None, None, None, 1)), NOW) is None


@given(st.floats(0, 1e6), st.floats(1, 1e5), st.floats(1, 1e5), st.none() | st.floats(1, 1e5), st.floats(0, 3e5))
def test_the_band_never_crosses_itself(left, earliest, later, latest, ahead) -> None:
    """Low below high, neither above what remains now nor below zero."""
    forecast = Forecast(NOW + earliest + later, NOW + earliest, latest and NOW + earliest + later + latest, 1.0)
    fan = fan_of(limit(remaining=left, forecast=forecast), NOW)
    if left > 0:
        assert fan is not None
        low, high = fan.at(NOW + ahead)
        assert 0 <= low <= high <= left


@pytest.mark.parametrize(
    ("window", "first"),
    [
        ("60s", "15 minutes"),
        ("3600s", "6 hours"),
        ("day", "day"),
        ("86400s", "day"),
        ("month", "30 days"),
        ("none", "6 hours"),
    ],
)
def test_the_first_span_suits_the_window(window: str, first: str) -> None:
    """Long enough to see the window, not longer."""
    assert SPANS[first_span(limit(window=window))][1] == first


ROWS: list[dict[str, Any]] = [
    {"task": "code", "client": "ci", "model": "m1", "requests": 3, "calls": 4, "input_tokens": 5, "output_tokens": 6,
     "cost_usd": 0.5, "bytes_down": None},
    {"task": None, "client": None, "model": "m2", "requests": 1, "calls": 1, "input_tokens": 2, "output_tokens": None,
     "cost_usd": 0.0, "bytes_down": 7},
]  # fmt: skip


@pytest.mark.parametrize(
    ("unit", "used"),
    [("requests", 4), ("input_tokens", 5), ("output_tokens", 6), ("total_tokens", 11), ("usd", 0.5), ("bytes_down", 0)],
)
def test_use_is_counted_in_the_quotas_unit(unit: str, used: float) -> None:
    """Calls for requests, tokens, dollars, bytes."""
    assert used_of(ROWS[0], unit) == used


def test_who_used_it_adds_up_and_leaves_other_models_out() -> None:
    """The parts are of one whole; a quota of one model counts that model alone."""
    both = shares(ROWS, limit(), "client")
    assert [(one.name, one.used) for one in both] == [("ci", 4), (None, 1)]
    assert sum(one.part for one in both) == pytest.approx(1)
    assert [one.name for one in shares(ROWS, limit(models=["m2"]), "task")] == [None]
    assert shares([{"task": "t", "model": "m1"}], limit(), "client") == []
    assert groups_of(limit()) == ("task", "client", "model")
    assert groups_of(limit(unit="bytes_up")) == ("task", "model")
    assert groups_of(limit(models=["hub:downloads"])) == ("task", "model")


@pytest.mark.parametrize("width", [60, 77, 80, 104, 160, 300])
def test_rows_fit_at_every_width(width: int) -> None:
    """No column is lost to a sum that does not fit, and trouble stays a word or a sign."""
    made = House(now=NOW)
    out = limit(remaining=0.0, used=98.0)
    made.limits = {out.key: out, DAY: limit(key=DAY, window="day", drift=3.0)}
    shown = layout(columns(width), width)
    lines = [plain(row_line(row, shown, ASCII)) for row in quotas(made)]
    assert {len(line) for line in lines} == {width}
    assert lines[0].rstrip().endswith("!")
    assert all(column.value is not None for column in COLUMNS)


@pytest.mark.parametrize("language", ["en", "pt_BR"])
@pytest.mark.parametrize("width", [60, 80, 160])
def test_sentences_go_on_below_or_end_with_a_sign(language: str, width: int) -> None:
    """No fact is wider than the screen: with room below it every word is there, without it the cut is seen."""
    forecast = Forecast(NOW + 9000, NOW + 5000, None, 0.5)
    drifted = limit(observed_remaining=50.0, observed_at=NOW - 40, drift=7.0, debt=3.0, forecast=forecast)
    i18n.use(language)
    try:
        whole = [plain(line).split() for line in fact_lines(drifted, NOW, 300, RICH, past=False)]
        wrapped = [plain(line) for line in fact_lines(drifted, NOW, width, RICH, past=False)]
        cut = [plain(line) for line in fact_lines(drifted, NOW, width, RICH, past=False, wrapped=False)]
    finally:
        i18n.use("en")
    assert {cell_len(line) for line in [*wrapped, *cut]} == {width}
    words_of = [word for line in whole for word in line if word.isalpha()]
    assert words_of == [word for line in wrapped for word in line.split() if word.isalpha()]
    assert len(cut) == 5
    if width == 60:
        assert any(line.rstrip().endswith("…") for line in cut)


# ---- on a real daemon ----------------------------------------------------------------------------------------------


async def test_what_was_left_before_the_dashboard_was_there_is_drawn(
    seeded: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened on Limits, the sparklines hold the minutes before, asked for once."""
    monkeypatch.setattr("tui.queries.BURN_HISTORY_SECONDS", 3 * 3600.0)
    async with dashboard(seeded.socket, (142, 40)) as driver:
        house = driver.app.house
        await driver.press("2")
        await driver.until(lambda: len(house.burn.get(DAY, ())) > 10)
        assert any(line.count("▅") + line.count("▆") > 3 for line in driver.lines if "req/day" in line)
        driver.app.ask_burn([DAY])
        assert len(driver.app._burned) == len(house.limits)


async def test_every_quota_is_listed_and_opens(seeded: Daemon) -> None:
    """The used-up one first; Enter leads to its history and to who used it; Esc leads back."""
    async with dashboard(seeded.socket) as driver:
        await driver.press("2")
        await driver.until(lambda: "small" in driver.text and "req/day" in driver.text)
        assert "!" in driver.lines[2]
        driver.screen.rows.select(DAY)
        await driver.press("enter")
        await driver.until(lambda: "code" in driver.text and "WHO USED IT" in driver.text)
        await driver.until(lambda: any("⠀" < sign <= "⣿" for sign in driver.text))
        assert "requests in a calendar day, UTC" in driver.text
        await driver.press("b")
        await driver.until(lambda: "CLIENT" in driver.text)
        assert any(line.startswith("notebook") for line in driver.lines)
        assert any(line.startswith("ci ") for line in driver.lines)
        await driver.press("escape")
        await driver.until(lambda: not isinstance(driver.screen, LimitDetail))


async def test_what_the_daemon_could_not_be_asked_is_asked_when_it_is_back(upstream: FakeUpstream) -> None:
    """Opened without the daemon it does not say that nobody used the quota, and says who once there is one."""
    quotas = [{"unit": "requests", "window": "day", "limit": 100}]
    with Daemon({"providers": {"lab": lab(upstream.base_url, quotas=quotas)}}) as house:
        house.chat("lab:m1", max_tokens=3, headers={"x-hybridd-client": "notebook"})
        async with dashboard(house.socket) as driver:
            await driver.press("2")
            await driver.until(lambda: "req/day" in driver.text and driver.screen.rows.select(DAY))
            house.stop()
            await driver.until(lambda: driver.app.house.connection.state == "lost")
            await driver.press("enter", "b")
            await driver.until(lambda: "Who used it is not known here." in driver.text)
            house.start()
            driver.app.action_reconnect()
            await driver.until(lambda: any(line.startswith("notebook") for line in driver.lines))


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (160, 50), (300, 80)])
@pytest.mark.parametrize("ascii_only", [False, True])
async def test_one_limit_is_readable_at_every_size(seeded: Daemon, size: tuple[int, int], ascii_only: bool) -> None:
    """Facts, plot, axis, and the first of those who used it are on the screen."""
    async with dashboard(seeded.socket, size, ascii_only=ascii_only) as driver:
        driver.app.go("limits", DAY)
        await driver.until(lambda: isinstance(driver.screen, LimitDetail) and "code" in driver.text)
        await driver.until(lambda: driver.screen.points)
        await driver.pilot.pause()
        text = driver.text
        assert "may still be used" in text
        assert any(line[:8] == ("       +" if ascii_only else "       └") for line in driver.lines)
        assert "TASK" in text
        if ascii_only:
            assert text.isascii()


async def test_another_time_is_asked_for_and_a_figure_leads_to_its_calls(seeded: Daemon) -> None:
    """``+`` shortens the time, and what lies before it is not counted; Enter opens the requests of that client."""
    async with dashboard(seeded.socket, (160, 50)) as driver:
        driver.app.go("limits", DAY)
        await driver.until(lambda: isinstance(driver.screen, LimitDetail) and "ci " in driver.text)
        detail = driver.screen
        await driver.press("plus", "plus", "plus")
        await driver.until(
            lambda: "LAST 15 MINUTES" in driver.text and not any(row["client"] == "ci" for row in detail.found)
        )
        detail.tables["client"].focus()
        await driver.press("enter")
        await driver.until(lambda: driver.screen.NAME == "requests")
        await driver.until(lambda: "code" in driver.text)


async def test_new_use_is_drawn_without_asking_for_the_history_again(
    seeded: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call moves the figures and the plot's newest point; who used it follows."""
    monkeypatch.setattr("tui.screens.limit_detail.AGAIN_SECONDS", 0.1)
    async with dashboard(seeded.socket) as driver:
        driver.app.go("limits", DAY)
        await driver.until(lambda: isinstance(driver.screen, LimitDetail) and driver.screen.points)
        detail = driver.screen
        await driver.until(lambda: detail.found)
        before, calls = detail.points[-1][1], sum(row["calls"] for row in detail.found)
        seeded.chat("lab:m1", "one more", max_tokens=3)
        await driver.until(lambda: detail.points[-1][1] < before)
        await driver.until(lambda: sum(row["calls"] for row in detail.found) > calls)
