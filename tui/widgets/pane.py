"""One conversation of the playground: whom it asks, what was said, and the answer that is coming."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from textual.app import ComposeResult
from textual.containers import Vertical

from hybridd.client.types import Message
from hybridd.i18n import _
from tui.chat import Answer
from tui.session import Turn
from tui.text import Glyphs, Line, fit_line, wrap
from tui.widgets.lines import Lines
from tui.widgets.transcript import Transcript


def empty_lines(width: int, signs: Glyphs) -> list[Line]:
    """Before the first question."""
    told = (
        _("Write below and press Enter. The answer streams here, with who gave it, its tokens, speed and cost."),
        "",
        _("Nothing of it is kept after you leave; hybridd records that something was asked, never what."),
    )
    return [[(line, "dim")] for text in told for line in wrap(signs.of(text), width)]


class Pane(Vertical):
    """``model``: ``auto``, ``task:NAME``, a model. ``current``: ratings and copies are for this one."""

    DEFAULT_CSS = """
    Pane { width: 1fr; height: 1fr; padding: 0 1; }
    Pane > Lines { height: 1; }
    Pane.-second { display: none; }
    """

    def __init__(self, name: str, key: str, model: str) -> None:
        super().__init__(classes="-second" if name == "B" else "")
        self.title_text = name
        self.key = key
        self.model = model
        self.turns: list[Turn] = []
        self.answer: Answer | None = None
        self.title = Lines()
        self.transcript = Transcript(empty_lines)

    def compose(self) -> ComposeResult:
        yield self.title
        yield self.transcript

    @property
    def busy(self) -> bool:
        return self.answer is not None and not self.answer.ended

    def draw(self, signs: Glyphs, *, current: bool, alone: bool, now: float = 0.0, note: str = "") -> None:
        """``key``'s own binding is named as it works while a question is being written, too."""
        mark = signs.mark if current and not alone else " "
        name = "" if alone else f"{self.title_text}  "
        line: Line = [(mark, "accent"), (name, "bold"), (signs.of(self.model), "accent")]
        line.append((f"   {_('{key} asks another one').format(key=self.key)}", "dim"))
        self.title.show([fit_line(line, max(4, self.title.size.width), ellipsis=signs.ellipsis)])
        self.transcript.draw(self.turns, signs, now, note)

    # ---- the conversation ----------------------------------------------------------------------------------------

    def messages(self, prompt: str) -> list[Message]:
        """What was said so far, with this question; a question that nobody answered is left out."""
        said: list[Message] = []
        for turn in self.turns:
            if turn.text and turn.state in {"done", "stopped"}:
                said += [{"role": "user", "content": turn.prompt}, {"role": "assistant", "content": turn.text}]
        return [*said, {"role": "user", "content": prompt}]

    def ask(self, turn: Turn, socket: Path, changed: Callable[[Answer], None]) -> None:
        """Sends it; the answer goes on by itself."""
        self.turns.append(turn)
        self.answer = Answer(socket, turn, changed)
        self.answer.start()

    def stop(self) -> bool:
        """Ends the answer that is coming; False: there is none."""
        if self.answer is None or self.answer.ended:
            return False
        self.answer.stop()
        return True

    def forget(self) -> None:
        self.stop()
        self.turns, self.answer = [], None

    @property
    def last(self) -> Turn | None:
        return self.turns[-1] if self.turns else None
