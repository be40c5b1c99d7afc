"""One request as lines: the facts, why it went where it went, where its time went. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len

from hybridd.contracts.views import ModelChoice, Rejected, RequestView
from hybridd.i18n import N_, _
from tui.rates import tokens_per_second
from tui.screens.overview_blocks import rule
from tui.session import Turn
from tui.text import Glyphs, Line, age, clock, count, fit, fit_line, milliseconds, money, wrap
from tui.widgets.waterfall import waterfall_lines

_TWO_COLUMNS = 76
_PREVIEW = 12
"""Lines of an answer that are shown of it."""
_CACHE = {"hit": N_("hit"), "miss": N_("miss"), "off": N_("off")}


def detail_lines(view: RequestView, width: int, signs: Glyphs, now: float, turn: Turn | None = None) -> list[Line]:
    """Everything that is known of it. What was asked and answered is kept of this dashboard's own questions alone
    (``turn``)."""
    lines = [[("", "")], *facts(view, width, signs, now)]
    if view.choice is not None:
        lines += [[("", "")], rule(_("WHY"), width, signs), *choice_lines(view.choice, width, signs, _ended(view))]
    hint = f"{signs.held} {_('waiting')}  {signs.used} {_('receiving')}" if view.calls and width >= 60 else ""
    lines += [[("", "")], rule(_("WHERE THE TIME WENT"), width, signs, hint), *waterfall_lines(view, width, signs)]
    return [*lines, [("", "")], rule(_("TEXT"), width, signs), *text_lines(turn, width, signs)]


def facts(view: RequestView, width: int, signs: Glyphs, now: float) -> list[Line]:
    by = f"{view.provider}:{view.model}" if view.provider else _("nobody")
    failed = view.status >= 400
    status = f"{view.status} {view.error_code or ''}".strip() if failed else f"{view.status} {_('ok')}"
    arrived = _("{count} in").format(count=count(view.input_tokens))
    left = _("{count} out").format(count=count(view.output_tokens))
    tokens = f"{arrived} {signs.arrow} {left}" if view.input_tokens is not None else "-"
    pace = speed(view)
    told = _("{time}, {age} ago").format(time=clock(view.at), age=age(max(0.0, now - view.at)))
    pairs: list[tuple[str, str, str]] = [
        (_("request"), view.id, ""),
        (_("began"), told if now - view.at >= 1 else clock(view.at), ""),
        (_("asked for"), view.requested or "-", ""),
        (_("task"), view.task or "-", ""),
        (_("answered by"), by, "bad" if failed and not view.provider else ""),
        (_("status"), status, "bad" if failed else "good"),
        (_("tokens"), f"{tokens}, {pace:.0f} tok/s" if pace is not None else tokens, ""),
        (_("COST").lower(), money(view.cost_usd), ""),
        (_("took"), milliseconds(view.latency_ms), ""),
        (_("first token"), milliseconds(view.first_token_ms) if view.stream else _("not streamed"), ""),
        (_("cache"), _(_CACHE.get(view.cache, view.cache)), "good" if view.cache == "hit" else ""),
        (_("tries"), count(view.attempts), ""),
        (_("tier"), view.tier or "-", ""),
        (_("client"), view.client or "-", ""),
    ]
    if view.score is not None:
        style = "good" if view.score > 0 else "warn" if view.score < 0 else ""
        pairs.append((_("rated"), f"{view.score:+g}", style))
    return _in_columns(pairs, width, signs)


def speed(view: RequestView) -> float | None:
    """Tokens per second while the answer was given; None when it cannot be told."""
    if view.cache == "hit" or view.status >= 400:
        return None
    first = view.first_token_ms if view.stream else None
    return tokens_per_second(view.output_tokens, view.latency_ms, first, view.overhead_ms)


def _in_columns(pairs: Sequence[tuple[str, str, str]], width: int, signs: Glyphs) -> list[Line]:
    """Two facts in a line where they fit; else one, and none of what is not known."""
    label = max(11, *(cell_len(name) for name, *_rest in pairs))
    if width < _TWO_COLUMNS:
        unknown = {"-", _("not streamed")}
        return [_fact(*pair, label, width, signs) for pair in pairs if pair[1] not in unknown]
    half = min(60, width // 2 + 1)  # on a wide terminal the second column stays near the first
    made: list[Line] = []
    for number in range(0, len(pairs), 2):
        line = _fact(*pairs[number], label, half, signs)
        if number + 1 < len(pairs):
            line += _fact(*pairs[number + 1], label, width - half, signs)
        made.append(line)
    return made


def _fact(name: str, value: str, style: str, label: int, width: int, signs: Glyphs) -> Line:
    room = max(4, width - label - 3)
    return [(f" {fit(name, label)} ", "dim"), (fit(signs.of(value), room, ellipsis=signs.ellipsis), style), (" ", "")]


def _ended(view: RequestView) -> tuple[str, str]:
    """What became of the chosen candidate, with its style."""
    if view.cache == "hit":
        return _("answered from the cache"), "good"
    if view.status < 400:
        return _("answered"), "good"
    return _("failed: {code}").format(code=view.error_code or view.status), "bad"


def choice_lines(choice: ModelChoice, width: int, signs: Glyphs, ended: tuple[str, str]) -> list[Line]:
    """The reason, and every candidate in its order: passed over and why, chosen, or not needed."""
    made: list[Line] = [[(f" {line}", "")] for line in wrap(signs.of(choice.reason), max(20, width - 2))]
    if choice.defaults:
        told = ", ".join(f"{name} {_short(value)}" for name, value in choice.defaults.items())
        said = _("defaults of the task: {defaults}").format(defaults=signs.of(told))
        made += [fit_line([(f" {said}", "dim")], width, ellipsis=signs.ellipsis)]
    rejected: dict[str, list[Rejected]] = {}
    for one in choice.rejected:
        rejected.setdefault(one.candidate, []).append(one)
    known = list(dict.fromkeys([*choice.candidates, *rejected]))
    names = min(34, max((len(name) for name in known), default=0), max(12, width // 3))
    for number, name in enumerate(known, 1):
        head: Line = [(f" {number:>2} ", "dim"), (fit(name, names, ellipsis=signs.ellipsis), "bold"), (" ", "")]
        said_of = [_refusal(one) for one in rejected.get(name, ())]
        if name == choice.chosen_model:
            said_of.append(ended)  # it may have been tried, passed over and tried again
        made += _said(head, names + 5, said_of or [(_("not needed"), "dim")], width, signs)
    if not known:
        made.append([(f" {_('there was no candidate')}", "warn")])
    return made


def _said(head: Line, indent: int, said: Sequence[tuple[str, str]], width: int, signs: Glyphs) -> list[Line]:
    """Sentences beside the name, wrapped under themselves."""
    made: list[Line] = []
    for text, style in said:
        for line in wrap(signs.of(text), max(16, width - indent - 1)):
            made.append([*(head if not made else [(" " * indent, "")]), (line, style)])
    return made


def _refusal(one: Rejected) -> tuple[str, str]:
    again = ""
    if one.retry_after is not None and "room in" not in one.reason:  # the ledger's reasons say it, and exactly
        again = "; " + _("possible again in {age}").format(age=age(one.retry_after))
    said = _("passed over ({code}): {reason}").format(code=one.code, reason=one.reason)
    return f"{said}{again}", "warn"


def _short(value: Any) -> str:
    text = str(value)
    return f'"{text[:24]}…"' if isinstance(value, str) and len(text) > 24 else text


def text_lines(turn: Turn | None, width: int, signs: Glyphs) -> list[Line]:
    """What was asked and answered, where this dashboard has asked; its answer grows while it comes."""
    room = max(20, width - 2)
    if turn is None:
        said = _("Kept of what is asked in the Playground, while this dashboard runs; the daemon keeps no text.")
        return [[(f" {line}", "dim")] for line in wrap(said, room)]
    asked = wrap(signs.of(turn.prompt), room - 2)
    lines: list[Line] = [[(" > ", "accent"), (line, "bold")] for line in asked[:2]]
    if len(asked) > 2:
        lines[-1].append((f" {signs.ellipsis}", "dim"))
    answer = [line for part in turn.text.splitlines() for line in (wrap(signs.of(part), room) if part else [""])]
    lines += [[(f" {line}", "")] for line in answer[:_PREVIEW]]
    if len(answer) > _PREVIEW:
        more = _("{count} further lines; R asks again in the Playground").format(count=len(answer) - _PREVIEW)
        lines.append([(f" {signs.ellipsis} {more}", "dim")])
    return lines


def now_lines(choice: ModelChoice | None, error: str, width: int, signs: Glyphs, at: float) -> list[Line]:
    """Who would be chosen now."""
    title = _("IF IT WERE ASKED NOW ({time})").format(time=clock(at))
    head: list[Line] = [[("", "")], rule(title, width, signs)]
    if choice is None:
        return [*head, *([(f" {line}", "bad")] for line in wrap(signs.of(error), max(20, width - 2)))]
    return [*head, *choice_lines(choice, width, signs, (_("chosen"), "good"))]
