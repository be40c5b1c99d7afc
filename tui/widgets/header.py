"""The top line: who this is, how current it is, how many alerts, what time."""

from __future__ import annotations

from datetime import datetime

from rich.cells import cell_len
from textual import events

from hybridd.i18n import N_, _, ngettext
from tui.house import House
from tui.text import DAYS, Glyphs, Line, fit, fit_line
from tui.widgets.lines import Lines


def state_of(house: House, signs: Glyphs) -> tuple[str, str]:
    """The connection in a word, with its style."""
    if house.as_of is not None:
        return f"{signs.ring} {_('paused')}", "warn"
    sign, word, style = {
        "connecting": (signs.ring, N_("connecting"), "dim"),
        "live": (signs.dot, N_("live"), "good"),
        "lost": (signs.ring, N_("disconnected"), "bad"),
        "replay": (signs.dot, N_("recording"), "accent"),
        "ended": (signs.ring, N_("recording ended"), "accent"),
    }[house.connection.state]
    return f"{sign} {_(word)}", style


def header_line(house: House, title: str, width: int, signs: Glyphs, *, read_only: bool) -> Line:
    state, style = state_of(house, signs)
    left: Line = [(" hybridd ", "bold"), (state, style)]
    if read_only:
        left.append((f"  {_('read-only')}", "dim"))
    count = house.open_alerts()
    alerts = _("no alerts") if not count else ngettext("{count} alert", "{count} alerts", count).format(count=count)
    moment = datetime.fromtimestamp(house.as_of if house.as_of is not None else house.now)
    right: Line = [
        (fit(alerts, 10, "right"), "warn" if count else "dim"),
        (f"     {_(DAYS[moment.weekday()])} {moment:%H:%M:%S} ", "dim"),
    ]
    taken = sum(cell_len(text) for text, _style in right)
    middle = [*left, (f"   {title}", "dim")] if width >= 70 else left
    return [*fit_line(middle, max(0, width - taken), ellipsis=signs.ellipsis), *right]


RIGHT = 32
"""Columns at the right end that lead to the alerts."""


class Header(Lines):
    """Click the alerts to see them."""

    DEFAULT_CSS = "Header { height: 1; background: $panel; }"

    def draw(self, house: House, title: str, *, read_only: bool) -> None:
        self.show([header_line(house, title, self.size.width or self.app.size.width, self.signs, read_only=read_only)])

    async def on_click(self, event: events.Click) -> None:
        if event.x >= self.size.width - RIGHT:
            await self.run_action("app.screen('alerts')")
