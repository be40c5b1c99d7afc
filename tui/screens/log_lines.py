"""Records of the log as rows and in full, and where each leads: pure functions of plain values."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from rich.cells import cell_len, set_cell_size

from hybridd.contracts.views import LEVELS, LogView
from hybridd.i18n import N_, _, ngettext
from tui.house import House
from tui.logbook import Logbook
from tui.screens.overview_blocks import rule
from tui.text import Glyphs, Line, age, clean, clock, fit, moment, wrap
from tui.widgets.columns import Cell, Column

SHOWN = ("debug", "info", "warning", "error")
"""The levels that can be the least one shown."""
_STYLES = {"debug": "dim", "info": "", "warning": "warn", "error": "bad", "critical": "bad"}
_WORDS = {
    "debug": N_("debug"), "info": N_("info"), "warning": N_("warning"), "error": N_("error"),
    "critical": N_("critical"),
}  # fmt: skip
PLUGIN = "hybridd.plugin."
LABEL = 11


def _level(one: LogView, width: int, signs: Glyphs) -> Cell:
    """With a sign where it is no mere information: colour says nothing alone."""
    mark = "!" if LEVELS[one.level] >= LEVELS["warning"] else " "
    return f"{mark} {_(_WORDS[one.level])}", _STYLES[one.level]


def _component(one: LogView, width: int, signs: Glyphs) -> Cell:
    short = one.component.removeprefix("hybridd.")
    return (signs.of(short if cell_len(one.component) > width else one.component), "dim")


def _message(one: LogView, width: int, signs: Glyphs) -> Cell:
    cells: Line = [(signs.of(clean(one.message)), "dim" if one.level == "debug" else "")]
    if one.exception:
        cells.append((f"  {signs.of(clean(last_line(one.exception)))}", "bad"))
    told = "  ".join(f"{name}={short(value)}" for name, value in facts_of(one).items())
    return [*cells, (f"  {signs.of(clean(told))}", "dim")] if told else cells


LOG_COLUMNS: list[Column[LogView]] = [
    Column("at", "TIME", lambda one, width, signs: (clock(one.at), "dim"), 8, sort=lambda one: one.id,
           value=lambda one: one.at),
    Column("level", "LEVEL", _level, 11, sort=lambda one: (LEVELS[one.level], one.id), value=lambda one: one.level),
    Column("component", "COMPONENT", _component, 18, share=1, least=96, sort=lambda one: (one.component, one.id),
           value=lambda one: one.component),
    Column("message", "MESSAGE", _message, 24, share=6, value=lambda one: one.message),
    Column("request", "REQUEST", lambda one, width, signs: (one.request or "-", "dim"), 18, least=150,
           value=lambda one: one.request),
    # Not shown in a row: for the filter and for exports.
    Column("fields", "", lambda one, width, signs: "", 0, least=100_000, value=lambda one: json_of(facts_of(one))),
    Column("exception", "", lambda one, width, signs: "", 0, least=100_000, value=lambda one: one.exception or ""),
]  # fmt: skip


def facts_of(one: LogView) -> dict[str, Any]:
    """What it names, and its fields."""
    named = {name: value for name in ("provider", "model", "request") if (value := getattr(one, name)) is not None}
    return {**named, **one.fields}


def json_of(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def short(value: Any) -> str:
    return value if isinstance(value, str) else json_of(value)


def last_line(trace: str) -> str:
    """The error itself."""
    return next((line.strip() for line in reversed(trace.splitlines()) if line.strip()), "")


# ---- the line above the table --------------------------------------------------------------------------------------


def extent(book: Logbook, shown: int, now: float, as_of: float | None, *, asking: bool) -> Line:
    """How many are shown and how far back they reach; never without a word about what is missing."""
    count = f"{shown:,}"
    if book.left_out and not book.joined:
        said = ngettext("{count} came too fast to be told", "{count} came too fast to be told", book.left_out)
        return [(said.format(count=f"{book.left_out:,}"), "warn")]
    if asking:
        return [(_("{count} so far").format(count=count), "dim")]
    if as_of is not None:
        since = moment_of(book.since, now)
        said = _("the log is kept only since the daemon started: {time}") if book.since is not None else ""
        return [(said.format(time=since), "warn")]
    if book.full:
        return [(_("{count}; hybridd logs has older ones").format(count=count), "dim")]
    if book.more:
        return [(_("{count} and older ones").format(count=count), "dim")]
    if book.lost:
        return [
            (_("all {count} that are kept").format(count=count), "dim"),
            (f", {_('{count} older ones are gone').format(count=f'{book.lost:,}')}", "warn"),
        ]
    return [(_("all {count} since the start").format(count=count), "dim")]


def moment_of(at: float | None, now: float) -> str:
    if at is None:
        return "-"
    return clock(at) if datetime.fromtimestamp(at).date() == datetime.fromtimestamp(now).date() else moment(at, now)


# ---- one record, whole -----------------------------------------------------------------------------------------------


def fold(text: str, width: int) -> list[str]:
    """All of it, in lines of at most ``width`` columns: at a space where there is one, else anywhere; what stood at the
    beginning of a line stays there."""
    made: list[str] = []
    for raw in text.expandtabs(4).splitlines() or [""]:
        line = clean(raw).rstrip()
        while cell_len(line) > width:
            piece = set_cell_size(line, width).rstrip("\0")
            at = piece.rfind(" ")
            cut = at if at > width // 2 else max(1, len(piece) - (cell_len(piece) > width))
            made.append(line[:cut])
            line = line[cut:].lstrip() if cut == at else line[cut:]
        made.append(line)
    return made


def detail_lines(one: LogView, width: int, signs: Glyphs, now: float) -> list[Line]:
    """Everything of a record; its trace last."""
    room = max(20, width - 2)
    style = _STYLES[one.level]
    at = datetime.fromtimestamp(one.at)
    told = f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d}"
    lines: list[Line] = [[("", "")]]
    lines += [[(f" {signs.of(line)}", "bold")] for line in fold(one.message, room)]
    lines.append([("", "")])
    facts: list[tuple[str, str, str]] = [
        (_("level"), _(_WORDS[one.level]), style),
        (_("logged"), _("{time}, {age} ago").format(time=told, age=age(max(0.0, now - one.at))), ""),
        (_("by"), one.component, ""),
    ]
    facts += [(name, _field(value), "") for name, value in facts_of(one).items()]
    label = min(24, max(LABEL, *(cell_len(name) + 1 for name, *_rest in facts)))
    for name, value, how in facts:
        folded = fold(value, max(16, room - label))
        lines.append([(f" {fit(signs.of(name), label, ellipsis=signs.ellipsis)}", "dim"), (signs.of(folded[0]), how)])
        lines += [[(" " * (label + 1), ""), (signs.of(line), how)] for line in folded[1:]]
    if one.exception:
        lines += [[("", "")], rule(_("EXCEPTION"), width, signs)]
        traced = fold(one.exception, room)
        lines += [
            [(f" {signs.of(line)}", "bad" if line.strip() == last_line(one.exception) else "")] for line in traced
        ]
    if one.cut:
        cut = _("The record was longer than 16 KiB: the daemon keeps its texts shortened; its journal has all of it.")
        lines += [[("", "")], *([(f" {line}", "warn")] for line in wrap(cut, room))]
    return lines


def _field(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, indent=2)
    return short(value)


# ---- where it leads --------------------------------------------------------------------------------------------------


def leads(one: LogView, house: House) -> list[tuple[str, str, str]]:
    """The screens that show what it is about, what to show there, and what that is in words; the closest first."""
    found: list[tuple[str, str, str]] = []
    if one.request is not None:
        found.append(("requests", one.request, _("the request")))
    if isinstance(one.fields.get("alert"), str) and isinstance(number := one.fields.get("id"), int):
        found.append(("alerts", str(number), _("the alert")))
    local = one.model or one.component.removeprefix(f"{PLUGIN}local:")
    if one.provider in {None, "local"} and local.removeprefix("local:") in house.local:
        found.append(("models", local, _("the model")))
    provider = one.provider or _provider(one, house)
    if provider is not None:
        found.append(("requests", f"provider={provider}", _("the calls of {name}").format(name=provider)))
    return found


def _provider(one: LogView, house: House) -> str | None:
    """Of a plugin's own words: the provider that it serves, if that is one alone."""
    if not one.component.startswith(PLUGIN):
        return None
    plugin = house.plugins.get(one.component.removeprefix(PLUGIN))
    return plugin.providers[0] if plugin is not None and len(plugin.providers) == 1 else None
