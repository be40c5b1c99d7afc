"""Whether the branches of a ``oneOf`` exclude each other. Pure.

A grammar can offer branches, not forbid that an answer fits two of them: only branches that never share a value can
be taken as alternatives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plugins.llama_cpp.schema_merge import TYPES, Bad, Resolver, same, types_of

_MAX_LOOKED = 8


def check(branches: Sequence[Any], resolver: Resolver, where: str) -> None:
    """Raises Bad."""
    plain = [_followed(one, resolver, f"{where}.oneOf.{at}") for at, one in enumerate(branches)]
    for at, one in enumerate(plain):
        for behind, other in enumerate(plain[at + 1 :], at + 1):
            if not _apart(one, other, resolver, where):
                raise Bad(
                    f"{where}.oneOf",
                    f"has branches {at} and {behind}, which one value may fit both; tell them apart by type or by a "
                    "required property with a const, or use anyOf",
                )


def _followed(schema: Any, resolver: Resolver, where: str) -> Any:
    made = resolver.plain(schema, where)
    for _ in range(_MAX_LOOKED):
        if not (isinstance(made, Mapping) and "$ref" in made):
            return made
        made = resolver.plain(resolver.target(made["$ref"], where), where)
    raise Bad(where, "refers on and on")


def _apart(one: Any, other: Any, resolver: Resolver, where: str, depth: int = 0) -> bool:
    if one is False or other is False:
        return True
    if not isinstance(one, Mapping) or not isinstance(other, Mapping) or depth > _MAX_LOOKED:
        return False
    for left, right in ((one, other), (other, one)):
        for name in ("anyOf", "oneOf"):
            if name in left:
                followed = (_followed(branch, resolver, where) for branch in left[name])
                return all(_apart(branch, right, resolver, where, depth + 1) for branch in followed)
    first, second = _kinds(one, where), _kinds(other, where)
    if not first & second:
        return True
    values, others = _values(one), _values(other)
    if values is not None and others is not None:
        return not any(same(value, known) for value in values for known in others)
    return first & second == {"object"} and _objects_apart(one, other, resolver, where, depth)


def _objects_apart(
    one: Mapping[str, Any], other: Mapping[str, Any], resolver: Resolver, where: str, depth: int
) -> bool:
    mine, theirs = one.get("properties", {}), other.get("properties", {})
    needed, wanted = set(one.get("required", ())), set(other.get("required", ()))
    for name in needed & wanted & mine.keys() & theirs.keys():
        at = f"{where}.properties.{name}"
        if _apart(_followed(mine[name], resolver, at), _followed(theirs[name], resolver, at), resolver, at, depth + 1):
            return True
    # What one needs and the other does not let in.
    return (other.get("additionalProperties") is False and bool(needed - theirs.keys())) or (
        one.get("additionalProperties") is False and bool(wanted - mine.keys())
    )


def _kinds(schema: Mapping[str, Any], where: str) -> set[str]:
    values = _values(schema)
    kinds = set(types_of(schema["type"], where)) if "type" in schema else set(TYPES)
    if values is not None:
        kinds &= {_kind(value) for value in values} | {"integer", "number"}
        if not any(_kind(value) == "number" for value in values):
            kinds -= {"integer", "number"}
    return kinds | {"integer"} if "number" in kinds else kinds


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    for kind, name in ((bool, "boolean"), (str, "string"), (list, "array"), (dict, "object")):
        if isinstance(value, kind):
            return name
    return "number"


def _values(schema: Mapping[str, Any]) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    values: list[Any] | None = schema.get("enum")
    return values
