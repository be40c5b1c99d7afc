"""Figures, times and bars as text. Pure functions; the present time is passed in."""

from __future__ import annotations

import re
import sys
import unicodedata
from datetime import datetime

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def utf8() -> bool:
    """Can stdout show more than ASCII?"""
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def clean(text: str) -> str:
    """Without control characters: what a model or a host says must not steer the terminal."""
    return _CONTROL.sub("�" if utf8() else "?", text)


def width(text: str) -> int:
    """Terminal columns: wide East Asian characters take two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def number(value: float | None, places: int = 2) -> str:
    """``12,345`` for whole numbers, a few places otherwise, a dash for nothing."""
    if value is None:
        return "-"
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.{places}f}"


def amount(value: float | None, unit: str) -> str:
    """An amount in a limit's unit: dollars, megabytes or a plain count."""
    if value is None:
        return "-"
    if unit == "usd":
        return money(value)
    if unit in {"bytes_down", "bytes_up"}:
        return f"{number(value / 1e6, 1)} MB"
    return number(value)


def money(value: float | None) -> str:
    """Dollars: cents, or more places for less than a cent."""
    if value is None:
        return "-"
    if value and abs(value) < 0.01:
        return f"${value:.6f}".rstrip("0")
    return f"${value:,.2f}"


def milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f} ms" if value < 10_000 else span(value / 1000)


def span(seconds: float | None) -> str:
    """``45 s``, ``12 min``, ``3 h 5 min``, ``2 d 4 h``."""
    if seconds is None:
        return "-"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole < 300 and whole % 60 else "")
    if whole < 86_400:
        return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 >= 60 else "")
    return f"{whole // 86_400} d" + (f" {whole % 86_400 // 3600} h" if whole % 86_400 >= 3600 else "")


def clock_time(at: float | None) -> str:
    """Local date and time to the second."""
    if at is None:
        return "-"
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def bar(used: float, held: float, buffer: float, limit: float, cells: int, *, rich: bool) -> str:
    """``▓`` used, ``▒`` reserved, ``─`` free, ``░`` the buffer that is kept free; ``#=-.`` in ASCII.

    A part that is not zero shows at least one cell, so that the first use and the last rest are seen.
    """
    symbols = "▓▒─░" if rich else "#=-."
    if limit <= 0:
        return symbols[3] * cells
    kept = min(buffer, max(0.0, limit - used - held))
    parts = [min(used, limit), min(held, max(0.0, limit - used)), 0.0, kept]
    parts[2] = max(0.0, limit - parts[0] - parts[1] - parts[3])
    counts = [0 if part <= 0 else max(1, round(part / limit * cells)) for part in parts]
    while sum(counts) > cells:
        counts[counts.index(max(counts))] -= 1
    while sum(counts) < cells:
        counts[max(range(4), key=lambda index: parts[index] / limit * cells - counts[index])] += 1
    return "".join(symbol * count for symbol, count in zip(symbols, counts, strict=True))


def plot(value: float, largest: float, cells: int, *, rich: bool) -> str:
    """A horizontal bar of up to ``cells`` columns."""
    if largest <= 0 or value <= 0:
        return ""
    return ("█" if rich else "#") * max(1, round(value / largest * cells))
