"""A conversation: what was asked, what was answered, by whom and at what price; it grows while an answer streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual.app import ComposeResult
from textual.containers import VerticalScroll

from tui.session import Turn
from tui.text import Glyphs, Line
from tui.widgets.lines import Lines
from tui.widgets.turn import Drawing, turn_lines


class Transcript(VerticalScroll):
    """Stays at the end while it is at the end. ``empty()``: what stands there before the first question."""

    DEFAULT_CSS = "Transcript { height: 1fr; scrollbar-size-vertical: 1; }"

    def __init__(self, empty: Callable[[int, Glyphs], list[Line]]) -> None:
        super().__init__()
        self.empty = empty
        self.hidden = False
        """Thoughts are told in one line."""
        self.block = Lines()
        self._drawings: dict[Turn, Drawing] = {}
        self._made: dict[Turn, tuple[object, list[Line]]] = {}

    def compose(self) -> ComposeResult:
        yield self.block

    def draw(self, turns: Sequence[Turn], signs: Glyphs, now: float = 0.0, note: str = "") -> None:
        """``now``: UTC seconds; ``note``: what the last turn waits for."""
        width = max(10, (self.scrollable_content_region.width or self.app.size.width) - 1)
        at_end = self.scroll_offset.y >= self.max_scroll_y - 1
        lines: list[Line] = []
        for turn in turns:
            open_ = turn.state in {"waiting", "answering"}
            state = (width, len(turn.text), len(turn.thoughts), turn.state, turn.score, turn.answered, self.hidden)
            known = self._made.get(turn)
            if known is None or known[0] != state or open_:
                drawing = self._drawings.get(turn)
                if drawing is None or drawing.width != width:
                    drawing = self._drawings[turn] = Drawing(width)
                made = turn_lines(turn, drawing, signs, now, note=note if turn is turns[-1] else "", hidden=self.hidden)
                self._made[turn] = known = (state, made)
            lines += known[1]
        if not turns:
            lines = self.empty(width, signs)
            self._made, self._drawings = {}, {}
        self.block.show(lines)
        if at_end:
            self.scroll_end(animate=False)
