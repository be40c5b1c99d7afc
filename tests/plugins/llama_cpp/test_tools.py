"""Tool calls and thoughts in an answer's text."""

from __future__ import annotations

import time
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.llama_cpp.calls import Call
from plugins.llama_cpp.forms import GRANITE, LLAMA3, MISTRAL, QWEN_CODER, Form
from plugins.llama_cpp.forms import HERMES as CALLING
from plugins.llama_cpp.splitter import MAX_TRIES, Part, Splitter, parse
from tests.plugins.llama_cpp.spoken import LOOK, SCHEMAS, SPOKEN, Spoken, thinking

HERMES = thinking(CALLING)
NAMES: dict[str, dict[str, object]] = {"look": {}, "go": {}}


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
        (HERMES, '<tool_call>{"name":"go"}\n<tool_call>{"name":"look"}</tool_call>', "",
         [("go", "{}"), ("look", "{}")]),
        (HERMES, '<tool_call>{"name":"go","arguments":{"a":"</tool_call><tool_call>"}}</tool_call>x', "x",
         [("go", '{"a":"</tool_call><tool_call>"}')]),
        (HERMES, '<tool_call>{"name":"go" </tool_call><tool_call>{"name":"look"}</tool_call>',
         '<tool_call>{"name":"go" </tool_call>', [("look", "{}")]),
        (HERMES, "<tool_call>" * 3 + '{"name":"go"}', "<tool_call>" * 2, [("go", "{}")]),
        (HERMES, '<tool_call>```json\n{"name":"go"}\n```</tool_call>', "", [("go", "{}")]),
        (HERMES, '<tool_call>{"name":"go","arguments":{"a":"\\ud800"}}</tool_call>',
         '<tool_call>{"name":"go","arguments":{"a":"\\ud800"}}</tool_call>', []),
        (MISTRAL, '[TOOL_CALLS]broken[TOOL_CALLS]look[ARGS]{"q": 1}', "[TOOL_CALLS]broken", [("look", '{"q": 1}')]),
        (GRANITE, 'Well.<tool_call>[{"name":"look","arguments":{}}]', "Well.", [("look", "{}")]),
        (QWEN_CODER, "<function=go>\n</function>\n</tool_call>", "", [("go", "{}")]),
        (QWEN_CODER, "<function=go>junk</function>", "<function=go>junk</function>", []),
        (QWEN_CODER, "#include <functional>", "#include <functional>", []),
        (QWEN_CODER, "<tool_call>\n<function=go>\n<parameter=a>\n1",
         "<tool_call>\n<function=go>\n<parameter=a>\n1", []),
        (QWEN_CODER, "<tool_call>\n<function=go>\n<parameter=a>\n1\n</parameter>",
         "<tool_call>\n<function=go>\n<parameter=a>\n1\n</parameter>", []),
    ],
)  # fmt: skip
def test_calls(form: Form, text: str, content: str, calls: list[tuple[str, str]]) -> None:
    """Calls are found where the model's form has them, also when it forgets the mark behind one or says it inside of
    a text; what cannot be read stays text, to the letter."""
    assert parse(text, form, NAMES) == (content, [Call(*call) for call in calls])


@pytest.mark.parametrize("spoken", SPOKEN, ids=lambda one: one.form.style)
def test_each_form(spoken: Spoken) -> None:
    """One call or several, with text before and behind, are read in every form, whatever their arguments hold."""
    marked = spoken.form.syntax != "bare"
    before, behind = ("I do. ", " Done.") if marked and spoken.form.closes else ("", "")
    both = spoken.both if marked else f"{spoken.look}; {spoken.go}"
    content, calls = parse(f"{before}{both}{behind}", spoken.form, SCHEMAS)
    assert content == (before.strip() + behind.strip())
    assert [call.name for call in calls] == ["look", "go"]
    assert [msgspec.json.decode(call.arguments) for call in calls] == [LOOK, {}]


@pytest.mark.parametrize("spoken", SPOKEN, ids=lambda one: one.form.style)
def test_calls_cut_anywhere(spoken: Spoken) -> None:
    """A call that ends too early is never a call with less in it: it is the whole one, or text and nothing lost."""
    said = spoken.said(spoken.look)
    for end in range(len(said)):
        content, calls = parse(said[:end], spoken.form, SCHEMAS)
        if calls:
            assert msgspec.json.decode(calls[0].arguments) == LOOK
        else:
            assert "".join(content.split()) == "".join(said[:end].split())


WORDS = [
    "\n", " ", "a", "é", "<", "{", "}", "[", "]", "(", ")", ";", ",", ":", "=", '"', "'", "\\", "1", "True", "look",
    "go", "<think>", "</think>", "<response>", "</response>", "<tool", "```", "call", '{"name":"look","arguments":{}}',
    '{"name":"go","parameters":{"a":1}}', "<parameter=a>", "</parameter>", "</function>", "look(", "a=1",
]  # fmt: skip
FORMS = [thinking(spoken.form) for spoken in SPOKEN] + [
    Form(), thinking(Form()), thinking(Form(), ("[THINK]", "[/THINK]")),
    msgspec.structs.replace(thinking(GRANITE), answer=("<response>", "</response>")),
]  # fmt: skip


def said(form: Form) -> st.SearchStrategy[str]:
    """Nonsense made of what the form's calls are made of."""
    whole = [text for spoken in SPOKEN if spoken.form.style == form.style for text in (spoken.look, spoken.go)]
    words = [*WORDS, *form.marks, *form.written, *whole, *(mark[:-2] for mark in form.marks)]
    return st.lists(st.sampled_from([word for word in words if word]), max_size=12).map("".join)


@settings(max_examples=400)
@given(st.sampled_from(FORMS), st.booleans(), st.data())
def test_any_cut_gives_the_same_answer(form: Form, thinking: bool, data: st.DataObject) -> None:
    """However an answer comes in, its content, thoughts and calls are the same, and nothing but blank space and marks
    is lost. No answer is too broken to be given out."""
    text = data.draw(said(form))
    thinking = thinking and form.thinks
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=10))
    made = through(Splitter(form, SCHEMAS, calls=True, thinks=True, thinking=thinking), text, cuts)
    assert made == through(Splitter(form, SCHEMAS, calls=True, thinks=True, thinking=thinking), text, [])
    for call in made.calls:
        assert isinstance(msgspec.json.decode(call.arguments), dict)
    if not made.calls:
        assert left(made.reasoning + made.content, form) == left(text, form)


def left(text: str, form: Form) -> str:
    for mark in (*form.thoughts, *form.answer):
        text = text.replace(mark, "") if mark else text
    return "".join(text.split())


def through(splitter: Splitter, text: str, cuts: list[int]) -> Part:
    whole = Part()
    for begin, end in pairwise([0, *sorted(cuts), len(text)]):
        whole = joined(whole, splitter.feed(text[begin:end]))
    return joined(whole, splitter.finish())


def joined(one: Part, other: Part) -> Part:
    return Part(one.content + other.content, one.reasoning + other.reasoning, [*one.calls, *other.calls])


@pytest.mark.parametrize(
    ("text", "thinking", "content", "reasoning"),
    [
        ("<think>\nhm</think>\n\nyes", False, "yes", "hm"),
        ("\n <think>hm", False, "", "hm"),
        ("hm\n</think>yes", True, "yes", "hm"),
        ("no thoughts <think>", False, "no thoughts <think>", ""),
        ("<think></think>x", False, "x", ""),
        ("<thin", False, "<thin", ""),
        ("<think>hm</think> <response>yes</response>\n", False, "yes", "hm"),
        ("<think>hm</think><respo", False, "<respo", "hm"),
        ("<response>yes", False, "yes", ""),
    ],
)
def test_thoughts(text: str, thinking: bool, content: str, reasoning: str) -> None:
    """However it comes in, thoughts are told apart at the beginning of an answer only, and the marks that Granite puts
    around the rest are nobody's content."""
    form = msgspec.structs.replace(HERMES, answer=("<response>", "</response>"))
    for cuts in ([], [7], [8], list(range(len(text)))):
        made = through(Splitter(form, thinks=True, thinking=thinking), text, [cut for cut in cuts if cut < len(text)])
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


@pytest.mark.parametrize("spoken", SPOKEN, ids=lambda one: one.form.style)
def test_marks_over_and_over(spoken: Spoken) -> None:
    """An answer of nothing but marks, or of the beginning of a call for ever, is given out in little time."""
    form = spoken.form
    began = time.process_time()
    for text in (*form.opens, form.closes, spoken.look[:12], "".join(form.written)):
        if not text:
            continue
        many = (form.opens[0] + spoken.look[:20] + text * (200_000 // max(1, len(text))))[:200_000]
        splitter = Splitter(form, SCHEMAS, calls=True)
        made = joined(splitter.feed(many), splitter.finish())
        assert len(made.content) > 190_000 or made.calls
    assert time.process_time() - began < 5


def test_a_call_is_out_when_it_ends() -> None:
    """A call whose form has no closing mark is out when the next one begins."""
    splitter = Splitter(MISTRAL, NAMES, calls=True)
    assert not splitter.feed('[TOOL_CALLS]look[ARGS]{"a": "[TOOL_CALLS]"}').calls
    assert [call.name for call in splitter.feed("[TOOL_CALLS]go").calls] == ["look"]
    assert splitter.feed("[ARGS]{}" + " " * MAX_TRIES) == Part()
    assert [call.name for call in splitter.finish().calls] == ["go"]
