"""The application: one feed, one house, the screens as modes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from textual import events, on, work
from textual.app import App
from textual.binding import Binding, BindingType
from textual.timer import Timer

from hybridd import i18n
from hybridd.client.stdlib import Api
from hybridd.client.wire import Call
from hybridd.errors import HybriddError, InvalidRequest
from hybridd.i18n import _
from tui import feed, keymap, theme, topics
from tui.ascii import use_ascii
from tui.commands import Actions
from tui.events import Event, answer
from tui.export import write
from tui.feed import Feed
from tui.house import House, apply_all
from tui.keys import declared
from tui.messages import Batch, Failed
from tui.queries import LEAST_SECONDS, QUERIES, burn, wanted_after
from tui.replay import Player, Recorder
from tui.screens import SCREENS
from tui.screens.base import HouseScreen
from tui.session import Session
from tui.settings import Options
from tui.start import StartScreen
from tui.travel import Arrived, Travel

FOCUSED_TICK = 1.0
UNFOCUSED_TICK = 10.0


class Dashboard(App[None]):
    """``house`` is what every screen draws from. Nothing but handlers of this class changes it.

    ``read_only``: asked for; ``locked``: nothing may be changed, because of that or because this is a recording.
    """

    TITLE = "hybridd"
    CSS = theme.CSS
    DEFAULT_MODE = "overview"
    COMMANDS: ClassVar[set[Any]] = {Actions}
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(spec.key, f"screen('{name}')", spec.title, id=f"app.screen.{name}", show=False)
            for name, spec in SCREENS.items()
        ),
        Binding("question_mark", "help", "help", id="app.help", key_display="?"),
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
        self._recorder = Recorder(self.options.record) if self.options.record is not None else None
        self._player: Player | None = None
        self.feed: Feed | None = None
        if self.options.replay is not None:
            self._player = Player(self.options.replay, self._deliver, speed=self.options.speed)
        else:
            self.feed = Feed(self.options.socket, self._deliver, record=self._recorder, wall=wall)
        self._ticker: Timer | None = None
        self._asked: dict[str, float] = {}
        self._waiting: set[str] = set()
        for known in theme.THEMES:
            self.register_theme(known)
        self.theme = self.options.theme if self.options.theme in self.available_themes else theme.DEFAULT
        for name, spec in SCREENS.items():
            self.add_mode(name, spec.make)

    # ---- life ----------------------------------------------------------------------------------------------------

    def on_mount(self) -> None:
        wrong: list[str] = []
        if self.options.section.keymap:  # knowing every binding means importing every screen
            used, wrong = keymap.check(self.options.section.keymap, binding_ids())
            self.set_keymap(used)
        for sentence in [self.options.note, *wrong]:
            if sentence:
                self.notify(sentence, severity="warning", timeout=15)
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
        if self._player is None:
            return
        try:
            await self._player.play()
        except HybriddError as error:
            self.post_message(Failed(error.message))

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
            changed = changed & {topics.CONNECTION}
        if changed:
            for screen in reversed(self.screen_stack):
                if isinstance(screen, HouseScreen):
                    screen.take(frozenset(changed))
                    return

    def _connection_changed(self) -> None:
        state = self.house.connection
        offered = isinstance(self.screen, StartScreen)
        if state.state == "lost" and not state.ever and not offered and not self.read_only:
            if state.attempt == 1:
                self.push_screen(StartScreen(self.options.socket))
        elif state.state == "live" and offered:
            self.screen.dismiss()

    # ---- asking and doing ----------------------------------------------------------------------------------------

    @property
    def locked(self) -> bool:
        return self.read_only or self.feed is None or self.past is not None

    @property
    def shown(self) -> House:
        """What the screens draw: the house, or the one of the moment gone to."""
        return self.house if self.past is None else self.past

    async def query_daemon(self, call: Call) -> Any:
        """The daemon's answer, asked in a thread.

        Raises:
            HybriddError: it said no, or is not there; in a recording always.
        """
        if self.feed is None:
            raise InvalidRequest(_("This is a recording: there is no daemon to ask."))
        return await asyncio.to_thread(self._api.send, call)

    def ask(self, name: str) -> None:
        """Have one of :data:`tui.queries.QUERIES` answered, soon, and not more often than it may be."""
        if name in self._waiting or self.feed is None:
            return
        self._waiting.add(name)
        wait = self._asked.get(name, -1e9) + LEAST_SECONDS[name] - time.monotonic()
        if wait <= 0:
            self._ask(name)
        else:
            self.set_timer(wait, partial(self._ask, name))

    @work(group="queries")
    async def _ask(self, name: str) -> None:
        self._waiting.discard(name)
        self._asked[name] = time.monotonic()
        try:
            body = await self.query_daemon(QUERIES[name](self._wall()))
        except HybriddError as error:
            if not self.house.stale:
                self.post_message(Failed(error.message))
            return
        if self.feed is not None:
            self.feed.put(answer(name, body, self._wall()))

    @work(group="burn", exclusive=True)
    async def ask_burn(self, keys: list[str]) -> None:
        """Have the last hour of these quotas filled in."""
        for key in keys:
            try:
                body = await self.query_daemon(burn(key, self._wall()))
            except HybriddError:
                return  # a sparkline that starts now is no reason to complain
            if self.feed is not None:
                self.feed.put(answer("burn", body, self._wall()))

    @work(group="actions")
    async def act(self, call: Call, done: str, then: Callable[[Any], None] | None = None) -> None:
        """Have the daemon do something; says ``done``, or why not. Refused in read-only mode."""
        if self.locked:
            why = _("read-only") if self.past is None else _("this is the past; G returns to now")
            self.notify(_("Nothing can be changed here: {why}.").format(why=why), severity="warning")
            return
        try:
            body = await self.query_daemon(call)
        except HybriddError as error:
            self.post_message(Failed(error.message))
            return
        if done:
            self.notify(done, timeout=3)
        if then is not None:
            then(body)

    @on(Failed)
    def _failed(self, message: Failed) -> None:
        self.notify(message.reason, severity="error", timeout=8)

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


def binding_ids() -> set[str]:
    """Every id that a keymap may name: of the application, its screens, their widgets and dialogues."""
    from tui.reference import sources

    return {binding.id for _kind, binding in declared(sources()) if binding.id}
