"""Arguments of calls that are not JSON, as models write them."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.llama_cpp import forms
from plugins.llama_cpp.calls import Call, raw, read_calls, unfinished, write_call
from plugins.llama_cpp.values import Unreadable, Values

SCHEMA = {
    "f": {
        "properties": {
            "text": {"type": "string"}, "short": {"type": "string", "maxLength": 9}, "n": {"type": "integer"},
            "either": {"type": ["string", "null"]}, "one": {"type": "string", "enum": ["1", "2"]},
        }
    }
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("[f(a=1, b=-2.5e3, c=True, d=null, e=None, g=false)]",
         {"a": 1, "b": -2500.0, "c": True, "d": None, "e": None, "g": False}),
        ("f(a='it\'s', b='say \\'x\\'', c=\"\\u00e9\\ud83e\\udd8a\\n\")", {"a": "it's", "b": "say 'x'", "c": "é🦊\n"}),
        ("[f(a=[1, [2], {'b': \"c\", d: (1)}])]", None),
        ("[f(a=[1, [2], {'b': \"c\", d: 1}])]", {"a": [1, [2], {"b": "c", "d": 1}]}),
        ("```python\nf(a=1)\n```", {"a": 1}),
        ('[{"name": "f", "arguments": {"a": 1}}]', {"a": 1}),
        ("[f(1)]", None), ("[f(a=x)]", None), ("[f(a=1)", None), ("f(a=1) and so", None), ("[f(a='x)]", None),
        ("[f(a=1e9999)]", None), ("f", None), ("[]", None), ("[f(a=" + "[" * 5000 + ")]", None),
    ],
)  # fmt: skip
def test_python(text: str, arguments: dict[str, Any] | None) -> None:
    """LFM2's calls: Python's and JSON's values, with quotation marks where a model puts them."""
    calls = read_calls(text, forms.LFM2, {})
    assert [msgspec.json.decode(call.arguments) for call in calls] == ([] if arguments is None else [arguments])


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('call:f{a:<escape>x,y}:"z<escape>,b:[<escape>1<escape>,2]}', {"a": 'x,y}:"z', "b": ["1", 2]}),
        ('call:f{a:Paris is nice,b:true,c:"q"}', {"a": "Paris is nice", "b": True, "c": "q"}),
        ('call f{"a":{"b":1}}', {"a": {"b": 1}}),
        ("call:f{a:<escape>x}", None), ("call:f{a:}", None), ("f{a:1}", None), ("call:f{a:1}}", None),
    ],
)  # fmt: skip
def test_gemma(text: str, arguments: dict[str, Any] | None) -> None:
    """Gemma's calls: texts between its own marks may hold anything, and others are taken where they are plain."""
    calls = read_calls(text, forms.FUNCTION_GEMMA, {})
    assert [msgspec.json.decode(call.arguments) for call in calls] == ([] if arguments is None else [arguments])


@pytest.mark.parametrize(
    ("name", "said", "value"),
    [
        ("text", "12", "12"), ("text", '"q"', '"q"'), ("text", "two\nlines", "two\nlines"), ("text", "", ""),
        ("text", "a </parameter> b", "a </parameter> b"), ("one", "1", "1"), ("short", "12", "12"),
        ("short", '"q"', "q"), ("n", "12", 12), ("n", "twelve", "twelve"), ("either", "null", None),
        ("either", "x", "x"), ("either", '"1"', "1"),
        ("new", "True", True), ("new", "{'a': None}", {"a": None}), ("new", "x y", "x y"),
    ],
)  # fmt: skip
def test_parameters(name: str, said: str, value: Any) -> None:
    """Qwen3-Coder's values are texts; the tool's schema tells which of them mean something else."""
    text = f"<function=f>\n<parameter={name}>\n{said}\n</parameter>\n</function>"
    (call,) = read_calls(text, forms.QWEN_CODER, SCHEMA)
    assert msgspec.json.decode(call.arguments) == {name: value}
    inline = f"<function=f><parameter={name}>{said}</parameter></function>"
    assert "</" in said or read_calls(inline, forms.QWEN_CODER, SCHEMA) == [call]


def test_which_texts_stand_as_they_are() -> None:
    """Only those that are nothing but texts: any other value is JSON."""
    properties = SCHEMA["f"]["properties"]
    assert [name for name, schema in properties.items() if raw(schema)] == ["text", "one"]
    assert not raw(True)
    assert not raw({"type": "string", "enum": ["a\nb"]})
    assert not raw({"type": "string", "enum": 3})


def test_written_calls_are_read_again() -> None:
    """A call that hybridd writes into a conversation is the call that it would read."""
    call = Call("f", '{"a":"x\\"y","b":[1,null]}')
    for form in (forms.HERMES, forms.PHI4, forms.GRANITE, forms.LFM2, forms.DEEPSEEK):
        assert read_calls(write_call(call, form), form, {}) == [call]
    assert write_call(Call("f", "broken"), forms.LFM2) == ""
    assert write_call(call, forms.GEMMA4) == ""


def test_unfinished() -> None:
    """Only JSON that ends in the middle is waited for."""
    assert unfinished('{"a": "x', forms.HERMES)
    assert not unfinished("{a", forms.HERMES)
    assert not unfinished('{"a": 1}', forms.HERMES)
    assert not unfinished('{"a": "x', forms.LFM2)


@given(st.text(alphabet="f(a=1, 'b\")[]{}:.-e\\ux0T\n", max_size=60), st.booleans())
def test_any_text_at_all(text: str, bare: bool) -> None:
    """Any text is a value or is refused, in the one way."""
    values = Values(text, mark="<q>", bare=bare)
    try:
        value = values.value()
    except Unreadable:
        return
    msgspec.json.encode(value)


def test_long_texts() -> None:
    """Reading takes time in proportion to the text, also of texts made to be slow."""
    began = time.process_time()
    for text in ("'" * 200_000, '"' + "\\" * 200_000, "'a' " * 50_000, "[" + "1," * 100_000, "' " * 100_000):
        read_calls(f"[f(a={text}", forms.LFM2, {})
        read_calls(f"call:f{{a:{text}", forms.GEMMA4, {})
    for text in ("```json\n" + "\n" * 20_000 + "x", "```" + " \n" * 20_000, "```" + "a" * 20_000, "```\n" * 20_000):
        read_calls(text, forms.HERMES, {})
        read_calls(f"{text}```", forms.HERMES, {})
    assert time.process_time() - began < 3
