"""Logs: what has the daemon logged since it started?

New records come by themselves. Older ones are pages of the daemon, fetched as the end of what is held comes into view;
all that the daemon keeps fits in here, so filter, order and level work on what is held.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import ClassVar

import msgspec
from textual import on, work
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widget import Widget

from hybridd.client.wire import Call
from hybridd.contracts.views import LEVELS, LogView
from hybridd.errors import HybriddError
from hybridd.i18n import N_, _
from tui import topics
from tui.events import answer
from tui.house import House
from tui.logbook import Logbook
from tui.screens.base import HouseScreen
from tui.screens.log_lines import LOG_COLUMNS, SHOWN, extent, moment_of
from tui.screens.request_says import mood
from tui.text import Line, fit_line, plain
from tui.widgets.footer import Key
from tui.widgets.lines import Lines
from tui.widgets.paged import PagedRows
from tui.widgets.table import Rows

AGAIN_SECONDS = 1.0
"""The newest page is asked for again at most so often, however fast records come."""
PAGES_AT_ONCE = 5
"""So many pages are fetched without the user moving: all that a daemon keeps."""
_EMPTY = N_("Nothing was logged yet.")


class Refused(Message):
    """A page did not come; ``reason``: a sentence."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class LogRows(PagedRows[LogView]):
    """Filters and sorts what it is given, like any table; at the top it follows the newest, like any paged one."""

    def arranged(self, records: Iterable[LogView]) -> list[LogView]:
        words = self.filter_text.lower().split()
        kept = [one for one in records if self._matches(one, words)] if words else list(records)
        order = next((one.sort for one in self.columns if one.key == self.sort_key), None)
        if order is not None:
            kept.sort(key=order, reverse=self.backwards)
        return kept


class Logs(HouseScreen):
    """``least``: the least level shown. ``frozen``: the newest id when it was paused, None: it is not."""

    NAME = "logs"
    TITLE: ClassVar[str | None] = N_("Logs")
    TOPICS = frozenset({topics.LOGS, topics.CONNECTION})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("l", "level(1)", "level", id="logs.level"),
        Binding("L", "level(-1)", "Lesser levels too", id="logs.level_down", show=False),
        Binding("p,space", "pause", "pause", id="logs.pause"),
        Binding("f", "follow", "follow", id="logs.follow"),
    ]
    DEFAULT_CSS = """
    Logs #body { layout: vertical; }
    Logs #says { height: 1; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.least = SHOWN[0]
        self.frozen: int | None = None
        self._asking = False
        self._asked_alone = 0
        self._asked_at = float("-inf")
        self._pages = 0
        self._error = ""
        self._as_of: float | None = None

    @property
    def book(self) -> Logbook:
        """Of the present always: no log is kept with the history."""
        return self.dashboard.house.logs

    def body(self) -> Iterable[Widget]:
        self.says = Lines(id="says")
        self.rows = LogRows(LOG_COLUMNS, key=lambda one: str(one.id), record=msgspec.to_builtins,
                            downwards={"at", "level"}, id="logs")  # fmt: skip
        yield self.says
        yield self.rows

    # ---- drawing -------------------------------------------------------------------------------------------------

    def refresh_from(self, house: House, changed: frozenset[str]) -> None:
        if house.as_of != self._as_of:
            self._as_of, self.frozen = house.as_of, None
        if topics.CONNECTION in changed:
            self._error = ""
        if self._pages != self.book.pages:
            self._pages, self._asking = self.book.pages, False
        self.fill()

    def fill(self) -> None:
        """Shows what is held now, and asks for what is missing of it."""
        if self.frozen is None:
            least, as_of = LEVELS[self.least], self.house.as_of
            found = [one for one in self.book.rows() if LEVELS[one.level] >= least]
            if as_of is not None:
                found = [one for one in found if one.at <= as_of]
            self.rows.empty = self._nothing()
            self.rows.fill(self.rows.arranged(found))
        self.look_further()
        self.draw_says()

    def _nothing(self) -> str:
        """What an empty table says."""
        if self.house.as_of is not None and self.book.joined:
            since = moment_of(self.book.since, self.dashboard.house.now)
            said = _(
                "Of that time there is no log: it is kept only since the daemon started ({time}). G returns to now."
            )
            return said.format(time=since)
        if self.least != SHOWN[0] and self.book.records:
            return _("Nothing of this level; l shows others.")
        if self.dashboard.feed is None:
            return _("This recording holds nothing of the log.")
        return _(_EMPTY) if self.house.seq >= 0 else self.empty_text("")

    def draw_says(self) -> None:
        signs, book, rows = self.signs, self.book, self.rows
        new = sum(one.id > self.frozen for one in book.records) if self.frozen is not None else None
        left = mood(self.house, rows, new, signs)
        if new is None and rows.sort_key == "level":
            how = _("worst first") if rows.backwards else _("least first")
            left = [
                (f" {_('by {column}').format(column=_('LEVEL').lower())}", "accent"),
                (f", {how}", "dim"),
                *left[2:],
            ]
        if self.least != SHOWN[0]:
            left += [("   ", ""), (_("{level} and worse").format(level=_(self.least)), "accent")]
        right: Line = (
            [(signs.of(self._error), "bad")]
            if self._error
            else extent(book, len(rows.shown), self.dashboard.house.now, self.house.as_of, asking=self._asking)
        )
        taken = len(plain(right)) + 1
        self.says.show([[*fit_line(left, max(0, self.size.width - taken), ellipsis=signs.ellipsis), *right, (" ", "")]])

    # ---- asking --------------------------------------------------------------------------------------------------

    def look_further(self) -> None:
        """Asks for the newest page when it is not known, and for older ones when they are about to be seen."""
        live = self.dashboard.house
        if self._asking or self._error or live.stale or self.dashboard.feed is None or live.seq < 0:
            return
        if self.book.joined and not (self.rows.near_end and self._asked_alone < PAGES_AT_ONCE):
            return
        call = self.book.next_call()
        if call is not None:
            self._asking = True
            self._asked_alone += self.book.joined
            wait = 0.0 if self.book.joined else self._asked_at + AGAIN_SECONDS - time.monotonic()
            self._ask_page(call, max(0.0, wait))

    @work(group="page", exclusive=True)
    async def _ask_page(self, call: Call, wait: float) -> None:
        """The answer comes as an event, like what comes by itself, and in its place among that."""
        await asyncio.sleep(wait)
        self._asked_at = time.monotonic()
        try:
            body = await self.dashboard.query_daemon(call)
        except HybriddError as error:
            self.post_message(Refused(error.message))
            return
        if self.dashboard.feed is not None:
            self.dashboard.feed.put(answer("logs", body, self.dashboard.house.now))

    @on(Refused)
    def _refused(self, message: Refused) -> None:
        self._asking, self._error = False, message.reason
        self.draw_says()

    @on(PagedRows.Asked)
    def _wanted(self, event: PagedRows.Asked) -> None:
        event.stop()
        self._asked_alone, self._error = 0, ""
        self.fill()

    @on(Rows.Moved, "#logs")
    @on(PagedRows.Seen)
    def _seen(self, event: Message) -> None:
        event.stop()
        self._asked_alone = 0
        self.look_further()
        self.draw_says()

    # ---- actions -------------------------------------------------------------------------------------------------

    def action_level(self, by: int) -> None:
        self.least = SHOWN[(SHOWN.index(self.least) + by) % len(SHOWN)]
        self._asked_alone = 0
        self.fill()

    def action_pause(self) -> None:
        self.frozen = self.book.newest if self.frozen is None else None
        self.fill()

    def action_follow(self) -> None:
        """Back to the newest: no order, no pause, the cursor on the first row."""
        self.frozen = None
        if self.rows.sort_key:
            self.rows.sort_by("")
        self.rows.pinned = True
        self.fill()
        self.rows.move_to(0)

    def keys(self) -> list[Key]:
        return [("Enter", _("whole"), "focused.open")]

    @on(Rows.Opened, "#logs")
    def _open(self, event: Rows.Opened) -> None:
        from tui.screens.log_detail import LogDetail

        self.app.push_screen(LogDetail(event.item, beside=self.rows.shown))

    def arrive(self, target: str) -> None:
        from tui.widgets.filter import Filter

        line = self.query_one(Filter)
        line.value = target
        line.add_class("-open")
        self.rows.focus()
