"""Alerts: their order, where they lead, and what can be done about them on a real daemon."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from hybridd.contracts.views import AlertView
from tests.fakes.upstream import FakeUpstream
from tests.house import House as Daemon
from tests.house import lab
from tests.tui.support import dashboard, said
from tui.screens.alert_lines import SHOWN, alert_columns, cause, detail_lines, ordered
from tui.text import ASCII, RICH, plain
from tui.widgets.columns import layout, row_line

NOW = 1_795_000_000.0


def alert(number: int = 1, **more: Any) -> AlertView:
    given = {
        "key": "k", "name": "QuotaLow", "severity": "warning", "state": "open", "message": "lab is low.",
        "opened_at": NOW - 90, "updated_at": NOW - 9, "count": 2, "provider": "lab", **more,
    }  # fmt: skip
    return AlertView(number, **given)


ANY = st.builds(
    alert,
    st.integers(1, 999),
    state=st.sampled_from(["open", "acknowledged", "silenced", "resolved"]),
    severity=st.sampled_from(["info", "warning", "critical"]),
    opened_at=st.floats(0, NOW),
    resolved_at=st.none() | st.floats(0, NOW),
    message=st.text(max_size=200),
    data=st.dictionaries(
        st.sampled_from(["reset", "limit", "tasks", "reason"]), st.none() | st.floats(0, 1e9) | st.text()
    ),
)


@given(st.lists(ANY, max_size=12, unique_by=lambda one: one.id))
def test_what_needs_a_decision_stands_first(alerts: list[AlertView]) -> None:
    """Open before acknowledged before silenced before ended; nothing is shown twice or lost."""
    states = [one.state for one in ordered(alerts, "all")]
    order = ["open", "acknowledged", "silenced", "resolved"]
    assert states == sorted(states, key=order.index)
    live, ended = ordered(alerts, "live"), ordered(alerts, "ended")
    assert {one.id for one in [*live, *ended]} == {one.id for one in alerts}
    assert len(live) + len(ended) == len(alerts)
    assert all(one.state == "resolved" for one in ended)


@given(ANY, st.sampled_from([60, 80, 160, 300]), st.booleans())
def test_an_alert_fits_and_has_its_state_as_a_word(one: AlertView, width: int, ascii_only: bool) -> None:
    """At every width and whatever its text holds; in full it keeps every word of the message."""
    signs = ASCII if ascii_only else RICH
    row = plain(row_line(one, layout(alert_columns(lambda: NOW), width), signs))
    assert cell_len(row) == width
    assert row[2:].startswith({"acknowledged": "acked", "resolved": "ended"}.get(one.state, one.state))
    text = "\n".join(plain(line) for line in detail_lines(one, NOW, width, signs))
    if ascii_only:
        assert (row + text).isascii()


@pytest.mark.parametrize(
    ("more", "leads"),
    [
        ({"data": {"quota": "lab/requests/60s"}}, ("limits", "lab/requests/60s")),
        ({"name": "ProviderParked"}, ("requests", "provider=lab")),
        ({"name": "SpendHigh", "provider": None}, ("requests", "")),
        ({"name": "LocalLatencyHigh", "provider": "local"}, ("requests", "provider=local")),
        ({"name": "StorageFailed", "provider": None}, None),
    ],
)
def test_an_alert_leads_to_its_cause(more: dict[str, Any], leads: tuple[str, str] | None) -> None:
    """To the limit it is about, or to the calls; what has no screen leads nowhere."""
    found = cause(alert(**more))
    assert (found and found[:2]) == leads


@pytest.fixture(scope="module")
def alarmed(upstream: FakeUpstream) -> Iterator[Daemon]:
    """Two used-up limits: two open alerts."""
    quotas = [{"unit": "requests", "window": "86400s", "limit": 1}]
    providers = {name: lab(upstream.base_url, quotas=quotas) for name in ("alpha", "beta")}
    config = {"providers": providers, "monitoring": {"check_interval_seconds": 0.5}}
    with Daemon(config) as running:
        for name in providers:
            running.chat(f"{name}:m1", max_tokens=3)
        yield running


async def test_acknowledge_silence_and_end_the_silence(alarmed: Daemon) -> None:
    """``a`` acknowledges, ``s`` asks for how long and refuses nonsense, ``u`` ends the silence; each is a word."""
    async with dashboard(alarmed.socket) as driver:
        await driver.press("5")
        await driver.until(lambda: "2 open" in driver.text)
        assert "alpha has no requests/day left" in driver.text
        rows = driver.screen.rows
        first, second = (one.key for one in rows.shown)
        await driver.press("a")
        await driver.until(lambda: "1 acknowledged" in driver.text)
        assert rows.shown[0].key == second
        assert "  acked" in driver.text
        rows.select(str(next(one.id for one in rows.shown if one.key == second)))
        await driver.press("s")
        await driver.until(lambda: "Silence for how long?" in driver.text)
        await driver.press("x", "enter")
        await driver.until(lambda: "is no duration" in driver.text)
        await driver.press("backspace", "backspace", "backspace", "2", "h", "enter")
        await driver.until(lambda: "1 silenced" in driver.text)
        silenced = next(one for one in driver.app.house.alerts.values() if one.key == second)
        assert silenced.silenced_until == pytest.approx(driver.app.house.now + 7200, abs=60)
        await driver.press("u")
        await driver.until(lambda: "1 open" in driver.text)
        assert first != second


async def test_enter_leads_to_the_cause(alarmed: Daemon) -> None:
    """From an alert about a limit to that limit."""
    async with dashboard(alarmed.socket) as driver:
        await driver.press("5")
        await driver.until(lambda: "Enter: the limit" in driver.text)
        await driver.press("enter")
        await driver.until(lambda: "WHO USED IT" in driver.text)
        assert driver.screen.key in {"alpha/requests/86400s", "beta/requests/86400s"}


async def test_ended_alerts_are_asked_for_and_shown_last(seeded: Daemon) -> None:
    """What had ended before the dashboard was there is on the screen; ``v`` shows the live or the ended alone."""
    async with dashboard(seeded.socket) as driver:
        await driver.press("5")
        await driver.until(lambda: "lab is parked until you act." in driver.text and "1 ended" in driver.text)
        rows = driver.screen.rows
        assert [one.state for one in rows.shown] == ["open", "resolved"]
        rows.select("1")
        await driver.until(lambda: "after 1 h" in driver.text)
        await driver.press("a")
        assert rows.selected.state == "resolved"
        for shows in (*SHOWN[1:], SHOWN[0]):
            await driver.press("v")
            assert driver.screen.shows == shows
            assert ("parked" in driver.text) == (shows != "live")


async def test_read_only_takes_the_decisions_away(alarmed: Daemon) -> None:
    """Neither the dialogues nor their help are there; each key is refused with a word."""
    async with dashboard(alarmed.socket, read_only=True) as driver:
        await driver.press("5")
        await driver.until(lambda: "has no requests/day left" in driver.text)
        assert "ack" not in driver.lines[-1]
        for key in ("a", "s", "u"):
            driver.app.clear_notifications()
            await driver.press(key)
            assert said(driver) == "Nothing can be changed here: read-only."
        assert "how long" not in driver.text


def _cursor(app: Any) -> str | None:
    rows = app.screen.query("#alerts")
    return rows.first().cursor_key if rows and app.screen.NAME == "alerts" else None


async def test_an_alert_can_be_gone_to(alarmed: Daemon) -> None:
    """From elsewhere, by its number; one that is gone is said to be."""
    async with dashboard(alarmed.socket, (60, 20)) as driver:
        await driver.until(lambda: len(driver.app.house.alerts) == 2)
        number = max(driver.app.house.alerts)
        driver.app.go("alerts", str(number))
        await driver.until(lambda: driver.screen.NAME == "alerts" and _cursor(driver.app) == str(number))
        driver.app.go("alerts", "99999")
        await driver.until(lambda: "Alert 99999 is not known" in said(driver))


QUOTA = {
    "limit": 12.0, "remaining": 0.0, "buffer": 1.0, "line": 1.0, "unit": "requests", "window": "day",
    "reset": NOW + 600, "quota": "lab/requests/day",
}  # fmt: skip


def test_figures_are_told_in_their_unit() -> None:
    """What is left of how much, the buffer where there is one, the quota by its short name; nothing twice."""
    said = "\n".join(plain(line) for line in detail_lines(alert(data=QUOTA), NOW, 80, RICH))
    for part in ("left       0 of 12", "buffer     1", "warns at   1", "quota      lab req/day", "1 min ago"):
        assert part in said, said
    for part in ("limit ", "unit", "window"):
        assert part not in said, said
    assert "buffer" not in "".join(
        plain(one) for one in detail_lines(alert(data={**QUOTA, "buffer": 0.0}), NOW, 80, RICH)
    )


def test_a_forecast_is_told_with_both_its_ends() -> None:
    """Three moments of one forecast stand in one line."""
    data = {"exhausted_at": NOW + 3600, "earliest": NOW + 1800, "latest": NOW + 5400, "per_second": 0.001,
            "remaining": 4.457, "quota": "lab/usd/month"}  # fmt: skip
    lines = [plain(line) for line in detail_lines(alert(data=data), NOW, 100, RICH)]
    assert sum("between" in line for line in lines) == 1
    assert [line for line in lines if "pace" in line or "left" in line] == [
        " pace       $3.60 an hour", " left       $4.46",
    ]  # fmt: skip
    assert not any(line.strip().startswith(("earliest", "latest")) for line in lines)


async def test_what_changes_nothing_is_not_sent(alarmed: Daemon) -> None:
    """``a`` on an acknowledged alert and ``u`` on one that is not silenced say so."""
    async with dashboard(alarmed.socket) as driver:
        await driver.press("5")
        await driver.until(lambda: driver.screen.NAME == "alerts" and driver.screen.rows.shown)
        await driver.press("u")
        await driver.until(lambda: "It is not silenced." in said(driver))
        await driver.press("a")
        await driver.until(lambda: "acked" in driver.text and driver.screen.rows.selected.state == "acknowledged")
        await driver.press("a")
        await driver.until(lambda: "It is acknowledged already." in said(driver))
