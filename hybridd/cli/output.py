"""Tables and JSON on stdout."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import click

from hybridd.cli import text
from hybridd.i18n import _


def emit_json(value: Any) -> None:
    """One JSON document; indented for a person, one line for a program."""
    indent = 2 if sys.stdout.isatty() else None
    print(json.dumps(value, indent=indent, ensure_ascii=not text.utf8()))


def emit(line: str = "") -> None:
    """One line, safe for the terminal: what came from elsewhere cannot steer it."""
    print(text.clean(line))


def emit_now(line: str) -> None:
    """One line that is seen at once, by a pipe too."""
    print(text.clean(line), flush=True)


def emit_styled(line: str) -> None:
    """One line with :func:`styled` parts; the other parts must be clean."""
    print(line)


def columns() -> int:
    """The terminal's width; 80 when there is none."""
    given = os.environ.get("COLUMNS", "")
    if given.isdigit() and int(given) > 20:
        return int(given)
    return max(40, shutil.get_terminal_size((80, 24)).columns) if sys.stdout.isatty() else 80


def styled(value: str, **style: Any) -> str:
    """Colour on a terminal that wants it (NO_COLOR and a dumb terminal do not)."""
    wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return click.style(value, **style) if wanted else value


class Column(NamedTuple):
    """``flexible`` columns are wrapped when the table would not fit; figures are aligned ``right``. ``title`` is
    translated where it is shown."""

    title: str
    right: bool = False
    flexible: bool = False


def table(columns_: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Aligned columns, two spaces apart, no wider than the terminal; long texts go on in the next line, nothing is
    cut."""
    columns_ = [column._replace(title=_(column.title)) for column in columns_]
    cells = [[text.clean(cell) for cell in row] for row in rows]
    widths = _widths(columns_, cells)
    last = len(columns_) - 1
    print(styled(_line([column.title for column in columns_], columns_, widths, last), bold=True))
    for row in cells:
        wrapped = [_wrap(cell, size) for cell, size in zip(row, widths, strict=True)]
        for number in range(max(map(len, wrapped))):
            pieces = [lines[number] if number < len(lines) else "" for lines in wrapped]
            print(_line(pieces, columns_, widths, last))


def _widths(columns_: Sequence[Column], cells: list[list[str]]) -> list[int]:
    widths = [
        max([text.width(column.title), *(text.width(row[index]) for row in cells)])
        for index, column in enumerate(columns_)
    ]
    excess = sum(widths) + 2 * (len(widths) - 1) - columns()
    flexible = [index for index, column in enumerate(columns_) if column.flexible]
    while excess > 0 and flexible:
        widest = max(flexible, key=lambda index: widths[index])
        least = max(8, text.width(columns_[widest].title))
        if widths[widest] <= least:
            break
        widths[widest] -= 1
        excess -= 1
    return widths


def _wrap(cell: str, size: int) -> list[str]:
    if text.width(cell) <= size:
        return [cell]
    return textwrap.wrap(cell, size, break_on_hyphens=False) or [""]


def _line(pieces: Sequence[str], columns_: Sequence[Column], widths: Sequence[int], last: int) -> str:
    shown = []
    for index, (piece, column, size) in enumerate(zip(pieces, columns_, widths, strict=True)):
        gap = " " * max(0, size - text.width(piece))
        shown.append(gap + piece if column.right else piece + ("" if index == last else gap))
    return "  ".join(shown).rstrip()


def wrap(value: str, size: int) -> list[str]:
    """``value``, cleaned, in lines of at most ``size`` columns (never fewer than 20)."""
    return _wrap(text.clean(value), max(20, size))


def paragraph(value: str, indent: str = "  ") -> None:
    """Wrapped to the terminal."""
    for line in textwrap.wrap(text.clean(value), max(30, columns() - len(indent)), break_on_hyphens=False):
        print(indent + line)


def select(rows: Sequence[Mapping[str, Any]], filter_: str | None, sort: str | None) -> list[dict[str, Any]]:
    """``--filter`` and ``--sort`` of a list: ``key=value`` or a text found in any value; a key, ``-key`` descending.

    Raises:
        click.UsageError: no row has such a key.
    """
    kept = [dict(row) for row in rows if filter_ is None or _matches(row, filter_)]
    if sort is None or not kept:
        return kept
    key = sort.removeprefix("-")
    if not any(key in row for row in kept):
        known = ", ".join(sorted({name for row in kept for name in row}))
        raise click.UsageError(_("cannot sort by {key!r}; known: {known}").format(key=key, known=known))
    there = [row for row in kept if row.get(key) is not None]
    there.sort(key=lambda row: _order(row[key]), reverse=sort.startswith("-"))
    return there + [row for row in kept if row.get(key) is None]


def _order(value: Any) -> tuple[int, float, str]:
    if isinstance(value, (int, float)):
        return (0, float(value), "")
    return (1, 0.0, value if isinstance(value, str) else json.dumps(value, default=str))


def _matches(row: Mapping[str, Any], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    if equals and key in row:
        return str(row[key]).lower() == value.lower()
    return any(wanted.lower() in str(cell).lower() for cell in row.values())
