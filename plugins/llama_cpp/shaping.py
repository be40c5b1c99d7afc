"""Messages and tools as a chat template expects them. Pure.

Templates differ in what they look at: arguments as an object or as its text, thoughts under this or that name, tools as
a variable or in the system message, or nothing of tools at all. What a template would leave out is put where it does
look, so that the model sees its tools, its earlier calls and their results.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from plugins.llama_cpp.calls import Call, write_call
from plugins.llama_cpp.forms import Form, knows_tools

_OBJECT_ARGUMENTS = re.compile(
    r"(?:arg(?:ument)?s['\"]?\]?|function['\"]?\]?|tool_calls?|tool)\s*"
    r"(?:\|\s*(?:tojson|items|dictsort)|\.(?:items|keys)\(|is\s+(?:not\s+)?mapping)"
)
_TOOLS_IN_MESSAGE = re.compile(r"message(?:\.tools\b|\[['\"]tools['\"]\])")
_TOOL_ROLE = re.compile(r"['\"]tool['\"]")
_THINKING = re.compile(r"\.thinking\b|\[['\"]thinking['\"]\]")
_SYSTEM = ("system", "developer")
_TOLD = (
    "You can call these functions, each described by a JSON object:\n{tools}\n"
    "To call one, answer with nothing but this, with its name and arguments:\n{example}\n"
    "Otherwise answer as usual."
)


class Shaping:
    """For one template: its ``source`` and the ``form`` of its tool calls."""

    def __init__(self, source: str, form: Form) -> None:
        self._form = form
        self._objects = _OBJECT_ARGUMENTS.search(source) is not None
        self._developer = "developer" in source
        self._tools = knows_tools(source)
        self._tools_in_message = _TOOLS_IN_MESSAGE.search(source) is not None
        self._xml_tools = "xml_tools" in source
        self._calls = "tool_calls" in source
        self._no_content = "content'] is not none" in source
        self._tool_role = _TOOL_ROLE.search(source) is not None
        self._thinking = _THINKING.search(source) is not None and "reasoning_content" not in source

    def values(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The template's variables ``messages`` and ``tools``."""
        shaped = self._results([self._message(message) for message in messages])
        if tools and self._tools_in_message:
            shaped = _with_system(shaped)
            shaped[0]["tools"] = _text([tool["function"] for tool in tools])
        elif tools and not self._tools:
            shaped = _with_system(shaped)
            shaped[0]["content"] = "\n\n".join(filter(None, (shaped[0].get("content"), self._told(tools))))
        found: dict[str, Any] = {"messages": shaped, "tools": list(tools) or None}
        if tools and self._xml_tools:  # SmolLM3's name for those that are called in JSON
            found["xml_tools"] = list(tools)
        return found

    def _told(self, tools: Sequence[Mapping[str, Any]]) -> str:
        first, _, last = self._form.written
        example = write_call(Call("NAME", '{"ARGUMENT": "VALUE"}'), self._form)
        described = "\n".join(_text(tool["function"]) for tool in tools)
        return _TOLD.format(tools=described, example=f"{first}{example}{last}")

    def _message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        shaped = dict(message)
        if shaped.get("role") == "developer" and not self._developer:
            shaped["role"] = "system"
        if self._thinking and isinstance(shaped.get("reasoning_content"), str):
            shaped.setdefault("thinking", shaped["reasoning_content"])
        if shaped.get("tool_calls"):
            if self._calls:
                shaped["tool_calls"] = [self._call(call) for call in shaped["tool_calls"]]
                if self._no_content and not shaped.get("content"):
                    shaped["content"] = None
            else:
                written = self._written(shaped.pop("tool_calls"))
                shaped["content"] = "\n".join(filter(None, (shaped.get("content"), written)))
        return shaped

    def _call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        function = dict(call["function"])
        arguments = function.get("arguments", "{}")
        if self._objects and isinstance(arguments, str):
            with contextlib.suppress(msgspec.DecodeError, RecursionError):  # else as broken as the model said it
                arguments = msgspec.json.decode(arguments or "{}")
        elif not self._objects and not isinstance(arguments, str):
            arguments = _text(arguments)
        function["arguments"] = arguments
        return {**call, "type": "function", "function": function}

    def _written(self, calls: Sequence[Mapping[str, Any]]) -> str:
        """Earlier calls as the model wrote them."""
        made = []
        for call in calls:
            arguments = call["function"].get("arguments") or "{}"
            arguments = arguments if isinstance(arguments, str) else _text(arguments)
            made.append(write_call(Call(call["function"]["name"], arguments), self._form))
        first, between, last = self._form.written
        return f"{first}{between.join(made)}{last}" if all(made) else ""

    def _results(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Results of tools, under a role that the template knows: several in a row become one message of the user,
        as such templates want turns."""
        if self._tool_role or (self._tools and not self._form.results):
            return messages
        made: list[dict[str, Any]] = []
        together = False
        for message in messages:
            result = message.get("role") == "tool"
            text = f"<tool_response>\n{message.get('content') or ''}\n</tool_response>"
            if not result:
                made.append(message)
            elif self._tools:
                made.append({**message, "role": self._form.results})
            elif together:
                made[-1]["content"] += f"\n{text}"
            else:
                made.append({**message, "role": "user", "content": text})
            together = result
        return made


def _with_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if messages and messages[0].get("role") in _SYSTEM:
        return messages
    return [{"role": "system", "content": ""}, *messages]


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
