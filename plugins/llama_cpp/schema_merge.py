"""JSON Schemas made plain before a grammar is written: references followed, ``allOf`` merged, siblings of ``anyOf``
pushed into its branches. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 64
MAX_BRANCHES = 128
MAX_COUNT = 100_000
MAX_STEPS = 20_000
TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
# Says nothing about which values are valid.
NOTES = frozenset({
    "$schema", "$id", "id", "$comment", "$defs", "definitions", "$anchor", "$vocabulary", "title", "description",
    "default", "example", "examples", "deprecated", "readOnly", "writeOnly", "discriminator", "contentMediaType",
    "contentEncoding", "strict", "nullable",
})  # fmt: skip
OBJECT = frozenset({"properties", "required", "additionalProperties", "minProperties", "maxProperties"})
ARRAY = frozenset({"items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems"})
TEXT = frozenset({"minLength", "maxLength", "pattern", "format"})
FIGURE = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
_COMBINED = frozenset({"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"})
_COUNTS = frozenset({"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"})
KNOWN = NOTES | OBJECT | ARRAY | TEXT | FIGURE | _COMBINED


class Bad(Exception):
    """``where``: the path of the schema's part; ``what`` is wrong with it."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where} {what}")


class Resolver:
    """``root``: the whole schema, which ``#`` refers to."""

    def __init__(self, root: Any, where: str) -> None:
        self.root = root
        self.where = where
        self._steps = 0

    def _step(self, where: str) -> None:
        """References and products of alternatives can make much out of little."""
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise Bad(where, "leads to too many combinations of schemas")

    def target(self, pointer: Any, where: str) -> Any:
        """What ``$ref`` names, inside this schema only: nothing is ever fetched."""
        if not isinstance(pointer, str) or not (pointer == "#" or pointer.startswith("#/")):
            raise Bad(f"{where}.$ref", "must point into the schema itself, like '#/$defs/Name'")
        found = self.root
        for part in pointer[2:].split("/") if pointer != "#" else ():
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping) and name in found:
                found = found[name]
            elif isinstance(found, list) and name.isascii() and name.isdigit() and int(name[:6]) < len(found):
                found = found[int(name)]
            else:
                raise Bad(f"{where}.$ref", f"points to {pointer[:80]!r}, which is not there")
        return found

    def plain(self, schema: Any, where: str, depth: int = 0) -> Any:
        """``schema`` without ``allOf``, with ``$ref`` only alone, and with ``anyOf`` or ``oneOf`` only alone.

        Raises:
            Bad
        """
        self._step(where)
        if isinstance(schema, bool):
            return schema
        _check_shape(schema, where)
        if depth > MAX_DEPTH:
            raise Bad(where, f"is nested more than {MAX_DEPTH} deep, or refers to itself without end")
        rest = {key: value for key, value in schema.items() if key not in NOTES}
        _check_values(rest, where)
        if schema.get("nullable") is True:
            return self._nullable(rest, where)
        if len(rest) == 1 and "$ref" in rest:
            return rest
        parts: list[tuple[Any, str]] = []
        if "$ref" in rest:
            parts.append((self.target(rest.pop("$ref"), where), f"{where}.$ref"))
        if "allOf" in rest:
            several = rest.pop("allOf")
            parts += [(one, f"{where}.allOf.{at}") for at, one in enumerate(_listed(several, f"{where}.allOf"))]
        choices = [name for name in ("anyOf", "oneOf") if name in rest and _listed(rest[name], f"{where}.{name}")]
        if not parts and (not choices or len(rest) == 1):
            return rest
        branches = [(name, rest.pop(name)) for name in choices]
        if not rest and len(parts) == 1 and not branches:
            return self._followed(*parts[0], depth + 1)
        merged: Any = rest or True
        for part, at in parts:
            merged = self.both(merged, self._followed(part, at, depth + 1), where, depth + 1)
        for name, several in branches:
            merged = self.both(merged, {name: several}, where, depth + 1)
        return merged

    def _nullable(self, rest: dict[str, Any], where: str) -> Any:
        if isinstance(rest.get("type"), str):
            rest["type"] = [rest["type"], "null"]
            if "enum" in rest:
                rest["enum"] = [*rest["enum"], None]
            return rest
        return {"anyOf": [rest, {"type": "null"}]}

    def _followed(self, schema: Any, where: str, depth: int) -> Any:
        """Plain, and not a reference."""
        made = self.plain(schema, where, depth)
        while isinstance(made, Mapping) and "$ref" in made:
            depth += 1
            made = self.plain(self.target(made["$ref"], where), f"{where}.$ref", depth)
        return made

    def both(self, one: Any, other: Any, where: str, depth: int) -> Any:
        """What satisfies both schemas, plain ones."""
        self._step(where)
        if depth > MAX_DEPTH:
            raise Bad(where, f"is nested more than {MAX_DEPTH} deep, or refers to itself without end")
        if one is True or other is True:
            return other if one is True else one
        if one is False or other is False:
            return False
        for left, right in ((one, other), (other, one)):
            for name in ("anyOf", "oneOf"):
                if name in left:
                    return self._distributed(name, left[name], right, where, depth)
        return self._merged(one, other, where, depth)

    def _distributed(self, name: str, branches: list[Any], rest: Any, where: str, depth: int) -> Any:
        made = [
            self.both(self._followed(branch, f"{where}.{name}.{at}", depth + 1), rest, where, depth + 1)
            for at, branch in enumerate(branches)
        ]
        made = [branch for branch in made if branch is not False]
        if len(made) > MAX_BRANCHES:
            raise Bad(where, f"leads to more than {MAX_BRANCHES} alternatives")
        return {name: made} if made else False

    def _merged(self, one: Mapping[str, Any], other: Mapping[str, Any], where: str, depth: int) -> Any:
        merged = {**one, **other}
        for key in one.keys() & other.keys():
            left, right = one[key], other[key]
            if key in ("minLength", "minItems", "minProperties", "minimum", "exclusiveMinimum"):
                merged[key] = max(left, right)
            elif key in ("maxLength", "maxItems", "maxProperties", "maximum", "exclusiveMaximum"):
                merged[key] = min(left, right)
            elif key == "type":
                types = _types_of_both(left, right)
                if not types:
                    return False
                merged[key] = types
            elif key == "enum":
                merged[key] = [value for value in left if any(same(value, known) for known in right)]
            elif key == "required":
                merged[key] = list(dict.fromkeys([*left, *right]))
            elif key in ("items", "additionalProperties") and left != right:
                merged[key] = {"allOf": [left, right]}
            elif key != "properties" and not same(left, right):
                raise Bad(f"{where}.{key}", "is given twice in schemas that must both hold")
        if "properties" in one or "properties" in other:
            merged["properties"] = self._properties(one, other)
        return merged

    @staticmethod
    def _properties(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
        """A property that only one of them names is, for the other one, an additional one."""
        made: dict[str, Any] = {}
        mine, theirs = one.get("properties", {}), other.get("properties", {})
        for name in dict.fromkeys([*mine, *theirs]):
            sides = [
                side["properties"][name] if name in side.get("properties", {}) else side.get("additionalProperties")
                for side in (one, other)
            ]
            asked = [side for side in sides if side is not None and side is not True]
            made[name] = True if not asked else asked[0] if len(asked) == 1 else {"allOf": asked}
            if any(side is False for side in asked):
                made[name] = False
        return made


def _check_shape(schema: Any, where: str) -> None:
    if not isinstance(schema, Mapping):
        raise Bad(where, "must be an object, true or false")
    for key in schema:
        if key not in KNOWN:
            raise Bad(f"{where}.{key}", "is not supported for local models")


def _check_values(schema: Mapping[str, Any], where: str) -> None:
    """The values of keywords, where a wrong type would come to light late or never."""
    for key in _COUNTS & schema.keys():
        value = schema[key]
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
            raise Bad(f"{where}.{key}", f"must be a whole number from 0 to {MAX_COUNT}")
    for key in FIGURE & schema.keys():
        if isinstance(schema[key], bool) or not isinstance(schema[key], int | float):
            raise Bad(f"{where}.{key}", "must be a number")
    if "properties" in schema and not isinstance(schema["properties"], Mapping):
        raise Bad(f"{where}.properties", "must be an object of schemas")
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(one, str) for one in required):
        raise Bad(f"{where}.required", "must be a list of names")
    if "enum" in schema and (not isinstance(schema["enum"], list) or not schema["enum"]):
        raise Bad(f"{where}.enum", "must be a list of at least one value")
    if "type" in schema:
        types_of(schema["type"], where)


def types_of(value: Any, where: str) -> list[str]:
    types = [value] if isinstance(value, str) else value
    if not isinstance(types, list) or not types or any(one not in TYPES for one in types):
        raise Bad(f"{where}.type", f"must be one or more of {', '.join(TYPES)}")
    return types


def _types_of_both(left: Any, right: Any) -> list[str]:
    first, second = (one if isinstance(one, list) else [one] for one in (left, right))
    both = [one for one in first if one in second]
    whole = {"integer", "number"} <= {*first, *second}
    return [*both, "integer"] if whole and "integer" not in both and "number" not in both else both


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    figures = isinstance(one, int | float) and isinstance(other, int | float)
    return (figures or type(one) is type(other)) and bool(one == other)


def _listed(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise Bad(where, "must be a list of at least one schema")
    if len(value) > MAX_BRANCHES:
        raise Bad(where, f"has more than {MAX_BRANCHES} alternatives")
    return value
