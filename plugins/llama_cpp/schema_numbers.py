"""Ranges of numbers as GBNF: what a grammar lets through lies inside, digit by digit. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from plugins.llama_cpp.schema_merge import Bad

# Open ends are closed here: far enough for any use, and exact in a double.
FARTHEST = 10**15
MAX_DECIMALS = 12
INTEGER = '"-"? ("0" | [1-9] [0-9]{0,14})'
NUMBER = '"-"? ("0" | [1-9] [0-9]{0,14}) ("." [0-9]{1,15})? ([eE] [-+]? [1-9] [0-9]?)?'


def integers(low: int, high: int) -> str:
    """The whole numbers from ``low`` to ``high``, without leading zeros."""
    ways = []
    if low < 0:
        ways += [f'"-" ({_positive(max(1, -high), -low)})']
    if high >= 0:
        ways.append(_positive(max(0, low), high))
    return " | ".join(ways)


def decimals(low: Decimal, high: Decimal, *, open_low: bool, open_high: bool) -> str | None:
    """Numbers from ``low`` to ``high`` written without exponent; None when no such number can be written."""
    places = max(2, -int(low.as_tuple().exponent), -int(high.as_tuple().exponent)) + (open_low or open_high)
    if places > MAX_DECIMALS:
        return None
    scale = 10**places
    first, last = int(low * scale) + open_low, int(high * scale) - open_high
    if first > last:
        return None
    ways = []
    if first < 0:
        ways.append(f'"-" ({_fixed(max(1, -last), -first, places)})')
    if last >= 0:
        ways.append(_fixed(max(0, first), last, places))
    return " | ".join(ways)


def _positive(low: int, high: int) -> str:
    """Numbers of as many digits at a time."""
    ways = []
    for digits in range(len(str(low)), len(str(high)) + 1):
        first = max(low, 10 ** (digits - 1) if digits > 1 else 0)
        ways.append(_digits(str(first), str(min(high, 10**digits - 1))))
    return " | ".join(ways)


def _digits(low: str, high: str) -> str:
    """Digit strings of one length from ``low`` to ``high``."""
    if not low:
        return ""
    count = len(low) - 1
    if set(low) == {"0"} and set(high) == {"9"}:
        return f"[0-9]{{{len(low)}}}"
    if low[0] == high[0]:
        return f'"{low[0]}" {_grouped(_digits(low[1:], high[1:]))}'.strip()
    if not count:
        return f"[{low}-{high}]"
    ways, first, last = [], int(low[0]), int(high[0])
    if set(low[1:]) != {"0"}:
        ways.append(f'"{first}" {_grouped(_digits(low[1:], "9" * count))}')
        first += 1
    if set(high[1:]) != {"9"}:
        ways.append(f'"{last}" {_grouped(_digits("0" * count, high[1:]))}')
        last -= 1
    if first <= last:
        ways.append(f"[{first}-{last}] [0-9]{{{count}}}")
    return " | ".join(ways)


def _fixed(low: int, high: int, places: int) -> str:
    """``low`` to ``high`` in units of the last place, the places after the point always written."""
    scale = 10**places
    first, last = low // scale, high // scale

    def fraction(begin: int, end: int) -> str:
        return _grouped(_digits(str(begin).zfill(places), str(end).zfill(places)))

    if first == last:
        return f'"{first}." {fraction(low % scale, high % scale)}'
    ways = [
        f'"{first}." {fraction(low % scale, scale - 1)}',
        f'"{last}." {fraction(0, high % scale)}',
    ]
    if last - first > 1:
        ways.append(f'({_positive(first + 1, last - 1)}) ("." [0-9]{{1,{places}}})?')
    if low % scale == 0:
        ways.append(f'"{first}"')
    ways.append(f'"{last}"')
    return " | ".join(ways)


def _grouped(text: str) -> str:
    return f"({text})" if " | " in text else text


def figure(kind: str, plain: Mapping[str, Any], where: str) -> str | None:
    """A number under the schema's keywords; None when it says nothing about it.

    Raises:
        Bad: bounds that leave nothing, or are too fine or too far.
    """
    form, multiple = plain.get("format"), plain.get("multipleOf", 1 if kind == "integer" else None)
    if form is not None and form not in ("int32", "int64", "float", "double"):
        raise Bad(f"{where}.format", "must be one of int32, int64, float, double for numbers of local models")
    if multiple is not None and multiple != 1:
        raise Bad(f"{where}.multipleOf", "is not supported for local models, but for 1")
    low, open_low = _bound(plain, "minimum", "exclusiveMinimum", max)
    high, open_high = _bound(plain, "maximum", "exclusiveMaximum", min)
    if form == "int32":
        low, high = max(low or Decimal(-(2**31)), Decimal(-(2**31))), min(high or _INT32, _INT32)
    if low is None and high is None:
        return None if multiple is None or kind == "integer" else INTEGER
    if low is None:
        low, open_low = Decimal(-FARTHEST), False
    if high is None:
        high, open_high = Decimal(FARTHEST), False
    if low < -FARTHEST or high > FARTHEST:
        low, high = max(low, Decimal(-FARTHEST)), min(high, Decimal(FARTHEST))
    if kind == "integer" or multiple is not None:
        first, last = math.ceil(low), math.floor(high)
        first += open_low and first == low
        last -= open_high and last == high
        body = integers(first, last) if first <= last else None
    else:
        body = decimals(low, high, open_low=open_low, open_high=open_high) if low <= high else None
    if body is None:
        raise Bad(where, "leaves no number between its bounds that a grammar can write")
    return body


_INT32 = Decimal(2**31 - 1)


def _bound(
    plain: Mapping[str, Any], name: str, exclusive: str, stricter: Callable[[Decimal, Decimal], Decimal]
) -> tuple[Decimal | None, bool]:
    """(the bound, whether it is itself left out)."""
    closed = Decimal(repr(plain[name])) if name in plain else None
    opened = Decimal(repr(plain[exclusive])) if exclusive in plain else None
    if opened is None or closed is None:
        return (closed, False) if opened is None else (opened, True)
    if closed == opened:
        return opened, True
    found = stricter(closed, opened)
    return found, found == opened
