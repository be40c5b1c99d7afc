"""JSON as GBNF, and small questions about schemas and their values. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from plugins.llama_cpp import schema_numbers, schema_pattern
from plugins.llama_cpp.schema_merge import ARRAY, FIGURE, OBJECT, TEXT, TYPES, Bad, types_of

SHARED = {
    "ws": '(" " | "\\n" [ \\t]{0,16})?',
    "plain": schema_pattern.all_but(""),
    "char": 'plain | "\\\\" (["\\\\/bfnrt] | "u" hex)',
    # Halves of pairs are no characters, and strict readers refuse them.
    "hex": '([0-9A-CEFa-cef] [0-9a-fA-F] | [Dd] [0-7]) [0-9a-fA-F]{2}',
    "string": '"\\"" char* "\\""',
    "integer": schema_numbers.INTEGER,
    "number": schema_numbers.NUMBER,
    "boolean": '"true" | "false"',
    "null": '"null"',
    "value": "object | array | string | number | boolean | null",
    "object": '"{" ws (pair (ws "," ws pair)*)? ws "}"',
    "pair": 'string ws ":" ws value',
    "array": '"[" ws (value (ws "," ws value)*)? ws "]"',
}  # fmt: skip
USES = {
    "char": ("hex", "plain"), "string": ("char",), "pair": ("string", "ws", "value"), "object": ("pair", "ws"),
    "array": ("value", "ws"), "value": ("object", "array", "string", "number", "boolean", "null"),
}  # fmt: skip


def kinds(plain: Mapping[str, Any], where: str) -> list[str]:
    """The types a schema speaks of; without ``type`` those its other keywords are about."""
    if "type" in plain:
        types = types_of(plain["type"], where)
        return [one for one in dict.fromkeys(types) if not (one == "integer" and "number" in types)]
    about = [("object", OBJECT), ("array", ARRAY), ("string", TEXT), ("number", FIGURE)]
    found = [kind for kind, keys in about if plain.keys() & keys]
    return found or [kind for kind in TYPES if kind != "integer"]


def is_a(value: Any, kind: str) -> bool:
    if kind == "integer":
        return not isinstance(value, bool) and (
            isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        )
    if kind == "number":
        return not isinstance(value, bool) and isinstance(value, int | float)
    if kind == "null":
        return value is None
    expected: dict[str, type] = {"object": dict, "array": list, "string": str, "boolean": bool}
    return isinstance(value, expected[kind])


def as_json(value: Any, where: str) -> str:
    try:
        made = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        made.encode()
    except (ValueError, RecursionError):
        raise Bad(where, "has a value that JSON cannot hold") from None
    return made


def slug(name: str) -> str:
    """What of a property's name can be in a rule's name."""
    return "".join(one if one.isascii() and one.isalnum() else "-" for one in name[:24]) or "x"
