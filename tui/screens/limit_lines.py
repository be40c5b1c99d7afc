"""One quota in words, its history as a plot, and who used it: pure functions of plain values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len

from hybridd.contracts.views import LimitView
from hybridd.i18n import N_, _
from tui.periods import resets
from tui.screens.limits import returns_text
from tui.screens.overview_rows import limit_trouble
from tui.text import ASCII, Glyphs, Line, age, amount, bar, clock, fit_line, moment, plain, wrap
from tui.timetravel import hold_seconds
from tui.widgets.plot import Fan, Plot, Point, draw

SPANS: tuple[tuple[float, str], ...] = (
    (900.0, N_("15 minutes")), (3600.0, N_("hour")), (6 * 3600.0, N_("6 hours")), (86_400.0, N_("day")),
    (7 * 86_400.0, N_("7 days")), (30 * 86_400.0, N_("30 days")),
)  # fmt: skip
_PERIODS = {"hour": 3600, "day": 86_400, "month": 30 * 86_400}
_UNITS = {
    "requests": N_("requests"), "input_tokens": N_("input tokens"), "output_tokens": N_("output tokens"),
    "total_tokens": N_("tokens"), "bytes_down": N_("bytes down"), "bytes_up": N_("bytes up"),
    "usd": N_("US dollars"), "concurrent": N_("calls at once"),
}  # fmt: skip
_WINDOWS = {
    "hour": N_("{unit} in a calendar hour, {zone}"), "day": N_("{unit} in a calendar day, {zone}"),
    "month": N_("{unit} in a calendar month, {zone}"), "60s": N_("{unit} in any minute"),
    "3600s": N_("{unit} in any hour"), "86400s": N_("{unit} in any 24 hours"),
}  # fmt: skip
LABEL = 10


def first_span(view: LimitView) -> int:
    """The shortest span that shows a few periods of a short window, or one of a long one."""
    seconds = _PERIODS.get(view.window) or int(view.window[:-1] if view.window[:-1].isdigit() else 3600)
    wanted = seconds * (10 if seconds < 3600 else 2 if seconds < 86_400 else 1)
    return next((number for number, (span, _name) in enumerate(SPANS) if span >= wanted), len(SPANS) - 1)


# ---- in words ------------------------------------------------------------------------------------------------------


def fact_lines(
    view: LimitView, now: float, width: int, signs: Glyphs, *, past: bool, wrapped: bool = True
) -> list[Line]:
    """What it is, how it stands, what the provider says, what will happen, when capacity returns.

    ``wrapped``: a sentence that is too long goes on below; else it is cut.
    """
    only = _(", only for {models}").format(models=", ".join(view.models)) if view.models else ""
    facts: list[tuple[str, Line]] = [
        (_("quota"), [(f"{view.provider}: {_window(view)}{only}", "bold")]),
        (_("used"), _used(view, width - LABEL, signs, past=past)),
        (_("left"), _left(view, now, past=past)),
        (_("counts"), [_counts(view, now, past=past)]),
        (_("forecast"), [_forecast(view, now, past=past)]),
    ]
    lines: list[Line] = []
    for label, line in facts:
        said: Line = [(signs.of(text), style) for text, style in line]
        parts = wrap_line(said, width - LABEL) if wrapped else [said]
        for number, part in enumerate(parts):
            head = f"{'' if number else label:<{LABEL}}"
            lines.append(fit_line([(head, "dim"), *part], width, ellipsis=signs.ellipsis))
    return lines


def wrap_line(line: Line, width: int) -> list[Line]:
    """A line of sentences, broken between words where it is too wide; the last piece's style goes on below."""
    if cell_len(plain(line)) <= width or (len(line) > 1 and cell_len(plain(line[:-1])) >= width):
        return [line]
    *before, (text, style) = line
    taken = cell_len(plain(before))
    first, *more = wrap(text, width - taken) if taken else wrap(text, width)
    space = " " if taken and text.startswith(" ") else ""
    below = wrap(" ".join(more), width) if more else []
    return [[*before, (f"{space}{first}", style)], *([(part, style)] for part in below)]


def _used(view: LimitView, width: int, signs: Glyphs, *, past: bool) -> Line:
    unit = view.unit
    figures = " " + _("{amount} used").format(amount=amount(view.used, unit))
    if view.reserved:
        figures += " " + _("+ {amount} held").format(amount=amount(view.reserved, unit))
    elif past:
        figures += " " + _("(held calls included)")
    figures += " " + _("of {amount}").format(amount=amount(view.limit, unit))
    if view.buffer:
        figures += _(", {amount} kept as buffer").format(amount=amount(view.buffer, unit))
    cells = max(8, min(40, width - cell_len(figures) - 1))
    style = {0: "bad", 1: "warn"}.get(limit_trouble(view), "accent")
    return [*bar(view.used, view.reserved, view.buffer, view.limit, cells, signs, style), (figures, "")]


def _left(view: LimitView, now: float, *, past: bool) -> Line:
    said = _("{amount} may still be used").format(amount=amount(view.remaining, view.unit))
    if view.debt:
        debt = amount(view.debt, view.unit)
        said += "; " + _("{amount} in debt: calls used more than they had reserved").format(amount=debt)
    return [(f"{said}; {_returns(view, now, past=past)}", "bad" if view.remaining <= 0 else "")]


def _window(view: LimitView) -> str:
    unit = _(_UNITS.get(view.unit, view.unit))
    if view.window in _WINDOWS:
        return _(_WINDOWS[view.window]).format(unit=unit, zone=view.zone)
    if view.window.endswith("s") and view.window[:-1].isdigit():
        return _("{unit} in any {seconds} s").format(unit=unit, seconds=view.window[:-1])
    return unit


def _returns(view: LimitView, now: float, *, past: bool) -> str:
    if view.reset is None and past:
        return _("when more returned is not recorded")
    if view.reset is None:
        return _("nothing has to return") if view.window not in _PERIODS else _("its period has no known end")
    said = _("all of it returns {time}") if view.window in _PERIODS else _("the next part returns {time}")
    return said.format(time=returns_text(view, now))


def _counts(view: LimitView, now: float, *, past: bool) -> tuple[str, str]:
    """The provider's figure against our own."""
    if past:
        return _("what the provider reported then is not recorded"), "dim"
    if view.observed_remaining is None:
        return _("own only: the provider reports no figure"), "dim"
    at = " " + _("({age} ago)").format(age=age(now - view.observed_at)) if view.observed_at is not None else ""
    own, theirs = view.used + view.reserved, view.limit - view.observed_remaining
    figures = {"own": amount(own, view.unit), "theirs": amount(theirs, view.unit)}
    said = _("own {own}, provider {theirs}").format(**figures) + at
    if not view.drift:
        return f"{said}: {_('they agree')}", ""
    differs = amount(abs(view.drift), view.unit)
    if view.drift < 0:
        return f"{said}: {_('{amount} less than ours').format(amount=differs)}", ""
    more = _("{amount} more than ours; something else spends this account").format(amount=differs)
    return f"{said}: {more}", "warn"


def _forecast(view: LimitView, now: float, *, past: bool) -> tuple[str, str]:
    """When it runs out at the recent pace, with the interval."""
    if past:
        return _("forecasts are not recorded"), "dim"
    if view.remaining <= 0 and view.limit > 0:
        return _("used up"), "bad"
    forecast = view.forecast
    if view.unit == "concurrent" or forecast is None:
        return _("no pace to speak of"), "dim"
    pace = _("at {pace}").format(pace=_pace(forecast.per_second, view.unit))
    if forecast.earliest is None:
        return f"{_('does not run out before capacity returns')}, {pace}", "good"
    earliest = _near(forecast.earliest, now)
    if forecast.exhausted_at is None:
        return f"{_('hardly runs out; at the earliest {time}').format(time=earliest)}, {pace}", "warn"
    latest = _near(forecast.latest, now) if forecast.latest is not None else _("never")
    between = _("80 %: {earliest} to {latest}").format(earliest=earliest, latest=latest)
    return f"! {_('out {time}').format(time=_near(forecast.exhausted_at, now))} ({between}), {pace}", "warn"


def _near(at: float, now: float) -> str:
    return clock(at) if abs(at - now) < 3600 else moment(at, now)


_PACES = ((1, "s"), (60, "min"), (3600, N_("hour")), (86_400, N_("day")))


def _pace(per_second: float, unit: str) -> str:
    for seconds, name in _PACES:
        if per_second * seconds >= 1 or seconds == 86_400:
            return f"{amount(round(per_second * seconds, 4 if unit == 'usd' else 1), unit)}/{_(name)}"
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
    top = max([view.limit - view.buffer, *(value for _at, value in points)])
    return Plot(points, now - span, now + ahead if ahead else now, top, hold_seconds(span), marks, fan, now)


def plot_lines(view: LimitView, of: Plot, width: int, height: int, signs: Glyphs) -> list[Line]:
    if view.unit == "concurrent":
        return [[(_("How many calls are open at once is not recorded."), "dim")]]
    if not of.points:
        said = _("Nothing was recorded in this time: no daemon ran, or it is longer ago than is kept.")
        return [[(line, "dim")] for line in wrap(said, width)]
    return draw(of, width, height, signs, (amount(of.top, view.unit), "0"))


def history_title(view: LimitView, span: int, of: Plot, signs: Glyphs) -> str:
    parts = [_("LEFT, LAST {span}").format(span=_(SPANS[span][1]).upper())]
    if of.marks:
        parts.append(f"{signs.up} {_('reset')}")
    elif view.window not in _PERIODS and view.unit != "concurrent":
        parts.append(_("rolling: no resets"))
    if of.fan is not None:
        parts.append(f"{':' if signs is ASCII else signs.buffer} {_('forecast')}, 80 %")
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


BY = (N_("task"), N_("client"), N_("model"))


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
