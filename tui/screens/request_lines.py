"""One request as lines: the facts, why it went where it went, where its time went. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hybridd.contracts.views import ModelChoice, Rejected, RequestView
from tui.screens.overview_blocks import rule
from tui.text import Glyphs, Line, age, clock, count, fit, fit_line, milliseconds, money, wrap
from tui.widgets.waterfall import waterfall_lines

_LABEL = 11


def detail_lines(view: RequestView, width: int, signs: Glyphs, now: float) -> list[Line]:
    """Everything that was recorded of it. What was asked and answered is not kept anywhere."""
    lines = [[("", "")], *facts(view, width, signs, now)]
    if view.choice is not None:
        lines += [[("", "")], rule("WHY", width, signs), *choice_lines(view.choice, width, signs, _ended(view))]
    lines += [[("", "")], rule("TIME", width, signs), *waterfall_lines(view, width, signs)]
    return lines


def facts(view: RequestView, width: int, signs: Glyphs, now: float) -> list[Line]:
    by = f"{view.provider}:{view.model}" if view.provider else "nobody"
    failed = view.status >= 400
    status = f"{view.status} {view.error_code or ''}".strip() if failed else f"{view.status} ok"
    tokens = f"{count(view.input_tokens)} in {signs.arrow} {count(view.output_tokens)} out"
    pace = speed(view)
    pairs: list[tuple[str, str, str]] = [
        ("request", view.id, ""),
        (
            "began",
            f"{clock(view.at)}, {age(max(0.0, now - view.at))} ago" if now - view.at >= 1 else clock(view.at),
            "",
        ),
        ("asked for", view.requested or "-", ""),
        ("task", view.task or "-", ""),
        ("answered by", by, "bad" if failed and not view.provider else ""),
        ("status", status, "bad" if failed else "good"),
        ("tokens", f"{tokens}, {pace:.0f} tok/s" if pace is not None else tokens, ""),
        ("cost", money(view.cost_usd), ""),
        ("took", milliseconds(view.latency_ms), ""),
        ("first token", milliseconds(view.first_token_ms) if view.stream else "not streamed", ""),
        ("cache", view.cache, "good" if view.cache == "hit" else ""),
        ("tries", count(view.attempts), ""),
        ("tier", view.tier or "-", ""),
        ("client", view.client or "-", ""),
    ]
    return _in_columns(pairs, width, signs)


def speed(view: RequestView) -> float | None:
    """Tokens per second while the answer was given; None when it cannot be told."""
    if not view.output_tokens or view.cache == "hit" or view.status >= 400:
        return None
    since = view.first_token_ms if view.stream and view.first_token_ms is not None else 0.0
    seconds = (view.latency_ms - since) / 1000
    return view.output_tokens / seconds if seconds > 0.001 else None


def _in_columns(pairs: Sequence[tuple[str, str, str]], width: int, signs: Glyphs) -> list[Line]:
    """Two facts in a line where they fit; else one, and none of what is not known."""
    if width < 76:
        return [_fact(*pair, width, signs) for pair in pairs if pair[1] not in {"-", "not streamed"}]
    half = width // 2
    made: list[Line] = []
    for number in range(0, len(pairs), 2):
        line = _fact(*pairs[number], half, signs)
        if number + 1 < len(pairs):
            line += _fact(*pairs[number + 1], width - half, signs)
        made.append(line)
    return made


def _fact(label: str, value: str, style: str, width: int, signs: Glyphs) -> Line:
    room = max(4, width - _LABEL - 3)
    return [(f" {fit(label, _LABEL)} ", "dim"), (fit(signs.of(value), room, ellipsis=signs.ellipsis), style), (" ", "")]


def _ended(view: RequestView) -> str:
    """What became of the chosen candidate."""
    if view.cache == "hit":
        return "answered from the cache"
    return "answered" if view.status < 400 else f"failed: {view.error_code or view.status}"


def choice_lines(choice: ModelChoice, width: int, signs: Glyphs, ended: str) -> list[Line]:
    """The reason, and every candidate in its order: passed over and why, chosen, or not needed."""
    made: list[Line] = [[(f" {line}", "")] for line in wrap(signs.of(choice.reason), max(20, width - 2))]
    if choice.defaults:
        told = ", ".join(f"{name} {_short(value)}" for name, value in choice.defaults.items())
        made += [fit_line([(f" defaults of the task: {signs.of(told)}", "dim")], width, ellipsis=signs.ellipsis)]
    rejected: dict[str, list[Rejected]] = {}
    for one in choice.rejected:
        rejected.setdefault(one.candidate, []).append(one)
    known = list(dict.fromkeys([*choice.candidates, *rejected]))
    names = min(34, max((len(name) for name in known), default=0), max(12, width // 3))
    for number, name in enumerate(known, 1):
        head: Line = [(f" {number:>2} ", "dim"), (fit(name, names, ellipsis=signs.ellipsis), "bold"), (" ", "")]
        said = [_refusal(one) for one in rejected.get(name, ())]
        if name == choice.chosen_model:
            said = [(ended, "good" if ended.startswith("answered") or ended == "chosen" else "bad")]
        made += _said(head, names + 5, said or [("not needed", "dim")], width, signs)
    if not known:
        made.append([(" there was no candidate", "warn")])
    return made


def _said(head: Line, indent: int, said: Sequence[tuple[str, str]], width: int, signs: Glyphs) -> list[Line]:
    """Sentences beside the name, wrapped under themselves."""
    made: list[Line] = []
    for text, style in said:
        for line in wrap(signs.of(text), max(16, width - indent - 1)):
            made.append([*(head if not made else [(" " * indent, "")]), (line, style)])
    return made


def _refusal(one: Rejected) -> tuple[str, str]:
    again = f"; possible again in {age(one.retry_after)}" if one.retry_after is not None else ""
    return f"passed over ({one.code}): {one.reason}{again}", "warn"


def _short(value: Any) -> str:
    text = str(value)
    return f'"{text[:24]}…"' if isinstance(value, str) and len(text) > 24 else text


def now_lines(choice: ModelChoice | None, error: str, width: int, signs: Glyphs, at: float) -> list[Line]:
    """Who would be chosen now."""
    head: list[Line] = [[("", "")], rule(f"IF IT WERE ASKED NOW ({clock(at)})", width, signs)]
    if choice is None:
        return [*head, *([(f" {line}", "bad")] for line in wrap(signs.of(error), max(20, width - 2)))]
    return [*head, *choice_lines(choice, width, signs, "chosen")]
