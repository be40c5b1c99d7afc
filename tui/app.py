"""The application: one feed, one house, the screens as modes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from textual import events, on, work
from textual.binding import Binding, BindingType
from textual.command import CommandPalette
from textual.timer import Timer

from hybridd import i18n
from hybridd.client.stdlib import Api
from hybridd.i18n import _
from tui import feed, keymap, theme, topics
from tui.ascii import use_ascii
from tui.asking import Asking
from tui.commands import Actions
from tui.deltas import apply_all
from tui.events import Event
from tui.export import write
from tui.feed import Feed
from tui.house import House
from tui.keys import declared, key_name
from tui.messages import Batch, Failed
from tui.queries import wanted_after
from tui.replay import Player, Recorder
from tui.screens import SCREENS
from tui.screens.base import HouseScreen
from tui.session import Session
from tui.settings import Options
from tui.start import StartScreen
from tui.text import glyphs
from tui.travel import Arrived, Travel

FOCUSED_TICK = 1.0
UNFOCUSED_TICK = 10.0


class Dashboard(Asking):
    """``house`` is what every screen draws from. Nothing but handlers of this class changes it."""

    TITLE = "hybridd"
    CSS = theme.CSS
    DEFAULT_MODE = "overview"
    COMMANDS: ClassVar[set[Any]] = {Actions}
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(spec.key, f"screen('{name}')", spec.title, id=f"app.screen.{name}", show=False)
            for name, spec in SCREENS.items()
        ),
        Binding("question_mark,f1", "help", "help", id="app.help"),
        Binding("ctrl+p", "command_palette", "Every action", id="app.palette", show=False, priority=True),
        Binding("ctrl+o", "jump", "Jump to anything that is shown", id="app.jump", show=False),
        Binding("T", "next_theme", "The next theme", id="app.theme", show=False),
        Binding("left_square_bracket", "travel(-300)", "Five minutes back in time", id="app.past.back", show=False),
        Binding("right_square_bracket", "travel(300)", "Five minutes forward", id="app.past.forward", show=False),
        Binding("left_curly_bracket", "travel(-3600)", "An hour back in time", id="app.past.hour_back", show=False),
        Binding("right_curly_bracket", "travel(3600)", "An hour forward", id="app.past.hour_forward", show=False),
        Binding("g", "go_to_time", "Go to a time", id="app.past.time", show=False),
        Binding("G", "to_now", "Back to now", id="app.past.now", show=False),
        Binding("r", "reconnect", "Connect again now", id="app.reconnect", show=False),
        Binding("q", "quit", "Quit", id="app.quit", show=False),
    ]

    def __init__(self, options: Options | None = None, *, wall: Callable[[], float] = time.time) -> None:
        super().__init__()
        self.options = options or Options()
        i18n.use(self.options.section.language)
        self.house = House(now=wall())
        self.past: House | None = None
        self.travel = Travel(self)
        self.session = Session()
        self.ascii_only = self.options.ascii_only
        self.read_only = self.options.read_only
        self.animation_level = "none"
        if self.ascii_only:
            use_ascii(self)
        self.folder = Path.cwd()
        self._wall = wall
        self._api = Api(self.options.socket, timeout=30.0)
        self._recorder = Recorder(self.options.record, self._say_failed) if self.options.record is not None else None
        self.feed: Feed | None = None
        self._player: Player | None = None
        if self.options.replay is not None:
            self._player = Player(self.options.replay, self._deliver, speed=self.options.speed)
            self.house.now = self._player.at  # its own time, not the day it is looked at
        else:
            self.feed = Feed(self.options.socket, self._deliver, record=self._recorder, wall=wall)
        self._ticker: Timer | None = None
        self._offered = False
        for known in theme.THEMES:
            self.register_theme(known)
        self.theme = self.options.theme if self.options.theme in self.available_themes else theme.DEFAULT
        for name, spec in SCREENS.items():
            self.add_mode(name, spec.make)

    # ---- life ----------------------------------------------------------------------------------------------------

    def on_mount(self) -> None:
        wrong: list[str] = []
        if self.options.section.keymap:  # knowing every binding means importing every screen
            used, wrong = keymap.check(self.options.section.keymap, binding_places())
            self.set_keymap(used)
        if said := [sentence for sentence in [self.options.note, *wrong] if sentence]:
            self.notify("\n".join(said), severity="warning", timeout=15)
        if self.feed is not None:
            self.feed.start()
        else:
            self._play()
        self._tick_every(FOCUSED_TICK)

    def on_unmount(self) -> None:
        if self.feed is not None:
            self.feed.stop()
        if self._recorder is not None:
            self._recorder.close()

    @work
    async def _play(self) -> None:
        if self._player is not None:
            await self._player.play()

    def _say_failed(self, sentence: str) -> None:
        """From any thread."""
        self.post_message(Failed(sentence))

    # ---- the house -----------------------------------------------------------------------------------------------

    def _deliver(self, batch: list[Event]) -> None:
        self.post_message(Batch(batch))

    @on(Batch)
    def _take(self, message: Batch) -> None:
        was = self.house.connection.state
        changed = apply_all(self.house, message.events)
        if self.feed is not None:
            for name in wanted_after(message.events):
                self.ask(name)
            if self.house.connection.state != was:
                self._connection_changed()
        self.tell(changed)

    def tell(self, changed: set[str]) -> None:
        """Draws the screen that is shown, where these topics are on it. Of the past, only the connection changes."""
        if self.past is not None:
            self.past.connection = self.house.connection
            changed = changed & {topics.CONNECTION, topics.LOGS}
        if changed:
            for screen in reversed(self.screen_stack):
                if isinstance(screen, HouseScreen):
                    screen.take(frozenset(changed))
                    return

    def _connection_changed(self) -> None:
        state = self.house.connection
        offered = isinstance(self.screen, StartScreen)
        if state.state == "lost" and not state.ever and not self._offered and not self.read_only:
            self._offered = True  # once; the first attempt that is told of need not be number 1
            self.push_screen(StartScreen(self.options.socket))
        elif state.state == "live" and offered:
            self.screen.dismiss()

    # ---- the clock -----------------------------------------------------------------------------------------------

    def _tick_every(self, seconds: float) -> None:
        if self._ticker is not None:
            self._ticker.stop()
        self._ticker = self.set_interval(seconds, self._tick)

    def _tick(self) -> None:
        if self.feed is None:
            return  # a recording has its own time
        self.house.now = self._wall()
        changed = {topics.CLOCK}
        if not self.house.rates.empty(self.house.now):
            changed.add(topics.RATES)
        self.tell(changed)

    def on_app_focus(self, event: events.AppFocus) -> None:
        self._pace(focused=True)

    def on_app_blur(self, event: events.AppBlur) -> None:
        self._pace(focused=False)

    def _pace(self, *, focused: bool) -> None:
        if self.feed is not None:
            self.feed.interval = feed.FOCUSED_SECONDS if focused else feed.UNFOCUSED_SECONDS
        self._tick_every(FOCUSED_TICK if focused else UNFOCUSED_TICK)
        if focused:
            self._tick()

    # ---- the past ------------------------------------------------------------------------------------------------

    @on(Arrived)
    def _arrived(self, message: Arrived) -> None:
        self.past = message.house
        for screen in reversed(self.screen_stack):
            if isinstance(screen, HouseScreen):
                screen.show_all()
                return

    def action_travel(self, seconds: float) -> None:
        self.travel.step(seconds)

    def action_go_to_time(self) -> None:
        self.travel.ask()

    def action_to_now(self) -> None:
        self.travel.go(None)

    # ---- actions -------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "to_now":
            return self.past is not None
        return self.house.connection.state == "lost" if action == "reconnect" else True

    def go(self, name: str, target: str = "") -> None:
        """Show another screen, and there ``target`` (see :meth:`HouseScreen.arrive`)."""
        while len(self.screen_stack) > 1:
            self.pop_screen()
        mounted = self.switch_mode(name)

        async def arrive() -> None:
            await mounted
            screen = self.screen
            if target and isinstance(screen, HouseScreen):
                screen.call_after_refresh(screen.arrive, target)

        self.run_worker(arrive(), group="go", exclusive=True)

    def action_screen(self, name: str) -> None:
        self.go(name)

    def action_help(self) -> None:
        from tui.help import HelpScreen

        screen = self.screen
        about = SCREENS[screen.NAME].about if isinstance(screen, HouseScreen) and screen.NAME in SCREENS else ""
        self.push_screen(HelpScreen(screen, about))

    def action_jump(self) -> None:
        from tui.jump import JumpScreen

        self.push_screen(JumpScreen(self.screen))

    def action_command_palette(self) -> None:
        if not isinstance(self.screen, CommandPalette):
            hint = glyphs(ascii_only=self.ascii_only).of(_("Search for an action…"))
            self.push_screen(CommandPalette(placeholder=hint, id="--command-palette"))

    def action_help_quit(self) -> None:
        """Ctrl+C where nothing is selected: Textual would name a key that the user may have moved."""
        said = _("{key} quits. Ctrl+C copies what the mouse has selected.")
        self.notify(said.format(key=self.key_of("app.quit")), timeout=4)

    def action_reconnect(self) -> None:
        if self.feed is not None:
            self.feed.retry()

    def use(self, name: str) -> None:
        """Use a theme until the dashboard is left."""
        self.theme = name

    def action_next_theme(self) -> None:
        at = theme.NAMES.index(self.theme) if self.theme in theme.NAMES else -1
        self.use(theme.NAMES[(at + 1) % len(theme.NAMES)])
        self.notify(_("Theme: {name}").format(name=self.theme), timeout=2)

    def action_screenshot(self, filename: str | None = None, path: str | None = None) -> None:
        self.save(getattr(self.screen, "NAME", "") or "screen", "svg", self.export_screenshot())

    def save(self, name: str, ending: str, text: str) -> None:
        try:
            written = write(self.folder, name, ending, text, self._wall())
        except OSError as error:
            said = _("Nothing was written to {folder}: {reason}")
            self.post_message(Failed(said.format(folder=self.folder, reason=error.strerror or error)))
            return
        self.notify(_("Wrote {path}").format(path=written), timeout=6)

    def keymap_keys(self, binding: str) -> list[str]:
        """The keys of a binding in the user's keymap; empty: as declared."""
        return [key for key in self._keymap.get(binding, "").split(",") if key]

    def key_of(self, binding: str) -> str:
        """What to press for one of the application's own bindings, as it is written."""
        known = {one.id: one.key for one in self.BINDINGS if isinstance(one, Binding)}
        return key_name((self.keymap_keys(binding) or known[binding].split(","))[0])


def binding_places() -> dict[str, keymap.Place]:
    """Every id that a keymap may name: of the application, its screens, their widgets and dialogues."""
    from tui.reference import sources

    found = declared(sources())
    return {binding.id: keymap.Place(kind.__name__, binding.key) for kind, binding in found if binding.id}
