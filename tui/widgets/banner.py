"""One line under the header when what is shown is not simply the present."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, cast

from hybridd.i18n import _, ngettext
from tui.house import House
from tui.text import Line, age, wrap
from tui.widgets.lines import Lines

if TYPE_CHECKING:
    from tui.app import Dashboard


def said(house: House, key: Callable[[str], str]) -> tuple[str, str, str] | None:
    """What to say, in which style, and what more there is to know; None: nothing. ``key``: of a binding's id."""
    connection = house.connection
    if house.as_of is not None:
        at = f"{datetime.fromtimestamp(house.as_of):%Y-%m-%d %H:%M:%S}"
        text = _("PAUSED at {time}: {now} returns to now, {back} {forward} step, {go} goes to a time.").format(
            time=at, back=key("app.past.back"), forward=key("app.past.forward"), go=key("app.past.time"),
            now=key("app.past.now"),
        )  # fmt: skip
        gone = _("The daemon is gone meanwhile.") + " " if connection.state == "lost" else ""
        return text, "warn", gone + house.missing
    if connection.state == "lost":
        old = _("the last data are {age} old").format(age=age(house.now - house.seen)) if house.seen else ""
        again = max(0.0, (connection.retry_at or house.now) - house.now)
        when = _("next try in {seconds} s").format(seconds=f"{again:.0f}") if again >= 1 else _("trying again")
        text = _("DISCONNECTED: {known}; {when} (attempt {attempt}; {key}: now).").format(
            known=old or _("there are no data yet"), when=when, attempt=connection.attempt, key=key("app.reconnect")
        )
        return text, "bad", connection.reason
    if connection.state == "ended":
        return _end(house)
    return None


def _end(house: House) -> tuple[str, str, str]:
    more = [house.connection.reason] if house.connection.reason else []
    if house.seq < 0:
        more.append(_("it holds no state of a daemon"))
    if house.misread:
        count = house.misread
        odd = ngettext("{count} event was not understood", "{count} events were not understood", count)
        more.append(odd.format(count=count))
    return _("END of the recording."), "warn" if more else "accent", "; ".join(more)


class Banner(Lines):
    """Takes no room while there is nothing to say; two lines more at most for the rest of it."""

    DEFAULT_CSS = "Banner { background: $surface; }"

    def draw(self, house: House) -> None:
        found = said(house, cast("Dashboard", self.app).key_of)
        if found is None:
            self.show([])
            return
        text, style, more = found
        self.show([*self._lines(text, style), *self._lines(more, "dim")])

    def _lines(self, text: str, style: str) -> list[Line]:
        """Wrapped; one line where there are few, else two."""
        found = wrap(text, self.app.size.width - 2) if text else []
        shown = found[: 2 if self.app.size.height >= 24 else 1]
        end = self.signs.ellipsis if len(found) > len(shown) else ""
        return [[(f" {self.signs.of(line)}{end if line is shown[-1] else ''}", style)] for line in shown]
