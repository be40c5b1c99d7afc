"""``?``: every action that can be done here, made from the bindings."""

from __future__ import annotations

from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen, Screen

from hybridd.i18n import N_, _
from tui.keys import Entry, entries
from tui.text import Line, fit
from tui.widgets.lines import Lines

_TITLES = {"this screen": N_("On this screen"), "here": N_("Where the cursor is"), "everywhere": N_("Everywhere")}


def help_lines(found: list[Entry], about: str) -> list[Line]:
    lines: list[Line] = [[(_(about), "bold")]] if about else []
    for place, title in _TITLES.items():
        own = [entry for entry in found if entry.place == place]
        if own:
            lines += [[("", "")], [(_(title), "head")]]
            lines += [
                [(fit(entry.shown_keys, 14), "accent"), (fit(entry.about, 34), ""), (f"  {entry.id}", "dim")]
                for entry in own
            ]
    return [*lines, [("", "")], [(_("The last column is the name for tui.keymap in the configuration."), "dim")]]


class HelpScreen(ModalScreen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q", "dismiss", "Close the help", id="help.close"),
    ]
    DEFAULT_CSS = """
    HelpScreen { align: center middle; background: $background 60%; }
    HelpScreen > VerticalScroll {
        width: 84; max-width: 96%; height: auto; max-height: 90%; background: $panel; padding: 1 2;
    }
    """

    def __init__(self, of: Screen[Any], about: str) -> None:
        super().__init__()
        self.lines = help_lines(entries(of), about)

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Lines()

    def on_mount(self) -> None:
        self.query_one(Lines).show(self.lines)
        self.query_one(VerticalScroll).focus()
