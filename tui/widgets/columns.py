"""What a table shows: columns, their widths, and the text that filters and exports look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rich.cells import cell_len

from hybridd.i18n import _
from tui.text import Align, Glyphs, Line, Piece, fit, fit_line, plain

T = TypeVar("T")
Cell = str | Piece | Line


class Rest(list[Piece]):
    """A cell that takes the room of all columns after it too: a sentence in place of figures."""


@dataclass(frozen=True)
class Column(Generic[T]):
    """``cell(item, width, signs)`` is text, a styled piece or pieces, cut or padded to the width afterwards.

    ``title``: the first of several (with ``|`` between) that fits; translated where it is shown. ``width``: columns of
    the terminal, at least; ``share`` > 0 takes part of what is left over. ``least``: the table must be that wide, or
    the column is left out.
    ``sort``: what to sort by; None: cannot be sorted by. ``value``: what a filter (``key=value``) and an export see;
    the cell's text when absent.
    """

    key: str
    title: str
    cell: Callable[[T, int, Glyphs], Cell]
    width: int
    share: int = 0
    align: Align = "left"
    least: int = 0
    sort: Callable[[T], Any] | None = None
    value: Callable[[T], Any] | None = None


def as_line(cell: Cell) -> Line:
    if isinstance(cell, str):
        return [(cell, "")]
    return [cell] if isinstance(cell, tuple) else cell


def layout(columns: Sequence[Column[T]], width: int) -> list[tuple[Column[T], int]]:
    """The columns that are shown, with their widths; a column of space stands between two."""
    shown = [column for column in columns if width >= column.least]
    left = width - sum(column.width for column in shown) - max(0, len(shown) - 1)
    shares = sum(column.share for column in shown)
    if left < 0:  # too narrow: what could grow gives way first, then what stands right
        return _squeezed(shown, -left)
    made = []
    for column in shown:
        extra = left * column.share // shares if column.share else 0
        left, shares = left - extra, shares - column.share
        made.append((column, column.width + extra))
    return made


def _squeezed(shown: Sequence[Column[T]], missing: int) -> list[tuple[Column[T], int]]:
    widths = [column.width for column in shown]
    order = sorted(range(len(shown)), key=lambda at: (shown[at].share == 0, -at))
    for least in (8, 1):
        for at in order:
            taken = max(0, min(missing, widths[at] - least))
            widths[at] -= taken
            missing -= taken
    return list(zip(shown, widths, strict=True))


def row_line(item: T, shown: Sequence[tuple[Column[T], int]], signs: Glyphs) -> Line:
    made: Line = []
    for number, (column, width) in enumerate(shown):
        cell = as_line(column.cell(item, width, signs))
        if isinstance(cell, Rest):
            rest = sum(size + 1 for _, size in shown[number:]) - 1
            return [*made, *fit_line(cell, rest, ellipsis=signs.ellipsis)]
        made += fit_line(cell, width, column.align, signs.ellipsis)
        if number + 1 < len(shown):
            made.append((" ", ""))
    return made


def head_line(shown: Sequence[tuple[Column[T], int]], signs: Glyphs, sort: str, *, backwards: bool) -> Line:
    made: Line = []
    for number, (column, width) in enumerate(shown):
        titles = _(column.title).split("|")
        longest = [title for title in titles if len(title) <= width]
        title = signs.of(longest[0] if longest else titles[-1])
        if column.key == sort:
            title = fit(title, min(cell_len(title), width - 1), ellipsis="") + (signs.down if backwards else signs.up)
        made += fit_line([(title, "head")], width, column.align, signs.ellipsis)
        if number + 1 < len(shown):
            made.append((" ", ""))
    return made


def value_of(column: Column[T], item: T, signs: Glyphs) -> Any:
    if column.value is not None:
        return column.value(item)
    return plain(as_line(column.cell(item, max(column.width, 40), signs))).strip()


def matches(text: str, values: Callable[[], dict[str, str]], words: Sequence[str]) -> bool:
    """Every word stands somewhere in ``text`` (lower case), or is ``column=part`` of that column's value."""
    for word in words:
        name, equals, part = word.partition("=")
        if equals and name in (known := values()):
            if part not in known[name].lower():
                return False
        elif word not in text:
            return False
    return True
