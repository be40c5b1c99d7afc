"""When calendar quotas begin anew, in their own time zone."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


def resets(window: str, zone: str, begin: float, end: float, most: int = 200) -> list[float]:
    """The beginnings of calendar periods (``hour``, ``day``, ``month`` in ``zone``) from ``begin`` until ``end``.

    Rolling windows have none: what was used returns bit by bit. More than ``most`` say nothing, and none are given.
    """
    if window not in {"hour", "day", "month"}:
        return []
    try:
        place = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return []
    at = datetime.fromtimestamp(begin, place).replace(minute=0, second=0, microsecond=0, fold=0)
    if window != "hour":
        at = at.replace(hour=0)
    if window == "month":
        at = at.replace(day=1)
    made: list[float] = []
    while (seconds := at.timestamp()) < end and len(made) <= most:
        if seconds >= begin:
            made.append(seconds)
        if window == "hour":
            at = datetime.fromtimestamp(seconds + 3600, place)
        elif window == "day":
            at += timedelta(days=1)
        else:
            at = (at + timedelta(days=32)).replace(day=1)
    return made if len(made) <= most else []
