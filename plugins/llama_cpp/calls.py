"""Tool calls as texts: what a model wrote between its marks, read in the form it was trained on. Pure.

A text that cannot be read as calls gives none, and never an exception: it is then given out as what it is, text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from plugins.llama_cpp.forms import Form, Syntax
from plugins.llama_cpp.schema_merge import NOTES
from plugins.llama_cpp.values import Unreadable, Values

# Names of tools and the JSON Schemas of their arguments.
Tools = Mapping[str, Mapping[str, Any]]

CALL_BEGIN, CALL_END, SEPARATOR = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"
FENCE = "```"
_ARGUMENTS_TAG, _ID_TAG = "[ARGS]", "[CALL_ID]"
_NAME = re.compile(r"[a-zA-Z0-9_.-]+\Z")
_SEPARATED = re.compile(r"(?<=\})\s*;\s*(?=\{)")
_LANGUAGE = re.compile(r"\w*\s*\Z")
_PARAMETER = re.compile(r"\s*<parameter=([^>\n]+)>")
_FUNCTION = re.compile(r"\s*<function=([^>\n]+)>")


class Call(msgspec.Struct, frozen=True):
    """``arguments``: the text of a JSON object."""

    name: str
    arguments: str


def read_calls(text: str, form: Form, tools: Tools) -> list[Call]:
    """The calls that ``text`` (between the marks) holds; empty when it cannot be read as any."""
    text = text.strip()
    try:
        return _READERS[form.syntax](text, form, tools) if text else []
    except Unreadable:
        return []


def unfinished(text: str, form: Form) -> bool:
    """Whether ``text`` is JSON that ends in the middle: a mark behind it stands inside one of its texts."""
    if form.syntax not in ("json", "bare"):
        return False
    try:
        msgspec.json.decode(text.strip())
    except msgspec.DecodeError as error:
        return "truncated" in str(error)
    except (UnicodeError, RecursionError):
        pass
    return False


def write_call(call: Call, form: Form) -> str:
    """A call as the model would write it, for templates that leave out earlier ones; "" where they never do."""
    if form.syntax == "python":
        try:
            values = _decoded(call.arguments)
        except Unreadable:
            return ""
        return f"{call.name}({', '.join(f'{key}={_encoded(value)}' for key, value in values.items())})"
    if form.syntax == "deepseek":
        return f"function{SEPARATOR}{call.name}\n{FENCE}json\n{call.arguments}\n{FENCE}"
    if form.syntax == "json":
        return f'{{"name": {_encoded(call.name)}, "{form.key}": {call.arguments}}}'
    return ""


def raw(schema: Any) -> bool:
    """Whether a value under ``schema`` is a text and nothing is said of it but which ones there are: such a text stands
    as it is where others are JSON."""
    if not isinstance(schema, Mapping) or schema.get("type") != "string":
        return False
    values = schema.get("enum", [""])
    plain = isinstance(values, list) and all(isinstance(one, str) and "\n" not in one for one in values)
    return plain and not schema.keys() - NOTES - {"type", "enum"}


def _json(text: str, form: Form, tools: Tools) -> list[Call]:
    """A call or a list of them, or ``name[ARGS]{…}``, ``name[CALL_ID]id[ARGS]{…}``, ``name{…}``: newer models of
    Mistral say these though their template may be an older one's."""
    text = _unfenced(text)
    if text.startswith(("[", "{")):
        return _listed(_value(text))
    name, tag, arguments = text.partition(_ARGUMENTS_TAG)
    if not tag:
        at = text.find("{")
        name, arguments = (text[:at], text[at:]) if at > 0 else ("", "")
    return [_call(name.partition(_ID_TAG)[0].strip(), arguments.strip())]


def _bare(text: str, form: Form, tools: Tools) -> list[Call]:
    """Llama 3 parts several calls with semicolons. A bare object may be an answer like any other: only a known name
    makes it a call."""
    pieces = [text] if ";" not in text else [part for part in _SEPARATED.split(text) if part.strip()]
    calls = [call for piece in pieces for call in _listed(_value(piece))]
    return calls if all(call.name in tools for call in calls) else []


def _python(text: str, form: Form, tools: Tools) -> list[Call]:
    """``[f(a=1), g()]``, also one a line and without brackets; LFM2 writes JSON when it is asked for that."""
    text = _unfenced(text)
    if text.startswith(("[{", "{")):
        return _listed(_value(text))
    values = Values(text)
    bracket = values.take("[")
    calls: list[Call] = []
    while not (values.take("]") if bracket else values.ended):
        if calls and not values.take(",") and bracket:
            raise Unreadable
        name = values.name()
        values.need("(")
        calls.append(_call(name, values.pairs("=", ")")))
    if not values.ended:
        raise Unreadable
    return calls


def _gemma(text: str, form: Form, tools: Tools) -> list[Call]:
    """``call:f{a:1,b:<escape>text<escape>}``."""
    values = Values(text, mark=form.quote, bare=True)
    values.need("call")
    values.take(":")
    name = values.name()
    values.need("{")
    call = _call(name, values.pairs(":", "}"))
    if not values.ended:
        raise Unreadable
    return [call]


def _deepseek(text: str, form: Form, tools: Tools) -> list[Call]:
    """R1: ``function<｜tool▁sep｜>name`` and fenced JSON; V3.1: ``name<｜tool▁sep｜>{…}``."""
    calls = []
    for piece in text.split(CALL_BEGIN):
        if not piece.strip():
            continue
        left, separator, right = piece.partition(CALL_END)[0].partition(SEPARATOR)
        if not separator:
            raise Unreadable
        if right.lstrip().startswith("{"):
            calls.append(_call(left.strip(), right.strip()))
        else:
            name, _, arguments = right.partition("\n")
            calls.append(_call(name.strip(), _unfenced(arguments.strip())))
    return calls


def _parameters(text: str, form: Form, tools: Tools) -> list[Call]:
    """Texts stand as they are, so it takes the tool's schema to know what ``1`` is."""
    calls = []
    at = 0
    while at < len(text):
        function = _FUNCTION.match(text, at)
        if function is None:
            raise Unreadable
        name, at = function[1].strip(), function.end()
        properties = tools.get(name, {}).get("properties", {})
        arguments = {}
        while (parameter := _PARAMETER.match(text, at)) is not None:
            key = parameter[1].strip()
            value, at = _until_closed(text, parameter.end())
            arguments[key] = _typed(value, properties.get(key, {}) if isinstance(properties, Mapping) else {})
        closed = text.find("</function>", at)
        if closed < 0 or text[at:closed].strip():
            raise Unreadable
        calls.append(_call(name, arguments))
        at = closed + len("</function>")
    return calls


def _until_closed(text: str, at: int) -> tuple[str, int]:
    """A value that begins with a line of its own also ends with one: its text may hold anything else."""
    mark = "</parameter>"
    if text.startswith("\n", at):
        end = text.find(f"\n{mark}", at)
        if end >= 0:
            return text[at + 1 : end] if end > at else "", end + 1 + len(mark)
        at += 1
    end = text.find(mark, at)
    if end < 0:
        raise Unreadable
    return text[at:end], end + len(mark)


def _typed(text: str, schema: Any) -> Any:
    if raw(schema):
        return text
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    try:
        value = _value(text.strip())
    except Unreadable:
        value = _loose(text)
    return text if kind == "string" and not isinstance(value, str) else value


def _loose(text: str) -> Any:
    """Python's spelling of a value, or the text itself."""
    try:
        values = Values(text)
        value = values.value()
    except Unreadable:
        return text
    return value if values.ended else text


_READERS: dict[Syntax, Callable[[str, Form, Tools], list[Call]]] = {
    "json": _json, "bare": _bare, "named": _json, "python": _python, "gemma": _gemma, "deepseek": _deepseek,
    "parameters": _parameters,
}  # fmt: skip


def _listed(value: Any) -> list[Call]:
    return [_from(one) for one in (value if isinstance(value, list) else [value])]


def _from(value: Any) -> Call:
    if not isinstance(value, dict):
        raise Unreadable
    inner = value.get("function")
    if isinstance(inner, dict):
        value = inner
    name = value.get("name")
    if not isinstance(name, str) or not name:
        raise Unreadable
    return _call(name, value.get("arguments", value.get("parameters", {})), any_name=True)


def _call(name: str, arguments: Any, *, any_name: bool = False) -> Call:
    """``arguments``: an object or its text, which stays as the model wrote it."""
    if not any_name and not _NAME.match(name):
        raise Unreadable
    if isinstance(arguments, str):
        _decoded(arguments)
        return Call(name, arguments)
    if not isinstance(arguments, dict):
        raise Unreadable
    return Call(name, _encoded(arguments))


def _decoded(text: str) -> dict[str, Any]:
    value = _value(text)
    if not isinstance(value, dict):
        raise Unreadable
    return value


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise Unreadable from None


def _encoded(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise Unreadable from None


def _unfenced(text: str) -> str:
    if not (text.startswith(FENCE) and text.endswith(FENCE)):
        return text
    language, _, inside = text[len(FENCE) :].partition("\n")
    return inside[: -len(FENCE)].strip() if inside and _LANGUAGE.match(language) else text


def names(tools: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """What :func:`read_calls` wants to know of a request's tools."""
    return {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
