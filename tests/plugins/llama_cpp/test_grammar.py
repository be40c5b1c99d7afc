"""Grammars in GBNF: ours refuses what llama.cpp refuses, and what would hurt llama.cpp."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridd.plugin import CallFailure
from plugins.llama_cpp import asked, gbnf, grammar, tools
from tests.fakes.tiny_gguf import make_tiny_gguf
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


HERMES = tools.Form("hermes", ("<tool_call>",), "</tool_call>", True)
LLAMA3 = tools.Form("llama3", ("<|python_tag|>",))
MISTRAL = tools.Form("mistral", ("[TOOL_CALLS]",))
TOOLS = [
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
    assert grammar.compile(ask(), tools.Form()) is None
    assert grammar.compile(ask(tools=TOOLS), HERMES) is None


def test_tools_of_an_unknown_model() -> None:
    """Tools for a model whose template has none known are for another provider; unused ones do not matter."""
    with pytest.raises(CallFailure) as caught:
        grammar.compile(ask(tools=TOOLS), tools.Form())
    assert (caught.value.error.kind, caught.value.error.param) == ("unsupported", "tools")
    assert grammar.compile(ask(tools=TOOLS, tool_choice="none"), tools.Form()) is None


@pytest.mark.parametrize("form", [HERMES, LLAMA3, MISTRAL], ids=lambda form: form.style)
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "second"}}])
def test_forced_calls(form: tools.Form, choice: object, words: Words) -> None:
    """A forced answer, whatever is sampled, is calls of allowed tools with valid arguments and no text beside."""
    from plugins.llama_cpp.splitter import parse

    made = grammar.compile(ask(tools=TOOLS, tool_choice=choice), form)
    assert made is not None
    for seed in range(5):
        said = words.answer(made, seed, hurry=5)
        assert said is not None
        content, calls = parse(said.decode(), form, ["first", "second"])
        assert content == ""
        assert calls
        allowed = {"first", "second"} if choice == "required" else {"second"}
        assert {call.name for call in calls} <= allowed
        assert choice == "required" or len(calls) == 1


def test_a_grammar_after_thoughts(words: Words) -> None:
    """A model that thinks first may do so before its grammar begins; the caller's own rule 'root' is kept apart."""
    wanted = ask(grammar='root ::= "yes" | "no" | "(" root ")"')
    made = grammar.compile(wanted, HERMES, thinking=True)
    assert made is not None
    gbnf.check(made)
    for seed in range(5):
        said = words.answer(made, seed, hurry=0, most=400)
        if said is not None:
            assert said.decode("utf-8", "replace").rpartition("</think>")[2].strip(" \n()") in ("yes", "no")
