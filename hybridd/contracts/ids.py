"""The text form of a request id: ``req_`` and the integer id in hexadecimal, at least 13 digits.

Ids are microseconds of wall time made monotone, so today's take exactly 13 digits and sort as text like as numbers
(until the year 2112, when a fourteenth digit appears).
"""

from __future__ import annotations

import re

_FORM = re.compile(r"^req_([0-9a-f]{13,16})$")
_MAX = 2**63 - 1


def encode(request_id: int) -> str:
    """``1790000000000000`` → ``req_65bfdedd6c000``.

    Raises:
        ValueError: negative, or more than SQLite's 63 bits.
    """
    if not 0 <= request_id <= _MAX:
        raise ValueError(f"request id {request_id} is outside 0..2^63-1")
    return f"req_{request_id:013x}"


def decode(text: str) -> int:
    """The integer behind :func:`encode`'s text (letter case and surrounding blanks do not matter).

    Raises:
        ValueError: not a request id.
    """
    match = _FORM.match(text.strip().lower())
    number = int(match.group(1), 16) if match else -1
    if not 0 <= number <= _MAX:
        raise ValueError(f"{text!r} is not a request id: expected 'req_' and 13 to 16 hexadecimal digits")
    return number
