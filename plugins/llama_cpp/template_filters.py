"""The filters and functions of chat templates that make something: each counts it before it is made. Pure."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

from jinja2 import TemplateRuntimeError, pass_context
from jinja2.runtime import Context

from plugins.llama_cpp.template_budget import MAX_ITEMS, OverBudget, Refused, budget_of

MAX_INDENT = 16
_DATE = re.compile(r"(?:[^%\d]|%-?[A-Za-z%]|\d)*\Z")


@pass_context
def tick(context: Context, cost: int) -> None:
    budget_of(context).charge(cost)


@pass_context
def made(context: Context, value: Any) -> Any:
    # Members may be macros or namespaces here: only what can be nested counts.
    budget = budget_of(context)
    members = value.values() if isinstance(value, dict) else value
    budget.charge(1 + sum(budget.weigh(one) if isinstance(one, list | tuple | dict) else 1 for one in members))
    return value


@pass_context
def concat(context: Context, parts: Any) -> str:
    return "".join([written(context, part) for part in parts])


@pass_context
def written(context: Context, value: Any) -> str:
    """``value`` as text, counted first. Also what Jinja calls for each output."""
    budget = budget_of(context)
    if type(value) is str:
        budget.charge(len(value))
        return value
    budget.charge(budget.weigh(value))
    return str(value)


@pass_context
def to_json(
    context: Context, value: Any, indent: int | None = None, ensure_ascii: bool = False, separators: Any = None,
    sort_keys: bool = False,
) -> str:  # fmt: skip
    """As Transformers renders it for models: no HTML escapes, characters as they are."""
    budget = budget_of(context)
    budget.charge(budget.weigh(value) * (1 if indent is None else 4))
    indent = None if indent is None else max(0, min(int(indent), MAX_INDENT))
    parts = tuple(separators) if separators else None
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=parts, sort_keys=sort_keys)


@pass_context
def join(context: Context, values: Any, d: str = "", attribute: Any = None) -> str:
    items = list(values)
    if attribute is not None:
        items = [context.environment.getitem(one, attribute) for one in items]
    texts = [written(context, one) for one in items]
    glue = written(context, d)
    budget_of(context).charge(len(glue) * len(texts))
    return glue.join(texts)


@pass_context
def replace(context: Context, text: Any, old: Any, new: Any, count: int = -1) -> str:
    whole, part, made = written(context, text), written(context, old), written(context, new)
    times = whole.count(part) if count is None or count < 0 else min(whole.count(part), count)
    budget_of(context).charge(times * len(made))
    return whole.replace(part, made, times)


@pass_context
def indent(context: Context, text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    text = written(context, text)
    space = width[:MAX_INDENT] if isinstance(width, str) else " " * max(0, min(int(width), MAX_INDENT))
    lines = text.split("\n")
    budget_of(context).charge(len(lines) * len(space))
    made = [space + line if (at or first) and (line or blank) else line for at, line in enumerate(lines)]
    return "\n".join(made)


def rounded(value: float, precision: int = 0, method: str = "common") -> float:
    if method != "common" or not -15 <= precision <= 15:
        raise TemplateRuntimeError("round takes a precision from -15 to 15 and no other method")
    return round(value, precision)


def bounded_range(*bounds: int) -> range:
    made = range(*bounds)
    if len(made) > MAX_ITEMS:
        raise OverBudget(f"a range has more than {MAX_ITEMS} numbers")
    return made


def raise_exception(message: Any = "") -> None:
    raise Refused(str(message)[:500])


def date(now: datetime, form: Any) -> str:
    if not isinstance(form, str) or len(form) > 200 or not _DATE.match(form) or re.search(r"%[-]?\d", form):
        raise TemplateRuntimeError("strftime_now takes a plain date format")
    return now.strftime(form)
