"""Tool calls and thoughts in an answer's text."""

from __future__ import annotations

import time
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.llama_cpp.splitter import Part, Splitter, parse
from plugins.llama_cpp.tools import Call, Form, form_of

HERMES = Form("hermes", ("<tool_call>",), "</tool_call>", True)
MISTRAL = Form("mistral", ("[TOOL_CALLS]",))
LLAMA3 = Form("llama3", ("<|python_tag|>",))
NAMES = ["look", "go"]


@pytest.mark.parametrize(
    ("template", "form"),
    [
        ("plain {{ messages }}", Form()),
        ("{% if tools %}<tool_call>{% endif %}", Form("hermes", ("<tool_call>",), "</tool_call>")),
        ("{% if tools %}<tool_call>{% endif %}<think></think>", HERMES),
        ("{% if tools %}[AVAILABLE_TOOLS][TOOL_CALLS]{% endif %}", MISTRAL),
        ("{% if tools %}<|python_tag|>{% endif %}", LLAMA3),
        ('{% if tools %}<|start_header_id|>{"name": x, "parameters": y}', LLAMA3),
        ("{% if tools %}<tool_call><function=x>{% endif %}", Form()),
        ("{% if tools %}something of its own{% endif %}", Form()),
        ("<think>", Form(thinks=True)),
    ],
)
def test_forms(template: str, form: Form) -> None:
    """A template's text tells how the model writes calls and thoughts."""
    found = form_of(template)
    assert (found.style, found.thinks) == (form.style, form.thinks)
    assert bool(found.opens) == bool(form.style)


def test_marks_are_visible_tokens() -> None:
    """All marks of a form are told, to be shown even where a vocabulary holds them as control tokens."""
    assert set(HERMES.marks) == {"<tool_call>", "</tool_call>", "<think>", "</think>"}
    assert MISTRAL.marks == ("[TOOL_CALLS]",)
    assert Form().marks == ()


@pytest.mark.parametrize(
    ("form", "text", "content", "calls"),
    [
        (HERMES, "just text", "just text", []),
        (HERMES, '<tool_call>\n{"name": "look", "arguments": {"a": 1}}\n</tool_call>', "", [("look", '{"a":1}')]),
        (HERMES, 'I do. \n<tool_call>{"name":"go","arguments":{}}</tool_call>\n<tool_call>{"name":"look"}</tool_call>',
         "I do.", [("go", "{}"), ("look", "{}")]),
        (HERMES, '<tool_call>{"name":"go","arguments":{}}</tool_call> and so', "and so", [("go", "{}")]),
        (HERMES, '<tool_call>{"name":"go","arguments":{}}', "", [("go", "{}")]),
        (HERMES, '<tool_call>{"name":"go","arguments":"{\\"a\\": 2}"}</tool_call>', "", [("go", '{"a": 2}')]),
        (HERMES, '<tool_call>{"type":"function","function":{"name":"go"}}</tool_call>', "", [("go", "{}")]),
        (HERMES, "<tool_call>{broken}</tool_call> x", "<tool_call>{broken}</tool_call> x", []),
        (HERMES, "<tool_call>[1]</tool_call>", "<tool_call>[1]</tool_call>", []),
        (HERMES, '<tool_call>{"name":3}</tool_call>', '<tool_call>{"name":3}</tool_call>', []),
        (HERMES, '<tool_call>{"name":"go","arguments":[1]}</tool_call>',
         '<tool_call>{"name":"go","arguments":[1]}</tool_call>', []),
        (HERMES, "<tool_call>" + "[" * 5000, "<tool_call>" + "[" * 5000, []),
        (HERMES, "a <tool_ca", "a <tool_ca", []),
        (MISTRAL, '[TOOL_CALLS][{"name":"look","arguments":{"q":"é"}},{"name":"go","arguments":{}}]', "",
         [("look", '{"q":"é"}'), ("go", "{}")]),
        (MISTRAL, '[TOOL_CALLS]look[ARGS]{"q": 1}', "", [("look", '{"q": 1}')]),
        (MISTRAL, '[TOOL_CALLS]look{"q": 1}', "", [("look", '{"q": 1}')]),
        (MISTRAL, "[TOOL_CALLS]look around", "[TOOL_CALLS]look around", []),
        (LLAMA3, '{"name": "look", "parameters": {"a": 1}}', "", [("look", '{"a":1}')]),
        (LLAMA3, '<|python_tag|>{"name": "look", "parameters": {}}; {"name": "go", "parameters": {"x": ";"}}', "",
         [("look", "{}"), ("go", '{"x":";"}')]),
        (LLAMA3, '{"name": "unknown", "parameters": {}}', '{"name": "unknown", "parameters": {}}', []),
        (LLAMA3, '{"answer": 42}', '{"answer": 42}', []),
        (LLAMA3, 'Well: {"name": "look", "parameters": {}}', 'Well: {"name": "look", "parameters": {}}', []),
        (Form(), "<tool_call>{}</tool_call>", "<tool_call>{}</tool_call>", []),
    ],
)  # fmt: skip
def test_calls(form: Form, text: str, content: str, calls: list[tuple[str, str]]) -> None:
    """Calls are found where the model's form has them; what cannot be read stays text, to the letter."""
    assert parse(text, form, NAMES) == (content, [Call(*call) for call in calls])


def through(splitter: Splitter, text: str, cuts: list[int]) -> Part:
    whole = Part()
    for begin, end in pairwise([0, *sorted(cuts), len(text)]):
        whole = joined(whole, splitter.feed(text[begin:end]))
    return joined(whole, splitter.finish())


def joined(one: Part, other: Part) -> Part:
    return Part(one.content + other.content, one.reasoning + other.reasoning, [*one.calls, *other.calls])


SAID = st.lists(
    st.sampled_from([
        "<tool_call>", "</tool_call>", '{"name":"look","arguments":{}}', "<think>", "</think>", "\n", " ", "a", "<",
        "{",
        "[TOOL_CALLS]", "<|python_tag|>", "}", "é", "<tool", ";", '{"name":"go","parameters":{"a":1}}',
    ]),
    max_size=12,
).map("".join)  # fmt: skip


@given(SAID, st.sampled_from([HERMES, MISTRAL, LLAMA3, Form(thinks=True)]), st.booleans(), st.data())
def test_any_cut_gives_the_same_answer(text: str, form: Form, thinking: bool, data: st.DataObject) -> None:
    """However an answer comes in, its content, thoughts and calls are the same, and nothing but blank space and marks
    is lost."""
    thinking = thinking and form.thinks
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=10))
    made = through(Splitter(form, NAMES, calls=True, thinks=True, thinking=thinking), text, cuts)
    assert made == through(Splitter(form, NAMES, calls=True, thinks=True, thinking=thinking), text, [])
    for call in made.calls:
        assert isinstance(msgspec.json.decode(call.arguments), dict)
    if not made.calls:
        left = text.replace("<think>", "").replace("</think>", "")
        kept = (made.reasoning + made.content).replace("<think>", "").replace("</think>", "")
        assert "".join(kept.split()) == "".join(left.split())


@pytest.mark.parametrize(
    ("text", "thinking", "content", "reasoning"),
    [
        ("<think>\nhm</think>\n\nyes", False, "yes", "hm"),
        ("\n <think>hm", False, "", "hm"),
        ("hm\n</think>yes", True, "yes", "hm"),
        ("no thoughts <think>", False, "no thoughts <think>", ""),
        ("<think></think>x", False, "x", ""),
        ("<thin", False, "<thin", ""),
    ],
)
def test_thoughts(text: str, thinking: bool, content: str, reasoning: str) -> None:
    """Thoughts are told apart at the beginning of an answer only."""
    made = through(Splitter(HERMES, thinks=True, thinking=thinking), text, [])
    assert (made.content, made.reasoning) == (content, reasoning)


def test_text_streams() -> None:
    """Only what may become a mark is held back; everything else is out at once."""
    splitter = Splitter(HERMES, NAMES, calls=True, thinks=True)
    assert [splitter.feed(text).content for text in ("Hello", " there", " <to", "ys>", " ", "x")] == [
        "Hello", " there", "", " <toys>", "", " x",
    ]  # fmt: skip


def test_blank_space_around_calls() -> None:
    """Blank space between content and calls, and behind calls, is nobody's content, however it comes."""
    splitter = Splitter(HERMES, NAMES, calls=True)
    call = '<tool_call>{"name":"go"}</tool_call>'
    parts = [splitter.feed(text) for text in ("I do.", "\n", call, "\n", call, "\n\n")]
    assert "".join(part.content for part in [*parts, splitter.finish()]) == "I do."
    assert sum(len(part.calls) for part in parts) == 2


def test_a_call_that_never_ends_is_bounded() -> None:
    """A model that opens a call and goes on and on costs no more than its tokens."""
    splitter = Splitter(HERMES, NAMES, calls=True)
    began = time.process_time()
    splitter.feed("<tool_call>")
    for _ in range(20_000):
        splitter.feed("word ")
    assert time.process_time() - began < 2
    assert len(splitter.finish().content) == 20_000 * 5 + len("<tool_call>")
