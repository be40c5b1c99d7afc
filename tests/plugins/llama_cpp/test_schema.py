"""JSON Schema to grammar: real llama.cpp takes it, and whatever it lets through is valid under the schema."""

from __future__ import annotations

import datetime
import json
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # ships no types
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridd.plugin import CallFailure
from plugins.llama_cpp import schema
from tests.fakes.tiny_gguf import make_tiny_gguf
from tests.plugins.llama_cpp.walk import Words


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Words]:
    found = Words(make_tiny_gguf(tmp_path_factory.mktemp("schema") / "tiny.gguf"))
    yield found
    found.close()


# Those that jsonschema checks as the standard says without more packages; `time` it reads in an older way.
FORMATS = jsonschema.FormatChecker(["date", "uuid", "ipv4", "email"])


def check(form: Any, words: Words, seeds: range, *, hurry: int = 40) -> list[Any]:
    """The values of random answers, each one valid."""
    made = schema.to_gbnf(form)
    validator = jsonschema.Draft202012Validator(form, format_checker=FORMATS)
    values = []
    for seed in seeds:
        said = words.answer(made, seed, hurry=hurry)
        if said is not None:
            value = json.loads(said)
            validator.validate(value)
            values.append(value)
    return values


TREE = {
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {"v": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}},
            "required": ["v", "next"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/Node",
}
SCHEMAS: dict[str, Any] = {
    "anything": {},
    "true": True,
    "object": {"type": "object"},
    "properties": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "string"}, "c": {"type": "null"}},
        "required": ["b"],
    },
    "all optional": {"type": "object", "properties": {"a": {}, "b": {"type": "boolean"}}},
    "closed": {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False},
    "names that begin alike": {
        "type": "object",
        "properties": {"a": {"type": "null"}, "ab": {"type": "null"}},
        "additionalProperties": {"type": "integer"},
    },
    "strange names": {
        "type": "object",
        "properties": {'a "b"\n': {"type": "boolean"}, "é": {}},
        "required": ['a "b"\n'],
    },
    "required and unknown": {"type": "object", "required": ["x"]},
    "map": {"type": "object", "additionalProperties": {"type": "number"}},
    "array": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3},
    "tuple": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False, "minItems": 1},
    "old tuple": {"type": "array", "prefixItems": [{"type": "null"}], "items": {"type": "boolean"}, "maxItems": 4},
    "empty array": {"type": "array", "maxItems": 0},
    "enum": {"enum": ["a", 1, None, {"x": [1, 'é"']}, True]},
    "enum by type": {"type": "string", "enum": ["a", 1, "b"]},
    "const": {"const": "x\ny"},
    "any of": {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "boolean"}}]},
    "any of with siblings": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    "one of": {
        "oneOf": [
            {"type": "object", "properties": {"k": {"const": "a"}, "v": {"type": "integer"}}, "required": ["k"]},
            {"type": "object", "properties": {"k": {"const": "b"}, "w": {"type": "string"}}, "required": ["k"]},
        ]
    },
    "all of": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]},
            {"properties": {"a": {"minimum": 3, "maximum": 9}, "b": {"type": "null"}}},
        ]
    },
    "types": {"type": ["string", "null", "integer"], "minLength": 2, "minimum": 7},
    "recursion": TREE,
    "the whole again": {"type": "object", "properties": {"in": {"$ref": "#"}, "x": {"type": "boolean"}}},
    "text of a length": {"type": "string", "minLength": 2, "maxLength": 4},
    "long text": {"type": "string", "minLength": 150, "maxLength": 5000},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "format": "time"},
    "date-time": {"type": "string", "format": "date-time"},
    "uuid": {"type": "string", "format": "uuid"},
    "ipv4": {"type": "string", "format": "ipv4"},
    "email": {"type": "string", "format": "email"},
    "hostname": {"type": "string", "format": "hostname"},
    "uri": {"type": "string", "format": "uri"},
    "pattern": {"type": "string", "pattern": r'^(\d{3}-[A-Z]+|x?[^a-z"]{2,4}\\)$'},
    "pattern with classes": {"type": "string", "pattern": r"^[\w.-]{1,5}@\D\S\s(?:com|org)$"},
    "pattern in the middle": {"type": "string", "pattern": "^a"},
    "whole numbers": {"type": "integer", "minimum": -45, "maximum": 1203},
    "open bounds": {"type": "integer", "exclusiveMinimum": -2, "exclusiveMaximum": 2},
    "upwards": {"type": "integer", "minimum": 98},
    "downwards": {"type": "integer", "maximum": -98},
    "numbers": {"type": "number", "minimum": -2.5, "maximum": 13.125},
    "numbers between": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "int32": {"type": "integer", "format": "int32"},
    "nothing but notes": {"title": "T", "description": "d", "default": 1, "examples": [1], "type": "boolean"},
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas(name: str, words: Words) -> None:
    """Random answers under the grammar parse and are valid, and there are some."""
    assert check(SCHEMAS[name], words, range(4))


@pytest.mark.parametrize("name", ["time", "date-time", "hostname", "uri"])
def test_formats(name: str, words: Words) -> None:
    """The formats that jsonschema does not check here are read by the standard library instead."""
    for value in check(SCHEMAS[name], words, range(10)):
        if name == "time":
            assert datetime.time.fromisoformat(value).tzinfo is not None
        elif name == "date-time":
            assert datetime.datetime.fromisoformat(value).tzinfo is not None
        else:
            address = urllib.parse.urlsplit(value if name == "uri" else f"http://{value}")
            assert address.scheme in ("http", "https")
            assert "." in (address.hostname or "")


def leaf() -> st.SearchStrategy[Any]:
    bounds = st.integers(-1200, 1200)
    values = st.one_of(st.integers(-9, 9), st.text(alphabet='a"\\é', max_size=2), st.none())
    return st.one_of(
        st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": "string"}, {}, {"type": ["integer", "null"]}]),
        st.tuples(bounds, bounds).map(lambda b: {"type": "integer", "minimum": min(b), "maximum": max(b)}),
        st.tuples(bounds, bounds).filter(lambda b: b[0] != b[1]).map(
            lambda b: {"type": "number", "minimum": min(b) / 8, "exclusiveMaximum": max(b) / 8}
        ),
        st.tuples(st.integers(0, 3), st.integers(0, 3)).map(
            lambda n: {"type": "string", "minLength": n[0], "maxLength": n[0] + n[1]}
        ),
        st.lists(values, min_size=1, max_size=3).map(lambda several: {"enum": several}),
    )  # fmt: skip


def branch(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.text(alphabet='ab" é', max_size=2)
    objects = st.tuples(st.dictionaries(names, inner, max_size=3), st.sets(names, max_size=2), st.booleans(), inner)
    arrays = st.tuples(inner, st.integers(0, 2), st.integers(0, 2))
    return st.one_of(
        objects.map(
            lambda o: {
                "type": "object", "properties": o[0], "required": sorted(o[1] & o[0].keys()),
                "additionalProperties": o[3] if o[2] else False,
            }
        ),
        arrays.map(lambda a: {"type": "array", "items": a[0], "minItems": a[1], "maxItems": a[1] + a[2]}),
        st.lists(inner, min_size=1, max_size=3).map(lambda several: {"anyOf": several}),
        st.tuples(inner, st.just({"description": "x"})).map(lambda both: {"allOf": list(both)}),
    )  # fmt: skip


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.recursive(leaf(), branch, max_leaves=6), st.integers(0, 2**16))
def test_random_schemas(words: Words, form: Any, seed: int) -> None:
    """Any schema made of what is supported gives a grammar whose every answer is valid."""
    check(form, words, range(seed, seed + 1), hurry=10)


@given(st.integers(-130, 130), st.integers(0, 140), st.integers(-300, 300))
def test_whole_numbers_one_by_one(words: Words, low: int, span: int, value: int) -> None:
    """A number is let through exactly when it lies between the bounds."""
    made = schema.to_gbnf({"type": "integer", "minimum": low, "maximum": low + span})
    assert words.takes(made, str(value)) == (low <= value <= low + span)
    assert not words.takes(made, "007")


@given(st.integers(-200, 200), st.integers(1, 200), st.booleans(), st.booleans(), st.integers(-4200, 4200))
def test_numbers_one_by_one(words: Words, low: int, span: int, above: bool, below: bool, value: int) -> None:
    """A number with decimals is let through only between the bounds; a bound left out is out."""
    begin, end = low / 10, (low + span) / 10
    form = {
        "type": "number",
        "exclusiveMinimum" if above else "minimum": begin,
        "exclusiveMaximum" if below else "maximum": end,
    }
    made = schema.to_gbnf(form)
    jsonschema.Draft202012Validator.check_schema(form)
    for text in (f"{value / 100:.3f}", f"{begin:.3f}", f"{end:.3f}", f"{begin:.2f}", f"{end:.2f}"):
        if words.takes(made, text):
            jsonschema.validate(json.loads(text), form)
    inside = f"{begin + 0.05:.3f}"
    assert words.takes(made, inside) or words.takes(made, inside[:-1]) or inside.startswith("-0.0")


@given(st.sets(st.text(alphabet='ab"é', max_size=3), min_size=1, max_size=4), st.text(alphabet="abcé", max_size=4))
def test_additional_names_one_by_one(words: Words, names: set[str], name: str) -> None:
    """A property that the schema names is never let through as an additional one; any other name is."""
    form = {"type": "object", "properties": dict.fromkeys(names, False), "additionalProperties": {"type": "null"}}
    made = schema.to_gbnf(form)
    assert words.takes(made, json.dumps({name: None}, ensure_ascii=False)) == (name not in names)


REFUSED: dict[str, tuple[Any, str]] = {
    "not": ({"not": {"type": "string"}}, "json_schema.not"),
    "inner": ({"type": "object", "properties": {"a": {"if": {}}}}, "json_schema.properties.a.if"),
    "items": ({"type": "array", "items": {"patternProperties": {}}}, "json_schema.items.patternProperties"),
    "unique": ({"type": "array", "uniqueItems": True}, "json_schema.uniqueItems"),
    "contains": ({"type": "array", "contains": {}}, "json_schema.contains"),
    "multiple": ({"type": "integer", "multipleOf": 3}, "json_schema.multipleOf"),
    "format": ({"type": "string", "format": "regex"}, "json_schema.format"),
    "pattern": ({"type": "string", "pattern": "(?=a)b"}, "json_schema.pattern"),
    "back reference": ({"type": "string", "pattern": r"^(a)\1$"}, "json_schema.pattern"),
    "word border": ({"type": "string", "pattern": r"\bfoo"}, "json_schema.pattern"),
    "pattern and length": ({"type": "string", "pattern": "^a+$", "maxLength": 3}, "json_schema.pattern"),
    "far reference": ({"$ref": "https://example.com/x.json"}, "json_schema.$ref"),
    "dead reference": ({"$ref": "#/$defs/x"}, "json_schema.$ref"),
    "overlapping": ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "json_schema.oneOf"),
    "counted properties": ({"properties": {"a": {}}, "minProperties": 1}, "json_schema.minProperties"),
    "false": (False, "json_schema"),
    "not a schema": ([1], "json_schema"),
    "type": ({"type": "text"}, "json_schema.type"),
    "properties": ({"properties": [1]}, "json_schema.properties"),
    "count": ({"type": "string", "minLength": -1}, "json_schema.minLength"),
    "count as text": ({"type": "string", "maxLength": "5"}, "json_schema.maxLength"),
    "bound as text": ({"type": "integer", "minimum": "5"}, "json_schema.minimum"),
    "bounds crossed": ({"type": "integer", "minimum": 5, "maximum": 4}, "json_schema"),
    "lengths crossed": ({"type": "string", "minLength": 5, "maxLength": 4}, "json_schema.maxLength"),
    "nothing left": ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "json_schema"),
    "enum of another type": ({"type": "string", "enum": [1]}, "json_schema.enum"),
    "empty any of": ({"anyOf": []}, "json_schema.anyOf"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_enforced_is_refused(name: str) -> None:
    """A keyword that a grammar cannot hold up, or a wrong one, is the caller's 400 with the path in the schema."""
    form, path = REFUSED[name]
    with pytest.raises(CallFailure) as caught:
        schema.to_gbnf(form)
    assert (caught.value.error.kind, caught.value.error.sent) == ("bad_request", "no")
    assert caught.value.error.upstream_code == "invalid_schema"
    assert f"{path} " in caught.value.message


HOSTILE: dict[str, Any] = {
    "itself": {"$ref": "#"},
    "itself by allOf": {"allOf": [{"$ref": "#"}]},
    "a ring": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    "itself by anyOf": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
    "never ends": {"type": "object", "properties": {"x": {"$ref": "#"}}, "required": ["x"]},
    "doubling": {
        "$defs": {
            **{f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}]} for n in range(40)},
            "d40": {"type": "object", "properties": {"a": {"type": "integer"}}},
        },
        "$ref": "#/$defs/d0",
    },
    "products": {"allOf": [{"anyOf": [{"minimum": n} for n in range(100)]} for _ in range(6)]},
    "deep": json.loads('{"items":' * 500 + "{}" + "}" * 500),
    "wide": {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(2000)}},
    "values": {"enum": list(range(100_000))},
    "far too many": {"type": "string", "maxLength": 10**9},
    "nested counts": {"type": "array", "maxItems": 2000, "items": {"type": "array", "maxItems": 90000, "items": False}},
    "pattern": {"type": "string", "pattern": "^" + "(" * 500 + "a" + ")" * 500 + "$"},
    "pattern counts": {"type": "string", "pattern": "^((((a{100}){100}){100}){100})$"},
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_schemas(name: str, words: Words) -> None:
    """A schema made to take for ever ends soon: refused, or with a grammar that llama.cpp takes."""
    began = time.process_time()
    try:
        made = schema.to_gbnf(HOSTILE[name])
    except CallFailure as failure:
        taken, message = failure.error.kind == "bad_request", failure.message
    else:
        taken, message = words.accepts(made), ""
    assert taken
    assert len(message) < 600
    assert time.process_time() - began < 3


def test_the_same_part_is_written_once() -> None:
    """Equal parts share their rule, so that a schema's grammar does not grow with repetition."""
    one = {"type": "object", "properties": {"x": {"type": "integer", "minimum": 3}}, "required": ["x"]}
    many = {"type": "object", "properties": {f"p{n}": one for n in range(50)}}
    assert schema.to_gbnf(many).count('"\\"x\\""') == 1
