"""Alerts as rows and in full, and where each leads: pure functions of plain values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from hybridd.contracts.views import AlertView
from tui.text import Glyphs, Line, age, moment, wrap
from tui.widgets.columns import Cell, Column

SHOWN = ("all", "live", "ended")
_STATES = {"open": 0, "acknowledged": 1, "silenced": 2, "resolved": 3}
_SEVERITIES = {"critical": 0, "warning": 1, "info": 2}
_WORDS = {"acknowledged": "acked", "resolved": "ended"}
LABEL = 10


def ordered(alerts: Iterable[AlertView], shows: str) -> list[AlertView]:
    """Open, acknowledged, silenced, ended; the worst first, the newest first. Ended ones by their end alone."""

    def rank(one: AlertView) -> tuple[float, ...]:
        if one.state == "resolved":
            return (_STATES["resolved"], 0, -(one.resolved_at or one.updated_at))
        return (_STATES.get(one.state, 3), _SEVERITIES.get(one.severity, 3), -one.opened_at)

    kept = [one for one in alerts if shows == "all" or (one.state == "resolved") == (shows == "ended")]
    return sorted(kept, key=rank)


def cause(alert: AlertView) -> tuple[str, str, str] | None:
    """The screen that shows what it is about, what to show there, and what that is in words."""
    quota = alert.data.get("quota")
    if isinstance(quota, str):
        return "limits", quota, "the limit"
    if alert.name == "LocalLatencyHigh":
        return "requests", "provider=local", "the local calls"
    if alert.name == "SpendHigh":
        return "requests", "", "the calls"
    if alert.provider is not None:
        return "requests", f"provider={alert.provider}", f"the calls of {alert.provider}"
    return None


def mark_of(alert: AlertView, signs: Glyphs) -> tuple[str, str]:
    """Its state in a word (with ``!`` while it is open and no mere information), and the style."""
    word = _WORDS.get(alert.state, alert.state)
    if alert.state != "open":
        return f"  {word}", "dim"
    if alert.severity == "info":
        return f"{signs.between} {word}", ""
    return f"! {word}", "bad" if alert.severity == "critical" else "warn"


def alert_columns(now: Callable[[], float]) -> list[Column[AlertView]]:
    """``now()``: UTC seconds, for the ages."""

    def since(one: AlertView, width: int, signs: Glyphs) -> Cell:
        return (age(now() - (one.resolved_at or one.opened_at)), "dim")

    def message(one: AlertView, width: int, signs: Glyphs) -> Cell:
        return (signs.of(one.message), "dim" if one.state != "open" else "")

    return [
        Column("state", "STATE", lambda one, width, signs: mark_of(one, signs), 10,
               sort=lambda one: _STATES.get(one.state, 9), value=lambda one: one.state),
        Column("severity", "SEVERITY", lambda one, width, signs: (one.severity, "dim"), 8, least=90,
               sort=lambda one: _SEVERITIES.get(one.severity, 9), value=lambda one: one.severity),
        Column("since", "FOR/AGO", since, 7, align="right", sort=lambda one: one.opened_at,
               value=lambda one: one.opened_at),
        Column("provider", "PROVIDER", lambda one, width, signs: one.provider or "-", 13, least=78,
               sort=lambda one: one.provider or "", value=lambda one: one.provider),
        Column("count", "TIMES", lambda one, width, signs: str(one.count), 5, align="right", least=100,
               sort=lambda one: -one.count, value=lambda one: one.count),
        Column("message", "WHAT", message, 20, share=1, value=lambda one: one.message),
    ]  # fmt: skip


def detail_lines(alert: AlertView, now: float, width: int, signs: Glyphs) -> list[Line]:
    """Everything about one, wrapped."""
    lines: list[Line] = [[(signs.of(text), "bold")] for text in wrap(alert.message, max(20, width - 1))]
    opened = f"{_at(alert.opened_at, now)}, {age(now - alert.opened_at)} ago; {alert.severity}, {alert.name}"
    facts = [("opened", opened)]
    if alert.resolved_at is not None:
        facts.append(("ended", f"{_at(alert.resolved_at, now)}, after {age(alert.resolved_at - alert.opened_at)}"))
    elif alert.count > 1:
        facts.append(("seen", f"{alert.count} times, last {_at(alert.updated_at, now)}"))
    if alert.silenced_until is not None and alert.silenced_until > now:
        facts.append(("silenced", f"until {_at(alert.silenced_until, now)}"))
    facts += [(name.replace("_", " ")[: LABEL - 1], _value(name, value, now)) for name, value in alert.data.items()]
    for label, text in facts:
        lines.append([(f"{label:<{LABEL}}", "dim"), (signs.of(text), "")])
    return lines


def _at(at: float, now: float) -> str:
    return datetime.fromtimestamp(at).strftime("%H:%M:%S") if abs(now - at) < 43_200 else _date(at, now)


def _date(at: float, now: float) -> str:
    return moment(at, now) if at >= now else datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M")


_TIMES = frozenset({"reset", "since", "exhausted_at", "earliest", "latest", "until"})


def _value(name: str, value: object, now: float) -> str:
    if name in _TIMES and isinstance(value, (int, float)):
        return _at(value, now)
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {one}" for key, one in value.items()) or "none"
    return "-" if value is None else str(value)
