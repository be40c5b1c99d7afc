"""Answers and chunks, from tokens to bytes."""

from __future__ import annotations

import base64
import struct
import time
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.llama_cpp import asked, forms, responses
from plugins.llama_cpp.choice import Choice, call_id
from plugins.llama_cpp.forms import Form
from plugins.llama_cpp.logprobs import Found, Scored
from plugins.llama_cpp.responses import Local, Timings, Writer

HERMES = msgspec.structs.replace(forms.HERMES, thoughts=("<think>", "</think>"))
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
CALL = b'<tool_call>{"name":"look","arguments":{"a":1}}</tool_call>'
HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 5, "model": "m"}


def ask(chat: bool = True, **body: Any) -> asked.Asked:
    return asked.read({"messages": [{"role": "user", "content": "x"}], "prompt": "Say", **body}, chat=chat)


def writer(chat: bool = True) -> Writer:
    return Writer(answer_id="chatcmpl-1" if chat else "cmpl-1", model="m", created=5, chat=chat)


def say(choice: Choice, *pieces: bytes, reason: str = "stop", **extra: Any) -> list[dict[str, Any]]:
    """The chunks of a whole answer."""
    chunks = []
    for at, piece in enumerate(pieces):
        if choice.stopped:
            break
        scored = Scored(Found(at, piece, -1.0 - at), ())
        chunk = choice.feed(at, piece, scored if choice._asked.logprobs is not None else None, None)
        chunks += [chunk] if chunk is not None else []
    chunks += choice.finish(reason, extra)
    return [msgspec.json.decode(chunk) for chunk in chunks]


def text_of(chunks: list[dict[str, Any]], member: str = "content") -> str:
    return "".join(chunk["choices"][0]["delta"].get(member) or "" for chunk in chunks)


def test_a_streamed_chat() -> None:
    """The first chunk names the role, each has the head, the last one the reason and what else is to be said."""
    chunks = say(Choice(ask(), 1, writer=writer()), b"Hel", b"lo \xc3", b'\xa9"', timings={"x": 1})
    assert chunks == [
        {**HEAD, "choices": [{"index": 1, "delta": delta, "logprobs": None, "finish_reason": None}]}
        for delta in ({"role": "assistant", "content": "Hel"}, {"content": "lo "}, {"content": 'é"'})
    ] + [
        {**HEAD, "choices": [{"index": 1, "delta": {}, "logprobs": None, "finish_reason": "stop"}], "timings": {"x": 1}}
    ]  # fmt: skip


def test_a_streamed_completion() -> None:
    """The older shape has texts instead of deltas."""
    chunks = say(Choice(ask(chat=False), 0, writer=writer(chat=False)), b"a", b"b", reason="length")
    assert [chunk["choices"][0] for chunk in chunks] == [
        {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
        for text, finish in (("a", None), ("b", None), ("", "length"))
    ]
    assert chunks[0]["object"] == "text_completion"


def test_nothing_said() -> None:
    """An empty answer still has its role and reason."""
    assert [chunk["choices"][0] for chunk in say(Choice(ask(), 0, writer=writer()))] == [
        {"index": 0, "delta": {"role": "assistant"}, "logprobs": None, "finish_reason": "stop"}
    ]


def test_a_whole_chat() -> None:
    """A chat that is not streamed sends nothing and has a message at the end."""
    choice = Choice(ask(), 2)
    assert say(choice, b"a", b"b", reason="length") == []
    assert choice.body() == {
        "index": 2, "message": {"role": "assistant", "content": "ab", "refusal": None}, "logprobs": None,
        "finish_reason": "length",
    }  # fmt: skip
    assert choice.produced == 2


def test_a_whole_completion_with_echo() -> None:
    """With ``echo`` the answer begins with the prompt."""
    choice = Choice(ask(chat=False, echo=True), 0, prompt="Say")
    say(choice, b" it")
    assert choice.body()["text"] == "Say it"
    assert "".join(
        chunk["choices"][0]["text"]
        for chunk in say(Choice(ask(chat=False, echo=True), 0, writer=writer(chat=False), prompt="Say"), b" it")
    ) == "Say it"  # fmt: skip


def test_stop_strings() -> None:
    """A stop string ends the answer for the reason 'stop', and nothing of it is in the answer."""
    choice = Choice(ask(stop=["END"]), 0, writer=writer())
    chunks = say(choice, b"a E", b"N", b"D b", reason="length")
    assert choice.stopped
    assert text_of(chunks) == "a "
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_tool_calls() -> None:
    """A call comes whole in one chunk, with an id, and the reason says so."""
    choice = Choice(ask(tools=[TOOL]), 0, writer=writer(), form=HERMES, new_id=lambda: "abcdefghi")
    chunks = say(choice, b"I ", b"look. ", *(CALL[at : at + 7] for at in range(0, len(CALL), 7)))
    assert text_of(chunks) == "I look."
    called = [chunk for chunk in chunks if "tool_calls" in chunk["choices"][0]["delta"]]
    assert called[0]["choices"][0]["delta"]["tool_calls"] == [
        {"index": 0, "id": "abcdefghi", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    whole = Choice(ask(tools=[TOOL]), 0, form=HERMES)
    say(whole, CALL)
    assert whole.body()["message"]["content"] is None
    assert whole.body()["finish_reason"] == "tool_calls"
    assert "index" not in whole.body()["message"]["tool_calls"][0]


def test_one_call_only() -> None:
    """Without parallel calls the answer ends with the first one."""
    choice = Choice(ask(tools=[TOOL], parallel_tool_calls=False), 0, form=HERMES)
    say(choice, CALL, CALL, b"more")
    assert choice.stopped
    assert len(choice.body()["message"]["tool_calls"]) == 1
    both = Choice(ask(tools=[TOOL], parallel_tool_calls=False), 0, form=HERMES)
    say(both, CALL + CALL)
    assert len(both.body()["message"]["tool_calls"]) == 1


def test_cut_while_calling() -> None:
    """An answer that ends at its length is not told as finished by its call."""
    choice = Choice(ask(tools=[TOOL]), 0, form=HERMES)
    say(choice, CALL, b"<tool", reason="length")
    assert choice.body()["finish_reason"] == "length"
    assert choice.body()["message"]["content"] == "<tool"


def test_tools_that_may_not_be_used() -> None:
    """With ``tool_choice`` none, and for models without tools, a call's text is text."""
    for body, form in (({"tools": [TOOL], "tool_choice": "none"}, HERMES), ({}, HERMES), ({"tools": [TOOL]}, Form())):
        choice = Choice(ask(**body), 0, form=form)
        say(choice, CALL)
        assert choice.body()["message"]["content"] == CALL.decode()


def test_thoughts() -> None:
    """Thoughts are apart from the content, streamed or whole, and their tokens are counted."""
    pieces = (b"<think>", b"hm", b"</think>", b"\n\n", b"yes")
    choice = Choice(ask(), 0, writer=writer(), form=HERMES)
    chunks = say(choice, *pieces)
    assert (text_of(chunks, "reasoning_content"), text_of(chunks)) == ("hm", "yes")
    assert choice.reasoning_tokens == 2
    whole = Choice(ask(), 0, form=HERMES, thinking=True)
    say(whole, *pieces[1:])
    assert whole.body()["message"]["reasoning_content"] == "hm"
    assert whole.body()["message"]["content"] == "yes"
    plain = Choice(ask(reasoning_format="none"), 0, form=HERMES)
    say(plain, *pieces)
    assert plain.body()["message"]["content"] == "<think>hm</think>\n\nyes"


def test_logprobs_come_with_their_text() -> None:
    """Each token's score comes with the chunk that shows its text; those behind a stop string never come."""
    choice = Choice(ask(logprobs=True, stop=["STOP"]), 0, writer=writer())
    chunks = say(choice, b"a", b"\xc3", b"\xa9", b" ST", b"O", b"P b")
    tokens = [
        [one["id"] for one in (chunk["choices"][0]["logprobs"] or {"content": []})["content"]] for chunk in chunks
    ]
    assert [token for some in tokens for token in some] == [0, 1, 2, 3]
    assert text_of(chunks) == "aé "
    whole = Choice(ask(logprobs=True), 0)
    say(whole, b"a", b"\xc3", b"\xa9", b"\xc3")
    assert [one["id"] for one in whole.body()["logprobs"]["content"]] == [0, 1, 2, 3]


def test_offsets_of_a_completion() -> None:
    """Offsets count characters from the beginning of the text, an echoed prompt included."""
    choice = Choice(ask(chat=False, logprobs=0), 0)
    say(choice, "é".encode(), b"bc", b"d")
    assert choice.body()["logprobs"]["text_offset"] == [0, 1, 3]


def test_token_ids() -> None:
    """All tokens are told, in their chunks or at the end."""
    choice = Choice(ask(return_tokens=True), 0, writer=writer())
    chunks = say(choice, b"a", b"\xc3", b"\xa9")
    assert [chunk["choices"][0].get("tokens") for chunk in chunks] == [[0], [1, 2], None]
    whole = Choice(ask(return_tokens=True), 0)
    say(whole, b"a", b"b")
    assert whole.body()["tokens"] == [0, 1]


def test_timings_per_token() -> None:
    """With the wish, each chunk carries the figures it was given."""
    choice = Choice(ask(timings_per_token=True), 0, writer=writer())
    chunk = choice.feed(1, b"a", None, {"timings": {"predicted_n": 1}})
    assert chunk is not None
    assert msgspec.json.decode(chunk)["timings"] == {"predicted_n": 1}


@given(
    st.text(alphabet='ab"\\<>{}é🦊\n ENDtool_cl/', max_size=40),
    st.sampled_from([{}, {"stop": ["END"]}, {"logprobs": True}, {"return_tokens": True}, {"tools": [TOOL]}]),
    st.sampled_from([Form(), HERMES]),
    st.data(),
)
def test_streamed_is_whole(text: str, body: dict[str, Any], form: Form, data: st.DataObject) -> None:
    """A streamed answer put together is the whole answer, for any cut of any text."""
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    pieces = [raw[a:b] for a, b in pairwise([0, *cuts, len(raw)])]
    whole = Choice(ask(**body), 0, form=form, new_id=lambda: "x")
    say(whole, *pieces)
    chunks = say(Choice(ask(**body), 0, writer=writer(), form=form, new_id=lambda: "x"), *pieces)
    message = whole.body()["message"]
    assert text_of(chunks) == (message["content"] or "")
    assert text_of(chunks, "reasoning_content") == message.get("reasoning_content", "")
    assert chunks[-1]["choices"][0]["finish_reason"] == whole.body()["finish_reason"]
    scores = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    if "logprobs" in body:
        told = [one for score in scores if score for one in score["content"]]
        assert told == whole.body()["logprobs"]["content"]
    if "return_tokens" in body:
        assert [t for chunk in chunks for t in chunk["choices"][0].get("tokens", [])] == whole.body()["tokens"]


def test_a_whole_answer() -> None:
    """Choices, usage, timings and what was loaded, together."""
    usage = responses.usage(10, 5, cached=4, reasoning=2)
    extra = {"timings": Timings(prompt_n=6, prompt_ms=3, predicted_n=5, predicted_ms=50, cache_n=4).body()}
    body = responses.whole([{"index": 0}], answer_id="i", model="m", created=1, chat=True, usage=usage, extra=extra)
    assert body["usage"] == {
        "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }  # fmt: skip
    assert body["timings"] == {
        "cache_n": 4, "prompt_n": 6, "prompt_ms": 3.0, "prompt_per_second": 2000.0, "predicted_n": 5,
        "predicted_ms": 50.0, "predicted_per_second": 100.0,
    }  # fmt: skip
    assert body["object"] == "chat.completion"
    assert Timings().body()["predicted_per_second"] == 0.0


def test_the_chunk_with_the_usage() -> None:
    """It has no choices; what was loaded is said in it too."""
    local = Local(file="a.gguf", quantization="Q8_0", context=1, gpu_layers=0, layers=2, type_k="f16", type_v="f16")
    chunk = msgspec.json.decode(writer().usage(responses.usage(1, 2), {"local": local.body(["user"])}))
    assert (chunk["choices"], chunk["usage"]["total_tokens"]) == ([], 3)
    assert (chunk["local"]["quantization"], chunk["local"]["ignored"]) == ("Q8_0", ["user"])
    assert "ignored" not in local.body()


@pytest.mark.parametrize("raw", [False, True])
def test_embeddings(raw: bool) -> None:
    """Vectors as numbers, or as base64 of their 32-bit floats, from numbers or bytes alike."""
    numbers = [0.5, -1.0, 0.25]
    vector = struct.pack("<3f", *numbers) if raw else numbers
    made = [
        responses.embeddings([vector], model="m", encoding=encoding, prompt_tokens=3, extra={"local": {}})
        for encoding in ("float", "base64")
    ]
    assert made[0]["data"] == [{"object": "embedding", "index": 0, "embedding": numbers}]
    assert base64.b64decode(made[1]["data"][0]["embedding"]) == struct.pack("<3f", *numbers)
    assert made[0]["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


def test_ids_of_calls() -> None:
    """Nine letters and digits, each time others."""
    made = {call_id() for _ in range(100)}
    assert len(made) == 100
    assert all(len(one) == 9 and one.isalnum() for one in made)


def test_a_token_costs_next_to_nothing() -> None:
    """Text of a token to a chunk takes a few microseconds: this runs for each token of every sequence."""
    choice = Choice(ask(stop=["END"]), 0, writer=writer())
    choice.feed(1, b"first", None, None)
    began = time.process_time()
    for _ in range(20_000):
        choice.feed(1, b" word", None, None)
    assert (time.process_time() - began) / 20_000 < 10e-6
