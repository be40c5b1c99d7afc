"""A conversation: what was asked, what was answered, by whom and at what price; it grows while an answer streams."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.containers import VerticalScroll

from tui.session import Turn
from tui.text import Glyphs, Line, clean, count, milliseconds, money, wrap
from tui.widgets.lines import Lines


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


def facts(turn: Turn, signs: Glyphs) -> list[str]:
    """Who answered, tokens, speed, cost, time; what is not known is left out."""
    said = [turn.answered] if turn.answered else []
    if turn.passed_over:
        said.append(f"{turn.passed_over} passed over")
    if turn.input_tokens is not None or turn.output_tokens is not None:
        said.append(f"{count(turn.input_tokens)}{signs.arrow}{count(turn.output_tokens)} tok")
    if turn.speed is not None:
        said.append(f"{turn.speed:.0f} tok/s")
    if turn.cost_usd is not None:
        said.append(money(turn.cost_usd))
    known = turn.first_ms is not None and turn.state != "waiting"
    if known and (turn.latency_ms is None or (turn.first_ms or 0.0) < turn.latency_ms):
        said.append(f"first token {milliseconds(turn.first_ms)}")
    if turn.latency_ms is not None:
        said.append(f"took {milliseconds(turn.latency_ms)}")
    if turn.cache == "hit":
        said.append("from the cache")
    return said


def turn_lines(turn: Turn, folded: Folded, signs: Glyphs) -> list[Line]:
    width = folded.width
    made: list[Line] = [[(f"{signs.mark}{line}", "accent")] for line in fold(signs.of(turn.prompt), width - 1)]
    if turn.text:
        made += [[(line, "")] for line in folded.lines(signs.of(turn.text))]
    state = {
        "waiting": [(f"waiting for {turn.model}{signs.ellipsis}", "dim")],
        "answering": [(f"answering{signs.ellipsis} Esc stops it", "dim")],
        "stopped": [("stopped", "warn")],
        "failed": [(line, "bad") for line in wrap(signs.of(f"failed: {turn.error}"), width)],
    }.get(turn.state, [])
    made += [[piece] for piece in state]
    said = f" {signs.between} ".join(facts(turn, signs))
    if said:
        made += [[(line, "dim")] for line in wrap(signs.of(said), width)]
    if turn.score is not None:
        good = turn.score > 0
        made.append([(f"you rated it {'good (+1)' if good else 'bad (-1)'}", "good" if good else "warn")])
    return [*made, [("", "")]]


class Transcript(VerticalScroll):
    """Stays at the end while it is at the end."""

    DEFAULT_CSS = "Transcript { height: 1fr; scrollbar-size-vertical: 1; }"

    def __init__(self, empty: Sequence[str]) -> None:
        super().__init__()
        self.empty = empty
        self.block = Lines()
        self._folded: dict[Turn, Folded] = {}
        self._made: dict[Turn, tuple[object, list[Line]]] = {}

    def compose(self) -> ComposeResult:
        yield self.block

    def draw(self, turns: Sequence[Turn], signs: Glyphs) -> None:
        width = max(10, (self.scrollable_content_region.width or self.app.size.width) - 1)
        at_end = self.scroll_offset.y >= self.max_scroll_y - 1
        lines: list[Line] = []
        for turn in turns:
            state = (width, len(turn.text), turn.state, turn.score, turn.answered)
            known = self._made.get(turn)
            if known is None or known[0] != state:
                folded = self._folded.get(turn)
                if folded is None or folded.width != width:
                    folded = self._folded[turn] = Folded(width)
                self._made[turn] = known = (state, turn_lines(turn, folded, signs))
            lines += known[1]
        if not turns:
            lines = [[(line, "dim")] for text in self.empty for line in wrap(signs.of(text), width)]
            self._made, self._folded = {}, {}
        self.block.show(lines)
        if at_end:
            self.scroll_end(animate=False)
