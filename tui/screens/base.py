"""What every screen has: header, banner and footer around its own body, drawn from the house when it changes.

A screen names the topics it draws (:data:`HouseScreen.TOPICS`), yields its widgets in :meth:`HouseScreen.body` and
draws them in :meth:`HouseScreen.refresh_from`. It never asks the daemon on a timer, and only handlers touch the house.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.screen import Screen
from textual.widget import Widget

from hybridd.i18n import _
from tui import topics
from tui.house import House
from tui.text import RICH, Glyphs, glyphs
from tui.widgets.banner import Banner
from tui.widgets.filter import Filter
from tui.widgets.footer import Footer, Key
from tui.widgets.header import Header
from tui.widgets.lines import Lines
from tui.widgets.table import Rows

if TYPE_CHECKING:
    from tui.app import Dashboard


class HouseScreen(Screen[None]):
    """``NAME``: the mode in :data:`tui.screens.SCREENS` it belongs to. ``MIN_SIZE``: columns and rows it needs.

    ``WRITES``: actions that change something at the daemon; read-only mode and recordings take their keys away.
    """

    NAME: ClassVar[str] = ""
    TITLE: ClassVar[str | None] = None
    TOPICS: ClassVar[frozenset[str]] = frozenset()
    WRITES: ClassVar[frozenset[str]] = frozenset()
    MIN_SIZE: ClassVar[tuple[int, int]] = (60, 20)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back", id="screen.back", show=False),
        Binding("tab", "app.focus_next", "The next block", id="screen.next", show=False),
        Binding("shift+tab", "app.focus_previous", "The block before", id="screen.previous", show=False),
        Binding("ctrl+c,super+c", "screen.copy_text", "Copy what is selected", id="screen.copy", show=False),
    ]
    DEFAULT_CSS = """
    HouseScreen > #body { height: 1fr; }
    HouseScreen > #too-small { display: none; layer: over; width: 100%; height: 100%; background: $background; }
    HouseScreen.-too-small > #too-small { display: block; }
    """

    @property
    def dashboard(self) -> Dashboard:
        return cast("Dashboard", self.app)

    @property
    def house(self) -> House:
        return self.dashboard.shown

    @property
    def signs(self) -> Glyphs:
        app = self.dashboard
        return glyphs(ascii_only=app.ascii_only) if self.is_attached else RICH

    def compose(self) -> ComposeResult:
        yield Header()
        yield Banner(id="banner")
        with Container(id="body"):
            yield from self.body()
        yield Filter()
        yield Footer()
        yield Lines(id="too-small")

    def body(self) -> Iterable[Widget]:
        """The screen's own widgets."""
        return ()

    def refresh_from(self, house: House, changed: frozenset[str]) -> None:
        """Draw what depends on these topics; on show they are all of :data:`TOPICS`."""

    def empty_text(self, usual: str) -> str:
        """What an empty table says: ``usual`` when the daemon has answered and it is the present."""
        if self.house.as_of is not None:
            return _("Nothing of that time is recorded here.")
        if self.house.connection.state in {"replay", "ended"} and self.house.seq < 0:
            return _("The recording has not told of any so far.")
        return usual if self.house.seq >= 0 else _("Nothing is known yet: no daemon has answered.")

    def arrive(self, target: str) -> None:
        """The user was sent here from elsewhere to see ``target``: a limit's key, a request's id or a filter, an
        alert's id, a model."""

    # ---- kept current --------------------------------------------------------------------------------------------

    def take(self, changed: frozenset[str]) -> None:
        """Called by the application for the screen that is shown."""
        if not self.is_mounted or not any(isinstance(child, Header) for child in self.children):
            return  # not yet there, or being taken down
        if changed & {topics.CLOCK, topics.ALERTS, topics.CONNECTION}:
            self.draw_frame()
        own = changed & self.TOPICS
        if own:
            self.refresh_from(self.house, own)

    def draw_frame(self) -> None:
        app = self.dashboard
        self.set_class(self.house.stale, "-stale")
        self.query_one(Header).draw(self.house, _(self.TITLE or ""), read_only=app.read_only)
        self.query_one(Banner).draw(self.house)

    def draw_footer(self) -> None:
        from tui.keys import footer_keys, screen_keys

        self.query_one(Footer).draw(screen_keys(self.dashboard), footer_keys(self), self.NAME)

    def show_all(self) -> None:
        self.take(topics.ALL)
        self.draw_footer()

    def on_mount(self) -> None:
        self.set_class(self.app.no_color, "-nocolour")

    def on_screen_resume(self) -> None:
        self.call_after_refresh(self.show_all)

    def on_resize(self, event: events.Resize) -> None:
        columns, rows = self.MIN_SIZE
        small = event.size.width < columns or event.size.height < rows
        self.set_class(small, "-too-small")
        if small:
            self.app.clear_notifications()  # they would lie over it
            times = self.signs.times
            have = _("This terminal is {size};").format(size=f"{event.size.width}{times}{event.size.height}")
            need = _("this screen needs {size}.").format(size=f"{columns}{times}{rows}")
            lines = [[("", "")]] * max(0, event.size.height // 2 - 1)
            self.query_one("#too-small", Lines).show([*lines, [(f" {have}", "warn")], [(f" {need}", "warn")]])
        self.call_after_refresh(self.show_all)

    # ---- shared actions ------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return not (action in self.WRITES and self.dashboard.locked)

    def on_key(self, event: events.Key) -> None:
        """A key that would change something is answered with a word where nothing can be changed."""
        keys = {event.key, *event.aliases}
        if not self.dashboard.locked or keys & set(self.active_bindings):
            return
        bound = [one for key in keys for one in self._bindings.key_to_bindings.get(key, ())]
        if any(one.action.partition("(")[0] in self.WRITES for one in bound):
            event.stop()
            self.dashboard.say_locked()

    def action_back(self) -> None:
        """From a filter to the table, from a drill-down to where it came from; what was said goes away."""
        self.app.clear_notifications()
        for rows in self.query(Rows):
            if rows.filter_text:
                self.query_one(Filter).action_give_up()
                return
        if len(self.app.screen_stack) > 1:
            self.app.pop_screen()
        elif self.dashboard.past is not None:
            self.dashboard.action_to_now()

    def filtered_rows(self) -> Rows[Any] | None:
        """The table that ``/``, exports and jumps work on: the focused one, else the first."""
        focused = self.focused
        if isinstance(focused, Rows):
            return focused
        found = self.query(Rows)
        return found.first() if found else None

    _filtering: Rows[Any] | None = None

    @on(events.DescendantFocus)
    def _focus_moved(self, event: events.DescendantFocus) -> None:
        if isinstance(event.widget, Rows):
            self._filtering = event.widget
        self.draw_footer()

    @on(Filter.Typed)
    def _filter(self, event: Filter.Typed) -> None:
        event.stop()
        rows = self._filtering if self._filtering is not None and self._filtering.is_attached else self.filtered_rows()
        if rows is not None:
            rows.set_filter(event.text)
            if event.done:
                rows.focus()

    def action_export(self) -> None:
        from tui.export import ExportScreen

        self.app.push_screen(ExportScreen(self))

    def keys(self) -> list[Key]:
        """Further entries for the footer that no binding gives."""
        return []
