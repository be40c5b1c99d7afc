"""Grammars in GBNF: ours refuses what llama.cpp refuses, and what would hurt llama.cpp."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridd.plugin import CallFailure
from plugins.llama_cpp import asked, gbnf, gbnf_text, grammar
from plugins.llama_cpp.forms import HERMES as CALLING
from plugins.llama_cpp.forms import Form
from plugins.llama_cpp.splitter import Splitter, parse
from tests.fakes.tiny_gguf import make_tiny_gguf
from tests.plugins.llama_cpp.spoken import LOOK, SCHEMAS, SPOKEN, Spoken, thinking
from tests.plugins.llama_cpp.spoken import TOOLS as SPOKEN_TOOLS
from tests.plugins.llama_cpp.walk import Words


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Words]:
    found = Words(make_tiny_gguf(tmp_path_factory.mktemp("grammar") / "tiny.gguf"))
    yield found
    found.close()


GOOD = [
    'root ::= "a"',
    'root ::= [a-z]+ "x"? [^\\x00-\\x1F]*',
    'root ::= (a | b){2,3} # a comment\na ::= "é\\u00e9\\U0001F98A"\nb ::= .',
    "# first a comment\n\nroot  ::=\n  x |\n  y\nx ::= [0-9]{0,1999}\ny ::= x x\n",
    'root ::= "\\"\\\\\\n\\t\\r" [\\]\\[]',
    "root ::= item*\nitem ::= ws [a-z]\nws ::= [ \\n]*",
    'root ::= "" | "a" root',
    'root ::= a\r\na ::= "x"\r\n',
    'a ::= "x"\na ::= "y"\nroot ::= a',
    'root ::= [a-] [-a] [a\\-z] "-"',
    "root ::= <[5]> !<[6]>",
    'root ::= ("a"?)* "b"',
    'root ::= ""',
    "root ::=",
    'root ::= (("a"){500}){500}',
    'root ::= (\n "a"\n | "b"\n)',
]
BAD = [
    "root", 'a ::= "x"', "root ::= b", 'root ::= "a', "root ::= [a", "root ::= (", "root ::= ( a",
    'root ::= "a" )', "root ::= *", 'root ::= | * "a"', 'root ::= "\\q"', 'root ::= "\\x4"', 'root ::= "a"{', "::= a",
    'root ::= "a"{x}', 'root ::= "a"{1', 'root ::= "a"{2001}', 'root ::= "a"{1,2,3}', "root ::= root", "root := a",
    'root ::= root "a" | "b"', 'root ::= a\na ::= b\nb ::= a "x"', 'root ::= "a" ; b ::= c', "root ::= <",
    "root ::= <>",
    'r_oot ::= "a"', 'root ::= "a"\n| "b"', "root ::= $", "root ::= <[x]>", 'root = "a"',
    'root ::= "a" "b" c', 'root ::= "a"{99999999999999999999}',
]  # fmt: skip
# llama.cpp takes these, or worse.
HOSTILE = {
    "bounds the wrong way round": 'root ::= "a"{5,3}',
    "an upper bound that would be dropped": 'root ::= "a"{1,3000}',
    "hidden left recursion": 'root ::= n root "x" | "y"\nn ::= m\nm ::= ""',
    "left recursion in brackets": 'root ::= (("a"? | "b"?) (root "x"))',
    "brackets in brackets": "root ::= " + "(" * 100_000 + '"a"' + ")" * 100_000,
    "brackets that never close": "root ::= " + "(" * 200_000,
    "ways without number": "root ::= r0\n"
    + "".join(f"r{n} ::= r{n + 1} r{n + 1}\n" for n in range(40))
    + 'r40 ::= "a" | ""',
    "a chain of rules": "root ::= r0\n" + "".join(f"r{n} ::= r{n + 1}\n" for n in range(6000)) + 'r6000 ::= "a"',
    "very long": "root ::= " + '"' + "a" * 400_000 + '"',
    "long when written out": "root ::= " + " ".join(['"' + "a" * 90 + '"{19}'] * 100),
    "very many repetitions": 'root ::= ("a"{100}){2000}',
    "many optional parts": 'root ::= "b"' + ' "x"?' * 5000,
    "nothing": "",
    "no character at all": "root ::= [^\\x00-\\U0010FFFF]",
    "an empty class": 'root ::= "a" []',
    "a class backwards": "root ::= [z-a]",
    "no character": 'root ::= "\\U00110000"',
    "half a character": 'root ::= "\\uD800"',
    "half a character, raw": 'root ::= "\ud800"',
    "a NUL": 'root ::= "a\0b"',
}


@pytest.mark.parametrize("text", GOOD)
def test_good_grammars(text: str, words: Words) -> None:
    """What llama.cpp takes is taken."""
    gbnf.check(text)
    assert words.accepts(text)


@pytest.mark.parametrize("text", BAD)
def test_bad_grammars(text: str, words: Words) -> None:
    """What llama.cpp refuses is refused, as the caller's mistake, with the place."""
    with pytest.raises(CallFailure) as caught:
        gbnf.check(text)
    error = caught.value.error
    assert (error.kind, error.sent, error.param) == ("bad_request", "no", "grammar")
    assert error.upstream_code == "invalid_grammar"
    assert not words.accepts(text)


@pytest.mark.parametrize("why", HOSTILE)
def test_hostile_grammars(why: str) -> None:
    """What would crash llama.cpp, hang it or be silently changed is refused, in bounded time."""
    began = time.process_time()
    with pytest.raises(CallFailure) as caught:
        gbnf.check(HOSTILE[why])
    assert time.process_time() - began < 2
    assert caught.value.error.kind == "bad_request"
    assert len(caught.value.message) < 300


def test_the_message_says_where() -> None:
    """Line and column of the mistake are in the message."""
    with pytest.raises(CallFailure, match=r"line 2, column 8"):
        gbnf.check('root ::= a\na ::= "\\q"')


TOKENS = [
    "root",
    "a",
    "b",
    " ::= ",
    "\n",
    '"x"',
    '"\\n"',
    "[a-z]",
    "[^x]",
    "(",
    ")",
    "|",
    "*",
    "+",
    "?",
    "{2}",
    "{0,3}",
    ".",
    " ",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(TOKENS), max_size=25))
def test_what_is_taken_llama_cpp_takes(words: Words, parts: list[str]) -> None:
    """Whatever passes our check, llama.cpp can parse."""
    text = 'root ::= "s" ' + "".join(parts)
    try:
        gbnf.check(text)
    except CallFailure:
        return
    assert words.accepts(text)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet='ab"\\\n\t\x01é🦊[]-\x7f', max_size=12), st.integers(0, 5))
def test_literals(words: Words, text: str, seed: int) -> None:
    """A text written as a literal lets exactly itself through."""
    made = f"root ::= {gbnf.literal(text)}"
    gbnf.check(made)
    assert words.answer(made, seed) == text.encode()


def test_renaming_root() -> None:
    """Only the rule is renamed, not the word in literals, classes or comments."""
    text = 'root ::= "root" [root] x-root root? # root\nx-root ::= "a" (root)\n'
    made = gbnf.renamed(text, "inner")
    assert made == 'inner ::= "root" [root] x-root inner? # root\nx-root ::= "a" (inner)\n'


HERMES = thinking(CALLING)
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
        },
    }
    for name in ("first", "second")
]


def ask(**body: object) -> asked.Asked:
    return asked.read({"messages": [{"role": "user", "content": "x"}], **body}, chat=True)


def test_no_grammar() -> None:
    """A plain request has none, and tools that may be called or not leave the answer free."""
    assert grammar.compile(ask(), Form()) is None
    assert grammar.compile(ask(tools=TOOLS), HERMES) is None


def test_tools_of_an_unknown_model() -> None:
    """Tools for a model whose template has none known are for another provider; unused ones do not matter."""
    with pytest.raises(CallFailure) as caught:
        grammar.compile(ask(tools=TOOLS), Form())
    assert (caught.value.error.kind, caught.value.error.param) == ("unsupported", "tools")
    assert grammar.compile(ask(tools=TOOLS, tool_choice="none"), Form()) is None


@pytest.mark.parametrize("spoken", SPOKEN, ids=lambda one: one.form.style)
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "second"}}])
@pytest.mark.parametrize("parallel", [True, False])
def test_forced_calls(spoken: Spoken, choice: object, parallel: bool, words: Words) -> None:
    """A forced answer, whatever is sampled, is calls of allowed tools with valid arguments and no text beside, and only
    one where there may be no more."""
    form = spoken.form
    made = grammar.compile(ask(tools=TOOLS, tool_choice=choice, parallel_tool_calls=parallel), form)
    assert made is not None
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
    for seed in range(3):
        said = words.answer(made, seed, hurry=5)
        assert said is not None
        content, calls = parse(said.decode(), form, schemas)
        assert content == ""
        assert calls
        assert {call.name for call in calls} <= ({"first", "second"} if choice == "required" else {"second"})
        assert (choice == "required" and parallel) or len(calls) == 1
        for call in calls:
            assert type(msgspec.json.decode(call.arguments)["n"]) is int


@pytest.mark.parametrize("spoken", SPOKEN, ids=lambda one: one.form.style)
def test_what_forced_calls_may_hold(spoken: Spoken, words: Words) -> None:
    """The grammar lets through what models of the form say, texts with every character in them included, and nothing
    that is no call, lacks an argument, or has one that the schema does not allow."""
    form = spoken.form
    made = grammar.compile(ask(tools=SPOKEN_TOOLS, tool_choice="required"), form)
    assert made is not None
    deep = spoken.look.replace("{'on': True}", '{"on": true}').replace("deep:{on:true}", 'deep:{"on":true}')
    go = spoken.go.replace("[CALL_ID]123456789", "")
    for said, whole in ((spoken.said(deep), [LOOK]), (spoken.said(go), [{}]), (spoken.said(deep, go), [LOOK, {}])):
        several = len(whole) > 1 and form.syntax == "bare"  # Llama 3 says one at a time
        assert words.takes(made, said) is not several
        assert several or [msgspec.json.decode(one.arguments) for one in parse(said, form, SCHEMAS)[1]] == whole
    for wrong in (deep.replace("2", "x"), deep.replace("look", "lock"), deep.replace("on", "off"), "I do.", ""):
        assert not words.takes(made, spoken.said(wrong))
        assert not words.takes(made, f"Well. {spoken.said(deep)}")


@pytest.mark.parametrize("spoken", SPOKEN, ids=lambda one: one.form.style)
def test_texts_of_forced_calls(spoken: Spoken, words: Words) -> None:
    """One of the listed texts is said as the form says texts, and comes out as it is."""
    wished = {"type": "object", "properties": {"m": {"enum": ["a", 'b "c"'], "type": "string"}}, "required": ["m"]}
    tools = [{"type": "function", "function": {"name": "f", "parameters": wished}}]
    made = grammar.compile(ask(tools=tools, tool_choice="required"), spoken.form)
    assert made is not None
    found = set()
    for seed in range(8):
        said = words.answer(made, seed, hurry=0)
        assert said is not None
        (call,) = parse(said.decode(), spoken.form, {"f": wished})[1][:1]
        found.add(msgspec.json.decode(call.arguments)["m"])
    assert found <= {"a", 'b "c"'}


@pytest.mark.parametrize(
    "parameters",
    [
        {"anyOf": [{"type": "object"}, {"type": "object", "properties": {"a": {}}}]},
        {"type": "object", "properties": {"a b<": {"type": "integer"}}},
        {"type": "object", "properties": {"a": {"type": "integer", "multipleOf": 3}}},
        {"type": "object", "minProperties": 1},
    ],
)
def test_parameters_that_a_form_cannot_hold(parameters: dict[str, object]) -> None:
    """What a form that is not JSON has no way to say is refused, and the place is named."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    for spoken in SPOKEN:
        if spoken.form.syntax in ("gemma", "python", "parameters"):
            with pytest.raises(CallFailure) as caught:
                grammar.compile(ask(tools=tools, tool_choice="required"), spoken.form)
            assert caught.value.error.kind == "bad_request"
            assert "function.parameters" in caught.value.message


@given(st.sampled_from(["</think>", "aab", "abab", "\n</parameter>", "<escape>"]), st.data())
def test_free_text_up_to_a_mark(words: Words, mark: str, data: st.DataObject) -> None:
    """Any text is let through up to the first mark and nothing behind it, also where it nearly is the mark."""
    text = data.draw(st.lists(st.sampled_from([*mark, mark[:-1], mark[:2], "é", "x"]), max_size=8).map("".join))
    rules = "\n".join(f"{name} ::= {body}" for name, body in gbnf_text.until(mark, "free").items())
    made = f"root ::= free\n{rules}\n"
    gbnf.check(made)
    assert words.takes(made, text + mark) is ((text + mark).find(mark) == len(text))
    assert words.takes(made, text) is (text.find(mark) == len(text) - len(mark) and mark in text)


YES = 'root ::= "yes" | "no" | "(" root ")"'


def test_a_grammar_after_thoughts(words: Words) -> None:
    """A model whose prompt opened its thoughts ends these before its grammar begins; the caller's own rule 'root' and
    whatever its other rules are called are kept apart."""
    for own in (YES, YES.replace("root ::=", "root ::= thoughts |") + '\nthoughts ::= "thoughts-answer"'):
        made = grammar.compile(ask(grammar=own), HERMES, thinking=True)
        assert made is not None
        gbnf.check(made)
        for said in ("hm</think>yes", "<</think></think>", "</think>\n\n((no))", "<</think>no"):
            assert words.takes(made, said) is (said != "<</think></think>"), said
        for said in ("yes", "hm</think>", "hm</think>yes</think>", "<think>hm</think>yes"):
            assert words.takes(made, said) is said.startswith("<think>"), said


@pytest.mark.parametrize(
    "marks", [("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<|channel>thought", "<channel|>")]
)
def test_thoughts_before_a_grammar(marks: tuple[str, str], words: Words) -> None:
    """A model that thinks may do so first, or answer at once; what is told apart as content follows the grammar."""
    form = thinking(CALLING, marks)
    made = grammar.compile(ask(grammar=YES), form)
    assert made is not None
    for said in ("yes", f"{marks[0]}\nhm{marks[1]}\n(no)"):
        assert words.takes(made, said)
        splitter = Splitter(form, thinks=True)
        assert splitter.feed(said).content + splitter.finish().content in ("yes", "(no)")
    for said in (
        "hm",
        f"hm{marks[1]}yes",
        f"{marks[0]}yes",
        f"yes{marks[0]}",
        f"{marks[0]}{marks[1]}{marks[0]}{marks[1]}no",
    ):
        assert not words.takes(made, said)


def test_thoughts_that_would_be_content(words: Words) -> None:
    """Who wants thoughts in the content gets the form alone, and so does a model that does not think."""
    for body, form in (({"reasoning_format": "none"}, HERMES), ({}, CALLING)):
        made = grammar.compile(ask(grammar=YES, **body), form)
        assert made == YES


def test_thoughts_before_forced_calls(words: Words) -> None:
    """A model that thinks may do so before it calls the tool that it has to call."""
    made = grammar.compile(ask(tools=TOOLS, tool_choice="required"), HERMES)
    assert made is not None
    call = '<tool_call>\n{"name": "first", "arguments": {"n":1}}\n</tool_call>'
    assert [words.takes(made, text) for text in (call, f"<think>a</think>{call}", f"a{call}")] == [True, True, False]
