"""What remained of a quota over time, drawn with braille dots (or with ASCII): pure functions of plain values.

A value stands until the next one, as the daemon keeps its series: it writes a figure when it moved, and an unmoved one
again every few minutes. Where nothing was written for longer than ``hold`` seconds there is a gap, and not a guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from hybridd.i18n import _
from tui.text import ASCII, DAYS, Glyphs, Line, fit

Point = tuple[float, float]
"""UTC seconds, value."""
GUTTER = 8
"""Columns left of the plot: the figures of the scale and the axis."""
_BRAILLE = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_HALVES = " '.:"  # nothing, upper half, lower half, both


@dataclass(frozen=True, slots=True)
class Fan:
    """A forecast: from ``level`` at ``start`` to zero at ``earliest`` … ``latest``, most likely at ``point``.

    UTC seconds. ``latest`` None: perhaps never, and ``point`` None: probably not.
    """

    start: float
    level: float
    earliest: float
    point: float | None = None
    latest: float | None = None

    def at(self, when: float) -> tuple[float, float]:
        """The lowest and the highest level expected then."""
        return self._line(self.earliest, when), self._line(self.latest, when)

    def _line(self, zero: float | None, when: float) -> float:
        if zero is None:
            return self.level
        if zero <= self.start:
            return 0.0
        return max(0.0, self.level * (1 - (when - self.start) / (zero - self.start)))


@dataclass(frozen=True, slots=True)
class Plot:
    """``begin`` … ``end``: the axis of time; ``top``: the scale reaches from zero to it; ``marks``: times of resets;
    ``now``: where the past ends, when that is before ``end``."""

    points: Sequence[Point]
    begin: float
    end: float
    top: float
    hold: float
    marks: Sequence[float] = ()
    fan: Fan | None = None
    now: float | None = None


def spans(of: Plot, columns: int) -> list[tuple[float, float] | None]:
    """The lowest and the highest value in each of ``columns`` equal parts of the time; None in a gap."""
    width = (of.end - of.begin) / columns
    last = of.end if of.now is None else of.now
    ordered = sorted(of.points)
    made: list[tuple[float, float] | None] = []
    index, held = 0, None
    for column in range(columns):
        start = of.begin + column * width
        found = []
        while index < len(ordered) and ordered[index][0] <= start:
            held = ordered[index]
            index += 1
        if held is not None and start - held[0] <= of.hold and start <= last:
            found.append(held[1])
        while index < len(ordered) and ordered[index][0] < start + width:
            held = ordered[index]
            found.append(held[1])
            index += 1
        made.append((min(found), max(found)) if found else None)
    return made


def draw(of: Plot, width: int, height: int, signs: Glyphs, scale: Sequence[str] = ("", "0")) -> list[Line]:
    """``height`` lines of ``width`` columns: the plot, the axis, and the times below it.

    ``scale``: what stands left at the top and at the bottom.
    """
    columns, rows = max(1, width - GUTTER), max(1, height - 2)
    plain = signs is ASCII
    across, down = (1, 2) if plain else (2, 4)
    dots = _dots(spans(of, columns * across), of.top, rows * down)
    reset = _columns_of(of.marks, of, columns)
    lines: list[Line] = []
    for row in range(rows):
        cells = []
        for column in range(columns):
            bits = _bits(dots, row, column, across, down)
            if bits:
                cells.append((_glyph(bits, plain), "accent"))
            elif _in_fan(of, row, rows, column, columns):
                cells.append((":" if plain else signs.buffer, "warn"))
            elif column in reset:
                cells.append(("|" if plain else "┊", "dim"))
            else:
                cells.append((" ", ""))
        label = scale[0] if row == 0 else scale[-1] if row == rows - 1 else ""
        lines.append([(fit(label, GUTTER - 1, "right"), "dim"), ("|" if plain else "│", "dim"), *_joined(cells)])
    axis = "".join(signs.up if column in reset else signs.rule for column in range(columns))
    corner = "+" if plain else "└"
    return [*lines, [(" " * (GUTTER - 1) + corner + axis, "dim")], [(_times(of, width), "dim")]]


def _columns_of(times: Sequence[float], of: Plot, columns: int) -> set[int]:
    return {int((at - of.begin) / (of.end - of.begin) * columns) for at in times if of.begin <= at < of.end}


def _dots(found: Sequence[tuple[float, float] | None], top: float, rows: int) -> list[tuple[int, int] | None]:
    """The first and the last dot of each column, counted from above."""

    def dot(value: float) -> int:
        share = min(1.0, max(0.0, value / top)) if top > 0 else 0.0
        return rows - 1 - round(share * (rows - 1))

    return [None if span is None else (dot(span[1]), dot(span[0])) for span in found]


def _bits(dots: Sequence[tuple[int, int] | None], row: int, column: int, across: int, down: int) -> int:
    bits = 0
    for x in range(across):
        span = dots[column * across + x]
        if span is not None:
            for y in range(max(span[0], row * down), min(span[1], row * down + down - 1) + 1):
                bits |= _BRAILLE[x][y - row * down]
    return bits


def _glyph(bits: int, plain: bool) -> str:
    return _HALVES[bits] if plain else chr(0x2800 + bits)


def _in_fan(of: Plot, row: int, rows: int, column: int, columns: int) -> bool:
    fan = of.fan
    if fan is None or of.top <= 0:
        return False
    width = (of.end - of.begin) / columns
    when = of.begin + (column + 0.5) * width
    if when < fan.start:
        return False
    low, high = fan.at(when)
    if high <= 0:
        return False
    upper, lower = (rows - row) / rows * of.top, (rows - row - 1) / rows * of.top
    return low <= upper and high > lower


def _joined(cells: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    text, style = "", ""
    for sign, own in cells:
        if own != style and text:
            yield text, style
            text = ""
        text, style = text + sign, own
    if text:
        yield text, style


def _times(of: Plot, width: int) -> str:
    """The first and the last time, and now between them where there is room."""
    length = of.end - of.begin
    first, last = (_time(datetime.fromtimestamp(at), length) for at in (of.begin, of.end))
    line = list(fit(" " * (GUTTER - 1) + first, width - len(last)) + last)
    if of.now is not None and of.begin <= of.now <= of.end:
        at = GUTTER + int((of.now - of.begin) / (of.end - of.begin) * max(1, width - GUTTER))
        now = _("now")
        start = min(at, width) - len(now)
        if start >= 0 and not "".join(line[max(0, start - 1) : start + len(now) + 1]).strip():
            line[start : start + len(now)] = now
    return "".join(line)


def _time(at: datetime, length: float) -> str:
    """As much of it as tells apart what lies within ``length`` seconds."""
    if length <= 43_200:
        return f"{at:%H:%M}"
    return f"{_(DAYS[at.weekday()])} {at:%H:%M}" if length <= 6 * 86_400 else f"{at:%m-%d %H:%M}"
