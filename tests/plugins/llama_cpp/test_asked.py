"""Requests to local models: every parameter, its range, what is refused and what only has no effect."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.plugin import CallFailure
from plugins.llama_cpp import asked, sampling_params
from plugins.llama_cpp.sampling_params import Sampling

USER = {"role": "user", "content": "x"}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}


def read(chat: Any = True, **body: Any) -> asked.Asked:
    return asked.read({"messages": [USER], "prompt": "x", **body}, chat=chat)


def refused(chat: Any = True, **body: Any) -> CallFailure:
    with pytest.raises(CallFailure) as caught:
        read(chat, **body)
    assert caught.value.error.sent == "no"
    return caught.value


def test_defaults() -> None:
    """What a request does not say is llama.cpp's own default."""
    wanted = read()
    assert wanted.sampling == Sampling()
    assert (wanted.max_tokens, wanted.stops, wanted.choices, wanted.logprobs) == (None, (), 1, None)
    assert (wanted.cache_prompt, wanted.echo, wanted.grammar, wanted.ignored) == (True, False, "", ())


def test_figures_reach_the_engine() -> None:
    """Every number of the sampling parameters is taken as it is, at both ends of its range."""
    for name, (low, high, whole) in sampling_params.FIGURES.items():
        if name == "seed":
            continue
        for value in (int(low) if whole else low, int(high) if whole else high):
            assert getattr(read(**{name: value}).sampling, name) == value


@given(st.sampled_from(sorted(sampling_params.FIGURES)), st.one_of(st.floats(), st.integers()))
def test_figures_outside_of_their_range(name: str, value: float) -> None:
    """A number is either taken unchanged or refused by name; nothing is ever bent to fit."""
    low, high, whole = sampling_params.FIGURES[name]
    fits = math.isfinite(value) and low <= value <= high and (not whole or float(value).is_integer())
    if not fits:
        assert refused(**{name: value}).error.param == name
    elif name != "seed":
        assert getattr(read(**{name: value}).sampling, name) == value


@pytest.mark.parametrize("name", sampling_params.FIGURES)
@pytest.mark.parametrize("value", ["1", True, [1], {}])
def test_figures_of_another_type(name: str, value: Any) -> None:
    """Texts, truths and lists are no numbers."""
    failure = refused(**{name: value})
    assert (failure.error.kind, failure.error.param) == ("bad_request", name)


@pytest.mark.parametrize(("seed", "read_as"), [(-1, None), (0, 0), (7, 7), (-2, 2**32 - 2), (2**32 - 1, 2**32 - 2)])
def test_seed(seed: int, read_as: int | None) -> None:
    """-1 is random, as in llama.cpp; every other seed is one, also where llama.cpp would take it for random."""
    assert read(seed=seed).sampling.seed == read_as


def test_logit_bias() -> None:
    """Token ids and texts, as OpenAI's object or llama.cpp's list; false forbids."""
    assert read(logit_bias={"15": -1, "Hello": 2.5}).sampling.logit_bias == ((15, -1.0), ("Hello", 2.5))
    assert read(logit_bias=[[15, 1], ["no", False]]).sampling.logit_bias == ((15, 1.0), ("no", float("-inf")))
    assert read(logit_bias={}).sampling.logit_bias == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("logit_bias", 3), ("logit_bias", [[1]]), ("logit_bias", [[-1, 1]]), ("logit_bias", {"": 1}),
        ("logit_bias", {"1": "x"}), ("logit_bias", {"1": 101}), ("logit_bias", [[True, 1]]),
        ("logit_bias", {"1": True}),
        ("logit_bias", [[1, 1]] * 5000), ("dry_sequence_breakers", "x"), ("dry_sequence_breakers", [""]),
        ("dry_sequence_breakers", ["a\0"]), ("dry_sequence_breakers", ["x"] * 65), ("samplers", ["magic"]),
        ("samplers", "top_k"), ("samplers", [3]), ("ignore_eos", "yes"), ("ignore_eos", 1), ("max_tokens", 0),
        ("max_tokens", "5"), ("max_tokens", True), ("n_predict", -2), ("stop", 3), ("stop", [1]), ("stop", ["x"] * 17),
        ("stop", "x" * 300), ("n", 0), ("n", 129), ("n", 1.5), ("top_logprobs", 21), ("top_logprobs", 3),
        ("logprobs", 1), ("n_probs", 21), ("cache_prompt", 1), ("return_tokens", "x"), ("grammar", 3),
        ("grammar", "root ::= x"), ("json_schema", {"type": "nothing"}), ("response_format", {"type": "xml"}),
        ("response_format", "json"), ("response_format", {"type": "json_schema"}),
        ("response_format", {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}),
        ("tools", {}), ("tools", [3]), ("tools", [{"type": "function"}]), ("tools", [TOOL, TOOL]),
        ("tools", [{"type": "function", "function": {"name": "a b"}}]),
        ("tools", [{"type": "function", "function": {"name": "a", "parameters": 3}}]), ("tool_choice", "maybe"),
        ("tool_choice", "required"), ("tool_choice", {"type": "function", "function": {"name": "other"}}),
        ("chat_template_kwargs", []), ("reasoning_format", "x"), ("messages", []), ("messages", "hi"),
        ("messages", [3]), ("messages", [{"content": "x"}]), ("messages", [{"role": ""}]),
        ("messages", [{"role": "user", "content": 3}]), ("messages", [{"role": "user", "content": [{"type": "text"}]}]),
        ("messages", [{"role": "assistant", "tool_calls": [{}]}]),
        ("messages", [{"role": "assistant", "tool_calls": 3}]),
        ("keep_alive", "soon"), ("keep_alive", True), ("keep_alive", math.inf), ("keep_alive", []),
    ],
)  # fmt: skip
def test_wrong_parameters(name: str, value: Any) -> None:
    """A wrong value is the caller's mistake, named, and costs nothing."""
    failure = refused(**{name: value})
    assert failure.error.kind == "bad_request"
    assert re.split(r"[.[]", failure.error.param or "")[0] == name
    assert len(failure.message) < 500


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("best_of", 2), ("suffix", "x"), ("functions", [{"name": "f"}]), ("modalities", ["text", "audio"]),
        ("audio", {}), ("web_search_options", {}), ("lora", [{"id": 0}]), ("t_max_predict_ms", 5),
        ("post_sampling_probs", True), ("response_fields", ["content"]), ("messages", [IMAGE]),
        ("tools", [{"type": "web_search"}]), ("grammar_lazy", True), ("n_indent", 2),
    ],
)  # fmt: skip
def test_what_the_engine_cannot_do(name: str, value: Any) -> None:
    """It is not ignored: the router may find somebody who can."""
    failure = refused(**{name: value})
    assert failure.error.kind == "unsupported"
    assert re.split(r"[.[]", failure.error.param or "")[0] == name


def test_neutral_wishes() -> None:
    """A parameter at the value that asks nothing is fine, and null is as if it were not there."""
    read(best_of=1, suffix="", functions=[], modalities=["text"], n=1, logprobs=False, tools=[], lora=[],
         response_format={"type": "text"}, temperature=None, stop=None, tool_choice=None, grammar="")  # fmt: skip
    assert all(read(**{name: None}) for name in [*sampling_params.FIGURES, *asked.NEUTRAL, "n", "stop", "tools"])


def test_what_has_no_effect_is_named() -> None:
    """Parameters without effect, and unknown ones, are told to who reads the answer."""
    assert read(id_slot=3, user="me", flavour="sweet", temperature=1).ignored == ("flavour", "id_slot", "user")
    assert read(tools=[TOOL], tool_choice="auto").ignored == ()
    assert read(chat=False, tools=[TOOL], tool_choice="auto").ignored == ("messages", "tool_choice", "tools")


def test_every_name_of_a_parameter_is_checked() -> None:
    """A wrong value is named as it was given, also where another name for the same thing decides."""
    assert refused(max_tokens=5, n_predict=0).error.param == "n_predict"
    assert refused(n=1, n_cmpl=0).error.param == "n_cmpl"
    assert read(n=3, n_cmpl=2).choices == 3


def test_lengths_and_stops() -> None:
    """The newest of OpenAI's names for the length wins; llama.cpp's -1 is no limit; stops are texts without doubles."""
    assert read(max_tokens=5, max_completion_tokens=7, n_predict=9).max_tokens == 7
    assert read(n_predict=9).max_tokens == 9
    assert read(n_predict=-1).max_tokens is None
    assert read(stop=["a", "", "b", "a"]).stops == ("a", "b")
    assert read(stop="x").stops == ("x",)


def test_logprobs() -> None:
    """A chat asks with two parameters, a completion with one, llama.cpp with its own."""
    assert read(logprobs=True).logprobs == 0
    assert read(logprobs=True, top_logprobs=3).logprobs == 3
    assert read(chat=False, logprobs=2).logprobs == 2
    assert read(chat=False, logprobs=0).logprobs == 0
    assert read(n_probs=4).logprobs == 4
    assert read(n_probs=0).logprobs is None


def test_prompts() -> None:
    """A completion takes a text, texts, token ids, or lists of them."""
    assert read(chat=False).prompts == ("x",)
    assert read(chat=False, prompt=["a", "b"]).prompts == ("a", "b")
    assert read(chat=False, prompt=[1, 2]).prompts == ((1, 2),)
    assert read(chat=False, prompt=[[1], [2, 3], "c"]).prompts == ((1,), (2, 3), "c")
    wrong: Any
    for wrong in (None, 3, [], [[]], [1, "a"], [1.5], [-1], [True], ["x"] * 3000):
        assert refused(chat=False, prompt=wrong).error.kind == "bad_request"
    assert refused(chat=False, prompt=["a"] * 3, n=100).error.param == "n"
    assert refused(chat=False, echo=True, logprobs=1).error.kind == "unsupported"


def test_forms() -> None:
    """Grammar, schema and response format become one grammar, and two of them at once are a contradiction."""
    assert read(grammar='root ::= "a"').grammar == 'root ::= "a"'
    schema = {"type": "boolean"}
    made = read(json_schema=schema).grammar
    assert '"true" | "false"' in made
    wrapped = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    assert read(response_format=wrapped).grammar == made
    assert read(response_format={"type": "json_object", "schema": schema}).grammar == made
    assert "object" in read(response_format={"type": "json_object"}).grammar
    assert refused(grammar='root ::= "a"', json_schema=schema).error.param == "grammar"
    assert refused(json_schema=schema, response_format=wrapped).error.param == "response_format"
    assert refused(grammar='root ::= "a"', ignore_eos=True).error.param == "ignore_eos"
    assert refused(grammar='root ::= "a"', tools=[TOOL], tool_choice="required").error.param == "tool_choice"


def test_messages() -> None:
    """Parts of text are joined, an answer without content is empty, and everything else of a message stays."""
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = read(
        messages=[
            {"role": "user", "content": parts, "name": "me"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "out"},
        ]
    ).messages
    assert messages == [
        {"role": "user", "content": "a\nb", "name": "me"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "out"},
    ]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "king", "content": "x"}, "messages[1].role"), ({"role": 5, "content": "x"}, "messages[1].role"),
        ({"role": "", "content": "x"}, "messages[1].role"), ({"content": "x"}, "messages[1].role"),
        ("x", "messages[1]"), ({"role": "user"}, "messages[1].content"),
        ({"role": "user", "content": None}, "messages[1].content"),
        ({"role": "user", "content": []}, "messages[1].content"),
        ({"role": "tool", "tool_call_id": "1"}, "messages[1].content"), ({"role": "assistant"}, "messages[1].content"),
        ({"role": "assistant", "tool_calls": []}, "messages[1].content"),
        ({"role": "user", "refusal": "no"}, "messages[1].content"),
        ({"role": "user", "content": 5}, "messages[1].content"),
        ({"role": "user", "content": True}, "messages[1].content"),
        ({"role": "assistant", "tool_calls": [3]}, "messages[1].tool_calls[0]"),
    ],
)  # fmt: skip
def test_a_message_nobody_could_mean(message: Any, param: str) -> None:
    """A role that there is not, and a message that says nothing, are refused with their place; nothing is guessed."""
    failure = refused(messages=[USER, message])
    assert (failure.error.kind, failure.error.param) == ("bad_request", param)


def test_messages_that_need_no_content() -> None:
    """The assistant's own answers come back as it gave them; an empty text is a content."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    for said in ({"tool_calls": [call]}, {"refusal": "no"}, {"reasoning_content": "hm"}, {"content": ""}):
        [message] = read(messages=[{"role": "assistant", **said}]).messages or [{}]
        assert message["content"] == ""


def test_roles() -> None:
    """OpenAI's roles are known, and those that the model's own template names."""
    for role in ("system", "developer", "user", "assistant", "tool", "function"):
        assert read(messages=[{"role": role, "content": "x"}]).messages
    body = {"messages": [{"role": "ipython", "content": "x"}]}
    source = "{% if message['role'] == 'ipython' %}x{% endif %}"
    assert asked.read(body, chat=True, template=source).messages
    assert refused(**body).error.param == "messages[0].role"


def test_tools() -> None:
    """Which tool may or must be called."""
    assert read(tools=[TOOL]).tool_choice == "auto"
    assert read(tools=[TOOL], tool_choice="required").tool_choice == "required"
    named = {"type": "function", "function": {"name": "look"}}
    assert read(tools=[TOOL], tool_choice=named).tool_choice == "=look"
    assert not read(tools=[TOOL], parallel_tool_calls=False).parallel_tool_calls


def test_embeddings() -> None:
    """Texts or token ids, in numbers or base64."""
    wanted = asked.read_embedding({"input": ["a", "b"], "encoding_format": "base64", "user": "x"})
    assert (wanted.inputs, wanted.encoding, wanted.normalize, wanted.ignored) == (("a", "b"), "base64", True, ("user",))
    assert asked.read_embedding({"input": [1, 2]}).inputs == ((1, 2),)
    assert not asked.read_embedding({"input": "a", "embd_normalize": -1}).normalize
    body: dict[str, Any]
    for body in ({}, {"input": []}, {"input": "a", "encoding_format": "int8"}, {"input": "a", "dimensions": 0}):
        with pytest.raises(CallFailure) as caught:
            asked.read_embedding(body)
        assert (caught.value.error.kind, caught.value.error.sent) == ("bad_request", "no")


@given(
    st.dictionaries(
        st.sampled_from([
            "temperature", "seed", "logit_bias", "stop", "n", "logprobs", "grammar", "json_schema", "response_format",
            "tools", "tool_choice", "messages", "prompt", "chat_template_kwargs", "samplers", "stream_options",
        ]),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
            lambda inner: st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["type", "function", "name", "role", "content", "schema"]), inner),
            max_leaves=6,
        ),
    ),
    st.booleans(),
)  # fmt: skip
def test_anything_at_all(body: dict[str, Any], chat: bool) -> None:
    """Whatever is sent is either understood or refused with a reason, never an accident."""
    try:
        asked.read({"messages": [USER], "prompt": "x", **body}, chat=chat)
    except CallFailure as failure:
        error = failure.error
    else:
        return
    assert error.kind in ("bad_request", "unsupported")
    assert error.param


PAGE = Path(__file__).parents[3] / "docs" / "local-requests.md"


def rows(heading: str) -> dict[str, list[str]]:
    """A table of the page by the first cell of its rows."""
    part = PAGE.read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in part.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_the_page_has_every_sampling_parameter() -> None:
    """The documentation's table has each parameter with the range and default of the code."""
    table = rows("Sampling")
    defaults = msgspec.to_builtins(Sampling())
    assert set(table) == set(defaults)
    for name, (low, high, whole) in sampling_params.FIGURES.items():
        ends = [f"{end:g}" if abs(end) < 1000 else f"{int(end):,}" for end in (low, high)]
        if name != "seed":
            assert table[name][0] == f"{'whole number' if whole else 'number'} {ends[0]} … {ends[1]}", name
        default = defaults[name]
        assert table[name][1] == ("random" if default is None else f"{default:g}"), name


def test_the_page_has_every_other_parameter() -> None:
    """Each parameter that is known is in one of the tables, and no other."""
    documented = set(rows("The rest")) | set(rows("Sampling")) | set(rows("Without effect")) | set(rows("Refused"))
    assert documented == asked.KNOWN - {"model"}
    assert set(rows("Without effect")) == asked.NO_EFFECT
    assert set(rows("Refused")) == set(asked.NEUTRAL)
