"""Forcing tool calls: a grammar that lets nothing through but calls in the form the model was trained on. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from plugins.llama_cpp import gbnf, gbnf_text
from plugins.llama_cpp.calls import FENCE, SEPARATOR, raw
from plugins.llama_cpp.forms import Form, Syntax
from plugins.llama_cpp.gbnf import literal
from plugins.llama_cpp.refuse import unsupported
from plugins.llama_cpp.schema import Rules
from plugins.llama_cpp.schema_merge import Bad

_IDENTIFIER = re.compile(r"[^\W\d]\w*\Z")
_TAG = re.compile(r"[^<>\s][^<>\n]*\Z")


def require(form: Form, tools: Sequence[Mapping[str, Any]], choice: str) -> None:
    """Raises CallFailure (``unsupported``) when tools may be called and the model's form is not known."""
    if tools and choice != "none" and not form.style:
        raise unsupported("tools", "the chat template of this local model has no tool calls that hybridd can read")


def grammar(
    form: Form, tools: Sequence[Mapping[str, Any]], choice: str, *, parallel: bool = True, thinking: bool = False,
    may_think: bool = False,
) -> str:  # fmt: skip
    """GBNF for calls of any tool (``required``) or one call of one (``=NAME``). ``thinking``, ``may_think``: as for
    :func:`after_thoughts`.

    Raises:
        CallFailure: ``bad_request``, a tool's parameters are no schema that can be made into a grammar.
    """
    rules = Rules()
    write = _WRITERS[form.syntax]
    calls = []
    for at, tool in enumerate(tools):
        if choice not in ("required", f"={tool['function']['name']}"):
            continue
        function = tool["function"]
        parameters = function.get("parameters") or {"type": "object"}
        calls.append(write(rules, form, function["name"], parameters, f"tools[{at}].function.parameters", f"tool-{at}"))
    rules.define("call", " | ".join(calls))
    first, between, last = form.written
    several = parallel and choice == "required" and bool(between)
    root = f"{literal(first)} call" + (f" ({literal(between)} call)*" if several else "") + f" {literal(last)}"
    return after_thoughts(rules.text(root), form, thinking=thinking, may_think=may_think)


def after_thoughts(grammar: str, form: Form, *, thinking: bool = False, may_think: bool = False) -> str:
    """``grammar`` behind the model's thoughts: behind their rest when the prompt ended inside them (``thinking``), or
    behind all of them if it wants to think (``may_think``)."""
    if not thinking and not may_think:
        return grammar
    opens, closes = form.thoughts
    name = "thoughts"
    while name in grammar:  # the caller's own rules keep their names
        name += "-x"
    lines = [f"{rule} ::= {body}" for rule, body in gbnf_text.until(closes, name).items()]
    before = f"{name} [ \\n]*" if thinking else f"({literal(opens)} {name} [ \\n]*)?"
    begin = "\n".join([f"root ::= {before} {name}-answer", *lines]) + "\n"
    return begin + gbnf.renamed(grammar, f"{name}-answer")


# one call: its rules are added, what is returned stands for it

Writer = Callable[[Rules, Form, str, Mapping[str, Any], str, str], str]


def _json(rules: Rules, form: Form, name: str, parameters: Mapping[str, Any], where: str, hint: str) -> str:
    before = f'{{"name": "{name}", "{form.key}": '
    return f"{literal(before)} {rules.add(parameters, where, hint)} {literal('}')}"


def _named(rules: Rules, form: Form, name: str, parameters: Mapping[str, Any], where: str, hint: str) -> str:
    return f"{literal(f'{name}[ARGS]')} {rules.add(parameters, where, hint)}"


def _deepseek(rules: Rules, form: Form, name: str, parameters: Mapping[str, Any], where: str, hint: str) -> str:
    before = f"function{SEPARATOR}{name}\n{FENCE}json\n"
    return f"{literal(before)} {rules.add(parameters, where, hint)} {literal(f'{chr(10)}{FENCE}')}"


def _python(rules: Rules, form: Form, name: str, parameters: Mapping[str, Any], where: str, hint: str) -> str:
    def pair(key: str, one: Any, value: str) -> str:
        return f"{literal(f'{_fitting(key, _IDENTIFIER, where)}=')} {value}"

    made = rules.arguments(parameters, where, hint, pair, literal(", "))
    return f"{literal(f'{name}(')} {made}{literal(')')}"


def _gemma(rules: Rules, form: Form, name: str, parameters: Mapping[str, Any], where: str, hint: str) -> str:
    def pair(key: str, one: Any, value: str) -> str:
        text = _raw_text(rules, one, form.quote, "quoted") if raw(one) else ""
        value = f"{literal(form.quote)} {text}" if text else value
        return f"{literal(f'{_fitting(key, _IDENTIFIER, where)}:')} {value}"

    made = rules.arguments(parameters, where, hint, pair, literal(","))
    return f"{literal(f'call:{name}{{')} {made}{literal('}')}"


def _parameters(rules: Rules, form: Form, name: str, parameters: Mapping[str, Any], where: str, hint: str) -> str:
    end = "\n</parameter>"

    def pair(key: str, one: Any, value: str) -> str:
        before = literal(f"<parameter={_fitting(key, _TAG, where)}>\n")
        text = _raw_text(rules, one, end, "parameter") if raw(one) else f"{value} {literal(end)}"
        return f"{before} {text} {literal(chr(10))}"

    made = rules.arguments(parameters, where, hint, pair, literal(""))
    return f"{literal(f'<function={name}>{chr(10)}')} {made}{literal('</function>')}"


def _raw_text(rules: Rules, one: Mapping[str, Any], end: str, name: str) -> str:
    """A text as it is, with its end: any, or one of those that there are."""
    if "enum" in one:
        return "(" + " | ".join(literal(value) for value in one["enum"]) + f") {literal(end)}"
    for rule, body in gbnf_text.until(end, name).items():
        rules.define(rule, body)
    return name


def _fitting(key: str, pattern: re.Pattern[str], where: str) -> str:
    if not pattern.match(key):
        raise Bad(f"{where}.properties.{key}", "has a name that this model's tool calls cannot hold")
    return key


_WRITERS: dict[Syntax, Writer] = {
    "json": _json, "bare": _json, "named": _named, "python": _python, "gemma": _gemma, "deepseek": _deepseek,
    "parameters": _parameters,
}  # fmt: skip
