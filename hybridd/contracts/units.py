"""Amounts of memory and of disk as people read them: one helper, so that no two places differ in the unit."""

from __future__ import annotations


def size(count: float | None) -> str:
    """Bytes in binary units, as memory and models are measured everywhere here: ``210 MiB``, ``1,571 MiB``,
    ``12.4 GiB`` from 10 GiB on, ``12 KiB`` and ``300 B`` below one MiB; a dash for nothing known.

    Whole MiB are rounded up: a plan that shows them never shows less than it takes.
    """
    if count is None:
        return "-"
    whole = int(-(-abs(count) // 1))
    sign = "-" if count < 0 else ""
    if whole >= 10 << 30:
        return f"{sign}{whole / 2**30:,.1f} GiB"
    if whole >= 1 << 20 or not whole:
        return f"{sign}{-(-whole // 2**20):,} MiB"
    return f"{sign}{-(-whole // 2**10):,} KiB" if whole >= 1 << 10 else f"{sign}{whole} B"
