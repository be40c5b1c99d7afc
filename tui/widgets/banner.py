"""One line under the header when what is shown is not simply the present."""

from __future__ import annotations

from datetime import datetime

from tui.house import House
from tui.text import Glyphs, Line, age, fit_line, wrap
from tui.widgets.lines import Lines


def banner_line(house: House, width: int, signs: Glyphs) -> Line | None:
    """None: nothing to say."""
    connection = house.connection
    if house.as_of is not None:
        at = datetime.fromtimestamp(house.as_of)
        keys = "[ ] step, g goes to a time, G to now." if width >= 76 else "[ ] step, G: now."
        text = f" PAUSED at {at:%Y-%m-%d %H:%M:%S}. {keys}"
        return fit_line([(text, "warn")], width, ellipsis=signs.ellipsis)
    if connection.state == "lost":
        known = f"the last data are {age(house.now - house.seen)} old" if house.seen else "there are no data yet"
        again = max(0.0, (connection.retry_at or house.now) - house.now)
        when = f"next try in {again:.0f} s" if again >= 1 else "trying again"
        text = f" DISCONNECTED: {known}; {when} (attempt {connection.attempt}), r tries now. "
        return fit_line([(text, "bad"), (connection.reason, "dim")], width, ellipsis=signs.ellipsis)
    if connection.state == "ended":
        return fit_line([(" END of the recording.", "accent")], width)
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
