"""``?``: every action that can be done here, made from the bindings."""

from __future__ import annotations

from typing import Any, ClassVar

from rich.cells import cell_len
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen, Screen

from hybridd.i18n import N_, _
from tui.keys import Entry, entries
from tui.text import Line, fit, wrap
from tui.widgets.lines import Lines

_TITLES = {"screen": N_("On this screen"), "here": N_("Where the cursor is"), "everywhere": N_("Everywhere")}


def help_lines(found: list[Entry], about: str, width: int) -> list[Line]:
    """In so many columns; where the ids have no room they are left out."""
    keys = min(14, max((cell_len(entry.shown_keys) for entry in found), default=0)) + 2
    does = min(44, max((cell_len(entry.about) for entry in found), default=0)) + 2
    ids = keys + does + max((len(entry.id) for entry in found), default=0) <= width
    lines: list[Line] = [[(line, "bold")] for line in wrap(_(about), width)] if about else []
    for place, title in _TITLES.items():
        own = [entry for entry in found if entry.place == place]
        if own:
            lines += [[("", "")], [(_(title), "head")]]
            lines += [_line(entry, keys, min(does, width - keys), ids=ids) for entry in own]
    last = _("The last column is the name for tui.keymap in the configuration.")
    narrow = _("A wider terminal shows the names for tui.keymap, too.")
    return [*lines, [("", "")], *([(line, "dim")] for line in wrap(last if ids else narrow, width))]


def _line(entry: Entry, keys: int, does: int, *, ids: bool) -> Line:
    return [(fit(entry.shown_keys, keys), "accent"), (fit(entry.about, does), ""), (entry.id if ids else "", "dim")]


class HelpScreen(ModalScreen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q,f1", "dismiss", "Close the help", id="help.close"),
    ]
    DEFAULT_CSS = """
    HelpScreen { align: center middle; background: $background 60%; }
    HelpScreen > VerticalScroll { width: 84; height: auto; max-height: 90%; background: $panel; padding: 1 2; }
    HelpScreen.-narrow > VerticalScroll { width: 100%; max-height: 100%; }
    """

    def __init__(self, of: Screen[Any], about: str) -> None:
        super().__init__()
        self.entries = entries(of)
        self.about = about

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Lines()

    def on_mount(self) -> None:
        self.app.clear_notifications()  # they would lie over it
        self.query_one(VerticalScroll).focus()

    def on_resize(self, event: events.Resize) -> None:
        """A column is left for the scroll bar, two on each side stay empty."""
        self.set_class(event.size.width < 90, "-narrow")
        self.query_one(Lines).show(help_lines(self.entries, self.about, min(84, event.size.width) - 6))
