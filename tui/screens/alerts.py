"""Alerts: what needs a decision, what was decided, what is over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import msgspec
from textual import events, on, work
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widget import Widget

from hybridd.client import wire
from hybridd.contracts.views import AlertView
from hybridd.errors import HybriddError
from hybridd.i18n import N_, _
from tui import topics
from tui.ask import Ask, duration
from tui.house import House
from tui.messages import Failed
from tui.screens.alert_lines import SHOWN, alert_columns, cause, counts_text, detail_lines, ordered
from tui.screens.base import HouseScreen
from tui.screens.overview_blocks import rule
from tui.text import age
from tui.widgets.lines import Lines
from tui.widgets.table import Rows

PAGE = 200
_EMPTY = {
    "all": N_("No alert was ever raised: nothing needs a decision."),
    "live": N_("Nothing needs a decision. v shows what has ended."),
    "ended": N_("No alert has ended yet."),
}
_TITLES = {"all": N_("ALL ALERTS"), "live": N_("LIVE ALERTS"), "ended": N_("ENDED ALERTS")}
LEAST_ROWS = 4


class Ended(Message):
    """A page of alerts that are over; ``more``: there may be older ones."""

    def __init__(self, alerts: list[AlertView], *, more: bool) -> None:
        super().__init__()
        self.alerts = alerts
        self.more = more


class AlertRows(Rows[AlertView]):
    """``s`` silences here; the order is changed with ``o``."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("o", "order(1)", "Sort by the next column", id="alerts.sort", show=False),
        Binding("O", "order(0)", "Sort the other way", id="alerts.reverse", show=False),
    ]

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "sort" and super().check_action(action, parameters)

    def action_order(self, forward: int) -> None:
        self.action_sort(forward)


class Alerts(HouseScreen):
    NAME = "alerts"
    TITLE: ClassVar[str | None] = "Alerts"
    TOPICS = frozenset({topics.ALERTS, topics.CLOCK})
    WRITES = frozenset({"acknowledge", "silence", "end_silence"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "acknowledge", "ack", id="alerts.acknowledge"),
        Binding("s", "silence", "silence", id="alerts.silence"),
        Binding("u", "end_silence", "End the silence", id="alerts.end_silence", show=False),
        Binding("v", "show", "Show all, live or ended ones", id="alerts.show", show=False),
        Binding("n", "older", "Older ended alerts", id="alerts.older", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.shows = SHOWN[0]
        self.ended: dict[int, AlertView] = {}
        self.more = True
        self._asked = False

    def body(self) -> Iterable[Widget]:
        self.title_rule, self.about_rule, self.about = Lines(), Lines(), Lines(id="about")
        self.rows = AlertRows(alert_columns(lambda: self.house.now), key=lambda one: str(one.id),
                              record=msgspec.to_builtins, id="alerts")  # fmt: skip
        yield from (self.title_rule, self.rows, self.about_rule, self.about)

    # ---- drawing -------------------------------------------------------------------------------------------------

    def refresh_from(self, house: House, changed: frozenset[str]) -> None:
        if changed == {topics.CLOCK}:
            self.rows.redraw()  # only the ages move
            self._draw_about()
            return
        if not self._asked and house.as_of is None and house.seq >= 0:
            self._asked = True
            self._load(None)
        known = dict(self.ended) if house.as_of is None else {}
        shown = ordered([*{**known, **house.alerts}.values()], self.shows)
        self.rows.empty = self.empty_text(_(_EMPTY[self.shows]))
        self.rows.fill(shown)
        self._draw_about()

    def _draw_about(self) -> None:
        width = self.size.width
        if not width:
            return
        said = counts_text(self.rows.items, self.shows)
        following = SHOWN[(SHOWN.index(self.shows) + 1) % len(SHOWN)]
        hint = {"all": _("v: all"), "live": _("v: live ones"), "ended": _("v: ended ones")}[following]
        self.title_rule.show([rule(f"{_(_TITLES[self.shows])}  {said}", width, self.signs, hint)])
        alert = self.rows.selected
        room = max(3, self.size.height - 4 - LEAST_ROWS - len(self.query_one("#banner", Lines).lines))
        lines = detail_lines(alert, self.house.now, width, self.signs)[:room] if alert is not None else []
        where = cause(alert) if alert is not None else None
        hint = _("Enter: {place}").format(place=where[2]) if where is not None else ""
        self.about_rule.show([rule(_("ABOUT"), width, self.signs, hint)] if lines else [])
        self.about.show(lines)

    @on(Rows.Moved)
    def _moved(self, event: Rows.Moved) -> None:
        self._draw_about()
        if self.more and self.shows != "live" and self.rows.cursor >= len(self.rows.shown) - 1 and self.ended:
            self.action_older()

    def on_resize(self, event: events.Resize) -> None:
        super().on_resize(event)
        self.call_after_refresh(self._draw_about)

    def arrive(self, target: str) -> None:
        if not self.rows.select(target):
            self.notify(_("Alert {id} is not known here any more.").format(id=target), timeout=4)
        self.rows.focus()

    # ---- those that are over -------------------------------------------------------------------------------------

    def action_older(self) -> None:
        if self.more and self.house.as_of is None:
            self._load(min(self.ended, default=None))

    @work(exclusive=True, group="ended")
    async def _load(self, before: int | None) -> None:
        try:
            body = await self.dashboard.query_daemon(
                wire.get("/v1/alerts", state="resolved", limit=PAGE, before=before)
            )
        except HybriddError as error:
            if not self.house.stale:
                self.app.post_message(Failed(error.message))
            return
        found = msgspec.convert(body["alerts"], list[AlertView])
        self.post_message(Ended(found, more=len(found) == PAGE))

    @on(Ended)
    def _ended(self, message: Ended) -> None:
        self.ended |= {one.id: one for one in message.alerts}
        self.more = message.more
        self.refresh_from(self.house, self.TOPICS)

    # ---- actions -------------------------------------------------------------------------------------------------

    def action_show(self) -> None:
        self.shows = SHOWN[(SHOWN.index(self.shows) + 1) % len(SHOWN)]
        self.refresh_from(self.house, self.TOPICS)

    @on(Rows.Opened)
    def _jump(self, event: Rows.Opened) -> None:
        """To what caused it."""
        where = cause(event.item)
        if where is None:
            self.notify(_("What it is about has no screen of its own; the text says what to do."), timeout=4)
        else:
            self.dashboard.go(where[0], where[1])

    def _decide(self, alert: AlertView | None) -> AlertView | None:
        if alert is not None and alert.state == "resolved":
            self.notify(_("It is over: there is nothing to decide."), timeout=3)
            return None
        return alert

    def action_acknowledge(self) -> None:
        alert = self._decide(self.rows.selected)
        if alert is not None:
            if alert.state == "acknowledged":
                self.notify(_("It is acknowledged already."), timeout=3)
                return
            self.dashboard.act(wire.post(f"/v1/alerts/{wire.segment(alert.id)}/ack"), _("Acknowledged."))

    def action_silence(self) -> None:
        alert = self._decide(self.rows.selected)
        if alert is None:
            return

        def silence(text: str | None) -> None:
            if text is not None:
                seconds = duration(text)
                done = _("Silenced for {span}.").format(span=age(seconds))
                self.dashboard.act(wire.silence(alert.id, seconds), done)

        question = _("Silence for how long? {message}").format(message=alert.message)
        hint = _("30m, 4h, 1d, 1w; u ends a silence.")
        self.app.push_screen(Ask(question, hint, duration, given="1h"), silence)

    def action_end_silence(self) -> None:
        alert: Any = self._decide(self.rows.selected)
        if alert is None:
            return
        if alert.state != "silenced":
            self.notify(_("It is not silenced."), timeout=3)
            return
        self.dashboard.act(wire.silence(alert.id, 0), _("No longer silenced."))
