"""One quota in words, its history as a plot, and who used it: pure functions of plain values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hybridd.contracts.views import LimitView
from tui.periods import resets
from tui.screens.limits import returns_text
from tui.text import ASCII, Glyphs, Line, age, amount, bar, clock, moment
from tui.timetravel import hold_seconds
from tui.widgets.plot import Fan, Plot, Point, draw

SPANS: tuple[tuple[float, str], ...] = (
    (900.0, "15 minutes"), (3600.0, "hour"), (6 * 3600.0, "6 hours"), (86_400.0, "day"), (7 * 86_400.0, "7 days"),
    (30 * 86_400.0, "30 days"),
)  # fmt: skip
_PERIODS = {"hour": 3600, "day": 86_400, "month": 30 * 86_400}
_UNITS = {
    "requests": "requests", "input_tokens": "input tokens", "output_tokens": "output tokens",
    "total_tokens": "tokens", "bytes_down": "bytes down", "bytes_up": "bytes up", "usd": "US dollars",
    "concurrent": "calls at once",
}  # fmt: skip
LABEL = 9


def first_span(view: LimitView) -> int:
    """The shortest span that shows a few periods of a short window, or one of a long one."""
    seconds = _PERIODS.get(view.window) or int(view.window[:-1] if view.window[:-1].isdigit() else 3600)
    wanted = seconds * (10 if seconds < 3600 else 2 if seconds < 86_400 else 1)
    return next((number for number, (span, _) in enumerate(SPANS) if span >= wanted), len(SPANS) - 1)


# ---- in words ------------------------------------------------------------------------------------------------------


def fact_lines(view: LimitView, now: float, width: int, signs: Glyphs, *, past: bool) -> list[Line]:
    """What it is, how it stands, what the provider says, what will happen, when capacity returns."""
    unit = view.unit
    figures = f" {amount(view.used, unit)} used"
    figures += f" + {amount(view.reserved, unit)} held" if view.reserved else " (held calls included)" if past else ""
    figures += f" of {amount(view.limit, unit)}"
    figures += f", {amount(view.buffer, unit)} kept as buffer" if view.buffer else ""
    cells = max(8, min(40, width - LABEL - len(figures) - 1))
    models = f", only for {', '.join(view.models)}" if view.models else ""
    used: Line = [*bar(view.used, view.reserved, view.buffer, view.limit, cells, signs, "accent"), (figures, "")]
    left = f"{amount(view.remaining, unit)} may still be used"
    if view.debt:
        left += f"; {amount(view.debt, unit)} in debt: calls used more than they had reserved"
    facts: list[tuple[str, Line]] = [
        ("quota", [(view.provider, "bold"), (f": {_window(view)}{models}", "")]),
        ("used", used),
        ("left", [(left, "bad" if view.remaining <= 0 else ""), (f"; {_returns(view, now, past=past)}", "dim")]),
        ("counts", [_counts(view, now, past=past)]),
        ("forecast", [_forecast(view, now, past=past)]),
    ]
    return [[(f"{label:<{LABEL}}", "dim"), *((signs.of(text), style) for text, style in line)] for label, line in facts]


def _window(view: LimitView) -> str:
    if view.window in _PERIODS:
        return f"{_UNITS.get(view.unit, view.unit)} in a calendar {view.window}, {view.zone}"
    if view.window.endswith("s") and view.window[:-1].isdigit():
        return f"{_UNITS.get(view.unit, view.unit)} in any {view.window[:-1]} s"
    return _UNITS.get(view.unit, view.unit)


def _returns(view: LimitView, now: float, *, past: bool) -> str:
    if view.reset is None and past:
        return "when more returned is not recorded"
    if view.reset is None:
        return "nothing has to return" if view.window not in _PERIODS else "its period has no known end"
    at = returns_text(view, now)
    return f"all of it returns {at}" if view.window in _PERIODS else f"the next part returns {at}"


def _counts(view: LimitView, now: float, *, past: bool) -> tuple[str, str]:
    """The provider's figure against our own."""
    if past:
        return "what the provider reported then is not recorded", "dim"
    if view.observed_remaining is None:
        return f"own only: the provider reports no figure ({view.source} limit)", "dim"
    at = f" ({age(now - view.observed_at)} ago)" if view.observed_at is not None else ""
    own, theirs = view.used + view.reserved, view.limit - view.observed_remaining
    said = f"own {amount(own, view.unit)}, provider {amount(theirs, view.unit)}{at}"
    if view.drift:
        more = "more" if view.drift > 0 else "less"
        said += f": {amount(abs(view.drift), view.unit)} {more} than ours"
        return said + ("; something else spends this account" if view.drift > 0 else ""), "warn"
    return f"{said}: they agree", ""


def _forecast(view: LimitView, now: float, *, past: bool) -> tuple[str, str]:
    """When it runs out at the recent pace, with the interval."""
    if past:
        return "forecasts are not recorded", "dim"
    forecast = view.forecast
    if view.unit == "concurrent" or forecast is None:
        return "no pace to speak of", "dim"
    pace = f"at {_pace(forecast.per_second, view.unit)}"
    if forecast.earliest is None:
        return f"does not run out before capacity returns, {pace}", "good"
    if forecast.exhausted_at is None:
        return f"hardly runs out; at the earliest {_near(forecast.earliest, now)}, {pace}", "warn"
    latest = _near(forecast.latest, now) if forecast.latest is not None else "never"
    between = f"80 %: {_near(forecast.earliest, now)} to {latest}"
    return f"! out {_near(forecast.exhausted_at, now)} ({between}), {pace}", "warn"


def _near(at: float, now: float) -> str:
    return clock(at) if 0 <= at - now < 3600 else moment(at, now)


def _pace(per_second: float, unit: str) -> str:
    for seconds, name in ((1, "s"), (60, "min"), (3600, "hour"), (86_400, "day")):
        if per_second * seconds >= 1 or seconds == 86_400:
            return f"{amount(round(per_second * seconds, 4 if unit == 'usd' else 1), unit)}/{name}"
    return ""


# ---- the plot ------------------------------------------------------------------------------------------------------


def fan_of(view: LimitView, now: float) -> Fan | None:
    forecast = view.forecast
    if forecast is None or forecast.earliest is None or view.remaining <= 0:
        return None
    return Fan(now, view.remaining, forecast.earliest, forecast.exhausted_at, forecast.latest)


def plot_of(view: LimitView, points: Sequence[Point], span: float, now: float) -> Plot:
    """``span`` seconds of the past, and as much of the future as the forecast reaches, at most half as much."""
    fan = fan_of(view, now)
    ahead = 0.0
    if fan is not None:
        ahead = max((at for at in (fan.earliest, fan.point, fan.latest) if at is not None), default=now) - now
        ahead = min(span / 2, max(span / 20, ahead * 1.1))
    marks = resets(view.window, view.zone, now - span, now + ahead)
    top = max([view.limit - view.buffer, *(value for _, value in points)])
    return Plot(points, now - span, now + ahead if ahead else now, top, hold_seconds(span), marks, fan, now)


def plot_lines(view: LimitView, of: Plot, width: int, height: int, signs: Glyphs) -> list[Line]:
    if view.unit == "concurrent":
        return [[("How many calls are open at once is not recorded.", "dim")]]
    if not of.points:
        return [[("Nothing was recorded in this time: no daemon ran, or it is longer ago than is kept.", "dim")]]
    return draw(of, width, height, signs, (amount(of.top, view.unit), "0"))


def history_title(view: LimitView, span: int, of: Plot, signs: Glyphs) -> str:
    parts = [f"LEFT, LAST {SPANS[span][1].upper()}"]
    if of.marks:
        parts.append(f"{signs.up} reset")
    elif view.window not in _PERIODS and view.unit != "concurrent":
        parts.append("rolling: no resets")
    if of.fan is not None:
        parts.append(f"{':' if signs is ASCII else signs.buffer} forecast, 80 %")
    return ", ".join(parts)


# ---- who used it ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Share:
    """What one task, client or model used, in the quota's unit; ``part`` of all that was."""

    name: str | None
    used: float
    part: float
    calls: int
    requests: int
    cost_usd: float


BY = ("task", "client", "model")


def groups_of(view: LimitView) -> tuple[str, ...]:
    """What the report can be grouped by: bytes, and downloads from the Hub, are known by call and not by request.

    By client a report covers exactly the time asked for; otherwise it counts whole hours.
    """
    by_call = view.unit in {"bytes_down", "bytes_up"} or any(name.startswith("hub:") for name in view.models or ())
    return ("task", "model") if by_call else BY


def used_of(row: Mapping[str, Any], unit: str) -> float:
    """A row of the report in a quota's unit."""
    if unit == "usd":
        return float(row["cost_usd"])
    if unit == "input_tokens":
        return float(row["input_tokens"] or 0)
    if unit == "output_tokens":
        return float(row["output_tokens"] or 0)
    if unit == "total_tokens":
        return float((row["input_tokens"] or 0) + (row["output_tokens"] or 0))
    if unit in {"bytes_down", "bytes_up"}:
        return float(row[unit] or 0)
    return float(row["calls"] or 0)


def shares(rows: Iterable[Mapping[str, Any]], view: LimitView, by: str) -> list[Share]:
    """Who used this quota, the most first. A quota of some models counts only those."""
    totals: dict[str | None, list[float]] = {}
    for row in rows:
        if by in row and (view.models is None or row["model"] in view.models):
            sums = totals.setdefault(row[by], [0.0, 0.0, 0.0, 0.0])
            for number, value in enumerate((used_of(row, view.unit), row["calls"], row["requests"], row["cost_usd"])):
                sums[number] += value or 0
    whole = sum(sums[0] for sums in totals.values())
    made = [
        Share(name, used, used / whole if whole else 0.0, int(calls), int(requests), cost)
        for name, (used, calls, requests, cost) in totals.items()
    ]
    return sorted(made, key=lambda one: (-one.used, -one.requests, one.name or ""))
