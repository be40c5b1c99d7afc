"""Alerts as rows and in full, and where each leads: pure functions of plain values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from hybridd.contracts.views import AlertView
from hybridd.i18n import N_, _, ngettext
from tui.text import Glyphs, Line, age, amount, moment, quota_name, wrap
from tui.widgets.columns import Cell, Column

SHOWN = ("all", "live", "ended")
_STATES = {"open": 0, "acknowledged": 1, "silenced": 2, "resolved": 3}
_SEVERITIES = {"critical": 0, "warning": 1, "info": 2}
_WORDS = {
    "open": N_("open"), "acknowledged": N_("acked"), "silenced": N_("silenced"), "resolved": N_("ended"),
}  # fmt: skip
_SEVERITY_WORDS = {"critical": N_("critical"), "warning": N_("warning"), "info": N_("info")}
_LABELS = {
    "buffer": N_("buffer"), "debt": N_("debt"), "drift": N_("drift"), "exhausted_at": N_("runs out"),
    "left": N_("left"), "limit": N_("limit"), "line": N_("warns at"), "median_seconds": N_("median"),
    "observed_remaining": N_("its count"), "per_second": N_("pace"), "plugin": N_("plugin"),
    "providers": N_("serves"), "quota": N_("quota"), "reason": N_("reason"), "remaining": N_("left"),
    "reset": N_("resets"), "restarts": N_("restarts"), "since": N_("since"), "tasks": N_("tasks"),
    "threshold": N_("warns at"), "usd_last_hour": N_("last hour"),
}  # fmt: skip
_AMOUNTS = frozenset({"buffer", "debt", "drift", "limit", "line", "observed_remaining", "remaining"})
_TOLD_ELSEWHERE = frozenset({"unit", "window", "earliest", "latest"})
LABEL = 11


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
        return "limits", quota, _("the limit")
    if alert.name == "LocalLatencyHigh":
        return "requests", "provider=local", _("the local calls")
    if alert.name == "SpendHigh":
        return "requests", "", _("the calls")
    if alert.provider is not None:
        return "requests", f"provider={alert.provider}", _("the calls of {provider}").format(provider=alert.provider)
    return None


def mark_of(alert: AlertView, signs: Glyphs) -> tuple[str, str]:
    """Its state in a word (with ``!`` while it is open and no mere information), and the style."""
    word = _(_WORDS.get(alert.state, alert.state))
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
        Column("state", "STATE", lambda one, width, signs: mark_of(one, signs), 12,
               sort=lambda one: _STATES.get(one.state, 9), value=lambda one: one.state),
        Column("severity", "SEVERITY", lambda one, width, signs: (severity_text(one), "dim"), 9, least=90,
               sort=lambda one: _SEVERITIES.get(one.severity, 9), value=lambda one: one.severity),
        Column("since", "FOR/AGO", since, 7, align="right", sort=lambda one: one.opened_at,
               value=lambda one: one.opened_at),
        Column("provider", "PROVIDER", lambda one, width, signs: one.provider or "-", 13, least=78,
               sort=lambda one: one.provider or "", value=lambda one: one.provider),
        Column("count", "TIMES", lambda one, width, signs: str(one.count), 5, align="right", least=100,
               sort=lambda one: -one.count, value=lambda one: one.count),
        Column("message", "WHAT", message, 20, share=1, value=lambda one: one.message),
    ]  # fmt: skip


def severity_text(alert: AlertView) -> str:
    return _(_SEVERITY_WORDS.get(alert.severity, alert.severity))


def counts_text(alerts: Iterable[AlertView], shows: str) -> str:
    """``2 open  1 silenced``: of what is shown; open ones are counted also when there are none."""
    counts = dict.fromkeys(_STATES, 0)
    for one in alerts:
        counts[one.state] += 1
    live, ended = counts["open"], counts["resolved"]
    told = [] if shows == "ended" else [ngettext("{count} open", "{count} open", live).format(count=live)]
    if acked := counts["acknowledged"]:
        told.append(ngettext("{count} acknowledged", "{count} acknowledged", acked).format(count=acked))
    if silent := counts["silenced"]:
        told.append(ngettext("{count} silenced", "{count} silenced", silent).format(count=silent))
    if ended or shows == "ended":
        told.append(ngettext("{count} ended", "{count} ended", ended).format(count=ended))
    return "  ".join(told)


def detail_lines(alert: AlertView, now: float, width: int, signs: Glyphs) -> list[Line]:
    """Everything about one, wrapped."""
    lines: list[Line] = [[(f" {signs.of(text)}", "bold")] for text in wrap(alert.message, max(20, width - 2))]
    for label, text in [*_life(alert, now), *_figures(alert.data, now)]:
        for number, part in enumerate(wrap(text, max(20, width - LABEL - 2))):
            name = "" if number else _(label)
            lines.append([(f" {name:<{LABEL}}", "dim"), (signs.of(part), "")])
    return lines


def _life(alert: AlertView, now: float) -> list[tuple[str, str]]:
    """When it was opened, seen, silenced, ended."""
    told, since = _at(alert.opened_at, now), now - alert.opened_at
    if since >= 1:
        told = _("{time}, {age} ago").format(time=told, age=age(since))
    facts = [(N_("opened"), f"{told}; {severity_text(alert)}, {alert.name}")]
    if alert.resolved_at is not None:
        span = age(alert.resolved_at - alert.opened_at)
        facts.append((N_("ended"), _("{time}, after {span}").format(time=_at(alert.resolved_at, now), span=span)))
    elif alert.count > 1:
        form = ngettext("{count} time, last {time}", "{count} times, last {time}", alert.count)
        facts.append((N_("seen"), form.format(count=alert.count, time=_at(alert.updated_at, now))))
    if alert.silenced_until is not None and alert.silenced_until > now:
        facts.append((N_("silenced"), _("until {time}").format(time=_at(alert.silenced_until, now))))
    return facts


def _figures(data: dict[str, Any], now: float) -> list[tuple[str, str]]:
    """What it was raised for: figures in their unit, moments, and what both ends of a forecast are."""
    unit = str(data.get("unit") or f"{data.get('quota') or ''}/".split("/")[1])
    facts: list[tuple[str, str]] = []
    for name, value in data.items():
        label = _LABELS.get(name, name.replace("_", " ")[: LABEL - 1])
        if value is None or name in _TOLD_ELSEWHERE or (name == "limit" and "remaining" in data):
            continue
        if name == "buffer" and not value:
            continue
        if name == "remaining" and unit and data.get("limit") is not None:
            form = _("{left} of {limit}")
            facts.append((label, form.format(left=amount(value, unit), limit=amount(data["limit"], unit))))
        elif name in _AMOUNTS and unit and isinstance(value, (int, float)):
            facts.append((label, amount(value, unit)))
        elif name == "per_second" and unit and isinstance(value, (int, float)):
            facts.append((label, _("{amount} an hour").format(amount=amount(value * 3600, unit))))
        elif name == "exhausted_at" and data.get("earliest") is not None and data.get("latest") is not None:
            form = _("{time}, between {earliest} and {latest}")
            times = {key: _at(float(data[key]), now) for key in ("earliest", "latest")}
            facts.append((label, form.format(time=_at(float(value), now), **times)))
        elif name == "quota":
            facts.append((label, _quota(str(value))))
        else:
            facts.append((label, _value(name, value, now)))
    return facts


def _quota(key: str) -> str:
    """``groq req/day`` of ``groq/requests/day``."""
    account, _slash, rest = key.partition("/")
    unit, _slash, window = rest.partition("/")
    return f"{account} {quota_name(unit, window)}" if unit and "/" not in window else key


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
        return ", ".join(map(str, value)) or _("none")
    if isinstance(value, dict):
        return ", ".join(f"{key}: {one}" for key, one in value.items()) or _("none")
    return "-" if value is None else str(value)
