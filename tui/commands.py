"""The command palette: every action of the screen below it, every screen, every theme."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider

from hybridd.i18n import _
from tui.keys import Entry, entries, qualified
from tui.text import glyphs
from tui.theme import NAMES
from tui.types import Run

if TYPE_CHECKING:
    from tui.app import Dashboard


def _nothing() -> None:
    """What choosing the sentence that there is nothing does."""


class Actions(Provider):
    """What the bindings can do, by what it is called."""

    def _commands(self) -> Iterable[tuple[str, str, Run]]:
        """What it is called, what stands below, how to run it."""
        signs = glyphs(ascii_only=cast("Dashboard", self.app).ascii_only)
        for name, about, run in self._all():
            yield signs.of(name), signs.of(about), run

    def _all(self) -> Iterable[tuple[str, str, Run]]:
        app = cast("Dashboard", self.app)
        for entry in entries(self.screen):
            if not entry.action.endswith("command_palette"):
                keys = f"{entry.shown_keys}   {entry.id}"
                yield entry.about, keys, partial(self._run, entry)
        for name in NAMES:
            about = _("for this session; tui.theme in the configuration keeps it")
            yield _("Theme: {name}").format(name=name), about, partial(app.use, name)
        yield _("Save the screen as SVG"), _("to the folder you started in"), app.action_screenshot

    async def _run(self, entry: Entry) -> None:
        node = entry.node if entry.place == "here" else None
        if node is not None and node.is_attached:
            await self.app.run_action(entry.action, node)
        else:
            await self.screen.run_action(qualified(entry))

    async def discover(self) -> Hits:
        for name, about, run in self._commands():
            yield DiscoveryHit(name, run, help=about)

    async def search(self, query: str) -> Hits:
        matcher, found = self.matcher(query), False
        for name, about, run in self._commands():
            score = matcher.match(name)
            if score > 0:
                found = True
                yield Hit(score, matcher.highlight(name), run, help=about)
        if not found:  # Textual would say so in English
            yield Hit(0.01, _("Nothing is called that."), _nothing)
