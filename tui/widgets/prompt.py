"""The lines to write a question in."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import TextArea

from hybridd.i18n import _

if TYPE_CHECKING:
    from tui.app import Dashboard

_OWN = {
    "prompt.send": ("send", "enter"),
    "prompt.line": ("line", "ctrl+j,shift+enter,alt+enter"),
}
"""Id, action and keys of what TextArea would take for text."""


class Prompt(TextArea):
    """Enter sends, Up on the first line brings earlier questions back. It grows to five lines."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(_OWN["prompt.send"][1], "send", "send", id="prompt.send"),
        Binding(_OWN["prompt.line"][1], "line", "A new line", id="prompt.line", show=False),
        Binding("up", "earlier", "The question before", id="prompt.earlier", show=False),
        Binding("down", "later", "The question after", id="prompt.later", show=False),
    ]
    DEFAULT_CSS = """
    Prompt { height: auto; max-height: 5; border: none; padding: 0 1; background: $surface; }
    Prompt:focus { border: none; background: $panel; }
    """

    class Sent(Message):
        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self) -> None:
        super().__init__(
            soft_wrap=True, show_line_numbers=False, highlight_cursor_line=False, compact=True,
            placeholder=_("Ask something; Enter sends, Esc leaves"),
        )  # fmt: skip
        self.cursor_blink = False  # a timer while idle
        self.earlier: list[str] = []
        self._at = 0

    def remember(self, prompts: list[str]) -> None:
        """What Up and Down go through, oldest first."""
        self.earlier, self._at = prompts, len(prompts)

    async def _on_key(self, event: events.Key) -> None:
        """Its own keys in the order they were typed: a binding with priority would overtake letters that are still on
        their way, and send half a question."""
        for name, (action, keys) in _OWN.items():
            used = cast("Dashboard", self.app).keymap_keys(name) or keys.split(",")
            if set(used) & {event.key, *event.aliases}:
                event.stop()
                event.prevent_default()
                await self.run_action(action)
                return

    def action_send(self) -> None:
        text = self.text.strip()
        if text:
            self.clear()
            self.post_message(self.Sent(text))

    def action_line(self) -> None:
        self.insert("\n")

    def action_earlier(self) -> None:
        if self.cursor_location[0] == 0 and self.earlier and self._at > 0:
            self._go(self._at - 1)
        else:
            self.action_cursor_up()

    def action_later(self) -> None:
        if self.cursor_location[0] == self.document.line_count - 1 and self._at < len(self.earlier):
            self._go(self._at + 1)
        else:
            self.action_cursor_down()

    def _go(self, at: int) -> None:
        self._at = at
        self.text = self.earlier[at] if at < len(self.earlier) else ""
        self.move_cursor(self.document.end)
