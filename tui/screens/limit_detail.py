"""One limit: how it stands, what remained over time, what is foretold, and who used it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar

import msgspec
from textual import events, on, work
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.message import Message
from textual.widget import Widget

from hybridd.client import wire
from hybridd.client.wire import Call
from hybridd.errors import HybriddError
from hybridd.i18n import N_, _
from tui import topics
from tui.house import House
from tui.messages import Failed
from tui.screens.base import HouseScreen
from tui.screens.limit_lines import (
    BY,
    SPANS,
    Share,
    fact_lines,
    first_span,
    groups_of,
    history_title,
    plot_lines,
    plot_of,
    shares,
)
from tui.screens.overview_blocks import rule
from tui.text import Glyphs, amount, count, money, percent
from tui.timetravel import hold_seconds
from tui.widgets.columns import Cell, Column
from tui.widgets.lines import Lines
from tui.widgets.plot import Point
from tui.widgets.table import Rows

AGAIN_SECONDS = 5.0
"""Who used it is asked for again after new requests, at most this often."""
SIDE_BY_SIDE = 130
STEPS = 480
"""Points of the history that are asked for."""
NOBODY = N_("Nobody used it in this time.")
UNKNOWN = N_("Who used it is not known here.")
NO_CLIENTS = N_("Bytes and downloads are counted by call: which client asked is not recorded.")
NO_ONE = {"task": N_("no task"), "client": N_("no client"), "model": N_("no model")}
TALL = 24
"""Rows from which a long sentence may take two."""


class Loaded(Message):
    """Answers for the span and the moment (None: now) they were asked for; a part that is None was not asked for."""

    def __init__(
        self, span: int, as_of: float | None, *, points: list[Point] | None = None,
        rows: list[dict[str, Any]] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.about = (span, as_of)
        self.points = points
        self.rows = rows


class LimitDetail(HouseScreen):
    NAME = "limits"
    TITLE: ClassVar[str | None] = N_("Limit")
    TOPICS = frozenset({topics.LIMITS, topics.REQUESTS, topics.CLOCK, topics.CONNECTION})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("b", "by", "by task/client/model", id="limit.by"),
        Binding("plus", "span(-1)", "A shorter time", id="limit.shorter", show=False),
        Binding("minus", "span(1)", "A longer time", id="limit.longer", show=False),
    ]
    DEFAULT_CSS = """
    LimitDetail #limit { height: 1fr; layout: vertical; }
    LimitDetail #who { height: 1fr; layout: horizontal; }
    LimitDetail.-wide #who Rows { width: 1fr; margin-right: 2; }
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key
        self.by = BY[0]
        self.span: int | None = None
        self.points: list[Point] = []
        self.found: list[dict[str, Any]] | None = None
        self._unanswered = False
        self._asked: tuple[int, float | None] | None = None
        self._waiting = False
        self._last = 0.0

    def body(self) -> Iterable[Widget]:
        self.facts, self.plot = Lines(id="facts"), Lines(id="plot")
        self.plot_rule, self.who_rule = Lines(id="plot-rule"), Lines(id="who-rule")
        self.tables = {name: self._table(name) for name in BY}
        yield Container(
            self.facts, self.plot_rule, self.plot, self.who_rule, Container(*self.tables.values(), id="who"), id="limit"
        )

    def _table(self, name: str) -> Rows[Share]:
        return Rows(
            share_columns(name, self._unit), key=lambda one: one.name or "", record=msgspec.to_builtins,
            id=f"by-{name}", empty=_(NOBODY),
        )  # fmt: skip

    def _unit(self) -> str:
        view = self.house.limits.get(self.key)
        return view.unit if view is not None else "requests"

    # ---- drawing -------------------------------------------------------------------------------------------------

    def refresh_from(self, house: House, changed: frozenset[str]) -> None:
        view = house.limits.get(self.key)
        if view is None:
            then = _("The limit {key} is gone.")
            if house.as_of is not None:
                then = _("The limit {key} had no figure then.")
            self.facts.show([[(then.format(key=self.key), "warn")]])
            self.plot.show([])
            return
        if self.span is None:
            self.span = first_span(view)
        if self._unanswered and house.connection.state == "live" and topics.CONNECTION in changed:
            self._unanswered, self._asked = False, None  # the daemon was away when it was asked
        if (self.span, house.as_of) != self._asked:
            self._ask(self.span, house.as_of)
        elif house.as_of is None:
            if topics.LIMITS in changed:
                self._append()
            if topics.REQUESTS in changed and changed != self.TOPICS:
                self._ask_again()
        self._draw()

    def _draw(self) -> None:
        house = self.house
        view = house.limits.get(self.key)
        if view is None or self.span is None or not self.size.width:
            return
        width, signs, past = self.size.width, self.signs, house.as_of is not None
        wrapped = self.size.height >= TALL
        self.facts.show(fact_lines(view, house.now, width, signs, past=past, wrapped=wrapped))
        of = plot_of(view, self.points, SPANS[self.span][0], house.now)
        self.plot_rule.show([rule(history_title(view, self.span, of, signs), width, signs, _("-+ time"))])
        room = self.size.height - 2 - len(self.query_one("#banner", Lines).lines) - len(self.facts.lines) - 2
        self.plot.show(plot_lines(view, of, width, max(6, min(room - 4, room * 6 // 10)), signs))
        wide = width >= SIDE_BY_SIDE
        self.set_class(wide, "-wide")
        title = _("WHO USED IT IN THAT TIME")
        if not wide:
            title = _("WHO USED IT IN THAT TIME, BY {by}").format(by=_(self.by).upper())
        self.who_rule.show([rule(title, width, signs, "" if wide else _("b by another"))])
        for name, table in self.tables.items():
            table.display = wide or name == self.by
            nobody = _(UNKNOWN) if self.found is None else _(NOBODY)
            table.empty = nobody if name in groups_of(view) else _(NO_CLIENTS)
            table.fill(shares(self.found or [], view, name))

    def on_resize(self, event: events.Resize) -> None:
        super().on_resize(event)
        self.call_after_refresh(self._draw)

    def _append(self) -> None:
        """The present figure, as the newest point; of those too close to tell apart only the newest is kept."""
        view, now = self.house.limits.get(self.key), self.house.now
        if view is None or self.span is None or self.house.as_of is not None:
            return
        seconds = SPANS[self.span][0]
        if len(self.points) > 1 and now - self.points[-2][0] < seconds / STEPS:
            self.points.pop()
        self.points.append((now, view.remaining))
        del self.points[: max(0, len(self.points) - 4 * STEPS)]

    # ---- asking --------------------------------------------------------------------------------------------------

    def _ask(self, span: int, as_of: float | None) -> None:
        self._asked = (span, as_of)
        self._load_history(span, as_of)
        self._load_who(span, as_of)

    def _ask_again(self) -> None:
        if not self._waiting:
            self._waiting = True
            self.set_timer(max(0.05, self._last + AGAIN_SECONDS - time.monotonic()), self._reload)

    def _reload(self) -> None:
        self._waiting = False
        if self._asked is not None and self._asked[1] is None:
            self._load_who(*self._asked)

    @work(exclusive=True, group="history")
    async def _load_history(self, span: int, as_of: float | None) -> None:
        seconds = SPANS[span][0]
        until = as_of if as_of is not None else self.house.now
        call = wire.get(
            "/v1/history", series=f"quota.{self.key}.remaining", since=until - seconds - hold_seconds(seconds),
            until=until, step=max(1.0, round(seconds / STEPS)),
        )  # fmt: skip
        body = await self._query(call)
        if body is not None:
            self.post_message(Loaded(span, as_of, points=[(at, value) for at, value in body["points"]]))

    @work(exclusive=True, group="who")
    async def _load_who(self, span: int, as_of: float | None) -> None:
        self._last = time.monotonic()
        view = self.house.limits.get(self.key)
        if view is None:
            return
        until = as_of if as_of is not None else self.house.now
        call = wire.get(
            "/v1/report", group_by=groups_of(view), provider=view.provider, since=until - SPANS[span][0], until=as_of
        )
        body = await self._query(call)
        if body is not None:
            self.post_message(Loaded(span, as_of, rows=body["rows"]))

    async def _query(self, call: Call) -> Any:
        try:
            return await self.dashboard.query_daemon(call)
        except HybriddError as error:
            self._unanswered = True
            self.app.post_message(Failed(error.message))
            return None

    @on(Loaded)
    def _loaded(self, message: Loaded) -> None:
        if message.about != self._asked:
            return  # another time was asked for meanwhile
        if message.points is not None:
            self.points = message.points
            self._append()
        if message.rows is not None:
            self.found = message.rows
        self._draw()

    # ---- actions -------------------------------------------------------------------------------------------------

    def action_by(self) -> None:
        self.by = BY[(BY.index(self.by) + 1) % len(BY)]
        self._draw()
        self.tables[self.by].focus()

    def action_span(self, steps: int) -> None:
        if self.span is not None:
            self.span = max(0, min(len(SPANS) - 1, self.span + steps))
            self.refresh_from(self.house, frozenset())

    @on(Rows.Opened)
    def _open_calls(self, event: Rows.Opened) -> None:
        """From a figure to the calls behind it."""
        view = self.house.limits.get(self.key)
        share: Share = event.item
        by = (event.rows.id or "").removeprefix("by-")
        if view is not None:
            what = f" {by}={share.name}" if share.name and " " not in share.name else ""
            self.dashboard.go("requests", f"provider={view.provider}{what}")


def share_columns(by: str, unit: Any) -> list[Column[Share]]:
    """``unit()``: the quota's unit."""

    def used(one: Share, width: int, signs: Glyphs) -> Cell:
        return amount(one.used, unit())

    def part(one: Share, width: int, signs: Glyphs) -> Cell:
        full = round(one.part * width) if one.part else 0
        return [
            (signs.used * max(full, one.part > 0), "accent"),
            (signs.free * (width - max(full, one.part > 0)), "dim"),
        ]

    name = partial(_name, by)
    return [
        Column("name", by.upper(), name, 15, share=3, sort=lambda one: one.name or "", value=lambda one: one.name),
        Column("part", "", part, 6, share=1, value=lambda one: round(one.part, 4)),
        Column("share", "SHARE", lambda one, width, signs: percent(one.part), 6, align="right",
               sort=lambda one: one.part, value=lambda one: round(one.part, 4)),
        Column("used", "USED", used, 8, align="right", sort=lambda one: one.used, value=lambda one: one.used),
        Column("calls", "CALLS", lambda one, width, signs: count(one.calls), 8, align="right",
               sort=lambda one: one.calls, value=lambda one: one.calls),
        Column("cost", "COST", lambda one, width, signs: money(one.cost_usd), 8, align="right", least=56,
               sort=lambda one: one.cost_usd, value=lambda one: one.cost_usd),
    ]  # fmt: skip


def _name(by: str, one: Share, width: int, signs: Glyphs) -> Cell:
    return one.name or (_(NO_ONE[by]), "dim")
