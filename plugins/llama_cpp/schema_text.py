"""Strings of a JSON Schema as GBNF: lengths, patterns, formats, names other than given ones. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from plugins.llama_cpp import schema_pattern
from plugins.llama_cpp.schema_merge import Bad

MAX_NAMES = 500
_DAYS = (
    '("0" [13578] | "1" [02]) "-" ("0" [1-9] | [12] [0-9] | "3" [01])',
    '("0" [469] | "11") "-" ("0" [1-9] | [12] [0-9] | "30")',
    '"02-" ("0" [1-9] | "1" [0-9] | "2" [0-8])',
)
_DATE = f'[1-9] [0-9]{{3}} "-" ({" | ".join(_DAYS)})'
_CLOCK = '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9]'
_TIME = f'{_CLOCK} ":" [0-5] [0-9] ("." [0-9]{{1,6}})? ("Z" | [-+] {_CLOCK})'
_OCTET = '("25" [0-5] | "2" [0-4] [0-9] | "1" [0-9] [0-9] | [1-9] [0-9] | [0-9])'
_LABEL = "[a-z] ([a-z0-9] | [a-z0-9] [-a-z0-9]{0,20} [a-z0-9])?"
_HOST = f'({_LABEL}) ("." ({_LABEL})){{1,3}}'
# Each lets through a part of what the format allows, the common one.
FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f'{_DATE} "T" {_TIME}',
    "uuid": 'h{8} "-" h{4} "-" h{4} "-" h{4} "-" h{12}'.replace("h", "[0-9a-f]"),
    "ipv4": f'{_OCTET} ("." {_OCTET}){{3}}',
    "hostname": _HOST,
    "email": f'[a-z0-9] [-a-z0-9_+]{{0,30}} "@" {_HOST}',
    "uri": f'"http" "s"? "://" {_HOST} ("/" [-a-zA-Z0-9_~]{{0,40}}){{0,6}}',
}
Repeat = Callable[[str, int, int | None, str], str]


def string(plain: Mapping[str, Any], where: str, repeated: Repeat) -> str | None:
    """A string under the schema's keywords; None when it says nothing about it. It may use the rule ``char``."""
    pattern, form = plain.get("pattern"), plain.get("format")
    low, high = plain.get("minLength", 0), plain.get("maxLength")
    if high is not None and high < low:
        raise Bad(f"{where}.maxLength", f"is less than minLength, {low}")
    lengths = low or high is not None
    said = [name for name, given in (("pattern", pattern), ("format", form), ("minLength", lengths)) if given]
    if len(said) > 1:
        raise Bad(f"{where}.{said[0]}", f"together with {said[1]} or other lengths is not supported for local models")
    if pattern is not None:
        if not isinstance(pattern, str):
            raise Bad(f"{where}.pattern", "must be a text")
        try:
            return f'"\\"" {schema_pattern.to_gbnf(pattern)} "\\""'
        except schema_pattern.Bad as error:
            raise Bad(f"{where}.pattern", str(error)) from None
    if form is not None:
        if form not in FORMATS:
            raise Bad(f"{where}.format", f"must be one of {', '.join(FORMATS)} for local models")
        return f'"\\"" {FORMATS[form]} "\\""'
    return f'"\\"" {repeated("char", low, high, "text")} "\\""' if lengths else None


def other_than(names: Sequence[str]) -> str:
    """The rest of a string, its last quote included, that is none of ``names``. Escapes are left out altogether: they
    would be another way to write a name. It uses the rule ``plain``."""
    tree: dict[str, Any] = {}
    for name in names[:MAX_NAMES]:
        node = tree
        for one in name:
            node = node.setdefault(one, {})
        node[""] = {}
    return f"({_other(tree)})"


def _other(tree: dict[str, Any]) -> str:
    letters = sorted(one for one in tree if one)
    ways = [f'{schema_pattern.all_but("".join(letters))} plain* "\\""']
    if "" not in tree:
        ways.append('"\\""')
    for one in letters:
        # A character that JSON escapes cannot begin what is plainly written.
        own = schema_pattern.members([(ord(one), ord(one))])
        if own:
            ways.append(f"{own} ({_other(tree[one])})")
    return " | ".join(ways)
