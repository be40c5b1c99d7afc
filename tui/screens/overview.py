"""Overview: may I go on working, until when, and what is about to break?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from typing import ClassVar

import msgspec
from textual import events, on
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.widget import Widget

from hybridd.client import wire
from hybridd.contracts.views import AlertView
from hybridd.i18n import _
from tui import topics
from tui.house import House, Request
from tui.screens.base import HouseScreen
from tui.screens.overview_blocks import ALERT_COLUMNS, LAST_COLUMNS, heights, now_lines, rule
from tui.screens.overview_rows import BURN_WIDE, COLUMNS, Row, columns, provider_rows
from tui.widgets.filter import Filter
from tui.widgets.lines import Lines
from tui.widgets.table import Rows

SIDE_BY_SIDE = 140
TALL = 40
LAST_SHOWN = 100
SILENCE_SECONDS = 3600.0
_PROVIDER_TOPICS = frozenset({topics.PROVIDERS, topics.LIMITS, topics.LOCAL, topics.USAGE, topics.HOST})
_NOW_TOPICS = frozenset({topics.RATES, topics.HOST, topics.USAGE})


class Overview(HouseScreen):
    """Providers, what happens now, the last requests, the alerts."""

    NAME = "overview"
    TITLE: ClassVar[str | None] = "Overview"
    TOPICS = _PROVIDER_TOPICS | _NOW_TOPICS | {topics.REQUESTS, topics.ALERTS, topics.CONNECTION}
    WRITES = frozenset({"acknowledge", "silence"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "acknowledge", "Acknowledge the alert", id="overview.acknowledge", show=False),
        Binding("s", "silence", "Silence the alert for an hour", id="overview.silence", show=False),
    ]
    DEFAULT_CSS = """
    Overview #overview { height: 1fr; layout: vertical; }
    Overview #main, Overview #side { height: auto; width: 1fr; }
    Overview.-wide #overview { layout: horizontal; }
    Overview.-wide #main { width: 1fr; height: 1fr; }
    Overview.-wide #side { width: 35%; height: 1fr; padding-left: 2; }
    """

    def body(self) -> Iterable[Widget]:
        self.providers = Rows(
            COLUMNS, key=lambda row: row.key, record=_record, id="providers",
            empty=_("No providers yet: add one under 'providers' in the configuration, then `hybridd reload`."),
        )  # fmt: skip
        self.last = Rows(
            LAST_COLUMNS, key=lambda one: one.id, record=msgspec.to_builtins, head=False, id="last",
            empty=_('Nothing was asked yet. Try: hybridd call --prompt "Hello", or 7 for the playground.'),
        )  # fmt: skip
        self.alerts = Rows(
            ALERT_COLUMNS, key=lambda one: str(one.id), record=msgspec.to_builtins, head=False, id="alerts",
            empty=_("Nothing needs a decision."),
        )  # fmt: skip
        self._empty = {rows: rows.empty for rows in (self.providers, self.last, self.alerts)}
        self.now_rule, self.now = Lines(id="now-rule"), Lines(id="now")
        self.last_rule, self.alerts_rule = Lines(id="last-rule"), Lines(id="alerts-rule")
        yield Container(
            Vertical(self.providers, self.now_rule, self.now, id="main"),
            Vertical(self.last_rule, self.last, self.alerts_rule, self.alerts, id="side"),
            id="overview",
        )

    # ---- drawing -------------------------------------------------------------------------------------------------

    def refresh_from(self, house: House, changed: frozenset[str]) -> None:
        for rows, empty in self._empty.items():
            rows.empty = self.empty_text(empty)
        if changed & _PROVIDER_TOPICS:
            self._fill_providers()
            if self.providers.size.width >= BURN_WIDE:
                self.dashboard.ask_burn(house.limits)
        if changed & _NOW_TOPICS:
            self.now.show(now_lines(house, self.providers.size.width or self.size.width, self.signs))
        if topics.REQUESTS in changed:
            self.last.fill(islice(reversed(house.requests), LAST_SHOWN))
        if topics.ALERTS in changed:
            self.alerts.fill(house.live_alerts())
        self._arrange()

    def on_resize(self, event: events.Resize) -> None:
        super().on_resize(event)
        self.set_class(event.size.width >= SIDE_BY_SIDE, "-wide")
        self._arrange()

    def _fill_providers(self) -> None:
        most = 99 if self.size.height >= TALL else 3
        rows = provider_rows(self.house, most, self._room_for_providers())
        if self.providers.filter_text:  # a quota stands without its provider's first line there
            rows = [replace(row, first=True) for row in rows]
        self.providers.fill(rows)

    @on(Filter.Typed)
    def _narrowed(self, event: Filter.Typed) -> None:
        """A filter looks at all of them, not only at what there is room for."""
        self.call_after_refresh(self._fill_providers)
        self.call_after_refresh(self._arrange)

    def _room_for_providers(self) -> int | None:
        """Lines for them; None: all of them are wanted, to be filtered or for there is room enough."""
        if self.size.width >= SIDE_BY_SIDE or self.providers.filter_text or not self.size.height:
            return None
        room = self.size.height - 2 - len(self.query_one("#banner", Lines).lines)
        return heights(room, room, len(self.house.live_alerts()), now=self._shows_now)[0] - 1

    @property
    def _shows_now(self) -> bool:
        return self.size.width >= 64 and self.size.height >= 20

    def _arrange(self) -> None:
        """Shares the rows out; only what changes is laid out again."""
        width, height = self.size
        wide = width >= SIDE_BY_SIDE
        shows_now = self._shows_now
        self.now.display = self.now_rule.display = shows_now
        room = height - 2 - len(self.query_one("#banner", Lines).lines)
        if wide:
            _set_height(self.providers, min(len(self.providers.items) + 1, room - (3 if shows_now else 0)))
            for_alerts = min(max(1, len(self.alerts.items)), room // 3)
            _set_height(self.last, room - 2 - for_alerts)
        else:
            main, last, for_alerts = heights(room, len(self.providers.items), len(self.alerts.items), now=shows_now)
            _set_height(self.providers, main)
            _set_height(self.last, last)
        _set_height(self.alerts, for_alerts)
        self.call_after_refresh(self._draw_rules)

    def _draw_rules(self) -> None:
        signs = self.signs
        left, right = self.providers.size.width, self.last.size.width
        shown = columns(left)
        if [one.width for one in shown] != [one.width for one in self.providers.columns]:
            self.providers.columns = shown
            self.providers.redraw()
        self.now_rule.show([rule(_("NOW"), left, signs)])
        self.last_rule.show([rule(_("LAST"), right, signs)])
        hint = _("a ack  s silence") if self.alerts.shown and not self.dashboard.locked else ""
        self.alerts_rule.show([rule(_("ALERTS"), right, signs, hint)])

    # ---- going on from here --------------------------------------------------------------------------------------

    @on(Rows.Opened, "#providers")
    def _open_provider(self, event: Rows.Opened) -> None:
        row: Row = event.item
        if row.limit is not None:
            self.dashboard.go("limits", row.limit.key)
        elif row.figures is not None:
            self.dashboard.go("models")
        else:
            self.dashboard.go("requests", f"provider={row.provider.name}")

    @on(Rows.Opened, "#last")
    def _open_request(self, event: Rows.Opened) -> None:
        request: Request = event.item
        self.dashboard.go("requests", request.id)

    @on(Rows.Opened, "#alerts")
    def _open_alert(self, event: Rows.Opened) -> None:
        alert: AlertView = event.item
        self.dashboard.go("alerts", str(alert.id))

    def _alert(self) -> AlertView | None:
        """The one with the cursor, else the one that needs a decision first."""
        return self.alerts.selected

    def action_acknowledge(self) -> None:
        alert = self._alert()
        if alert is not None:
            done = _("Acknowledged: {alert}").format(alert=alert.message)
            self.dashboard.act(wire.post(f"/v1/alerts/{wire.segment(alert.id)}/ack"), done)

    def action_silence(self) -> None:
        alert = self._alert()
        if alert is not None:
            done = _("Silenced for an hour: {alert}").format(alert=alert.message)
            self.dashboard.act(wire.silence(alert.id, SILENCE_SECONDS), done)


def _set_height(widget: Widget, rows: int) -> None:
    height = widget.styles.height
    if height is None or height.value != max(1, rows):
        widget.styles.height = max(1, rows)


def _record(row: Row) -> object:
    return {"provider": row.provider, "limit": row.limit, "cost": row.cost}
