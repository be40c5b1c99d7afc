"""The house as it was: what is asked, and what is made of the answers."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.contracts.views import AlertView, LimitView, ModelView, ProviderView
from tui.house import House
from tui.timetravel import Past, alerts_at, calls, hold_seconds, house_at, limit_at, on_grid, value_at, when

NOW = datetime(2026, 11, 20, 14, 2, 10).timestamp()
AT = on_grid(NOW - 7200)
LIMIT = LimitView(
    "lab/requests/day", "lab", "lab", "requests", "day", 100, 40, 3, 55, 2, NOW + 60, "config", None, 4.0, 50.0, NOW
)


def alert(number: int, opened: float, ended: float | None = None, **more: Any) -> AlertView:
    state: Any = "acknowledged" if ended is None else "resolved"
    return AlertView(number, f"k{number}", "N", "warning", state, "m", opened, opened, 1, resolved_at=ended, **more)


def request(number: int, at: float, latency_ms: float = 0.0) -> dict[str, Any]:
    return {"id": f"req_{number}", "at": at, "latency_ms": latency_ms, "provider": "lab", "cost_usd": 0.5}


def live() -> House:
    house = House(now=NOW, seq=7)
    house.limits = {LIMIT.key: LIMIT}
    house.providers = {"lab": ProviderView("lab", "p", "ready", "", [ModelView("m1")], "lab", NOW)}
    return house


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("14:00", datetime(2026, 11, 20, 14, 0)),
        (" 9:05 ", datetime(2026, 11, 20, 9, 5)),
        ("14:05", datetime(2026, 11, 19, 14, 5)),
        ("2h", datetime(2026, 11, 20, 12, 2, 10)),
        ("2026-11-18 08:30", datetime(2026, 11, 18, 8, 30)),
    ],
)
def test_a_time_is_written_as_people_write_it(text: str, expected: datetime) -> None:
    """A time of day is the last one, a duration is ago, a date is local."""
    assert when(text, NOW) == expected.timestamp()


@pytest.mark.parametrize("text", ["", "25:00", "12:60", "soon", "2026-11-21", "0h"])
def test_what_is_no_past_time_is_refused(text: str) -> None:
    """With a sentence, whatever was typed."""
    with pytest.raises(ValueError, match=r"\w"):
        when(text, NOW)


@given(st.text(max_size=12))
def test_no_text_leads_anywhere_but_the_past(text: str) -> None:
    """Either a ValueError, or a moment that has been."""
    try:
        at = when(text, NOW)
    except ValueError:
        return
    assert 0 < at <= NOW


@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 9)), max_size=30), st.floats(0, 1000), st.floats(1, 500))
def test_a_figure_is_the_newest_before_and_never_of_later(points, at, hold) -> None:
    """Found by halving, the same as by looking at all of them."""
    points.sort()
    known = [value for when, value in points if when < at and at - when <= hold]
    assert value_at(points, at, hold) == (known[-1] if known else None)


@given(st.lists(st.tuples(st.floats(0, 100), st.none() | st.floats(0, 100)), max_size=20), st.floats(0, 100))
def test_alerts_stand_as_they_stood(times, at) -> None:
    """Open from opening to end; what had ended by then is over; nothing of later."""
    given_alerts = [alert(n, begin, None if end is None else begin + end) for n, (begin, end) in enumerate(times)]
    found = {one.id: one for one in alerts_at(given_alerts, at)}
    for one in given_alerts:
        if one.opened_at > at:
            assert one.id not in found
        elif one.resolved_at is None or one.resolved_at > at:
            assert (found[one.id].state, found[one.id].resolved_at) == ("open", None)
        else:
            assert found[one.id].state == "resolved"


@given(st.lists(st.tuples(st.floats(AT - 900, AT + 900), st.floats(0, 1e6)), max_size=30))
def test_requests_are_those_that_had_ended(times) -> None:
    """Begun before and still running is not there; the newest stands last."""
    body = {"requests": [request(n, at, took) for n, (at, took) in enumerate(times)]}
    made = house_at(live(), Past(AT, AT - 1, AT, {}, {"requests": body}))
    ends = [one.at + one.latency_ms / 1000 for one in made.requests]
    assert ends == sorted(ends)
    assert {one.id for one in made.requests} == {
        f"req_{n}" for n, (at, took) in enumerate(times) if at + took / 1000 <= AT
    }


def test_what_the_past_does_not_hold_is_left_out_and_said() -> None:
    """No reservations, forecasts, drift, states; the sentence names how many quotas have no figure."""
    series = {"quota.lab/requests/day.remaining": [[AT - 120, 30.0], [AT - 60, 25.0], [AT, 3.0]]}
    made = house_at(live(), Past(AT, AT - 9, AT + 9, series, {}))
    (then,) = made.limits.values()
    assert (then.remaining, then.used, then.reserved, then.limit) == (25.0, 73.0, 0.0, 100)
    assert (then.forecast, then.drift, then.observed_remaining, then.observed_at) == (None, None, None, None)
    assert then.reset is not None
    assert then.reset > AT
    assert made.as_of == made.now == AT
    assert [value for _, value in made.burn[then.key]] == [30.0, 25.0]
    lab = made.providers["lab"]
    assert (lab.state, lab.models) == ("not kept", [])
    assert (made.local, made.jobs, made.plugins, made.host.cpu_percent) == ({}, {}, {}, None)
    assert "quotas" not in made.missing
    assert "the host" in made.missing
    assert "1 of 1 quotas" in house_at(live(), Past(AT, AT - 9, AT, {}, {})).missing


def test_an_alert_of_then_tells_a_providers_state() -> None:
    """Parked, failed and retired are known from the alerts that were open."""
    parked = alert(1, AT - 60, AT + 60, provider="lab")
    parked.key = "provider_parked:lab"
    answers = {"alerts": {"alerts": [parked]}}
    made = house_at(live(), Past(AT, AT - 9, AT, {}, answers))
    assert (made.providers["lab"].state, made.providers["lab"].reason) == ("parked", "m")
    assert made.open_alerts() == 1


def test_rolling_limits_have_no_known_reset() -> None:
    """When a rolling window gave something back then is not recorded."""
    rolling = LimitView("k", "lab", "lab", "requests", "60s", 10, 1, 0, 9, 0, NOW + 5, "config")
    assert limit_at(rolling, 4, AT).reset is None


def test_costs_are_whole_hours_and_the_rest() -> None:
    """What usage counts up to the hour and what was spent since it are added, in all and by provider."""
    asked = calls(AT)
    assert set(asked) == {"requests", "alerts", "today", "month", "hour"}
    on_the_hour = calls(AT // 3600 * 3600)
    assert "hour" not in on_the_hour
    month = datetime.fromtimestamp(AT).replace(day=1, hour=0, minute=0)
    assert set(calls((month + timedelta(minutes=5)).timestamp())) == {"requests", "alerts", "hour"}
    rows = [{"provider": "lab", "requests": 2, "cost_usd": 1.0}, {"provider": None, "requests": 1, "cost_usd": 0.0}]
    hour = [{"provider": "lab", "client": "ci", "requests": 3, "cost_usd": 0.25}]
    answers = {"today": {"providers": rows[:1]}, "month": {"providers": rows}, "hour": {"rows": hour}}
    costs = house_at(live(), Past(AT, AT - 9, AT, {}, answers)).costs
    assert (costs["lab"].today, costs["lab"].month, costs[""].today, costs[""].month) == (1.25, 1.25, 1.25, 1.25)
    assert (costs[""].requests_today, costs[""].requests_month) == (5, 6)


def test_old_figures_stand_longer() -> None:
    """Because the daemon thins them to one in an hour."""
    assert hold_seconds(3600) < 3600 < hold_seconds(20 * 86_400)
