"""Tool calls and thoughts inside an answer's text: which form a model uses, finding them, forcing them. Pure.

The form is told by the model's chat template, which shows the model how its own earlier calls looked. Text that may
begin a call is held back until it is one or is not; a call that cannot be read is given back as plain text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import msgspec

from plugins.llama_cpp import gbnf, schema
from plugins.llama_cpp.gbnf import literal
from plugins.llama_cpp.refuse import unsupported

Style = Literal["", "hermes", "mistral", "llama3"]
THINK, THOUGHT = "<think>", "</think>"
_ARGUMENTS_TAG = "[ARGS]"
_AFTER = "what-comes-after-thoughts"
_SEPARATED = re.compile(r"(?<=\})\s*;\s*(?=\{)")


class Form(msgspec.Struct, frozen=True):
    """How one model writes.

    ``style`` "": its template knows no tools, or shows them in a way that is not known here. ``opens``: texts that
    begin a call, ``closes`` the one that ends it. ``thinks``: it may begin with thoughts between ``<think>`` and
    ``</think>``. ``marks``: texts that must be visible in the output although a vocabulary may hold them as control
    tokens, which are otherwise left out.
    """

    style: Style = ""
    opens: tuple[str, ...] = ()
    closes: str = ""
    thinks: bool = False

    @property
    def marks(self) -> tuple[str, ...]:
        return tuple(mark for mark in (*self.opens, self.closes) if mark) + ((THINK, THOUGHT) if self.thinks else ())


class Call(msgspec.Struct, frozen=True):
    """``arguments``: the text of a JSON object."""

    name: str
    arguments: str


def form_of(template: str) -> Form:
    """Reads a chat template's text.

    - Hermes, Qwen: ``<tool_call>{"name": …, "arguments": {…}}</tool_call>``
    - Mistral: ``[TOOL_CALLS][{"name": …, "arguments": {…}}]`` and the newer ``[TOOL_CALLS]name[ARGS]{…}``
    - Llama 3: the answer is ``{"name": …, "parameters": {…}}``, perhaps after ``<|python_tag|>``
    """
    thinks = THINK in template or THOUGHT in template
    if "tools" in template:
        if "<tool_call>" in template and "<function=" not in template:
            return Form("hermes", ("<tool_call>",), "</tool_call>", thinks)
        if "[TOOL_CALLS]" in template:
            return Form("mistral", ("[TOOL_CALLS]",), "", thinks)
        if "<|python_tag|>" in template or ('"parameters":' in template and "<|start_header_id|>" in template):
            return Form("llama3", ("<|python_tag|>",), "", thinks)
    return Form(thinks=thinks)


def require(form: Form, tools: Sequence[Mapping[str, Any]], choice: str) -> None:
    """Raises CallFailure (``unsupported``) when tools may be called and the model's form is not known."""
    if tools and choice != "none" and not form.style:
        raise unsupported("tools", "the chat template of this local model has no tool calls that hybridd can read")


# reading


def read_calls(text: str, form: Form, names: Collection[str]) -> list[Call]:
    """The calls that ``text`` (between the marks) holds; empty when it cannot be read as any."""
    text = text.strip()
    if form.style == "mistral" and not text.startswith(("[", "{")):
        return _named_calls(text)
    pieces = _objects(text) if form.style == "llama3" else [text]
    calls: list[Call] = []
    for piece in pieces:
        try:
            value = msgspec.json.decode(piece)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return []
        for one in value if isinstance(value, list) else [value]:
            call = _call(one)
            # A bare JSON object may be an answer like any other: only a known name makes it a call.
            if call is None or (form.style == "llama3" and call.name not in names):
                return []
            calls.append(call)
    return calls


def _call(value: Any) -> Call | None:
    if not isinstance(value, dict):
        return None
    inner = value.get("function")
    if isinstance(inner, dict):
        value = inner
    name = value.get("name")
    arguments = value.get("arguments", value.get("parameters", {}))
    if not isinstance(name, str) or not name:
        return None
    if isinstance(arguments, str):
        try:
            if not isinstance(msgspec.json.decode(arguments), dict):
                return None
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None
        return Call(name, arguments)
    return Call(name, msgspec.json.encode(arguments).decode()) if isinstance(arguments, dict) else None


def _named_calls(text: str) -> list[Call]:
    """``name[ARGS]{…}`` or ``name{…}``."""
    name, tag, arguments = text.partition(_ARGUMENTS_TAG)
    if not tag:
        at = text.find("{")
        name, arguments = (text[:at], text[at:]) if at > 0 else ("", "")
    call = _call({"name": name.strip(), "arguments": arguments.strip()})
    return [] if call is None or not re.fullmatch(r"[a-zA-Z0-9_.-]+", call.name) else [call]


def _objects(text: str) -> list[str]:
    """Llama 3 parts several calls with semicolons."""
    return [text] if ";" not in text else [part for part in _SEPARATED.split(text) if part.strip()]


# forcing


def grammar(
    form: Form, tools: Sequence[Mapping[str, Any]], choice: str, *, parallel: bool = True, thinking: bool = False
) -> str:
    """GBNF that lets nothing through but calls: of any tool (``required``) or of one (``=NAME``).

    ``thinking``: the prompt ended inside thoughts, so these come first.

    Raises:
        CallFailure: ``bad_request``, a tool's parameters are no schema that can be made into a grammar.
    """
    wanted = [tool for tool in tools if choice == "required" or choice == f"={tool['function']['name']}"]
    rules = schema.Rules()
    calls = []
    for at, tool in enumerate(wanted):
        function = tool["function"]
        parameters = function.get("parameters") or {"type": "object"}
        arguments = rules.add(parameters, f"tools.{at}.function.parameters", f"tool-{at}")
        key = "parameters" if form.style == "llama3" else "arguments"
        before = f'{{"name": "{function["name"]}", "{key}": '
        calls.append(f"{literal(before)} {arguments} {literal('}')}")
    rules.define("call", " | ".join(calls))
    several = parallel and choice == "required"
    if form.style == "hermes":
        opens, closes, newline = literal("<tool_call>\n"), literal("\n</tool_call>"), literal("\n")
        root = f"{opens} call {closes}" + (f" ({newline} {opens} call {closes})*" if several else "")
    elif form.style == "mistral":
        more = f" ({literal(', ')} call)*" if several else ""
        root = f"{literal('[TOOL_CALLS][')} call{more} {literal(']')}"
    else:
        root = "call"
    made = rules.text(root)
    return after_thoughts(made) if thinking else made


def after_thoughts(grammar: str) -> str:
    """``grammar`` behind the rest of the model's thoughts."""
    begin = f'root ::= ([^<] | "<" [^/] | "</" [^t])* {literal(THOUGHT)} [ \\n]* {_AFTER}\n'
    return begin + gbnf.renamed(grammar, _AFTER)
