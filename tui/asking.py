"""What the application asks of the daemon and has it do: in threads, never on the event loop, answered as events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from textual import on, work
from textual.app import App
from textual.notifications import SeverityLevel

from hybridd.client.stdlib import Api
from hybridd.client.wire import Call
from hybridd.errors import HybriddError, InvalidRequest
from hybridd.i18n import _
from tui.events import answer
from tui.feed import Feed
from tui.house import House
from tui.messages import Failed
from tui.queries import LEAST_SECONDS, QUERIES, burn
from tui.text import clean, glyphs


class Asking(App[None]):
    """The part of the application that talks to the daemon. ``feed``: None in a recording.

    ``read_only``: asked for; ``locked``: nothing may be changed, because of that, because this is a recording, or
    because it is the past.
    """

    house: House
    past: House | None
    feed: Feed | None
    read_only: bool
    ascii_only: bool
    _api: Api
    _wall: Callable[[], float]

    def __init__(self) -> None:
        super().__init__()
        self._asked: dict[str, float] = {}
        self._waiting: set[str] = set()
        self._burned: set[str] = set()

    @property
    def locked(self) -> bool:
        return self.read_only or self.feed is None or self.past is not None

    @property
    def locked_by(self) -> str:
        """Why nothing may be changed; "": it may."""
        if self.past is not None:
            return _("this is the past; G returns to now")
        if self.feed is None:
            return _("this is a recording")
        return _("read-only") if self.read_only else ""

    def say_locked(self) -> None:
        said = _("Nothing can be changed here: {why}.").format(why=self.locked_by)
        self.notify(said, severity="warning", timeout=4)

    @property
    def shown(self) -> House:
        """What the screens draw: the house, or the one of the moment gone to."""
        return self.house if self.past is None else self.past

    async def query_daemon(self, call: Call, *, seconds: float | None = None) -> Any:
        """The daemon's answer, asked in a thread; waited for as long as any, or for so many seconds.

        Raises:
            HybriddError: it said no, or is not there; in a recording always.
        """
        if self.feed is None:
            raise InvalidRequest(_("This is a recording: there is no daemon to ask."))
        api = self._api if seconds is None else Api(self._api.socket, timeout=seconds)
        return await asyncio.to_thread(api.send, call)

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

    def ask_burn(self, keys: Iterable[str]) -> None:
        """Have the last hour of these quotas filled in, of each once."""
        fresh = [key for key in keys if key not in self._burned]
        if fresh and self.feed is not None and not self.house.stale:
            self._burned |= set(fresh)
            self._ask_burn(fresh)

    @work(group="burn")
    async def _ask_burn(self, keys: list[str]) -> None:
        for number, key in enumerate(keys):
            try:
                body = await self.query_daemon(burn(key, self._wall()))
            except HybriddError:
                # A sparkline that starts now is no reason to complain; whoever draws the next one asks again.
                self._burned -= set(keys[number:])
                return
            if self.feed is not None:
                self.feed.put(answer("burn", body, self._wall()))

    @work(group="actions")
    async def act(self, call: Call, done: str, then: Callable[[Any], None] | None = None) -> None:
        """Have the daemon do something; says ``done``, or why not. Refused in read-only mode."""
        if self.locked:
            self.say_locked()
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

    def notify(
        self, message: str, *, title: str = "", severity: SeverityLevel = "information", timeout: float | None = None,
        markup: bool = False,
    ) -> None:  # fmt: skip
        """Never as markup: messages hold paths and what daemon and providers say, brackets and all."""
        signs = glyphs(ascii_only=self.ascii_only)
        text = "\n".join(signs.of(clean(line)) for line in message.split("\n"))
        super().notify(text, title=title, severity=severity, timeout=timeout, markup=False)

    @on(Failed)
    def _failed(self, message: Failed) -> None:
        self.notify(message.reason, severity="error", timeout=8)
