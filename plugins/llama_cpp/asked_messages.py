"""A chat's messages and tools, checked and made plain for a template. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from plugins.llama_cpp.refuse import shown, unsupported, wrong

MAX_TOOLS = 128
MAX_TOOL_NAME = 64
# OpenAI's; ``function`` is its older name of ``tool``.
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_TOOL_NAME = re.compile(rf"[a-zA-Z0-9_-]{{1,{MAX_TOOL_NAME}}}\Z")


def messages(value: Any, template: str = "") -> list[dict[str, Any]]:
    """The messages with plain texts as content: parts of text are joined, other parts are for other providers.

    ``template``: some models' templates know further roles (``ipython``, ``document``), and name them.
    """
    if not isinstance(value, list) or not value:
        raise wrong("messages", "must be a list of at least one message")
    made = []
    for at, message in enumerate(value):
        where = f"messages[{at}]"
        if not isinstance(message, dict):
            raise wrong(where, f"must be an object, not {shown(message)}")
        _check_role(message.get("role"), f"{where}.role", template)
        plain = dict(message)
        if message.get("tool_calls") is not None:
            plain["tool_calls"] = _calls(message["tool_calls"], f"{where}.tool_calls")
        else:
            plain.pop("tool_calls", None)
        if _says_nothing(message.get("content")):
            if not _may_say_nothing(message):
                raise wrong(
                    f"{where}.content", "is missing; only a message of the assistant with tool_calls needs none"
                )
            plain["content"] = ""
        else:
            plain["content"] = _text(message["content"], f"{where}.content")
        made.append(plain)
    return made


def _check_role(role: Any, where: str, template: str) -> None:
    known = isinstance(role, str) and (role in ROLES or f"'{role}'" in template or f'"{role}"' in template)
    if not known or not role:
        raise wrong(where, f"must be one of {', '.join(ROLES)}, not {shown(role)}")


def _says_nothing(content: Any) -> bool:
    """An empty text is a content: people send it, and templates know what to do with it."""
    return content is None or content == []


def _may_say_nothing(message: Mapping[str, Any]) -> bool:
    """The assistant may have called tools instead, refused, or only thought, as its own answers say it."""
    said = ("tool_calls", "function_call", "refusal", "reasoning_content")
    return message["role"] == "assistant" and any(message.get(name) for name in said)


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise wrong(where, "must be a text or a list of parts")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", "refusal"):
            raise unsupported(where, f"this local model takes text only, not {shown(kind)}")
        if not isinstance(part.get(kind), str):
            raise wrong(where, "has a text part without text")
        texts.append(part[kind])
    return "\n".join(texts)


def _calls(value: Any, where: str) -> list[dict[str, Any]]:
    """Earlier tool calls of the model, as OpenAI gives them: ``arguments`` is a text of JSON."""
    if not isinstance(value, list):
        raise wrong(where, "must be a list of tool calls")
    for at, call in enumerate(value):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise wrong(f"{where}[{at}]", "must be an object with a function that has a name")
        if not isinstance(function.get("arguments", "{}"), str | dict):
            raise wrong(f"{where}[{at}].function.arguments", "must be a text of JSON")
    return value


def tools(value: Any) -> tuple[dict[str, Any], ...]:
    """The tools' definitions as they came; ``parameters`` are checked as a schema where a grammar is made of them."""
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_TOOLS:
        raise wrong("tools", f"must be a list of up to {MAX_TOOLS} tools")
    seen = set()
    for at, tool in enumerate(value):
        where = f"tools[{at}]"
        if not isinstance(tool, dict):
            raise wrong(where, "must be an object")
        if tool.get("type") != "function":
            raise unsupported(where, f"local models know tools of the type 'function', not {shown(tool.get('type'))}")
        function = tool.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str) or not _TOOL_NAME.match(name):
            raise wrong(f"{where}.function.name", f"must be 1 to {MAX_TOOL_NAME} letters, digits, '_' or '-'")
        if name in seen:
            raise wrong(f"{where}.function.name", f"is {name!r} a second time")
        if not isinstance(function.get("parameters", {}), dict):
            raise wrong(f"{where}.function.parameters", "must be a JSON Schema")
        seen.add(name)
    return tuple(value)


def tool_choice(value: Any, names: frozenset[str]) -> str:
    """``auto``, ``none``, ``required``, or ``=NAME``."""
    if value is None:
        return "auto"
    if value in ("none", "auto", "required"):
        if value == "required" and not names:
            raise wrong("tool_choice", "is 'required' and there are no tools")
        return str(value)
    function = value.get("function") if isinstance(value, Mapping) and value.get("type") == "function" else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise wrong("tool_choice", "must be 'none', 'auto', 'required' or an object that names a function")
    if name not in names:
        raise wrong("tool_choice", f"names {shown(name)}, which is none of the tools")
    return f"={name}"
