"""One question and its answer as lines, folded to a width. Pure functions."""

from __future__ import annotations

from rich.cells import cell_len

from hybridd.i18n import _, ngettext
from tui.session import Turn
from tui.text import Glyphs, Line, age, clean, count, milliseconds, money, wrap

SAID_AFTER = 2.0
"""Waiting is told in seconds when it takes longer than that."""


def fold(text: str, width: int) -> list[str]:
    """``text`` with its own line breaks and indentation, in lines of at most ``width`` columns."""
    made: list[str] = []
    for line in text.expandtabs(4).split("\n"):
        cleaned = clean(line)
        if cell_len(cleaned) <= width:
            made.append(cleaned.rstrip())
        else:
            made += _broken(cleaned, width)
    return made


def _broken(line: str, width: int) -> list[str]:
    """At spaces where there are any; a word that is longer than a line is cut wherever the line ends."""
    indent = line[: len(line) - len(line.lstrip())][: width // 2]
    made, current = [], indent
    for word in line.split():
        joint = "" if current == indent else " "
        if cell_len(current) + len(joint) + cell_len(word) <= width:
            current += joint + word
            continue
        if current != indent:
            made.append(current)
        rest = word
        while cell_len(indent + rest) > width:
            size = _fitting(rest, width - cell_len(indent))
            made.append(indent + rest[:size])
            rest = rest[size:]
        current = indent + rest
    return [*made, current]


def _fitting(text: str, width: int) -> int:
    """How many characters fit; at least one."""
    used = 0
    for number, char in enumerate(text):
        used += cell_len(char)
        if used > width:
            return max(1, number)
    return len(text)


class Folded:
    """A text that only grows, folded: what is complete is folded once."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._done: list[str] = []
        self._upto = 0

    def lines(self, text: str) -> list[str]:
        end = text.rfind("\n")
        if end >= self._upto:
            self._done += fold(text[self._upto : end], self.width)
            self._upto = end + 1
        return [*self._done, *fold(text[self._upto :], self.width)]


class Drawing:
    """One turn at one width. What is complete of its texts is folded once."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.answer = Folded(width)
        self.thoughts = Folded(max(8, width - 2))


def facts(turn: Turn, signs: Glyphs) -> list[str]:
    """Who answered, tokens, speed, cost, time; what is not known is left out."""
    said = [turn.answered] if turn.answered else []
    if turn.passed_over:
        said.append(_("{count} passed over").format(count=turn.passed_over))
    if turn.input_tokens is not None or turn.output_tokens is not None:
        said.append(f"{count(turn.input_tokens)}{signs.arrow}{count(turn.output_tokens)} tok")
    if turn.speed is not None:
        said.append(f"{turn.speed:,.0f} tok/s")
    if turn.cost_usd is not None:
        said.append(money(turn.cost_usd))
    known = turn.first_ms is not None and turn.state != "waiting"
    if known and (turn.latency_ms is None or (turn.first_ms or 0.0) < turn.latency_ms):
        said.append(_("first token {time}").format(time=milliseconds(turn.first_ms)))
    if turn.latency_ms is not None:
        said.append(_("took {time}").format(time=milliseconds(turn.latency_ms)))
    if turn.cache == "hit":
        said.append(_("from the cache"))
    return said


def thought_lines(turn: Turn, drawing: Drawing, signs: Glyphs, *, hidden: bool) -> list[Line]:
    """What was thought before the answer: dimmed and set in, or only how much there is of it."""
    if not turn.thoughts.strip():
        return []
    if hidden:
        words = len(turn.thoughts.split())
        told = ngettext("thought {count} word; t shows it", "thought {count} words; t shows them", words)
        return [[(signs.of(told.format(count=f"{words:,}")), "dim")]]
    lines = drawing.thoughts.lines(signs.of(turn.thoughts.lstrip("\n")))
    while lines and not lines[-1]:
        lines.pop()
    made: list[Line] = [[(_("thoughts"), "dim")]]
    return [*made, *([(f"  {line}", "dim")] for line in lines)]


def state_lines(turn: Turn, width: int, signs: Glyphs, now: float, note: str) -> list[Line]:
    """What goes on, or how it ended when that was no answer. ``note``: what a wait is for."""
    if turn.state in {"waiting", "answering"}:
        waited = now - turn.began
        told = _("waiting for {model}").format(model=turn.model) if turn.state == "waiting" else _("answering")
        if turn.state == "answering" and not turn.text:
            told = _("thinking")
        told += f" {age(waited)}" if turn.began and waited >= SAID_AFTER else ""
        told += f"; {note}" if note and turn.state == "waiting" else ""
        return [[(signs.of(line), "dim")] for line in wrap(f"{told}… {_('Esc stops it')}", width)]
    if turn.state == "stopped":
        return [[(_("stopped"), "warn")]]
    if turn.state == "failed":
        told = _("failed: {reason}").format(reason=turn.error)
        return [[(line, "bad")] for line in wrap(signs.of(told), width)]
    if not turn.text and not turn.thoughts:
        return [[(_("the answer is empty"), "warn")]]
    return []


def turn_lines(turn: Turn, drawing: Drawing, signs: Glyphs, now: float, *, note: str, hidden: bool) -> list[Line]:
    """The question, what was thought, the answer, how it stands, and its facts."""
    width = drawing.width
    made: list[Line] = [[(f"{signs.mark}{line}", "accent")] for line in fold(signs.of(turn.prompt), width - 1)]
    made += thought_lines(turn, drawing, signs, hidden=hidden)
    if turn.text:
        made += [[(line, "")] for line in drawing.answer.lines(signs.of(turn.text))]
    made += state_lines(turn, width, signs, now, note)
    said = f" {signs.between} ".join(facts(turn, signs))
    if said:
        made += [[(line, "dim")] for line in wrap(signs.of(said), width)]
    if turn.score is not None:
        good = turn.score > 0
        told = _("you rated it good (+1)") if good else _("you rated it bad (-1)")
        made.append([(told, "good" if good else "warn")])
    return [*made, [("", "")]]
