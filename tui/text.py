"""Text of fixed width, figures and bars as pure functions; the present time and the glyphs are passed in.

A line is a list of pieces, each a text with the name of a style (``""``, or one of :data:`STYLES`); colours belong to
the theme. Widths are terminal columns, counted as Textual counts them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from rich.cells import cell_len, set_cell_size

from hybridd.i18n import N_, _, language

Piece = tuple[str, str]
Line = list[Piece]
Align = Literal["left", "right", "centre"]

STYLES = ("dim", "good", "warn", "bad", "accent", "head", "bold")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")
_UNITS = {
    "requests": N_("req"), "input_tokens": N_("in"), "output_tokens": N_("out"), "total_tokens": N_("tok"),
    "bytes_down": N_("down"), "bytes_up": N_("up"), "usd": N_("cost"), "concurrent": N_("at once"),
}  # fmt: skip
DAYS = (N_("Mon"), N_("Tue"), N_("Wed"), N_("Thu"), N_("Fri"), N_("Sat"), N_("Sun"))
_WINDOWS = {"60s": "min", "3600s": N_("hour"), "86400s": N_("day"), "month": N_("mo"), "": ""}


@dataclass(frozen=True, slots=True)
class Glyphs:
    """Every sign beyond ASCII that the dashboard draws, and what stands for it in a terminal without."""

    used: str = "▓"
    held: str = "▒"
    free: str = "─"
    buffer: str = "░"
    spark: str = "▁▂▃▄▅▆▇█"
    rule: str = "─"
    dot: str = "●"
    ring: str = "○"
    ellipsis: str = "…"
    times: str = "×"  # the sign itself
    arrow: str = "→"
    plusminus: str = "±"
    up: str = "↑"
    down: str = "↓"
    mark: str = "▌"
    between: str = "·"

    def of(self, text: str) -> str:
        """``text`` in what the terminal can show."""
        return text if self is RICH or text.isascii() else plain_letters(text.translate(_PLAIN))


RICH = Glyphs()
ASCII = Glyphs(
    used="#", held="=", free="-", buffer=".", spark="_.-:=+*#", rule="-", dot="*", ring="o", ellipsis="~", times="x",
    arrow=">", plusminus="+-", up="^", down="v", mark=">", between="|",
)  # fmt: skip
_PLAIN = str.maketrans({
    "…": "...", "→": "->", "×": "x", "±": "+-", "·": "|", "–": "-", "’": "'", "“": '"', "”": '"',
    "▓": "#", "▒": "=", "░": ".",
})  # fmt: skip


def plain_letters(text: str) -> str:
    """``ção`` as ``cao``; of what has no letter beneath a ``?`` for each column, so that no width changes."""
    return "".join(one if one.isascii() else _plain_letter(one) for one in text)


def _plain_letter(character: str) -> str:
    base, width = unicodedata.normalize("NFKD", character)[:1], cell_len(character)
    return base.ljust(width)[:width] if base.isascii() else "?" * width


def glyphs(*, ascii_only: bool) -> Glyphs:
    return ASCII if ascii_only else RICH


def clean(text: str) -> str:
    """One line without control characters: what a model or a host says must not steer the terminal."""
    return _CONTROL.sub(" ", text)


def fit(text: str, width: int, align: Align = "left", ellipsis: str = "…") -> str:
    """Exactly ``width`` columns: cut with an ellipsis, or padded."""
    text = clean(text)
    size = cell_len(text)
    if size > width:
        kept = width - cell_len(ellipsis)
        if kept <= 0:
            return set_cell_size(text, max(0, width))
        return set_cell_size(set_cell_size(text, kept).rstrip() + ellipsis, width)
    space = width - size
    before = {"left": 0, "right": space, "centre": space // 2}[align]
    return " " * before + text + " " * (space - before)


def plain(line: Iterable[Piece]) -> str:
    return "".join(text for text, _ in line)


def fit_line(line: Sequence[Piece], width: int, align: Align = "left", ellipsis: str = "…") -> Line:
    """The pieces in exactly ``width`` columns."""
    size = sum(cell_len(text) for text, _ in line)
    if size <= width:
        space = width - size
        before = {"left": 0, "right": space, "centre": space // 2}[align]
        padded = [(" " * before, ""), *line, (" " * (space - before), "")]
        return [piece for piece in padded if piece[0]]
    made: Line = []
    left = width
    for text, style in line:
        size = cell_len(text)
        if size >= left and (text, style) != line[-1]:
            made.append((fit(text + " ", left, ellipsis=ellipsis), style))
            return made
        made.append((fit(text, left, ellipsis=ellipsis) if size > left else text, style))
        left -= size
    return made


def wrap(text: str, width: int) -> list[str]:
    """Words in lines of at most ``width`` columns; a longer word is cut."""
    lines: list[str] = [""]
    for word in clean(text).split():
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if cell_len(longer) <= width:
            lines[-1] = longer
        elif lines[-1]:
            lines.append(fit(word, width).rstrip() if cell_len(word) > width else word)
        else:
            lines[-1] = fit(word, width).rstrip()
    return lines


# ---- figures -------------------------------------------------------------------------------------------------------


def count(value: float | None) -> str:
    """At most five columns: ``9``, ``4,999``, ``12.3k``, ``1.50M``."""
    if value is None:
        return "-"
    if abs(value) < 9_999.5:
        places = 0 if float(value).is_integer() or abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
        return f"{value:,.{places}f}"
    for factor, suffix in ((1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T")):
        scaled = value / factor
        if abs(scaled) < 999.5:
            return f"{scaled:.{2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0}f}{suffix}"
    return f"{value:.0e}"


def money(value: float | None) -> str:
    """``$0.02``, ``$1,204``; less than a cent with two figures that count."""
    if value is None:
        return "-"
    if value and abs(value) < 0.01:
        return f"${value:.4f}" if abs(value) >= 0.0001 else "<$.0001"
    return f"${value:,.2f}" if abs(value) < 1000 else f"${value:,.0f}"


def size_of(value: float | None, *, binary: bool = True) -> str:
    """Bytes in at most eight columns: ``3.1 GiB``, ``640 MiB``; decimal, as networks are counted: ``640 MB``."""
    if value is None:
        return "-"
    base = 1024.0 if binary else 1000.0
    suffixes = ("B", "KiB", "MiB", "GiB") if binary else ("B", "kB", "MB", "GB")
    for suffix in suffixes:
        if abs(value) < base * 0.9995 or suffix == suffixes[-1]:
            break
        value /= base
    return f"{value:.1f} {suffix}" if suffix == suffixes[-1] and value < 999.95 else f"{value:.0f} {suffix}"


def size_pair(used: float, total: float, width: int) -> str:
    """Both in the unit of the whole: ``3.1/4.0 GiB``, without the places when they do not fit into ``width``."""
    unit = size_of(total).rpartition(" ")[2]
    base = 1024.0 ** ("B", "KiB", "MiB", "GiB").index(unit)
    exact = f"{used / base:.1f}/{total / base:.1f} {unit}"
    return exact if unit == "GiB" and len(exact) <= width else f"{used / base:.0f}/{total / base:.0f} {unit}"


def amount(value: float | None, unit: str) -> str:
    """An amount in a quota's unit."""
    if unit == "usd":
        return money(value)
    if unit in {"bytes_down", "bytes_up"}:
        return size_of(value, binary=False).replace(" ", "")
    return count(value)


def milliseconds(value: float | None) -> str:
    """At most eight columns: ``3 ms``, ``640 ms``, ``12.4 s``, ``2.1 min``."""
    if value is None:
        return "-"
    if value < 9_999.5:
        return f"{value:.0f} ms" if value >= 9.95 or float(value).is_integer() else f"{value:.1f} ms"
    return f"{value / 1000:.1f} s" if value < 100_000 else f"{value / 60_000:.1f} min"


def percent(value: float | None) -> str:
    """A fraction as ``92 %``."""
    return "-" if value is None else f"{value * 100:.0f} %"


def age(seconds: float) -> str:
    """``now``, ``45 s``, ``12 min``, ``3 h``, ``2 d``."""
    whole = max(0, round(seconds))
    for limit, step, unit in ((60, 1, "s"), (3600, 60, "min"), (86_400, 3600, "h")):
        if whole < limit:
            return f"{whole // step} {unit}" if whole else _("now")
    return f"{whole // 86_400} d"


def clock(at: float) -> str:
    """Local time of day."""
    return datetime.fromtimestamp(at).strftime("%H:%M:%S")


def moment(at: float, now: float) -> str:
    """``16:40`` today, ``Fri 16:40`` within a week, ``on the 27th`` within a month, a date otherwise."""
    then, today = datetime.fromtimestamp(at), datetime.fromtimestamp(now)
    days = (then.date() - today.date()).days
    if days == 0:
        return then.strftime("%H:%M")
    if 0 < days < 7:
        return f"{_(DAYS[then.weekday()])} {then:%H:%M}"
    if 0 < days < 31:
        ending = "th" if 10 < then.day < 14 else {1: "st", 2: "nd", 3: "rd"}.get(then.day % 10, "th")
        return _("on the {day}").format(day=f"{then.day}{ending}" if language() == "en" else then.day)
    return then.strftime("%Y-%m-%d")


def quota_name(unit: str, window: str) -> str:
    """``req/min``, ``tok/day``, ``cost/mo``, ``req/300s``."""
    short = _(_UNITS.get(unit, unit))
    return short if unit == "concurrent" or not window else f"{short}/{_(_WINDOWS.get(window, window))}"


# ---- bars ----------------------------------------------------------------------------------------------------------


def parts(amounts: Sequence[float], whole: float, cells: int) -> list[int]:
    """``cells`` shared out by ``amounts`` of ``whole``; what is not zero shows at least once, the last takes the rest.

    One cell more or less never comes from rounding another part: each part's edge is rounded by itself.
    """
    if whole <= 0 or cells <= 0:
        return [*[0] * (len(amounts) - 1), max(0, cells)] if amounts else []
    made: list[int] = []
    taken, edge = 0, 0.0
    for part in amounts[:-1]:
        edge += max(0.0, part)
        end = min(cells, max(round(min(edge, whole) / whole * cells), taken + (part > 0)))
        made.append(end - taken)
        taken = end
    return [*made, cells - taken]


def bar(used: float, held: float, buffer: float, limit: float, cells: int, signs: Glyphs, style: str = "") -> Line:
    """``▓`` used, ``▒`` reserved in flight, ``─`` free, ``░`` the buffer that is kept free (at the right end)."""
    if limit <= 0:
        return [(signs.buffer * cells, "dim")]
    used = min(max(0.0, used), limit)
    held = min(max(0.0, held), limit - used)
    kept = min(max(0.0, buffer), limit - used - held)
    room = limit - used - held - kept
    tail = 0
    if kept > 0:
        tail = max(0, min(max(1, round(kept / limit * cells)), cells - (used > 0) - (held > 0)))
    first, second, rest = parts([used, held, 0.0], used + held + max(0.0, room), cells - tail)
    if room <= 0 and rest:  # nothing free must look like nothing free
        first, second, rest = (first, second + rest, 0) if held else (first + rest, second, 0)
    pieces = [(signs.used * first, style), (signs.held * second, style), (signs.free * rest, "dim")]
    return [piece for piece in [*pieces, (signs.buffer * tail, "dim")] if piece[0]]


def spark(values: Sequence[float | None], signs: Glyphs, *, top: float | None = None) -> str:
    """One column for each value, from zero to the largest (or ``top``); a gap for None and for nothing at all."""
    largest = top if top is not None else max((value for value in values if value is not None), default=0.0)
    steps = len(signs.spark)
    made = []
    for value in values:
        if value is None:
            made.append(" ")
        elif largest <= 0 or value <= 0:
            made.append(signs.spark[0])
        else:
            made.append(signs.spark[min(steps - 1, max(1, round(value / largest * (steps - 1))))])
    return "".join(made)
