"""A dialogue of one line: a question, an answer that is checked while it is open."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from hybridd.contracts.when import parse_duration
from hybridd.i18n import _
from tui.text import clean, wrap
from tui.widgets.lines import Lines


def duration(text: str) -> float:
    """Seconds in ``30s``, ``2h``, ``1d12h``.

    Raises:
        ValueError: with a sentence in the user's language.
    """
    try:
        return parse_duration(text)
    except ValueError:
        raise ValueError(_("'{text}' is no duration such as 30s, 2h or 1d12h").format(text=clean(text))) from None


class Ask(ModalScreen[str]):
    """``check`` raises ValueError with a sentence for an answer that cannot be used; the dialogue stays then."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Back without an answer", id="ask.back"),
    ]
    DEFAULT_CSS = """
    Ask { align: center middle; background: $background 60%; }
    Ask > Vertical { width: 58; max-width: 96%; height: auto; background: $panel; padding: 1 2; }
    Ask Input { background: $surface; margin: 1 0; }
    """

    def __init__(self, question: str, hint: str, check: Callable[[str], object], *, given: str = "") -> None:
        super().__init__()
        self.question = question
        self.hint = hint
        self.check = check
        self.given = given

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Lines(id="question")
            yield Input(value=self.given)
            yield Lines(id="hint")

    def on_mount(self) -> None:
        self.app.clear_notifications()  # they would lie over it
        self.query_one("#question", Lines).show([[(line, "bold")] for line in wrap(self.question, 52)])
        self._say(self.hint, "dim")
        self.query_one(Input).focus()

    def _say(self, text: str, style: str) -> None:
        self.query_one("#hint", Lines).show([[(line, style)] for line in wrap(text, 52)])

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self._say(self.hint, "dim")

    @on(Input.Submitted)
    def _done(self, event: Input.Submitted) -> None:
        event.stop()
        try:
            self.check(event.value)
        except ValueError as error:
            text = str(error)
            self._say(f"! {text[:1].upper()}{text[1:]}.", "warn")
            return
        self.dismiss(event.value)

    def action_leave(self) -> None:
        self.dismiss(None)
