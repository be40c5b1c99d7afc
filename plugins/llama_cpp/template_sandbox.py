"""Where a model's chat template runs: nothing can be reached from it, and time and memory are bounded. Pure.

A template is a program from whoever made the file. Jinja's sandbox closes the ways to Python's insides; what it leaves
open is running for ever and filling the memory. So here:

- only the filters, tests, methods and globals that chat templates use exist;
- each turn of a loop and each macro call costs, by how much stands in it, and a deadline is looked at;
- whatever makes a text or list grow (``*``, ``+``, ``~``, ``replace``, ``join``, output …) is counted before it grows,
  nested lists by all that is in them, however often the same one.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from jinja2 import TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from plugins.llama_cpp import template_filters as filters
from plugins.llama_cpp.template_budget import OverBudget, budget_of, growth, small
from plugins.llama_cpp.template_filters import written

_FILTERS = frozenset({
    "abs", "capitalize", "count", "d", "default", "dictsort", "first", "float", "groupby", "int", "items", "last",
    "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "select", "selectattr", "sort",
    "title", "trim", "unique", "upper",
})  # fmt: skip
_TEXT = frozenset({
    "capitalize", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdigit", "islower", "isnumeric",
    "isspace", "isupper", "join", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind",
    "rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "title", "upper",
})  # fmt: skip
_MAPPING = frozenset({"get", "items", "keys", "values", "copy"})
_LIST = frozenset({"count", "index", "copy"})
_LOOP = frozenset({
    "index", "index0", "revindex", "revindex0", "first", "last", "length", "cycle", "depth", "depth0", "previtem",
    "nextitem", "changed",
})  # fmt: skip
_FORMAT = re.compile(r"(?:[^%]|%[sdif%])*\Z")


class Generation(Extension):
    """``{% generation %}``: marks what a model said, for training; here it is just its content."""

    tags = frozenset({"generation"})  # type: ignore[assignment]  # Jinja says set and only reads it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Metered(NodeTransformer):
    """Puts the counting into a template's syntax tree."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        cost = _cost(node)
        self.generic_visit(node)
        node.body.insert(0, _tick(cost))
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        cost = _cost(node)
        self.generic_visit(node)
        node.body.insert(0, _tick(cost))
        return node

    visit_CallBlock = visit_Macro

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return nodes.Filter(nodes.List(node.nodes), "\0concat", [], [], None, None)

    def _made(self, node: nodes.Node) -> nodes.Node:
        self.generic_visit(node)
        if getattr(node, "ctx", "load") != "load":
            return node
        return nodes.Filter(node, "\0made", [], [], None, None)

    visit_List = _made
    visit_Tuple = _made
    visit_Dict = _made

    def _refuse(self, node: nodes.Node) -> nodes.Node:
        raise TemplateSyntaxError(f"'{type(node).__name__.lower()}' is not allowed in a chat template", node.lineno)

    visit_Include = visit_Import = visit_FromImport = visit_Extends = visit_Block = _refuse
    visit_ScopedEvalContextModifier = visit_EvalContextModifier = _refuse


def _cost(node: nodes.Node) -> int:
    """Steps and literal text in a body, that of loops in it included."""
    found = node.find_all((nodes.Expr, nodes.Stmt))
    return 1 + sum(1 + (len(one.data) if isinstance(one, nodes.TemplateData) else 0) for one in found)


def _tick(cost: int) -> nodes.Node:
    counted = nodes.Filter(nodes.Const(cost), "\0tick", [], [], None, None)
    return nodes.ExprStmt(counted)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment all chat templates are compiled in. ``now`` answers ``strftime_now``."""

    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, optimized=False, finalize=written, cache_size=0,
            extensions=["jinja2.ext.loopcontrols", Generation],
        )  # fmt: skip
        self.filters = {name: self.filters[name] for name in _FILTERS} | {
            "tojson": filters.to_json, "join": filters.join, "replace": filters.replace, "indent": filters.indent,
            "round": filters.rounded, "string": written, "safe": written, "e": lambda text: html.escape(str(text)),
            "\0tick": filters.tick, "\0made": filters.made, "\0concat": filters.concat,
        }  # fmt: skip
        self.filters["escape"] = self.filters["e"]
        self.globals = {
            "range": filters.bounded_range, "namespace": Namespace, "dict": dict,
            "raise_exception": filters.raise_exception, "strftime_now": lambda form: filters.date(now(), form),
        }  # fmt: skip

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _Metered().visit(tree)
        tree.set_environment(self)
        for node in tree.find_all(nodes.Node):
            node.lineno = node.lineno or 1
        return tree

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str):
            return attr in _TEXT
        if isinstance(obj, Mapping):
            return attr in _MAPPING
        if isinstance(obj, list | tuple):
            return attr in _LIST
        if isinstance(obj, LoopContext):
            return attr in _LOOP
        return isinstance(obj, Namespace) and not attr.startswith("_")

    def is_safe_callable(self, obj: Any) -> bool:
        if isinstance(obj, Macro | LoopContext) or obj in (Namespace, dict) or obj in self.globals.values():
            return True
        owner = getattr(obj, "__self__", None)
        return isinstance(owner, str | dict | list | tuple | LoopContext)

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        budget = budget_of(context)
        budget.charge(1)
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str):
            name = obj.__name__
            if name == "replace":
                return filters.replace(context, owner, *args, **kwargs)
            if name == "join":
                return filters.join(context, args[0] if args else (), owner)
            budget.charge(len(owner) // 64)
        result = super().call(context, obj, *args, **kwargs)
        return filters.made(context, result) if obj is dict else result

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget = budget_of(context)
        budget.charge(1)
        if operator == "%" and isinstance(left, str):
            if not _FORMAT.match(left):
                raise OverBudget("a text's % may only have %s, %d, %i and %f")
            budget.charge(len(left) + budget.weigh(right))
        elif operator in "+*":
            budget.charge(growth(budget, operator, left, right))
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            small(left.bit_length() * max(right, 0))
        return super().call_binop(context, operator, left, right)
