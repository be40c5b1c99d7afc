"""JSON Schema to GBNF: whatever the grammar lets through is valid under the schema. Pure.

The other way round does not hold: the grammar leaves out valid answers that no model needs (numbers of 20 digits, a
property that the schema does not name unless it says that it may be there). Nothing in a schema is ever left aside: a
keyword that cannot be enforced is a ``bad_request`` naming its path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from plugins.llama_cpp import gbnf, gbnf_graph, schema_disjoint, schema_numbers, schema_text
from plugins.llama_cpp.gbnf import literal
from plugins.llama_cpp.gbnf_reader import Bad as BadGrammar
from plugins.llama_cpp.refuse import wrong
from plugins.llama_cpp.schema_merge import ARRAY, FIGURE, OBJECT, TEXT, Bad, Resolver, same, types_of
from plugins.llama_cpp.schema_parts import SHARED, USES, as_json, is_a, kinds, slug

MAX_SCHEMAS = 4000
MAX_PROPERTIES = 500
MAX_VALUES = 4000
# Values repeated more often are put together from blocks of this many.
BLOCK = 128
# (name, schema, the rule of its value as JSON) → how a property is written.
Pair = Callable[[str, Any, str], str]


def to_gbnf(schema: Any, name: str = "json_schema") -> str:
    """The grammar of ``schema``.

    Raises:
        CallFailure: ``bad_request`` naming the path of what is wrong or not supported.
    """
    rules = Rules()
    return rules.text(rules.add(schema, name, "root-value"), name)


class Rules:
    """Collects a grammar's rules; several schemas may go into one."""

    def __init__(self) -> None:
        self._rules: dict[str, str] = {}
        self._by_body: dict[str, str] = {}
        self._references: dict[tuple[int, str], str] = {}
        self._schemas = 0
        self._resolver = Resolver(True, "")
        self._roots = 0

    def add(self, schema: Any, where: str, hint: str) -> str:
        """The name of the rule for ``schema``."""
        self._resolver = Resolver(schema, where)
        self._roots += 1
        try:
            return self._rule(hint, self._schema(schema, where, hint, 0))
        except Bad as error:
            raise wrong(where, f"cannot be followed: {error}", code="invalid_schema") from None

    def arguments(self, schema: Any, where: str, hint: str, pair: Pair, comma: str) -> str:
        """An object's properties in their order, for forms of tool calls that are not JSON.

        ``pair(name, schema, rule)`` writes one, its value as JSON being ``rule``; ``comma``: what stands between two.

        Raises:
            CallFailure: ``bad_request``, also for a schema that is no plain list of properties.
        """
        self._resolver = Resolver(schema, where)
        self._roots += 1
        try:
            plain = self._resolver.plain(schema, where, 0)
            plain = {} if plain is True else plain
            if plain is False or plain.keys() & {"$ref", "anyOf", "oneOf", "enum", "const"}:
                raise Bad(where, "is no plain list of properties, which this model's tool calls are made of")
            written = []
            for name, one, at, rule, required in self._properties(plain, where, hint, 0):
                text = pair(name, one, self._rule(rule, self._schema(one, at, rule, 1)))
                written.append((self._rule(f"{rule}-pair", text), required))
            self._check_counts(plain, written, "", where)
            return self._members(written, "", hint, comma)
        except Bad as error:
            raise wrong(where, f"cannot be followed: {error}", code="invalid_schema") from None

    def define(self, name: str, body: str) -> None:
        self._rules[name] = body

    def text(self, root: str, name: str = "tools") -> str:
        """The whole grammar. Its own check sees schemas that are too large or can never end."""
        lines = [f"root ::= {root}", *(f"{rule} ::= {body}" for rule, body in self._rules.items())]
        made = "\n".join(lines) + "\n"
        try:
            gbnf.parse(made, finite=True)
        except (BadGrammar, gbnf_graph.Bad) as error:
            raise wrong(name, f"makes a grammar that {error}", code="invalid_schema") from None
        return made

    # rules

    def _shared(self, name: str) -> str:
        if name not in self._rules:
            self._rules[name] = SHARED[name]
            for used in USES.get(name, ()):
                self._shared(used)
        return name

    def _rule(self, hint: str, body: str) -> str:
        """``body`` under a name of its own; the same body is written once."""
        if body in self._rules:
            return body
        known = self._by_body.get(body)
        if known is None:
            known = hint if hint not in self._rules else f"{hint}-{len(self._rules)}"
            self._rules[known] = body
            self._by_body[body] = known
        return known

    def _schema(self, schema: Any, where: str, hint: str, depth: int) -> str:
        """An expression for ``schema``."""
        self._schemas += 1
        if self._schemas > MAX_SCHEMAS:
            raise Bad(where, f"is one part too many: at most {MAX_SCHEMAS} are taken, with all that is referred to")
        plain = self._resolver.plain(schema, where, depth)
        if plain is True:
            return self._shared("value")
        if plain is False:
            raise Bad(where, "lets no value through")
        if "$ref" in plain:
            return self._reference(plain["$ref"], where, depth)
        for name in ("anyOf", "oneOf"):
            if name in plain:
                return self._alternatives(name, plain[name], where, hint, depth)
        if "enum" in plain or "const" in plain:
            return self._values(plain, where)
        ways = [self._typed(kind, plain, where, hint, depth) for kind in kinds(plain, where)]
        return " | ".join(dict.fromkeys(ways))

    def _reference(self, pointer: str, where: str, depth: int) -> str:
        key = (self._roots, pointer)
        if key not in self._references:
            name = self._references[key] = f"ref-{len(self._references)}"
            self._rules[name] = ""  # the name is taken before what it stands for is known: it may refer to itself
            self._rules[name] = self._schema(self._resolver.target(pointer, where), where, name, depth + 1)
        return self._references[key]

    def _alternatives(self, name: str, branches: Sequence[Any], where: str, hint: str, depth: int) -> str:
        if name == "oneOf":
            schema_disjoint.check(branches, self._resolver, where)
        ways, failures = [], []
        for at, branch in enumerate(branches):
            if self._resolver.plain(branch, f"{where}.{name}.{at}", depth + 1) is False:
                failures.append(at)
                continue
            body = self._schema(branch, f"{where}.{name}.{at}", f"{hint}-{at}", depth + 1)
            ways.append(self._rule(f"{hint}-{at}", body))
        if not ways:
            raise Bad(where, "lets no value through")
        return " | ".join(dict.fromkeys(ways))

    def _values(self, plain: Mapping[str, Any], where: str) -> str:
        extra = sorted(plain.keys() & (OBJECT | ARRAY | TEXT | FIGURE))
        if extra:
            raise Bad(f"{where}.{extra[0]}", "is not supported beside enum or const")
        values = plain.get("enum", [plain["const"]] if "const" in plain else [])
        if "const" in plain:
            values = [value for value in values if same(value, plain["const"])]
        if "type" in plain:
            types = types_of(plain["type"], where)
            values = [value for value in values if any(is_a(value, kind) for kind in types)]
        if not values or len(values) > MAX_VALUES:
            raise Bad(f"{where}.enum", f"must leave 1 to {MAX_VALUES} values of the type")
        return " | ".join(dict.fromkeys(literal(as_json(value, where)) for value in values))

    def _typed(self, kind: str, plain: Mapping[str, Any], where: str, hint: str, depth: int) -> str:
        if kind == "object":
            return self._object(plain, where, hint, depth)
        if kind == "array":
            return self._array(plain, where, hint, depth)
        if kind == "string":
            body = schema_text.string(plain, where, self._repeated)
            self._shared("char")
            return self._shared("string") if body is None else body
        if kind in ("integer", "number"):
            return self._figure(kind, plain, where)
        return self._shared(kind)

    def _figure(self, kind: str, plain: Mapping[str, Any], where: str) -> str:
        body = schema_numbers.figure(kind, plain, where)
        return self._shared(kind) if body is None else body

    # objects

    def _object(self, plain: Mapping[str, Any], where: str, hint: str, depth: int) -> str:
        more = plain.get("additionalProperties", not plain.get("properties"))
        pairs, names = [], [*dict.fromkeys((*plain.get("properties", ()), *plain.get("required", ())))]
        for name, schema, at, rule, required in self._properties(plain, where, hint, depth):
            value = self._rule(rule, self._schema(schema, at, rule, depth + 1))
            pair = f'{literal(as_json(name, at))} {self._shared("ws")} ":" ws {value}'
            pairs.append((self._rule(f"{rule}-pair", pair), required))
        extra = self._extra(more, names, where, hint, depth)
        self._check_counts(plain, pairs, extra, where)
        self._shared("ws")
        members = self._members(pairs, extra, hint)
        return f'"{{" ws {members}ws "}}"'

    def _properties(
        self, plain: Mapping[str, Any], where: str, hint: str, depth: int
    ) -> Iterator[tuple[str, Any, str, str, bool]]:
        """(name, schema, its place, a name for its rule, whether it must be there) of each that there can be."""
        properties = dict(plain.get("properties", {}))
        required = set(plain.get("required", ()))
        for name in plain.get("required", ()):
            # The schema says that it must be there without saying what it is.
            properties.setdefault(name, plain.get("additionalProperties", True))
        if len(properties) > MAX_PROPERTIES:
            raise Bad(f"{where}.properties", f"are {len(properties)}; at most {MAX_PROPERTIES} are taken")
        for name, schema in properties.items():
            at = f"{where}.properties.{name}"
            if name in required or self._resolver.plain(schema, at, depth + 1) is not False:
                yield name, schema, at, f"{hint}-{slug(name)}", name in required

    @staticmethod
    def _check_counts(plain: Mapping[str, Any], pairs: list[tuple[str, bool]], extra: str, where: str) -> None:
        """A grammar does not count properties: bounds must follow from the rest."""
        needed = sum(required for _, required in pairs)
        if plain.get("minProperties", 0) > needed:
            raise Bad(f"{where}.minProperties", f"is more than the {needed} required ones, which is not supported")
        if "maxProperties" in plain and (extra or plain["maxProperties"] < len(pairs)):
            raise Bad(f"{where}.maxProperties", "is less than what the schema names, which is not supported")

    def _extra(self, more: Any, names: list[str], where: str, hint: str, depth: int) -> str:
        """The rule of a pair that the schema does not name; "" when there may be none."""
        at = f"{where}.additionalProperties"
        if more is False or self._resolver.plain(more, at, depth + 1) is False:
            return ""
        value = self._rule(f"{hint}-more", self._schema(more, at, f"{hint}-more", depth + 1))
        self._shared("ws")
        if names:
            self._shared("plain")
            key = self._rule(f"{hint}-key", f'"\\"" {schema_text.other_than(names)}')
        else:
            key = self._shared("string")
        return self._rule(f"{hint}-more-pair", f'{key} ws ":" ws {value}')

    def _members(self, pairs: list[tuple[str, bool]], extra: str, hint: str, between: str = 'ws "," ws') -> str:
        """The pairs in their order, commas only between those that are there.

        ``behind[i]``: pairs i … once one was written before; an optional one may be left out together with its comma.
        """
        comma = self._rule(f"{hint}-comma", between)
        tail = f"({comma} {extra})* " if extra else ""
        if not pairs:
            return f"({extra} {tail})? " if extra else ""
        behind = [tail]
        for at, (pair, required) in reversed(list(enumerate(pairs))):
            body = f"{comma} {pair} " if required else f"({comma} {pair})? "
            rest = behind[-1]
            behind.append(f"{body}{self._rule(f'{hint}-rest-{at}', rest)} " if rest.strip() else body)
        behind.reverse()  # behind[i]: the text for pairs from i on
        ways = []
        for at, (pair, required) in enumerate(pairs):
            rest = behind[at + 1]
            ways.append(f"{pair} {self._rule(f'{hint}-rest-{at + 1}', rest)}" if rest.strip() else pair)
            if required:
                break
        else:
            if extra:
                ways.append(f"{extra} {tail}".strip())
            ways.append("")
        optional = ways[-1] == ""
        body = " | ".join(way for way in ways if way)
        return f"({body}){'?' if optional else ''} "

    # arrays

    def _array(self, plain: Mapping[str, Any], where: str, hint: str, depth: int) -> str:
        if plain.get("uniqueItems"):
            raise Bad(f"{where}.uniqueItems", "is not supported for local models")
        items, first = plain.get("items", True), plain.get("prefixItems", [])
        if isinstance(items, list):  # what prefixItems were called before
            first, items = items, plain.get("additionalItems", True)
        if not isinstance(first, list):
            raise Bad(f"{where}.prefixItems", "must be a list of schemas")
        low, high = plain.get("minItems", 0), plain.get("maxItems")
        if high is not None and high < low:
            raise Bad(f"{where}.maxItems", f"is less than minItems, {low}")
        self._shared("ws")
        comma = self._rule(f"{hint}-comma", 'ws "," ws')
        made = []
        for at, schema in enumerate(first[: len(first) if high is None else high]):
            body = self._schema(schema, f"{where}.prefixItems.{at}", f"{hint}-item-{at}", depth + 1)
            made.append(self._rule(f"{hint}-item-{at}", body))
        rest = ""
        if (high is None or high > len(first)) and self._resolver.plain(
            items, f"{where}.items", depth + 1
        ) is not False:
            rest = self._rule(f"{hint}-item", self._schema(items, f"{where}.items", f"{hint}-item", depth + 1))
        elif low > len(first):
            raise Bad(f"{where}.minItems", "is more than there may be items")
        least, most = max(0, low - len(made)), None if high is None else high - len(made)
        return f'"[" ws {self._listed(made, rest, comma, low, least, most, hint)} ws "]"'

    def _listed(
        self, first: list[str], rest: str, comma: str, low: int, least: int, most: int | None, hint: str
    ) -> str:
        """Items with commas between them: those in ``first``, then ``least`` to ``most`` times ``rest``."""
        if not first:
            if not rest or most == 0:
                return '""'
            more = self._rule(f"{hint}-next", f"{comma} {rest}")
            tail = self._repeated(more, max(0, least - 1), None if most is None else most - 1, hint)
            return f"{rest} {tail}" if low else f"({rest} {tail})?"
        tail = ""
        if rest:
            tail = self._repeated(self._rule(f"{hint}-next", f"{comma} {rest}"), least, most, hint)
        for at in range(len(first) - 1, 0, -1):
            body = f"{comma} {first[at]} {tail}".strip()
            tail = body if at < low else f"({body})?"
        return f"{first[0]} {tail}" if low else f"({first[0]} {tail})?"

    def _repeated(self, item: str, low: int, high: int | None, hint: str) -> str:
        """``item`` (a rule) ``low`` to ``high`` times. Large counts are put together from blocks: llama.cpp writes
        each repetition out, and takes no more than 2,000."""
        parts = [self._times(item, low, hint)] if low else []
        if high is None:
            parts.append(f"{item}*")
        elif high - low <= BLOCK:
            parts += [f"{item}{{0,{high - low}}}"] if high > low else []
        else:
            parts.append(self._up_to(item, high - low, hint))
        return " ".join(parts)

    def _times(self, item: str, count: int, hint: str) -> str:
        if count <= BLOCK:
            return f"{item}{{{count}}}"
        blocks, left = divmod(count, BLOCK)
        block = self._rule(f"{hint}-block", f"{item}{{{BLOCK}}}")
        return f"{block}{{{blocks}}}" + (f" {item}{{{left}}}" if left else "")

    def _up_to(self, item: str, count: int, hint: str) -> str:
        """At most ``count``: a whole block and at most the rest of them, or less than a block."""
        block = self._rule(f"{hint}-block", f"{item}{{{BLOCK}}}")
        less = self._rule(f"{hint}-less", f"{item}{{0,{BLOCK - 1}}}")
        blocks, left = divmod(count, BLOCK)
        rest = self._rule(f"{hint}-left", f"{item}{{0,{left}}}" if left else '""')
        for _ in range(blocks):
            rest = self._rule(f"{hint}-upto", f"{block} {rest} | {less}")
        return rest
