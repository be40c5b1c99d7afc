"""Jump mode: a letter appears on everything that can be gone to; pressing it goes there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.geometry import Offset
from textual.screen import ModalScreen, Screen
from textual.widget import Widget

from tui.types import Run
from tui.widgets.lines import Lines
from tui.widgets.table import Rows

LETTERS = "asdfghjklqwertyuiopzxcvbnm"


@dataclass(frozen=True)
class Target:
    at: Offset
    go: Run


def targets(screen: Screen[Any]) -> list[Target]:
    """The rows of the focused table first, then everything that can have the focus."""
    made: list[Target] = []
    focused = screen.focused
    for widget in screen.focus_chain:
        if isinstance(widget, Rows) and (widget is focused or focused is None):
            first = widget.scroll_offset.y
            room = widget.scrollable_content_region.height - widget.head
            for row in range(first, min(len(widget.shown), first + room)):
                at = widget.content_region.offset + Offset(0, row - first + widget.head)
                made.append(Target(at, _row(widget, row)))
        else:
            made.append(Target(widget.region.offset, widget.focus))
    return made[: len(LETTERS)]


def _row(rows: Rows[Any], row: int) -> Run:
    def go() -> None:
        rows.focus()
        rows.move_to(row)

    return go


class Label(Lines):
    DEFAULT_CSS = "Label { width: 3; height: 1; position: absolute; background: $accent; color: $background; }"


class JumpScreen(ModalScreen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss", "Stay here", id="jump.stay")]
    DEFAULT_CSS = "JumpScreen { background: $background 0%; }"

    def __init__(self, of: Screen[Any]) -> None:
        super().__init__()
        self.targets = dict(zip(LETTERS, targets(of), strict=False))

    def compose(self) -> ComposeResult:
        labels: list[Widget] = []
        for letter, target in self.targets.items():
            label = Label()
            label.lines = [[(f" {letter} ", "bold")]]
            label.styles.offset = (target.at.x, target.at.y)
            labels.append(label)
        yield from labels

    def on_key(self, event: events.Key) -> None:
        if event.key == "escape":
            return
        event.stop()
        self.dismiss()
        target = self.targets.get(event.character or "")
        if target is not None:
            self.call_later(target.go)
