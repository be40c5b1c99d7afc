"""When an upstream says that trying again helps: every form of the hint to seconds. Pure; the time is passed in.

A hint that is negative, in the past, not finite or not understood is no hint (None). One that is absurdly far away is
bounded to :data:`MAX_SECONDS`. Sources, the first that yields a wait wins: the ``retry-after`` headers, structured
fields of the body (``google.rpc.RetryInfo`` and the many spellings of ``retry_after``), prose in the message.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

MAX_SECONDS = 31 * 86400.0
_SCANNED_CHARACTERS = 4096
_SCANNED_NODES = 400
_SCANNED_DEPTH = 6

_UNIT_SECONDS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6,
    "ms": 1e-3, "msec": 1e-3, "msecs": 1e-3, "millisecond": 1e-3, "milliseconds": 1e-3,
    "s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0,
    "m": 60.0, "min": 60.0, "mins": 60.0, "minute": 60.0, "minutes": 60.0,
    "h": 3600.0, "hr": 3600.0, "hrs": 3600.0, "hour": 3600.0, "hours": 3600.0,
    "d": 86400.0, "day": 86400.0, "days": 86400.0,
    "w": 604800.0, "week": 604800.0, "weeks": 604800.0,
    "month": MAX_SECONDS, "months": MAX_SECONDS,
}  # fmt: skip
_UNIT = "|".join(sorted(_UNIT_SECONDS, key=len, reverse=True))
_DECIMAL = re.compile(r"\d{1,400}(?:\.\d{1,30})?\Z")
_GO_PART = re.compile(r"(\d{1,30}(?:\.\d{1,30})?)(ns|us|µs|μs|ms|s|m|h|d)")
_DAY = re.compile(r"\d{4}-\d\d-\d\d(?!\d)")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?\s?(?:[Zz]|[+-]\d\d:?\d\d)?")

# What may stand before the amount: "try again in", "retry after", "please wait", "resets in", "resets at", …
_LEAD = (
    r"(?:(?:try|trying|retry|retrying)(?:\s+(?:again|your\s+request|the\s+request|it))?\s*(?:in|after|at|:)"
    r"|retry[-_ ]after\s*[:=]?|wait(?:ing)?(?:\s+(?:for|until|at\s+least|about|another))*"
    r"|resets?(?:\s+(?:in|at|after|on))|available(?:\s+again)?\s+(?:in|at|after))"
)
_LEADS = re.compile(_LEAD + r"[\s:=]*(?:about\s+|approximately\s+|~\s*)?", re.IGNORECASE)
_AMOUNT = re.compile(
    rf"(?P<number>\d{{1,3}}(?:,\d{{3}})+|\d{{1,30}}(?:\.\d{{1,30}})?|an?\b|one\b)\s*-?(?P<unit>{_UNIT})?(?![^\W\d_])",
    re.IGNORECASE,
)
_SOMETHING_ELSE = re.compile(r" [^\W\d_]|:\d")
_JOINT = re.compile(r"(?:\s*,)?\s*(?:and\s+)?", re.IGNORECASE)

# body field (lower case, without separators) → factor to seconds; None: an instant or any other form
_FIELDS: dict[str, float | None] = {
    "retryafter": 1.0, "retryafterseconds": 1.0, "retryaftersecs": 1.0, "retryafterms": 1e-3,
    "retrydelay": 1.0, "retryinseconds": 1.0, "resetsinseconds": 1.0, "resetinseconds": 1.0, "waitseconds": 1.0,
    "estimatedtime": 1.0, "resetsat": None, "resetat": None,
}  # fmt: skip


def bounded(seconds: float) -> float | None:
    """``seconds`` when it is a wait, at most :data:`MAX_SECONDS`; None when negative or not a number."""
    if math.isnan(seconds) or seconds < 0:
        return None
    return min(seconds, MAX_SECONDS)


def go_duration(text: str) -> float | None:
    """``1s``, ``6m0s``, ``12ms``, ``1h2m3.5s`` to seconds (not bounded)."""
    position, total = 0, 0.0
    for part in _GO_PART.finditer(text):
        if part.start() != position:
            return None
        position = part.end()
        total += float(part[1]) * _UNIT_SECONDS[part[2]]
    return total if position and position == len(text) else None


def instant(text: str) -> datetime | None:
    """An RFC 3339 or HTTP date (all three of HTTP's forms), in UTC when it names no zone."""
    try:
        if _RFC3339.fullmatch(text):
            moment = datetime.fromisoformat(text.replace(" ", "T", 1).replace(" ", ""))
        else:
            moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def epoch_wait(value: float, now: float) -> float | None:
    """Seconds until ``value`` when it can only be an epoch time (seconds or milliseconds) of about now, else None.

    A plain number of this size read as a wait would be decades, so nothing sensible is misread.
    """
    for seconds in (value, value / 1000):
        if now - 366 * 86400 < seconds < now + 366 * 86400:
            return seconds - now
    return None


def wait(value: Any, now: float, *, factor: float | None = 1.0) -> float | None:
    """Any single form of a wait to seconds: a number, its text, a Go duration, an epoch time, a date.

    Args:
        value: what the header or the body field holds.
        now: UTC seconds since the epoch.
        factor: seconds for one unit of a plain number; None when a plain number can only be an epoch time.
    """
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, str):
        text = value.strip()[:200]
        if not _DECIMAL.match(text):
            duration = go_duration(text)
            if duration is not None:
                return bounded(duration)
            moment = instant(text)
            return None if moment is None else bounded(moment.timestamp() - now)
        value = float(text)
    if not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None if value < 0 else MAX_SECONDS
    since_epoch = epoch_wait(number, now)
    if since_epoch is not None:
        return bounded(since_epoch)
    return None if factor is None else bounded(number * factor)


def from_headers(headers: Mapping[str, str], now: float) -> float | None:
    """``retry-after-ms`` and ``retry-after``. A date is compared with the answer's own ``date``, when it has one:
    the wait is then right even where the two clocks differ."""
    milliseconds = headers.get("retry-after-ms")
    if milliseconds is not None:
        seconds = wait(milliseconds, now, factor=1e-3)
        if seconds is not None:
            return seconds
    text = headers.get("retry-after")
    if text is None:
        return None
    served = instant(headers.get("date", ""))
    return wait(text, served.timestamp() if served is not None and instant(text) is not None else now)


def from_body(body: Any, now: float) -> float | None:
    """The longest wait among the structured fields of a decoded JSON body, however deep within reason."""
    waits = [seconds for seconds in (_field(key, value, now) for key, value in _members(body)) if seconds is not None]
    return max(waits, default=None)


def _field(key: str, value: Any, now: float) -> float | None:
    name = key.lower().replace("_", "").replace("-", "")
    if name not in _FIELDS:
        return None
    if isinstance(value, Mapping):  # protobuf's Duration as an object
        parts = [value.get("seconds", 0), value.get("nanos", 0)]
        if all(isinstance(part, (int, float)) and not isinstance(part, bool) for part in parts):
            return bounded(parts[0] + parts[1] * 1e-9)
        return None
    return wait(value, now, factor=_FIELDS[name])


def _members(body: Any) -> Iterator[tuple[str, Any]]:
    pending, seen = [(body, 0)], 0
    while pending and seen < _SCANNED_NODES:
        node, depth = pending.pop()
        seen += 1
        if isinstance(node, Mapping):
            for key, value in node.items():
                yield str(key), value
                if isinstance(value, (Mapping, list)) and depth < _SCANNED_DEPTH:
                    pending.append((value, depth + 1))
        elif isinstance(node, list) and depth < _SCANNED_DEPTH:
            pending.extend((child, depth + 1) for child in node[:_SCANNED_NODES])


def from_prose(text: str, now: float) -> float | None:
    """The first sentence that names a wait or an instant: "try again in 7.66s", "Resets in 6 days"."""
    text = text[:_SCANNED_CHARACTERS]
    for lead in _LEADS.finditer(text):
        rest = text[lead.end() : lead.end() + 120]
        moment = _RFC3339.match(rest) or _DAY.match(rest)
        if moment:
            named = moment[0].strip()
            at = instant(named if moment.re is _RFC3339 else f"{named}T00:00Z")
            seconds = None if at is None else bounded(at.timestamp() - now)
        else:
            seconds = _amounts(rest, now)
        if seconds is not None:
            return seconds
    return None


def _amounts(rest: str, now: float) -> float | None:
    """``7.66s``, ``6m0s``, ``2 minutes and 30 seconds``, ``an hour``, ``30`` at the start of ``rest``."""
    compact = re.match(r"[0-9.a-zµμ]+", rest)
    if compact:
        seconds = go_duration(compact[0].rstrip("."))
        if seconds is not None:
            return bounded(seconds)
    total, position = None, 0
    while amount := _AMOUNT.match(rest, position):
        unit = amount["unit"]
        word = amount["number"].lower()
        if unit is None and (total is not None or not word[0].isdigit()):
            break
        number = float(word.replace(",", "")) if word[0].isdigit() else 1.0
        if unit is None:
            # "10 requests" and "10:30" are no waits.
            return None if _SOMETHING_ELSE.match(rest, amount.end()) else wait(number, now)
        total = (total or 0.0) + number * _UNIT_SECONDS[unit.lower()]
        joint = _JOINT.match(rest, amount.end())
        position = joint.end() if joint else amount.end()
    return None if total is None else bounded(total)


def retry_after(headers: Mapping[str, str], body: Any, text: str, now: float) -> float | None:
    """The wait in seconds that an error answer asks for, or None.

    Args:
        headers: the answer's headers, looked up by lower-case name.
        body: the decoded JSON body, or None.
        text: the human text of the error (its message, or the body when that is no JSON).
        now: UTC seconds since the epoch.
    """
    for seconds in (from_headers(headers, now), from_body(body, now), from_prose(text, now)):
        if seconds is not None:
            return seconds
    return None
