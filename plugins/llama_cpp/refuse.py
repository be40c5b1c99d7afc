"""What a request is refused with before anything has run: nothing was sent, the field is named. Pure.

Also the small checks that every parameter goes through.
"""

from __future__ import annotations

import math
from typing import Any

from hybridd.plugin import CallFailure

# A name in a message is the caller's own text: long ones are cut.
_MAX_SHOWN = 80


def wrong(name: str, what: str, *, code: str | None = None) -> CallFailure:
    """``bad_request``: the caller's mistake; no other provider would take it either."""
    return CallFailure("bad_request", f"{name} {what}", sent="no", param=name, upstream_code=code)


def unsupported(name: str, what: str) -> CallFailure:
    """``unsupported``: another provider might do it, so the router looks further."""
    return CallFailure("unsupported", f"{name}: {what}", sent="no", param=name)


def shown(value: object) -> str:
    """A caller's value, short enough for a message."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


def number(name: str, value: Any, low: float, high: float, *, whole: bool = False) -> Any:
    """``value`` when it is a number from ``low`` to ``high``; raises :func:`wrong` otherwise."""
    fits = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    if isinstance(value, float) and whole:
        fits = value.is_integer() if fits else False
    if isinstance(value, bool) or not fits or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise wrong(name, f"must be {kind} from {_figure(low)} to {_figure(high)}, not {shown(value)}")
    return int(value) if whole else float(value)


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise wrong(name, f"must be true or false, not {shown(value)}")
    return value


def _figure(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:g}"
