"""The line to type a filter in, under a table."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Input

from hybridd.i18n import _


class Filter(Input):
    """Opened by ``/``; every key narrows the table. Enter keeps the filter, Esc ends it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "give_up", "Clear the filter", id="filter.clear", show=False),
        Binding("down", "keep", "Back to the table", id="filter.keep", show=False),
    ]
    DEFAULT_CSS = "Filter { display: none; } Filter.-open { display: block; }"

    class Typed(Message):
        """The filter is this now; ``done``: and the table has the keys again."""

        def __init__(self, text: str, *, done: bool) -> None:
            super().__init__()
            self.text = text
            self.done = done

    def __init__(self) -> None:
        super().__init__(placeholder=_("filter: words, or column=value"), select_on_focus=False)

    def open(self) -> None:
        """At once: what is typed behind the ``/`` in the same moment belongs in here, not to the screen's keys."""
        self._show(True)
        self.screen.set_focus(self)

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(self.Typed(self.value, done=False))

    @on(Input.Submitted)
    def _done(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_keep()

    def action_keep(self) -> None:
        self._show(bool(self.value))
        self.post_message(self.Typed(self.value, done=True))

    def action_give_up(self) -> None:
        self.value = ""
        self._show(False)
        self.post_message(self.Typed("", done=True))

    def _show(self, shown: bool) -> None:
        self.set_class(shown, "-open")
        self.styles.display = "block" if shown else "none"
