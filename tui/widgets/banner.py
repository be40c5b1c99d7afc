"""One line under the header when what is shown is not simply the present."""

from __future__ import annotations

from datetime import datetime

from hybridd.i18n import _
from tui.house import House
from tui.text import Glyphs, Line, age, fit_line, wrap
from tui.widgets.lines import Lines


def banner_line(house: House, width: int, signs: Glyphs) -> Line | None:
    """None: nothing to say."""
    connection = house.connection
    if house.as_of is not None:
        at = datetime.fromtimestamp(house.as_of)
        keys = _("[ ] step, g goes to a time, G to now.") if width >= 76 else _("[ ] step, G: now.")
        text = f" {_('PAUSED at {time}.').format(time=f'{at:%Y-%m-%d %H:%M:%S}')} {keys}"
        return fit_line([(text, "warn")], width, ellipsis=signs.ellipsis)
    if connection.state == "lost":
        old = _("the last data are {age} old").format(age=age(house.now - house.seen)) if house.seen else ""
        again = max(0.0, (connection.retry_at or house.now) - house.now)
        when = _("next try in {seconds} s").format(seconds=f"{again:.0f}") if again >= 1 else _("trying again")
        said = _("DISCONNECTED: {known}; {when} (attempt {attempt}), r tries now.").format(
            known=old or _("there are no data yet"), when=when, attempt=connection.attempt
        )
        text = f" {said} "
        return fit_line([(text, "bad"), (connection.reason, "dim")], width, ellipsis=signs.ellipsis)
    if connection.state == "ended":
        return fit_line([(f" {_('END of the recording.')}", "accent")], width)
    return None


class Banner(Lines):
    """Takes no room while there is nothing to say."""

    DEFAULT_CSS = "Banner { background: $surface; }"

    def draw(self, house: House) -> None:
        line = banner_line(house, self.app.size.width, self.signs)
        lines = [] if line is None else [[(self.signs.of(text), style) for text, style in line]]
        if house.as_of is not None:
            rows = 2 if self.app.size.height >= 24 else 1
            said = wrap(house.missing, self.app.size.width - 2)
            cut = self.signs.ellipsis if len(said) > rows else ""
            lines += [[(f" {self.signs.of(text)}", "dim")] for text in said[:rows]]
            lines[-1].append((cut, "dim"))
        self.show(lines)
