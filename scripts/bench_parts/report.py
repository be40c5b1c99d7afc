"""Figures as values: percentiles, targets, the printed table and its JSON form."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

Verdict = Literal["met", "missed", "failed", ""]


class Figure(msgspec.Struct, kw_only=True):
    """One line of the table. ``value`` is in ``unit``; ``target`` is words; ``detail`` says how it came about."""

    group: str
    name: str
    value: float | None
    unit: str = ""
    target: str = ""
    verdict: Verdict = ""
    detail: str = ""
    data: dict[str, Any] = {}


def at_most(group: str, name: str, value: float, limit: float, unit: str, **more: Any) -> Figure:
    """A figure that must not exceed ``limit``."""
    verdict: Verdict = "met" if value <= limit else "missed"
    return Figure(
        group=group, name=name, value=value, unit=unit, target=f"≤ {number(limit)} {unit}", verdict=verdict, **more
    )


def at_least(group: str, name: str, value: float, limit: float, unit: str, **more: Any) -> Figure:
    """A figure that must reach ``limit``."""
    verdict: Verdict = "met" if value >= limit else "missed"
    return Figure(
        group=group, name=name, value=value, unit=unit, target=f"≥ {number(limit)} {unit}", verdict=verdict, **more
    )


def context(group: str, name: str, value: float | None, unit: str = "", detail: str = "", **data: Any) -> Figure:
    """A figure without a target: it helps to read the others."""
    return Figure(group=group, name=name, value=value, unit=unit, detail=detail, data=data)


def failed(group: str, name: str, why: str) -> Figure:
    """A figure that could not be taken."""
    return Figure(group=group, name=name, value=None, verdict="failed", detail=why)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` (0 to 1) of the values do not exceed (nearest rank).

    Raises:
        ValueError: there are no values, or ``share`` is outside 0..1.
    """
    if not values:
        raise ValueError("no values")
    if not 0 <= share <= 1:
        raise ValueError(f"a share is between 0 and 1, not {share}")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(values: Iterable[float]) -> float:
    """The middle value, or the mean of the two middle ones.

    Raises:
        ValueError: there are no values.
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def number(value: float | None) -> str:
    """Three significant digits, thousands apart: ``0.629``, ``12.3``, ``7,700``."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


_COLUMNS = ("figure", "measured", "target", "", "how")


def table(figures: Sequence[Figure]) -> str:
    """Aligned columns, one heading per group."""
    rows = [
        (figure.name, f"{number(figure.value)} {figure.unit}".strip(), figure.target, figure.verdict, figure.detail)
        for figure in figures
    ]
    widths = [max(len(row[i]) for row in [_COLUMNS, *rows]) for i in range(4)]
    lines = [_line(_COLUMNS, widths)]
    group = ""
    for figure, row in zip(figures, rows, strict=True):
        if figure.group != group:
            group = figure.group
            lines.append(group)
        lines.append(_line(row, widths))
    return "\n".join(lines)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    name, value, target, verdict, how = row
    cells = (f"{name:<{widths[0]}}", f"{value:>{widths[1]}}", f"{target:<{widths[2]}}", f"{verdict:<{widths[3]}}", how)
    return ("  " + "  ".join(cells)).rstrip()


def summary(figures: Sequence[Figure]) -> str:
    """One sentence: how many targets were met, which were not."""
    aimed = [figure for figure in figures if figure.verdict]
    missed = [f"{figure.group}: {figure.name}" for figure in aimed if figure.verdict != "met"]
    line = f"{len(aimed) - len(missed)} of {len(aimed)} targets met"
    return f"{line}; not met: {'; '.join(missed)}." if missed else f"{line}."
