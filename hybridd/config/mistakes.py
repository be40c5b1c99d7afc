"""Pydantic's complaints as sentences: which key, what is wrong, what would be right.

Values under a key that may hold a secret are never echoed.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from hybridd.config.jsonfile import Document, KeyPath, dotted
from hybridd.config.settings import KeyReference, Section, Settings

KEY_REFERENCE_FORMS = (
    '{"env": "NAME"}, {"file": "PATH"}, {"credential": "NAME"} or {"command": ["program", "argument"]}'
)
_SENSITIVE = {"api_key", "headers", "options", "env", "command", "base_url"}
_WANTED = {
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be a text",
    "list_type": "must be a list, […]",
    "dict_type": "must be an object, {…}",
    "model_type": "must be an object, {…}",
}
_PATTERNS = {"window": 'must be "<n>s" (rolling seconds, such as "60s") or one of "hour", "day", "month"'}


def nearest(word: str, known: list[str]) -> str | None:
    """The known word most like ``word``, hyphens and case aside; None only when nothing is known."""
    if not known:
        return None
    folded = {name.lower(): name for name in known}
    matches = difflib.get_close_matches(word.lower().replace("-", "_"), folded, n=1, cutoff=0.0)
    return folded[matches[0]] if matches else None


def describe(document: Document, errors: list[ErrorDetails]) -> list[tuple[KeyPath, str]]:
    """Each complaint that holds for the form the user chose (list or object), as (key path, sentence)."""
    found: dict[KeyPath, str] = {}
    for error in errors:
        located = _locate(document.data, error)
        if located is None:
            continue
        path, value = located
        found.setdefault(path, _sentence(path, value, error))
    return list(found.items())


def _locate(data: Any, error: ErrorDetails) -> tuple[KeyPath, Any] | None:
    """The key path within the file; None for a branch of a union that the user did not choose."""
    path: list[str | int] = []
    here = data
    location = error["loc"]
    for index, part in enumerate(location):
        last = index == len(location) - 1
        if _has(here, part):
            here = here[part]
            path.append(part)
        elif last and error["type"] == "missing":
            path.append(part)
            here = None
        elif isinstance(part, str) and part.startswith("list["):
            if isinstance(here, dict):
                return None
        elif part != "[key]" and not isinstance(here, dict):
            return None
    return tuple(path), here


def _has(here: Any, part: str | int) -> bool:
    if isinstance(here, dict):
        return part in here
    return isinstance(here, list) and isinstance(part, int) and part < len(here)


def _sentence(path: KeyPath, value: Any, error: ErrorDetails) -> str:
    kind = error["type"]
    context: dict[str, Any] = error.get("ctx", {})
    key = str(path[-1]) if path else ""
    if key == "api_key" and kind == "model_type":
        return f"a key itself never stands in the configuration; write where it is found: {KEY_REFERENCE_FORMS}"
    if kind == "extra_forbidden":
        return _unknown(path)
    if kind == "missing":
        return "this key is missing"
    if kind == "value_error":
        return str(context.get("error", error["msg"]))
    if kind == "literal_error":
        return f"must be one of {str(context['expected']).replace(chr(39), chr(34))}{_found(path, value)}"
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(key, f"must match {context['pattern']}") + _found(path, value)
    bounds = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}
    if kind in bounds:
        words = kind.replace("_than_equal", " than or equal to").replace("_than", " than")
        if kind.endswith("_equal"):
            words = "at least" if kind.startswith("greater") else "at most"
        return f"must be {words} {context[bounds[kind]]:g}{_found(path, value)}"
    if kind in _WANTED:
        return _WANTED[kind] + _found(path, value)
    if kind in {"too_short", "string_too_short"}:
        return "must not be empty"
    return error["msg"][:1].lower() + error["msg"][1:]


def _found(path: KeyPath, value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    hidden = bool(_SENSITIVE.intersection(str(part) for part in path))
    if isinstance(value, (dict, list)) or value is None or (hidden and not isinstance(value, (int, float))):
        return f", not {names.get(type(value), 'that')}"
    if isinstance(value, bool):
        return f", not {str(value).lower()}"
    if isinstance(value, str):
        return f', not the text "{value[:40]}{"…" if len(value) > 40 else ""}"'
    return f", not {value}"


def _unknown(path: KeyPath) -> str:
    known = known_keys(path[:-1])
    word = str(path[-1])
    if any(part == "api_key" for part in path):
        return f"unknown key; a key reference is one of {KEY_REFERENCE_FORMS}"
    sentence = f'unknown key "{word}"'
    near = nearest(word, known)
    elsewhere = [place for place in _all_keys(Settings) if place.rsplit(".", 1)[-1] == word]
    if elsewhere:
        return f'{sentence}; the nearest known key is "{elsewhere[0]}"'
    return sentence + (f'; the nearest known key is "{near}"' if near else "")


def known_keys(path: KeyPath) -> list[str]:
    """The keys the settings know at that place."""
    node: Any = Settings
    for part in path:
        node = _member(node, part)
    model = _section_of(node)
    return list(model.model_fields) if model else []


def _member(node: Any, part: str | int) -> Any:
    model = _section_of(node)
    if isinstance(part, str) and model is not None:
        field = model.model_fields.get(part)
        return field.annotation if field else None
    for candidate in _alternatives(node):
        origin, arguments = get_origin(candidate), get_args(candidate)
        if isinstance(part, int) and origin is list:
            return arguments[0]
        if isinstance(part, str) and origin is dict:
            return arguments[1]
    return None


def _alternatives(node: Any) -> list[Any]:
    if get_origin(node) is Annotated:
        return _alternatives(get_args(node)[0])
    if get_origin(node) in (Union, types.UnionType):
        return [inner for argument in get_args(node) for inner in _alternatives(argument)]
    return [node]


def _section_of(node: Any) -> type[Section] | None:
    for candidate in _alternatives(node):
        if isinstance(candidate, type) and issubclass(candidate, Section):
            return candidate
    return None


def _all_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted keys of the sections that stand at one fixed place (not under a user's own names)."""
    for name, field in model.model_fields.items():
        yield prefix + name
        section = _section_of(field.annotation)
        if section is not None and section is not KeyReference:
            yield from _all_keys(section, f"{prefix}{name}.")


def join(document: Document, problems: list[tuple[KeyPath, str]]) -> str:
    """One message for all problems, each with its place."""
    lines = [f"{document.where(path)}: {dotted(path)}: {text}" for path, text in problems[:10]]
    if len(problems) > 10:
        lines.append(f"… and {len(problems) - 10} more")
    return "\n".join(lines)
