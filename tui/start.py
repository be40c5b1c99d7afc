"""Shown when there has been no daemon yet: offers to start one."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from hybridd.client import start
from hybridd.errors import HybriddError
from hybridd.i18n import _
from tui.keys import pressed
from tui.text import Line, wrap
from tui.widgets.lines import Lines


class StartScreen(ModalScreen[None]):
    """Enter starts ``hybridd serve`` in the background; it goes away by itself as soon as a daemon answers."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "start", "Start the daemon in the background", id="start.start"),
        Binding("escape", "dismiss", "Wait for one", id="start.wait"),
        Binding("q", "app.quit", "Quit", id="start.quit"),
    ]
    DEFAULT_CSS = """
    StartScreen { align: center middle; background: $background 60%; }
    StartScreen > Lines { width: 64; max-width: 94%; background: $panel; padding: 1 2; }
    """

    def __init__(self, socket: Path) -> None:
        super().__init__()
        self.socket = socket

    def compose(self) -> ComposeResult:
        yield Lines()

    def on_mount(self) -> None:
        self._say([_("No daemon answers at {socket}.").format(socket=self.socket)])

    def _say(self, sentences: list[str], *, busy: bool = False) -> None:
        words = [line for sentence in sentences for line in wrap(sentence, 56)]
        lines: list[Line] = [[(_("Welcome to hybridd"), "bold")], [("", "")], *([(text, "")] for text in words)]
        if not busy:
            offers = {
                "start.start": _("start it in the background (hybridd serve)"),
                "start.wait": _("wait: the dashboard connects as soon as one runs"),
                "start.quit": _("quit"),
            }
            lines.append([("", "")])
            width = min(64, self.app.size.width * 94 // 100) - 11
            for name, text in offers.items():
                first, *more = wrap(text, width)
                lines.append([(f"{pressed(self, name):>5}  ", "accent"), (first, "")])
                lines += [[(" " * 7 + line, "")] for line in more]
        self.query_one(Lines).show(lines)

    def action_start(self) -> None:
        self._say([_("Starting the daemon…")], busy=True)
        self._start()

    @work(thread=True, exclusive=True)
    def _start(self) -> None:
        try:
            start.ensure_running(self.socket)
        except HybriddError as error:
            self.app.call_from_thread(self._say, [error.message])
        except OSError as error:
            self.app.call_from_thread(self._say, [_("The daemon could not be started: {error}").format(error=error)])
