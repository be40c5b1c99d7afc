"""A question that is answered with yes or no, before something is interrupted or deleted."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen

from hybridd.i18n import _
from tui.keys import pressed
from tui.text import Line, wrap
from tui.widgets.lines import Lines


class Confirm(ModalScreen[bool]):
    """``question``: what will happen; ``yes``: the deed in a word or two."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,y", "answer(True)", "Do it", id="confirm.yes"),
        Binding("escape,n", "answer(False)", "Leave it", id="confirm.no"),
    ]
    DEFAULT_CSS = """
    Confirm { align: center middle; background: $background 60%; }
    Confirm > Vertical { width: 58; max-width: 96%; height: auto; background: $panel; padding: 1 2; }
    """

    def __init__(self, question: str, yes: str) -> None:
        super().__init__()
        self.question = question
        self.yes = yes

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Lines()

    def on_mount(self) -> None:
        self.app.clear_notifications()  # they would lie over it
        yes, no = pressed(self, "confirm.yes"), pressed(self, "confirm.no")
        keys: Line = [(yes, "accent"), (f" {self.yes}   ", ""), (no, "accent"), (f" {_('leave it')}", "")]
        asked = [[(line, "bold")] for line in wrap(self.question, 52)]
        self.query_one(Lines).show([*asked, [("", "")], keys])

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)
