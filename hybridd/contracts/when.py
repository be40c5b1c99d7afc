"""Points in time as people and scripts write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_RELATIVE = re.compile(r"^(\d+(?:\.\d+)?)(s|m|h|d|w)$")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def parse_duration(text: str) -> float:
    """Seconds of ``90s``, ``15m``, ``2h``, ``7d``, ``1w``.

    Raises:
        ValueError: anything else.
    """
    relative = _RELATIVE.match(text.strip().lower())
    if relative is None:
        raise ValueError(f"{text!r} is not a duration such as 90s, 15m, 2h, 7d or 1w")
    return float(relative.group(1)) * _SECONDS[relative.group(2)]


def parse_when(text: str, now: float) -> float:
    """UTC seconds: a duration before ``now`` (``7d``), seconds since the epoch, or an ISO date or time (UTC when it
    names no zone).

    Raises:
        ValueError: none of these.
    """
    text = text.strip()
    if _RELATIVE.match(text.lower()):
        return now - parse_duration(text)
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        wanted = "a duration (7d), UTC seconds or an ISO date such as 2026-11-20"
        raise ValueError(f"{text!r} is not {wanted}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
