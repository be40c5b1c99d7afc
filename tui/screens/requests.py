"""Requests: what was asked, who answered, and why?

The newest requests come by themselves. Older ones, and those a filter or an order asks for, are pages of the daemon,
fetched as the end of what is held comes into view.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import msgspec
from textual import on, work
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widget import Widget

from hybridd.client import wire
from hybridd.errors import HybriddError
from hybridd.i18n import N_, _
from tui import topics
from tui.house import House
from tui.listing import Listing, Page, query_of
from tui.screens.base import HouseScreen
from tui.screens.request_columns import COLUMNS, DOWNWARDS
from tui.screens.request_detail import RequestDetail
from tui.screens.request_says import extent, mood
from tui.shapes import Request
from tui.text import Line, fit_line, plain
from tui.widgets.filter import Filter
from tui.widgets.footer import Key
from tui.widgets.lines import Lines
from tui.widgets.paged import PagedRows
from tui.widgets.table import Rows

PAGES_AT_ONCE = 5
"""So many pages are fetched without the user moving: a rare word would otherwise have everything read."""
GAP_PAGE = 1000
_EMPTY = N_('Nothing was asked yet. Try: hybridd call --prompt "Hello", or 7 for the playground.')
_ROOMY = 100


class Paged(Message):
    """An answer of the daemon to a query of this generation."""

    def __init__(self, generation: int, page: Page | None, error: str = "") -> None:
        super().__init__()
        self.generation = generation
        self.page = page
        self.error = error


class Missed(Message):
    """Requests that ended while there was no connection; ``whole``: no further ones are missing."""

    def __init__(self, rows: list[Request], *, whole: bool) -> None:
        super().__init__()
        self.rows = rows
        self.whole = whole


class Requests(HouseScreen):
    """A live table over all that is recorded."""

    NAME = "requests"
    TITLE: ClassVar[str | None] = "Requests"
    TOPICS = frozenset({topics.REQUESTS, topics.CONNECTION})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p,space", "pause", "pause", id="requests.pause"),
        Binding("f", "follow", "follow", id="requests.follow", show=False),
    ]
    DEFAULT_CSS = """
    Requests #body { layout: vertical; }
    Requests #says { height: 1; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.listing = Listing()
        self.frozen: frozenset[str] | None = None
        self._asked_alone = 0
        self._asking = False
        self._error = ""
        self._as_of: float | None = None
        self._since: float | None = None

    def body(self) -> Iterable[Widget]:
        self.says = Lines(id="says")
        self.rows = PagedRows(COLUMNS, key=_id, record=msgspec.to_builtins, downwards=DOWNWARDS, id="requests")
        yield self.says
        yield self.rows

    # ---- drawing -------------------------------------------------------------------------------------------------

    def refresh_from(self, house: House, changed: frozenset[str]) -> None:
        if house.as_of != self._as_of:
            self._as_of = house.as_of
            self.frozen = None
            self.listing.restart()
        if self.frozen is None:
            self.listing.hold(house.requests, at_top=self.rows.pinned)
            self.fill()
        self._notice_gap(house)
        self.draw_says()

    def fill(self) -> None:
        """Shows what the listing holds now."""
        rows = self.rows
        rows.empty = self.empty_text(_(_EMPTY))
        rows.waiting = self._asking
        rows.fill(self.listing.rows())
        self.look_further()
        if self._asking and not rows.waiting:
            rows.waiting = True
            if not rows.shown:
                rows.redraw()  # in the same frame: nobody sees "nothing matches" before it is known

    def draw_says(self) -> None:
        width = self.size.width
        new = len(self.house.request_ids - self.frozen) if self.frozen is not None else None
        left = mood(self.house, self.rows, new, self.signs)
        right: Line = extent(self.listing, self.rows, self.house.now, asking=self._asking)
        if self._error:
            right = [(self._error, "bad")]
        taken = len(plain(right)) + 1
        self.says.show([[*fit_line(left, max(0, width - taken), ellipsis=self.signs.ellipsis), *right, (" ", "")]])

    # ---- asking --------------------------------------------------------------------------------------------------

    @on(PagedRows.Asked)
    def _asked(self, event: PagedRows.Asked) -> None:
        event.stop()
        rows = self.rows
        self.listing.ask(query_of(rows.filter_text, rows.sort_key, backwards=rows.backwards))
        self._asked_alone, self._error = 0, ""
        self.fill()
        self.draw_says()

    @on(Rows.Moved, "#requests")
    @on(PagedRows.Seen)
    def _seen(self, event: Message) -> None:
        event.stop()
        self._asked_alone = 0
        self.look_further()
        self.draw_says()

    def look_further(self) -> None:
        """Asks for the following page when its rows are about to be seen."""
        listing, house = self.listing, self.house
        if self._asking or self._error or house.stale or self.dashboard.feed is None or house.seq < 0:
            return
        first = not listing.asked and not listing.query.newest_first
        if not (first or (self.rows.near_end and self._asked_alone < PAGES_AT_ONCE)):
            return
        if listing.next_call(house.as_of) is not None:
            self._asking = True
            self._asked_alone += 1
            self._ask_page()

    @work(group="page")
    async def _ask_page(self) -> None:
        """At once, and one at a time: who types on asks for the newest text when this answer is there.

        A pause in typing would have to be waited for by everybody, and a search is over sooner than such a pause.
        """
        generation = self.listing.generation
        call = self.listing.next_call(self.house.as_of)
        if call is None:
            self.post_message(Paged(generation, Page((), None)))
            return
        try:
            body = await self.dashboard.query_daemon(call)
            self.post_message(Paged(generation, _page(body)))
        except HybriddError as error:
            self.post_message(Paged(generation, None, error.message))

    @on(Paged)
    def _take_page(self, message: Paged) -> None:
        self._asking = False
        if message.generation == self.listing.generation:
            if message.page is None:
                self._error = message.error
            else:
                self.listing.take(message.page)
        self.fill()
        self.draw_says()

    # ---- what was missed while disconnected ----------------------------------------------------------------------

    def _notice_gap(self, house: House) -> None:
        state = house.connection
        if state.state != "live" or state.since == self._since:
            return
        again, self._since = self._since is not None, state.since
        self._error = ""
        if again and house.as_of is None:
            self._ask_missed({one.id for one in house.requests})

    @work(group="missed", exclusive=True)
    async def _ask_missed(self, known: set[str]) -> None:
        """Back from now until something known comes."""
        found: list[Request] = []
        cursor: str | None = None
        for _page_number in range(PAGES_AT_ONCE):
            try:
                body = await self.dashboard.query_daemon(wire.get("/v1/requests", limit=GAP_PAGE, cursor=cursor))
            except HybriddError:
                return  # gone again: the next connection asks again
            page = _page(body)
            found += page.rows
            cursor = page.following
            if cursor is None or any(one.id in known for one in page.rows):
                self.post_message(Missed(found, whole=True))
                return
        self.post_message(Missed(found, whole=False))

    @on(Missed)
    def _take_missed(self, message: Missed) -> None:
        self.listing.miss(message.rows, whole=message.whole)
        if self.frozen is None:
            self.fill()

    # ---- actions -------------------------------------------------------------------------------------------------

    def action_pause(self) -> None:
        self.frozen = frozenset(self.house.request_ids) if self.frozen is None else None
        if self.frozen is None:
            self.refresh_from(self.house, self.TOPICS)
        self.draw_says()

    def action_follow(self) -> None:
        """Back to the newest: no order, no pause, the cursor on the first row."""
        self.frozen = None
        if self.rows.sort_key:
            self.rows.sort_by("")
        self.rows.pinned = True
        self.rows.move_to(0)
        self.refresh_from(self.house, self.TOPICS)

    def keys(self) -> list[Key]:
        if self.size.width < _ROOMY:
            return []
        return [("Enter", _("why"), "focused.open"), ("s", _("sort"), "focused.sort(1)")]

    @on(Rows.Opened, "#requests")
    def _open(self, event: Rows.Opened) -> None:
        self.show_request(event.item.id)

    def show_request(self, request_id: str) -> None:
        known = {one.id: one for one in self.rows.shown}
        self.app.push_screen(RequestDetail(request_id, known.get(request_id), beside=list(known)))

    def arrive(self, target: str) -> None:
        if target.startswith("req_"):
            self.rows.select(target)
            self.show_request(target)
            return
        line = self.query_one(Filter)
        line.value = target
        line.add_class("-open")
        self.rows.focus()


def _id(request: Request) -> str:
    return request.id


def _page(body: Any) -> Page:
    return Page(msgspec.convert(body["requests"], list[Request]), body["next"])
