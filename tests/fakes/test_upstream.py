"""The fake upstream against aiohttp and raw sockets: if it lies, every test built on it does."""

import asyncio
import base64
import json
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
from email.utils import parsedate_to_datetime
from inspect import signature
from itertools import pairwise
from pathlib import Path

import aiohttp
import msgspec
import pytest

from tests.fakes.upstream import (
    PRESETS,
    SENTENCE,
    Behaviour,
    FakeUpstream,
    InProcessUpstream,
    RateLimit,
    UpstreamRefused,
    max_in_window,
    rate_limit_body,
    read_log,
    rule,
)
from tests.fakes.upstream_handle import ROOT
from tests.fakes.upstream_limits import Limiter, limit_headers
from tests.fakes.upstream_presets import go_duration

CHAT = "/v1/chat/completions"
HI = {"model": "m1", "messages": [{"role": "user", "content": "one two three"}]}
STREAM = {**HI, "stream": True, "stream_options": {"include_usage": True}}
WORDS = len(SENTENCE.split())


@pytest.fixture
async def fake():
    async with InProcessUpstream() as upstream:
        yield upstream


@pytest.fixture
async def http(fake):
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(fake.url, timeout=timeout) as session:
        yield session


@pytest.fixture(scope="module")
def child():
    with FakeUpstream() as upstream:
        yield upstream


async def ask(http, body=None, path=CHAT, **kwargs):
    """Status, headers and JSON body of a POST."""
    async with http.post(path, json=HI if body is None else body, **kwargs) as response:
        return response.status, response.headers, await response.json(content_type=None)


async def events(http, body=STREAM, path=CHAT):
    """The `data:` payloads of a stream, `[DONE]` included as text."""
    async with http.post(path, json=body) as response:
        assert response.content_type == "text/event-stream"
        text = await response.text()
    assert text.endswith("\n\n")
    payloads = [event.removeprefix("data: ") for event in text.split("\n\n")[:-1]]
    return [payload if payload == "[DONE]" else json.loads(payload) for payload in payloads]


def request_bytes(body=HI, path=CHAT, headers=""):
    payload = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len(payload)}\r\n\r\n"
    return head.encode() + payload


async def raw(fake, *parts):
    """Everything that the server sends until it closes."""
    reader, writer = await asyncio.open_connection(fake.host, fake.port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        return await asyncio.wait_for(reader.read(-1), 5)
    finally:
        writer.close()


CLOSING = "Connection: close\r\n"


# ---- endpoints


async def test_chat_answer_is_fixed_and_counted(http):
    """A chat answer says the sentence; prompt tokens are the words asked, completion tokens the words said."""
    status, headers, body = await ask(http)
    assert status == 200
    assert headers["x-request-id"] == "req-000000000001"
    assert body["id"] == "chatcmpl-000000000001"
    assert body["model"] == "m1"
    choice = body["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (SENTENCE, "stop")
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": WORDS, "total_tokens": 3 + WORDS}


async def test_content_parts_count_as_words(http):
    """Text parts of a message count like plain text, other parts not at all."""
    content = [{"type": "text", "text": "a b"}, {"type": "image_url", "image_url": {"url": "data:"}}]
    _, _, body = await ask(http, {"model": "m1", "messages": [{"role": "user", "content": content}]})
    assert body["usage"]["prompt_tokens"] == 2


async def test_stream_says_the_same_with_usage_last(http):
    """A stream gives role, one chunk per word, finish reason, usage and [DONE], in that order."""
    got = await events(http)
    assert got[-1] == "[DONE]"
    assert got[-2]["choices"] == []
    assert got[-2]["usage"] == {"prompt_tokens": 3, "completion_tokens": WORDS, "total_tokens": 3 + WORDS}
    assert got[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    words = [event["choices"][0]["delta"]["content"] for event in got[1:-3]]
    assert len(words) == WORDS
    assert "".join(words) == SENTENCE
    assert got[-3]["choices"][0]["finish_reason"] == "stop"
    assert all(event["usage"] is None for event in got[:-2])


async def test_stream_without_include_usage_has_none(http):
    """No event mentions usage unless the request asks for it."""
    got = await events(http, {**HI, "stream": True})
    assert all("usage" not in event for event in got[:-1])
    assert len(got) == 1 + WORDS + 1 + 1


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_max_tokens_shortens_the_answer(http, field):
    """An answer never exceeds the tokens asked for, and says so by its finish reason."""
    _, _, body = await ask(http, {**HI, field: 2})
    assert body["choices"][0]["message"]["content"] == "The quick"
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 2


async def test_text_completions(http):
    """The older endpoint answers in its own shape, whole and streamed."""
    _, _, body = await ask(http, {"model": "m1", "prompt": ["a b", "c"]}, path="/v1/completions")
    assert (body["object"], body["choices"][0]["text"]) == ("text_completion", SENTENCE)
    assert body["usage"]["prompt_tokens"] == 3
    got = await events(http, {"model": "m1", "prompt": "a", "stream": True}, path="/v1/completions")
    assert "".join(event["choices"][0]["text"] for event in got[:-1]) == SENTENCE


async def test_embeddings_are_stable_in_both_encodings(http):
    """Equal texts get equal vectors, and base64 carries exactly the same numbers."""
    question = {"model": "e", "input": ["x y", "z", "x y"], "dimensions": 40}
    _, _, plain = await ask(http, question, path="/v1/embeddings")
    _, _, coded = await ask(http, {**question, "encoding_format": "base64"}, path="/v1/embeddings")
    vectors = [item["embedding"] for item in plain["data"]]
    assert vectors[0] == vectors[2] != vectors[1]
    unpacked = [list(struct.unpack("<40f", base64.b64decode(item["embedding"]))) for item in coded["data"]]
    assert unpacked == vectors
    assert plain["usage"] == {"prompt_tokens": 5, "total_tokens": 5}


async def test_model_lists(http, fake):
    """/v1/models carries shutdown dates, GitHub's catalogue is a bare array, and a rule replaces both."""
    async with http.get("/v1/models") as response:
        dates = {entry["id"]: entry["shutdown_date"] for entry in (await response.json())["data"]}
    assert dates == {"m1": None, "gpt-4o-mini": None, "old-model": "2026-12-31"}
    fake.script([rule({"models": ["a", {"id": "b", "shutdown_date": "2027-01-01"}]})])
    async with http.get("/catalog/models") as response:
        catalogue = await response.json()
    assert [entry["id"] for entry in catalogue] == ["a", "b"]
    assert catalogue[0]["limits"] == {"max_input_tokens": 8000, "max_output_tokens": 4000}
    assert catalogue[1]["shutdown_date"] == "2027-01-01"


async def test_github_paths(http, fake):
    """The legacy chat path answers like any other; /rate_limit shows the account, and a rule may empty it."""
    status, _, _ = await ask(http, path="/inference/chat/completions")
    assert status == 200
    async with http.get("/rate_limit") as response:
        core = (await response.json())["resources"]["core"]
    assert (core["limit"], core["used"], core["remaining"]) == (5000, 1, 4999)
    assert 3500 < core["reset"] - time.time() <= 3600
    fake.script([rule({"body": rate_limit_body(time.time(), remaining=99)}, path="/rate_limit")])
    async with http.get("/rate_limit") as response:
        assert (await response.json())["resources"]["core"]["remaining"] == 99


async def test_wrong_requests(http):
    """Unknown paths, wrong methods and bad bodies get OpenAI-shaped errors with the usual statuses."""
    assert (await ask(http, path="/v1/nothing"))[0] == 404
    async with http.get(CHAT) as response:
        assert response.status == 405
    for data in (b"{", b"[]", b'{"model": 3}', b"\xff", b""):
        async with http.post(CHAT, data=data) as response:
            assert response.status == 400
            assert (await response.json())["error"]["code"] == "invalid_json"


# ---- the script


@pytest.mark.parametrize(
    ("match", "hit"),
    [
        ({}, True),
        ({"path": CHAT}, True),
        ({"path": "/v1/*"}, True),
        ({"path": "/v1"}, False),
        ({"model": "m1"}, True),
        ({"model": "m*"}, True),
        ({"model": "m2"}, False),
        ({"authorization": "Bearer k1"}, True),
        ({"authorization": "k1"}, True),
        ({"authorization": "k"}, False),
        ({"method": "GET"}, False),
        ({"stream": False}, True),
        ({"model": "m1", "path": "/other"}, False),
    ],
)
async def test_rules_match(http, fake, match, hit):
    """A rule applies exactly when all of its fields fit the request."""
    fake.script([{"match": match, "behaviour": {"status": 418}}])
    status, _, _ = await ask(http, headers={"Authorization": "Bearer k1"})
    assert status == (418 if hit else 200)


async def test_rules_are_tried_in_order_and_used_up(http, fake):
    """The first rule that matches and is not used up decides; afterwards the server is normal again."""
    fake.script([rule({"status": 500}, times=2, model="m1"), rule({"status": 503}, times=1)])
    assert [(await ask(http))[0] for _ in range(4)] == [500, 500, 503, 200]
    assert [(state.hits, state.left) for state in fake.rules()] == [(2, 0), (1, 0)]
    fake.add({"status": 504})
    assert [(await ask(http))[0] for _ in range(2)] == [504, 504]
    fake.reset()
    assert ((await ask(http))[0], fake.rules()) == (200, [])


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('[{"behaviour": {"statsu": 1}}]', "did you mean 'status'?"),
        ('[{"behaviour": {"preset": "hf-402"}}]', "did you mean 'hf_402'?"),
        ('[{"match": {"modle": "x"}, "behaviour": {}}]', "did you mean 'model'?"),
        ('[{"behaviour": {"ratelimit_headers": {"style": "huh"}}}]', "Invalid enum value 'huh'"),
        ("[{", "Input data was truncated"),
    ],
)
async def test_a_bad_script_is_refused_whole(http, fake, text, hint):
    """A script with an unknown key is refused with the nearest known one, and the old script stays."""
    fake.script([rule({"status": 418})])
    async with http.post("/__script", data=text) as response:
        assert response.status == 400
        assert hint in (await response.json())["error"]["message"]
    assert (await ask(http))[0] == 418


async def test_handles_refuse_alike(fake, child):
    """Both handles raise the same error for the same bad script."""
    messages = set()
    for handle in (fake, child):
        with pytest.raises(UpstreamRefused) as refused:
            handle.script([{"behaviour": {"chunk": 3}}])
        messages.add(str(refused.value))
    assert len(messages) == 1
    assert "did you mean 'chunks'?" in messages.pop()


# ---- answers on command


async def test_status_headers_and_body(http, fake):
    """Status, headers (several of one name too) and body are sent as scripted."""
    fake.script(
        [rule({"status": 429, "headers": {"Retry-After": 7, "x-a": ["1", "2"]}, "body": {"oh": "no"}}, times=1)]
    )
    status, headers, body = await ask(http)
    assert (status, headers["retry-after"], headers.getall("x-a"), body) == (429, "7", ["1", "2"], {"oh": "no"})
    fake.script([rule({"body": "plain words"}, times=1), rule({"status": 403, "body": ""})])
    async with http.post(CHAT, json=HI) as response:
        assert (response.status, response.content_type, await response.text()) == (200, "text/plain", "plain words")
    async with http.post(CHAT, json=HI) as response:
        assert (response.status, await response.read()) == (403, b"")


async def test_status_alone(http, fake):
    """An error status without a body gets an OpenAI-shaped one; a success status keeps the normal answer."""
    fake.script([rule({"status": 503}, times=1), rule({"status": 201, "headers": {"x-extra": "1"}})])
    status, _, body = await ask(http)
    assert (status, body["error"]["type"]) == (503, "server_error")
    status, headers, body = await ask(http)
    assert (status, headers["x-extra"], body["choices"][0]["message"]["content"]) == (201, "1", SENTENCE)


async def test_chunks_and_content(http, fake):
    """`chunks` sets how many words are said, past max_tokens too; `content` sets which."""
    fake.script([rule({"chunks": 12, "content": "a b"})])
    _, _, body = await ask(http, {**HI, "max_tokens": 2})
    assert body["choices"][0]["message"]["content"] == "a b a b a b a b a b a b"
    assert body["usage"]["completion_tokens"] == 12
    got = await events(http)
    assert got[-2]["usage"]["completion_tokens"] == 12
    fake.script([rule({"chunks": 0})])
    assert [event["choices"] for event in (await events(http))[:-1]][-1] == []


async def test_tool_calls(http, fake):
    """A scripted tool call comes whole, and in fragments that join to the same arguments."""
    arguments = {"city": "São Paulo", "days": 3}
    fake.script([rule({"tool_calls": [{"name": "weather", "arguments": arguments}, {"name": "now"}]})])
    _, _, body = await ask(http)
    choice = body["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    calls = choice["message"]["tool_calls"]
    assert [call["function"]["name"] for call in calls] == ["weather", "now"]
    assert json.loads(calls[0]["function"]["arguments"]) == arguments
    got = await events(http)
    deltas = [event["choices"][0]["delta"] for event in got[1:-3]]
    parts = [part for delta in deltas for part in delta["tool_calls"] if part["index"] == 0]
    assert parts[0]["function"]["name"] == "weather"
    assert json.loads("".join(part["function"]["arguments"] for part in parts)) == arguments
    assert len(parts) > 2
    assert got[-2]["usage"]["completion_tokens"] == len(deltas) == body["usage"]["completion_tokens"]


async def test_usage_missing_and_lying(http, fake):
    """Usage can be left out although asked for, or be wrong."""
    fake.script([rule({"no_usage": True}, times=2), rule({"usage": {"prompt_tokens": -1}})])
    assert "usage" not in (await ask(http))[2]
    assert all("usage" not in event for event in (await events(http))[:-1])
    assert (await ask(http))[2]["usage"] == {"prompt_tokens": -1}
    assert (await events(http))[-2]["usage"] == {"prompt_tokens": -1}


async def test_broken_streams_that_end_cleanly(http, fake):
    """An error event ends the stream half-way without [DONE]; `no_done` only leaves [DONE] out."""
    fake.script([rule({"sse_error_midstream": True, "chunks": 6}, times=1), rule({"no_done": True})])
    got = await events(http)
    assert len(got) == 1 + 3 + 1
    assert got[-1]["error"]["type"] == "server_error"
    assert (await events(http))[-1]["usage"]["completion_tokens"] == WORDS


async def test_html_and_redirect(http, fake):
    """HTML arrives where JSON was expected; a redirect names its target and has no body."""
    fake.script([rule({"html": True, "status": 502}, times=1), rule({"redirect": "http://other.invalid/v1"})])
    async with http.post(CHAT, json=HI) as response:
        assert (response.status, response.content_type) == (502, "text/html")
        assert (await response.text()).startswith("<!DOCTYPE html>")
    async with http.post(CHAT, json=HI, allow_redirects=False) as response:
        assert (response.status, response.headers["location"]) == (307, "http://other.invalid/v1")


async def test_invalid_json(http, fake):
    """The HTTP is whole and the JSON is not; in a stream only the middle event is broken."""
    fake.script([rule({"invalid_json": True})])
    async with http.post(CHAT, json=HI) as response:
        with pytest.raises(json.JSONDecodeError):
            json.loads(await response.text())
    async with http.post(CHAT, json=STREAM) as response:
        payloads = [event.removeprefix("data: ") for event in (await response.text()).split("\n\n")[:-1]]
    good = [payload for payload in payloads if payload.endswith("}")]
    assert len(payloads) - len(good) == 2  # the broken one and [DONE]
    assert payloads[-1] == "[DONE]"
    assert all(json.loads(payload) for payload in good)


@pytest.mark.parametrize("body", [HI, STREAM])
async def test_invalid_utf8(http, fake, body):
    """The text contains bytes that are not UTF-8, and is otherwise the normal answer."""
    fake.script([rule({"invalid_utf8": True})])
    async with http.post(CHAT, json=body) as response:
        data = await response.read()
    with pytest.raises(UnicodeDecodeError):
        data.decode()
    data.replace(b"\xff\xc3(", b"").decode()
    assert data.count(b"\xff\xc3(") == 1


@pytest.mark.parametrize("body", [HI, STREAM])
async def test_chunked_garbage(http, fake, body):
    """A chunk header that is none breaks the answer after its first half."""
    fake.script([rule({"chunked_garbage": True})])
    with pytest.raises(aiohttp.ClientError):
        await ask(http, body)
    wire = await raw(fake, request_bytes(body))
    assert wire.startswith(b"HTTP/1.1 200 OK\r\n")
    assert wire.endswith(b"ZZ\r\nthis is not a chunk\r\n")
    assert wire.count(b"lazy") == 0
    assert [arrival.outcome for arrival in fake.log()] == ["cut", "cut"]


@pytest.mark.parametrize("name", sorted(PRESETS))
async def test_every_preset_answers(http, fake, name):
    """Every preset gives the status and headers that it is made of."""
    expected = msgspec.convert(PRESETS[name](None, time.time()), Behaviour)
    fake.script([rule({"preset": name})])
    async with http.post(CHAT, json=HI) as response:
        assert response.status == expected.status
        assert set(expected.headers) <= {header.lower() for header in response.headers}
        body = await response.read()
    if expected.body == "":
        assert body == b""
    elif not expected.html:
        assert json.loads(body)


async def test_presets_have_the_documented_shapes(http, fake):
    """Spot checks against the wire facts, with other waits and overridden keys."""
    fake.script(
        [
            rule({"preset": "github_retired_403"}, times=1),
            rule({"preset": "github_brownout_410"}, times=1),
            rule({"preset": "github_429", "seconds": 12}, times=1),
            rule({"preset": "retry_after_date", "seconds": 90}, times=1),
            rule({"preset": "google_retryinfo"}, times=1),
            rule({"preset": "prose_retry", "status": 503, "headers": {"x-more": "1"}}, times=1),
        ]
    )
    async with http.post(CHAT, json=HI) as response:
        assert response.headers["sunset"] == "Thu, 30 Jul 2026 00:00:00 GMT"
        assert response.headers["deprecation"] == "@1777939200"
        assert await response.read() == b""
    status, _, body = await ask(http)
    assert (status, body["error"]["code"]) == (410, "github_models_retirement_brownout")
    _, headers, body = await ask(http)
    assert (headers["retry-after"], headers["x-ratelimit-type"]) == ("12", "UserByModelByDay")
    assert "Please wait 12 seconds" in body["error"]["message"]
    _, headers, _ = await ask(http)
    assert 85 < parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time() <= 90
    _, _, body = await ask(http)
    assert body["error"]["details"][1]["retryDelay"] == "17s"
    status, headers, body = await ask(http)
    assert (status, headers["x-more"]) == (503, "1")
    assert "try again in 7.66s" in body["error"]["message"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (0.012, "12ms"), (1, "1s"), (360, "6m0s"), (3723.5, "1h2m3.5s"), (7.66, "7.66s")]
)
def test_go_durations(seconds, text):
    """Durations read as Go prints them."""
    assert go_duration(seconds) == text


# ---- time and connections


async def test_delays(http, fake):
    """`delay_s` holds everything back, `first_byte_delay_s` the body only, `chunk_interval_s` each further chunk."""
    fake.script([rule({"delay_s": 0.05, "first_byte_delay_s": 0.06, "chunks": 4, "chunk_interval_s": 0.02})])
    started = time.monotonic()
    async with http.post(CHAT, json=STREAM) as response:
        headers_at = time.monotonic() - started
        seen: list[float] = []
        async for data, _ in response.content.iter_chunks():
            if b'"content":"' in data and b'"content":""' not in data:
                seen.append(time.monotonic() - started)
    assert headers_at >= 0.05
    assert len(seen) == 4
    assert all(at >= 0.11 + 0.02 * i for i, at in enumerate(seen))
    await fake.wait_async(finished=1)
    arrival = fake.log()[0]
    assert arrival.end_at - arrival.at >= 0.17e9
    fake.script([rule({"first_byte_delay_s": 60})])
    async with http.post(CHAT, json=STREAM) as response:
        assert response.status == 200


@pytest.mark.parametrize("cut", [0, 1, 40, 120, 200])
@pytest.mark.parametrize("body", [HI, STREAM])
async def test_cut_after_bytes(fake, cut, body):
    """Exactly so many bytes leave before the connection ends, inside the headers as well as in the body."""
    whole = await raw(fake, request_bytes(body, headers=CLOSING))
    fake.script([rule({"cut_after_bytes": cut})])
    wire = await raw(fake, request_bytes(body, headers=CLOSING))
    assert len(wire) == cut
    assert wire == whole.replace(b"000000000001", b"000000000002")[:cut]
    arrival = fake.log()[-1]
    assert (arrival.outcome, arrival.status) == ("complete" if cut > len(whole) else "cut", 200 if cut else None)


async def test_cut_past_the_end_is_none(http, fake):
    """A cut beyond the answer's length changes nothing, and the connection stays usable."""
    fake.script([rule({"cut_after_bytes": 100_000})])
    for _ in range(2):
        assert (await ask(http))[0] == 200
    assert fake.stats().total_connections == 1


async def test_cut_by_reset(fake):
    """With `reset` the client gets the bytes, then a connection reset instead of an orderly end."""
    fake.script([rule({"cut_after_bytes": 50, "reset": True, "first_byte_delay_s": 0})])
    reader, writer = await asyncio.open_connection(fake.host, fake.port)
    writer.write(request_bytes())
    got = b""
    with pytest.raises(ConnectionResetError):  # noqa: PT012 - which read of several sees the reset is the kernel's choice
        while data := await asyncio.wait_for(reader.read(10), 5):
            got += data
    assert len(got) <= 50
    writer.close()


@pytest.mark.parametrize(("behaviour", "sent"), [({"hang": True}, 0), ({"hang_after_bytes": 130}, 130)])
async def test_hang_until_the_client_leaves(fake, behaviour, sent):
    """A hanging answer sends what it should and nothing more; the log tells when the client gave up."""
    fake.script([rule(behaviour)])
    reader, writer = await asyncio.open_connection(fake.host, fake.port)
    writer.write(request_bytes(STREAM))
    await fake.wait_async(arrivals=1)
    if sent:
        assert len(await asyncio.wait_for(reader.readexactly(sent), 5)) == sent
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.03)
    assert (fake.log()[0].end_at, fake.stats().active) == (None, 1)
    writer.close()
    await fake.wait_async(finished=1)
    arrival = fake.log()[0]
    assert (arrival.outcome, arrival.status) == ("client_gone", 200 if sent else None)
    assert (fake.stats().active, fake.stats().open_connections) == (0, 0)


async def test_a_client_that_leaves_a_stream(fake):
    """A stream whose client disconnects stops at once and is logged as such."""
    fake.script([rule({"chunks": 1000, "chunk_interval_s": 0.01})])
    reader, writer = await asyncio.open_connection(fake.host, fake.port)
    writer.write(request_bytes(STREAM))
    await asyncio.wait_for(reader.readuntil(b"quick"), 5)
    writer.close()
    await fake.wait_async(finished=1)
    assert (fake.log()[0].outcome, fake.log()[0].status) == ("client_gone", 200)


async def test_slow_drip(fake):
    """Bytes leave at the given rate, and all of them arrive."""
    whole = await raw(fake, request_bytes(headers=CLOSING))
    fake.script([rule({"slow_drip": 4000})])
    started = time.monotonic()
    wire = await raw(fake, request_bytes(headers=CLOSING))
    assert wire == whole.replace(b"000000000001", b"000000000002")
    assert time.monotonic() - started >= 0.8 * len(whole) / 4000


async def test_pipelined_answers_keep_their_order(fake):
    """Requests sent in one write are answered in order although the first is slow; all arrive at once."""
    fake.script([rule({"delay_s": 0.05}, model="slow")])
    bodies = [{**HI, "model": "slow"}, {**HI, "model": "b"}, {**STREAM, "model": "c"}, {**HI, "model": "d"}]
    last = len(bodies) - 1
    wire = await raw(
        fake, b"".join(request_bytes(b, headers=CLOSING if i == last else "") for i, b in enumerate(bodies))
    )
    assert [wire.find(b'"model":"%b"' % m.encode()) > 0 for m in ("slow", "b", "c", "d")] == [True] * 4
    positions = [wire.find(b'"model":"%b"' % m.encode()) for m in ("slow", "b", "c", "d")]
    assert positions == sorted(positions)
    arrivals = fake.log()
    assert len({arrival.at for arrival in arrivals}) == 1
    assert fake.stats().max_active == 4
    assert all(a.end_at <= b.end_at for a, b in pairwise(arrivals))


async def test_a_thousand_pipelined_requests(fake):
    """A long pipeline behind a slow answer neither recurses nor loses a request."""
    fake.script([rule({"delay_s": 0.02}, times=1), rule({"delay_s": 1e-9})])
    sent = [request_bytes() for _ in range(1500)]
    wire = await raw(fake, *sent, request_bytes(headers=CLOSING))
    assert wire.count(b"HTTP/1.1 200 OK") == 1501
    assert fake.count(60).total == 1501


async def test_a_slow_reader_gets_everything(fake):
    """A client that reads late gets an answer larger than all buffers, and the server waits for it."""
    fake.script([rule({"chunks": 60_000, "chunk_interval_s": 1e-9})])
    reader, writer = await asyncio.open_connection(fake.host, fake.port, limit=4096)
    writer.write(request_bytes(STREAM, headers=CLOSING))
    await fake.wait_async(arrivals=1)
    got = b""
    while data := await asyncio.wait_for(reader.read(1 << 20), 5):
        got += data
    writer.close()
    assert got.count(b"data: ") == 60_000 + 4
    assert got.endswith(b"0\r\n\r\n")


async def test_a_request_in_single_bytes(fake):
    """However a request is split, it is one request, and it arrived with its first byte."""
    data = request_bytes(headers="Authorization: Bearer k\r\n" + CLOSING)
    before = time.monotonic_ns()
    reader, writer = await asyncio.open_connection(fake.host, fake.port)
    writer.write(data[:1])
    async with asyncio.timeout(5):
        while not any(connection.incoming for connection in fake.state.connections):
            await asyncio.sleep(0)
    first = time.monotonic_ns()
    for i in range(1, len(data)):
        await asyncio.sleep(0)
        writer.write(data[i : i + 1])
    wire = await asyncio.wait_for(reader.read(-1), 5)
    writer.close()
    assert SENTENCE.encode() in wire
    (arrival,) = fake.log()
    assert before < arrival.at < first
    assert arrival.model == "m1"


async def test_http_details(fake):
    """100-continue, Connection: close, HTTP/1.0 and bytes that are no HTTP are handled as a real server would."""
    wire = await raw(fake, request_bytes(headers="Expect: 100-continue\r\n" + CLOSING))
    assert wire.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert b"connection: close\r\n" in wire
    assert b" 200 OK" in await raw(fake, request_bytes().replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert (await raw(fake, b"\x16\x03\x01nonsense\r\n\r\n")).startswith(b"HTTP/1.1 400 Bad Request")


# ---- limits


def limited(**keys):
    return {"ratelimit_headers": {"limit_requests": 3, "window_s": 60, **keys}}


async def test_exactly_n_are_admitted(http, fake):
    """N requests pass and N + 1 is refused with the true remainder on every answer; refusals do not count."""
    fake.script([rule(limited(), path=CHAT)])
    seen = [await ask(http) for _ in range(5)]
    assert [status for status, _, _ in seen] == [200, 200, 200, 429, 429]
    assert [headers["x-ratelimit-remaining-requests"] for _, headers, _ in seen] == ["2", "1", "0", "0", "0"]
    assert {headers["x-ratelimit-limit-requests"] for _, headers, _ in seen} == {"3"}
    assert seen[0][1]["x-ratelimit-reset-requests"] == "1m0s"
    assert 58 <= int(seen[3][1]["retry-after"]) <= 60
    assert seen[3][2]["error"]["code"] == "rate_limit_exceeded"
    assert "Limit 3, Used 3. Please try again in " in seen[3][2]["error"]["message"]
    assert (await ask(http, {"input": "x", "model": "m"}, path="/v1/embeddings"))[0] == 200


@pytest.mark.parametrize("kind", ["sliding", "fixed"])
async def test_a_window_passes(http, fake, kind):
    """After a window from the first arrival, the next request is admitted."""
    fake.script([rule(limited(limit_requests=1, window_s=0.25, kind=kind))])
    assert [(await ask(http))[0] for _ in range(2)] == [200, 429]
    await asyncio.sleep(0.26)
    assert (await ask(http))[0] == 200


@pytest.mark.parametrize(
    ("style", "headers", "in_body"),
    [
        ("cerebras", {"x-ratelimit-remaining-requests-day": "0"}, "too_many_requests_error"),
        ("hf", {"ratelimit": '"api";r=0;t=60', "ratelimit-policy": '"fixed window";"api";q=1;w=60'}, "rate limit you"),
        ("github", {"x-ratelimit-type": "UserByModelByMinute", "x-ratelimit-used": "1"}, "RateLimitReached"),
        ("anthropic", {"anthropic-ratelimit-requests-remaining": "0"}, "rate_limit_error"),
        ("openai", {"x-ratelimit-remaining-requests": "0", "x-ratelimit-remaining-tokens": "88"}, "Used 1."),
    ],
)
async def test_limit_styles(http, fake, style, headers, in_body):
    """Each style reports on success and refusal with its provider's headers, and refuses with its body."""
    fake.script([rule(limited(limit_requests=1, limit_tokens=100, kind="fixed", style=style))])
    status, first, _ = await ask(http)
    assert status == 200
    status, second, body = await ask(http)
    assert (status, {name: second[name] for name in headers}) == (429, headers)
    assert set(headers) - {"x-ratelimit-type"} <= {name.lower() for name in first}
    assert in_body in json.dumps(body)
    if style == "anthropic":
        assert second["anthropic-ratelimit-requests-reset"].endswith("Z")


async def test_token_and_concurrency_limits(http, fake):
    """Tokens count by what the answer will use, running answers until they end."""
    per_call = 3 + WORDS
    fake.script([rule({"ratelimit_headers": [{"limit_tokens": 2 * per_call}, {"limit_requests": 9, "style": "hf"}]})])
    seen = [await ask(http) for _ in range(3)]
    assert [status for status, _, _ in seen] == [200, 200, 429]
    assert [headers["x-ratelimit-remaining-tokens"] for _, headers, _ in seen] == [str(per_call), "0", "0"]
    assert [headers["ratelimit"].split(";")[1] for _, headers, _ in seen] == ["r=8", "r=7", "r=7"]
    fake.script([rule({"delay_s": 0.2, "ratelimit_headers": {"limit_concurrent": 2}})])
    statuses = sorted(status for status, _, _ in await asyncio.gather(*(ask(http) for _ in range(5))))
    assert statuses == [200, 200, 429, 429, 429]
    assert (await ask(http))[0] == 200


async def test_a_client_that_left_frees_its_slot(http, fake):
    """A concurrency slot comes back when its client disconnects."""
    fake.script([rule({"delay_s": 30, "ratelimit_headers": {"limit_concurrent": 1}}, times=1), rule({})])
    _, writer = await asyncio.open_connection(fake.host, fake.port)
    writer.write(request_bytes())
    await fake.wait_async(arrivals=1)
    limiter = fake.state.rules[0].limiters(fake.state.connections.copy().pop().current)[0]
    assert limiter.running == 1
    writer.close()
    await fake.wait_async(finished=1)
    assert limiter.running == 0


async def test_limits_by_model_and_key(http, fake):
    """`by` gives each model or key its own counter; without it the rule's requests share one."""
    for by, expected in ((None, [200, 429, 429]), ("model", [200, 429, 200]), ("authorization", [200, 200, 429])):
        fake.script([rule(limited(limit_requests=1, by=by))])
        seen = []
        for model, key in (("a", "1"), ("a", "2"), ("b", "1")):
            seen.append((await ask(http, {**HI, "model": model}, headers={"Authorization": key}))[0])
        assert seen == expected


def test_limiters_never_let_more_through():
    """Over random arrivals a sliding limiter admits at most N per window and refuses only when it must."""
    rng = random.Random(7)
    for limit, window in ((1, 10), (3, 50), (5, 7)):
        limiter = Limiter(RateLimit(limit_requests=limit, window_s=window / 1e9))
        admitted: list[int] = []
        at = 0
        for _ in range(2000):
            at += rng.choice([0, 1, 1, 2, 5, 20])
            verdict = limiter.decide(at, 1)
            full = sum(1 for t in admitted if at - window < t) >= limit
            assert (verdict.refused == "requests") == full
            if full:
                again = at + round(verdict.wait_s * 1e9)
                assert sum(1 for t in admitted if again - window < t) < limit
                assert sum(1 for t in admitted if again - 1 - window < t) >= limit
            else:
                limiter.admit(at, 1)
                admitted.append(at)
        assert max_in_window(admitted, window) == limit


def test_fixed_windows_lie_on_a_grid():
    """A fixed window lets N through on both sides of its edge, and its reset is that edge."""
    limit = RateLimit(limit_requests=2, window_s=100 / 1e9, kind="fixed", style="hf")
    limiter = Limiter(limit)
    fates = []
    for at in (1000, 1098, 1099, 1100, 1101, 1102, 1350):
        verdict = limiter.decide(at, 0)
        fates.append(verdict.refused is None)
        if verdict.refused is None:
            limiter.admit(at, 0)
    assert fates == [True, True, False, True, True, False, True]
    assert round(limiter.decide(1351, 0).reset_s * 1e9) == 49
    assert limit_headers(limit, limiter.decide(1351, 0), 0)["ratelimit"] == '"api";r=1;t=1'


# ---- log, counts, waiting


def test_max_in_window_is_exact():
    """Against brute force over all windows that start at an arrival or just before one; the end is excluded."""
    assert max_in_window([], 10) == 0
    assert max_in_window([0, 10], 10) == 1
    assert max_in_window([0, 9], 10) == 2
    rng = random.Random(3)
    for _ in range(200):
        times = [rng.randrange(60) for _ in range(rng.randrange(12))]
        window = rng.randrange(1, 30)
        brute = max((sum(1 for t in times if s <= t < s + window) for s in range(-30, 61)), default=0)
        assert max_in_window(times, window) == brute


async def test_log_tells_who_asked_what_and_no_secret(http, fake):
    """The log has times, model, a digest of the key and on request the bodies; the key is nowhere in it."""
    before = time.monotonic_ns()
    await ask(http, headers={"Authorization": "Bearer sk-secret"})
    async with http.get("/v1/models") as response:
        await response.read()
    after = time.monotonic_ns()
    async with http.get("/__log?bodies=1") as response:
        text = await response.text()
    first, second = json.loads(text)
    assert "sk-secret" not in text
    assert len(first["authorization"]) == 12
    assert (second["authorization"], second["model"], second["method"]) == (None, None, "GET")
    assert before < first["at"] <= first["end_at"] < second["at"] <= second["end_at"] < after
    assert abs(first["at_wall"] - time.time()) < 5
    assert (first["n"], first["path"], first["model"], first["status"]) == (1, CHAT, "m1", 200)
    assert (first["outcome"], first["body"]) == ("complete", HI)
    assert [arrival.body for arrival in fake.log()] == [None, None]
    assert [arrival.n for arrival in fake.log(after=1)] == [2]
    fake.clear_log()
    await ask(http)
    assert [arrival.n for arrival in fake.log()] == [3]


async def test_count_and_stats_over_http(http, fake):
    """Counts can be narrowed to a model, a path or a method, and administration is never counted."""
    for model in ("m1", "m1", "org/m:host"):
        await ask(http, {**HI, "model": model})
    async with http.get("/v1/models") as response:
        await response.read()
    for query, expected in (("", 4), ("&model=m1", 2), ("&model=org/m:host", 1), ("&method=POST", 3), ("&path=/x", 0)):
        async with http.get(f"/__count?window=60{query}") as response:
            assert await response.json() == {"window_s": 60.0, "max": expected, "total": expected}
    async with http.get("/__stats") as response:
        stats = await response.json()
    assert (stats["active"], stats["max_active"], stats["arrivals"], stats["open_connections"]) == (0, 1, 4, 1)
    assert fake.max_in_window(1e-9) == 1
    for bad in ("/__count", "/__count?window=x", "/__log?after=x"):
        async with http.get(bad) as response:
            assert response.status == 400
    async with http.get("/__nothing") as response:
        assert response.status == 404


async def test_waiting_over_http(http, fake):
    """A wait answers as soon as its numbers are reached, and says so when they are not."""
    async with http.get("/__wait?arrivals=1&timeout=0.02") as response:
        assert await response.json() == {"reached": False}
    waiting = asyncio.create_task(http.get("/__wait?arrivals=1&finished=1&timeout=5").__aenter__())
    await ask(http)
    async with await asyncio.wait_for(waiting, 5) as response:
        assert await response.json() == {"reached": True}
    with pytest.raises(TimeoutError):
        await fake.wait_async(arrivals=99, timeout_s=0.01)


async def test_the_log_file_has_every_arrival(tmp_path):
    """One line per arrival is on disk as soon as it is answered, incomplete ones when their connection breaks."""
    path = tmp_path / "arrivals.jsonl"
    async with InProcessUpstream(log_file=path) as fake:
        await raw(fake, request_bytes(headers=CLOSING))
        (line,) = read_log(path)
        assert (line.n, line.path, line.model, line.complete) == (1, CHAT, "m1", True)
        assert line.at == fake.log()[0].at
        _, writer = await asyncio.open_connection(fake.host, fake.port)
        writer.write(request_bytes()[:-5])
        await fake.wait_async(arrivals=2)
        writer.close()
        await fake.wait_async(finished=2)
    assert [(line.model, line.complete) for line in read_log(path)] == [("m1", True), (None, False)]


# ---- the handles


async def test_child_process(child):
    """The child serves requests from this event loop while its blocking helpers are used beside them."""
    child.reset()
    child.script([rule({"status": 503}, times=1)])
    async with aiohttp.ClientSession(child.url) as http:
        assert [(await ask(http))[0] for _ in range(2)] == [503, 200]
    await child.wait_async(arrivals=2, finished=2)
    child.wait(finished=2)
    assert child.max_in_window(60) == child.count(60, model="m1").total == 2
    assert [arrival.status for arrival in child.log(bodies=True)] == [503, 200]
    assert child.rules()[0].hits == 1
    assert child.stats().arrivals == 2
    assert child.base_url == f"{child.url}/v1"
    with pytest.raises(TimeoutError):
        child.wait(arrivals=3, timeout_s=0.01)


def test_child_runs_on_uvloop(child):
    """The server process uses uvloop, without which it is no match for what it measures."""
    assert "uvloop" in Path(f"/proc/{child.pid}/maps").read_text()


def test_handles_have_the_same_methods():
    """Whatever one handle can do (blocking waits and the pid aside), the other can, with the same arguments."""
    names = {name for name in vars(InProcessUpstream) if not name.startswith("_")} - {"start", "stop"}
    assert names <= set(vars(FakeUpstream))
    assert set(vars(FakeUpstream)) - {"wait", "pid", "_child"} >= names
    for name in names:
        assert signature(getattr(InProcessUpstream, name)) == signature(getattr(FakeUpstream, name))


async def test_a_child_comes_back_on_its_port(tmp_path):
    """A stopped server refuses, started again it serves on the same port, and kill -9 loses no logged arrival."""
    path = tmp_path / "log"
    async with FakeUpstream(log_file=path) as first:
        port = first.port
        await raw(first, request_bytes(headers=CLOSING))
        os.kill(first.pid, signal.SIGKILL)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    with FakeUpstream(port=port, log_file=path) as again:
        assert again.port == port
        await raw(again, request_bytes(headers=CLOSING))
        again.stop()
        again.stop()
    assert len(read_log(path)) == 2


def test_a_port_in_use_is_an_error(child):
    """A server that cannot listen fails at once instead of timing out."""
    with pytest.raises(OSError, match="ended before it listened"):
        FakeUpstream(port=child.port).start()


def test_the_child_dies_with_its_parent():
    """When the process that owns the handle is killed, the server ends by itself."""
    program = "from tests.fakes.upstream import FakeUpstream as F; f = F().start(); print(f.pid, flush=True); input()"
    parent = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        pidfd = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    try:
        assert select.select([pidfd], [], [], 5)[0]
    finally:
        os.close(pidfd)
