"""Points in time and durations as people and scripts write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_DURATION = re.compile(r"^(?:\d+(?:\.\d+)?[smhdw])+$")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def parse_duration(text: str) -> float:
    """Seconds in ``90``, ``30s``, ``2h``, ``1d12h``, ``1w``.

    Raises:
        ValueError: anything else, or nothing at all.
    """
    compact = text.strip().lower().replace(" ", "")
    if compact.isascii() and compact.isdigit():
        seconds = float(compact)
    elif _DURATION.match(compact):
        seconds = sum(float(count) * _SECONDS[unit] for count, unit in _PART.findall(compact))
    else:
        raise ValueError(f"{text!r} is no duration such as 30s, 2h or 1d12h")
    if not 0 < seconds < 1e10:
        raise ValueError(f"{text!r} is no useful duration")
    return seconds


def parse_when(text: str, now: float, *, local: bool = False) -> float:
    """UTC seconds of ``7d`` (that long before ``now``), seconds since the epoch (from 1e8), or an ISO date or time.

    A date or time that names no zone is UTC, or of this machine when ``local``.

    Raises:
        ValueError: none of these.
    """
    text = text.strip()
    if text.replace(".", "", 1).isdigit() and float(text) >= 1e8:
        return float(text)
    try:
        return now - parse_duration(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo or local else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        wanted = "a duration (7d, 12h), UTC seconds, nor a date (2026-11-01, 2026-11-01T08:30)"
        raise ValueError(f"{text!r} is neither {wanted}") from None
