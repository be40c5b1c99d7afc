"""The provider of OpenAI-shaped hosts against a real HTTP server that misbehaves on command."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from hybridd.plugin import CallFailure, Result, Stream, Usage
from plugins.openai_compatible.provider import HostProvider
from plugins.openai_compatible.upstream import Connections, checked_url, proxy_for
from tests.fakes.upstream import SENTENCE, InProcessUpstream, rule
from tests.plugins.support import CREDIT, RecordingWire, call, chat, failure_of, make_request, stream

KEY = "canary-7f3a9c1e5b"
SETTINGS: dict[str, Any] = {
    "models": {"m1": {"context": 8192}},
    "timeout_seconds": 5.0,
    "connect_timeout_seconds": 2.0,
    "api_key": {"env": "LAB_KEY"},
}


@pytest.fixture
async def fake() -> AsyncIterator[InProcessUpstream]:
    async with InProcessUpstream() as server:
        yield server


@pytest.fixture
def connections() -> Connections:
    return Connections()


@pytest.fixture
async def lab(
    fake: InProcessUpstream, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[HostProvider]:
    monkeypatch.setenv("LAB_KEY", KEY)
    provider = HostProvider("lab", {"base_url": fake.base_url, **SETTINGS}, connections)
    await provider.start()
    yield provider
    await provider.stop()


async def test_whole_answer(lab: HostProvider, fake: InProcessUpstream) -> None:
    """A call is one POST with the caller's bytes and the key; the answer's bytes and usage come back."""
    raw = b'{"model":"m1", "messages":[{"role":"user","content":"one two"}],  "odd":1.50}'
    result = await call(lab, raw)
    body = json.loads(result.body if isinstance(result.body, bytes) else b"")
    assert body["choices"][0]["message"]["content"] == SENTENCE
    assert result.usage == Usage(input_tokens=2, output_tokens=9)
    assert result.upstream_ms is not None
    assert result.upstream_ms > 0
    [arrival] = fake.log(bodies=True)
    assert (arrival.method, arrival.path) == ("POST", "/v1/chat/completions")
    assert arrival.body == json.loads(raw)
    assert lab.state == "ready"


async def test_streamed_answer(lab: HostProvider, fake: InProcessUpstream) -> None:
    """A stream passes every event on, the first in a frame of its own, and always asks for usage."""
    result, wire = await stream(lab, chat())
    assert isinstance(result, Result)
    assert wire.text == SENTENCE
    assert len(wire.frames[0]) == 1
    assert result.usage == Usage(input_tokens=2, output_tokens=9)
    assert wire.events[-1]["usage"]["completion_tokens"] == 9
    assert result.body is None
    [arrival] = fake.log(bodies=True)
    assert arrival.body["stream_options"] == {"include_usage": True}


async def test_tools_pass_through(lab: HostProvider, fake: InProcessUpstream) -> None:
    """Tool definitions go out and tool calls come back as they are, streamed or not."""
    fake.script([rule({"tool_calls": [{"name": "weather", "arguments": {"city": "Recife"}}]})])
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    result = await call(lab, chat(tools=tools))
    message = json.loads(result.body if isinstance(result.body, bytes) else b"")["choices"][0]["message"]
    assert message["tool_calls"][0]["function"]["name"] == "weather"
    ended, wire = await stream(lab, chat(tools=tools))
    assert isinstance(ended, Result)
    assert any("tool_calls" in choice["delta"] for event in wire.events for choice in event["choices"])
    assert all(one.body["tools"] == tools for one in fake.log(bodies=True))


async def test_completions_and_embeddings(lab: HostProvider, fake: InProcessUpstream) -> None:
    """The other two endpoints work alike."""
    result = await call(lab, {"model": "m1", "prompt": "one two three"}, endpoint="completion")
    assert result.usage == Usage(input_tokens=3, output_tokens=9)
    ended, wire = await stream(lab, {"model": "m1", "prompt": "one"}, endpoint="completion")
    assert isinstance(ended, Result)
    assert wire.text == SENTENCE
    embedded = await call(lab, {"model": "m1", "input": ["one two", "three"]}, endpoint="embed")
    assert embedded.usage == Usage(input_tokens=3, output_tokens=0)
    assert [one.path for one in fake.log()] == ["/v1/completions", "/v1/completions", "/v1/embeddings"]


STATUSES = {
    400: "bad_request", 401: "auth", 402: "payment", 403: "forbidden", 404: "not_found", 408: "timeout",
    409: "conflict", 410: "gone", 413: "too_large", 422: "bad_request", 429: "rate_limited", 500: "unavailable",
    502: "unavailable", 503: "unavailable", 529: "overloaded",
}  # fmt: skip


@pytest.mark.parametrize("html", [False, True])
@pytest.mark.parametrize("streaming", [False, True])
async def test_every_error_status(lab: HostProvider, fake: InProcessUpstream, streaming: bool, html: bool) -> None:
    """Each error status, as JSON or as an HTML page, fails with its kind after exactly one request."""
    for status, kind in STATUSES.items():
        fake.reset()
        fake.script([rule({"status": status, "html": html})])
        if streaming:
            ended, wire = await stream(lab, chat())
            assert isinstance(ended, CallFailure)
            assert wire.events == []
        else:
            ended = await failure_of(call(lab, chat()))
        assert (ended.error.kind, ended.error.status, ended.error.sent) == (kind, status, "yes"), status
        assert ended.error.permanent is (status == 410)
        assert len(fake.log()) == 1


async def test_limits_travel_with_answers(lab: HostProvider, fake: InProcessUpstream) -> None:
    """Rate-limit headers of a good answer and of a 429 are observations; the 429 says when to come back."""
    fake.script([rule({"ratelimit_headers": {"limit_requests": 1, "window_s": 60}})])
    result = await call(lab, chat())
    [observed] = [one for one in result.observations if one.unit == "requests"]
    assert (observed.limit, observed.remaining) == (1, 0)
    failure = await failure_of(call(lab, chat()))
    assert failure.error.kind == "rate_limited"
    assert failure.error.retry_after_ms is not None
    assert 0 < failure.error.retry_after_ms <= 60_000
    assert [one.remaining for one in failure.error.observations if one.unit == "requests"] == [0]


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ({"html": True}, "HTML page"),
        ({"invalid_json": True}, "not valid JSON"),
        ({"body": ""}, "empty body"),
        ({"body": {"hello": "world"}}, "no list 'choices'"),
        ({"status": 204}, "empty body"),
        ({"cut_after_bytes": 250}, "broke off"),
        ({"cut_after_bytes": 250, "reset": True}, "broke off"),
        ({"headers": {"content-length": 99_999_999}}, "larger than"),
    ],
)
async def test_unusable_200(lab: HostProvider, fake: InProcessUpstream, behaviour: dict[str, Any], words: str) -> None:
    """A 200 that is no answer is a bad response that was sent, with the reason."""
    fake.script([rule(behaviour)])
    failure = await failure_of(call(lab, chat()))
    assert (failure.error.kind, failure.error.sent) == ("bad_response", "yes")
    assert words in failure.message


@pytest.mark.parametrize("streaming", [False, True])
async def test_broken_framing(lab: HostProvider, fake: InProcessUpstream, streaming: bool) -> None:
    """A chunk header that is none makes a bad response; whether its status counts as read is a matter of timing."""
    fake.script([rule({"chunked_garbage": True})])
    ended = (await stream(lab, chat()))[0] if streaming else await failure_of(call(lab, chat()))
    assert isinstance(ended, CallFailure)
    assert ended.error.kind == "bad_response"
    assert ended.error.sent in ("yes", "maybe")


async def test_invalid_utf8(lab: HostProvider, fake: InProcessUpstream) -> None:
    """Bytes that are no UTF-8 never reach the daemon as an answer; what was good before them does."""
    fake.script([rule({"invalid_utf8": True})])
    ended, wire = await stream(lab, chat())
    assert isinstance(ended, CallFailure)
    assert (ended.error.kind, ended.error.sent) == ("bad_response", "yes")
    assert SENTENCE.startswith(wire.text)
    assert wire.text != ""


@pytest.mark.parametrize("streaming", [False, True])
async def test_nothing_at_all(lab: HostProvider, fake: InProcessUpstream, streaming: bool) -> None:
    """A connection closed or reset without a byte of answer may have been a sent request."""
    for behaviour in ({"cut_after_bytes": 0}, {"cut_after_bytes": 0, "reset": True}):
        fake.reset()
        fake.script([rule(behaviour)])
        ended = (await stream(lab, chat()))[0] if streaming else await failure_of(call(lab, chat()))
        assert isinstance(ended, CallFailure)
        assert (ended.error.kind, ended.error.sent) == ("unavailable", "maybe")
        assert len(fake.log()) == 1


async def test_not_http(lab: HostProvider, fake: InProcessUpstream) -> None:
    """A server that answers something else than HTTP is a bad response."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        provider = HostProvider("x", {"base_url": f"http://127.0.0.1:{port}", "models": {"m1": {}}}, lab._connections)
        await provider.start()
        failure = await failure_of(call(provider, chat()))
        await provider.stop()
    assert (failure.error.kind, failure.error.sent) == ("bad_response", "maybe")


async def test_refused_connection_was_not_sent(lab: HostProvider) -> None:
    """A connection that does not open proves that nothing was sent."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        for base_url in (url, "http://no-such-host.invalid/v1"):
            provider = HostProvider("x", {"base_url": base_url, "models": {"m1": {}}}, lab._connections)
            await provider.start()
            for ended in (await failure_of(call(provider, chat())), (await stream(provider, chat()))[0]):
                assert isinstance(ended, CallFailure)
                assert (ended.error.kind, ended.error.sent) == ("unavailable", "no")
                assert "cannot be reached" in ended.message
            await provider.stop()


async def test_failed_tls_was_not_sent(lab: HostProvider, fake: InProcessUpstream) -> None:
    """A TLS handshake that fails proves that nothing was sent."""
    provider = HostProvider(
        "x", {"base_url": fake.base_url.replace("http:", "https:"), "models": {"m1": {}}}, lab._connections
    )
    await provider.start()
    failure = await failure_of(call(provider, chat()))
    await provider.stop()
    assert (failure.error.kind, failure.error.sent) == ("unavailable", "no")


async def test_connection_that_never_opens(lab: HostProvider) -> None:
    """A connection that hangs while opening ends within the call's time, and provably nothing was sent."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        held = []
        for _ in range(4):  # fills the queue of a listener that never accepts
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(full.getsockname())
            held.append(one)
        base_url = f"http://127.0.0.1:{full.getsockname()[1]}"
        provider = HostProvider("x", {"base_url": base_url, "models": {"m1": {}}}, lab._connections)
        await provider.start()
        failure = await failure_of(call(provider, chat(), deadline=0.5))
        await provider.stop()
        for one in held:
            one.close()
    assert (failure.error.kind, failure.error.sent) == ("unavailable", "no")


@pytest.mark.parametrize(
    ("behaviour", "sent", "streaming"),
    [
        ({"hang": True}, "maybe", False),
        ({"hang": True}, "maybe", True),
        ({"hang_after_bytes": 300}, "yes", False),
        ({"hang_after_bytes": 600}, "yes", True),
    ],
)
async def test_deadline(
    lab: HostProvider, fake: InProcessUpstream, behaviour: dict[str, Any], sent: str, streaming: bool
) -> None:
    """A silent host costs no more than the deadline; what is known of "sent" is said."""
    fake.script([rule(behaviour)])
    if streaming:
        ended, _ = await stream(lab, chat(), deadline=0.3)
    else:
        ended = await failure_of(call(lab, chat(), deadline=0.3))
    assert isinstance(ended, CallFailure)
    assert (ended.error.kind, ended.error.sent) == ("timeout", sent)
    await fake.wait_async(arrivals=1, finished=1)


async def test_own_timeout(fake: InProcessUpstream, lab: HostProvider) -> None:
    """The provider's own timeout ends an attempt even when the deadline is later."""
    fake.script([rule({"hang": True})])
    provider = HostProvider(
        "x", {"base_url": fake.base_url, "models": {"m1": {}}, "timeout_seconds": 0.2}, lab._connections
    )
    await provider.start()
    failure = await failure_of(call(provider, chat(), deadline=30))
    await provider.stop()
    assert failure.error.kind == "timeout"


@pytest.mark.parametrize("streaming", [False, True])
async def test_redirects_are_refused(lab: HostProvider, fake: InProcessUpstream, streaming: bool) -> None:
    """A redirect is not followed: no request and no key reaches the other place."""
    async with InProcessUpstream() as other:
        for status in (301, 302, 303, 307, 308):
            fake.script([rule({"redirect": f"{other.base_url}/chat/completions", "status": status})])
            ended = (await stream(lab, chat()))[0] if streaming else await failure_of(call(lab, chat()))
            assert isinstance(ended, CallFailure)
            assert (ended.error.kind, ended.error.sent, ended.error.status) == ("bad_response", "yes", status)
        assert other.log() == []


@pytest.mark.parametrize("no_done", [False, True])
async def test_stream_cut_anywhere(lab: HostProvider, fake: InProcessUpstream, no_done: bool) -> None:
    """Wherever a stream is cut it fails, unless every event that matters had come; nothing broken is sent on."""
    fake.script([rule({"chunks": 2, "no_done": no_done})])
    ended, whole = await stream(lab, chat())
    assert isinstance(ended, Result)
    size = 2000
    outcomes = []
    for cut in [*range(1, 60, 7), *range(150, size, 23)]:
        fake.script([rule({"chunks": 2, "no_done": no_done, "cut_after_bytes": cut})])
        ended, wire = await stream(lab, chat())
        assert wire.events == whole.events[: len(wire.events)] or [{**event, "id": ""} for event in wire.events] == [
            {**event, "id": ""} for event in whole.events[: len(wire.events)]
        ]
        complete = any(choice.get("finish_reason") for event in wire.events for choice in event["choices"])
        assert isinstance(ended, Result) is complete, cut
        if isinstance(ended, CallFailure):
            assert ended.error.kind in ("bad_response", "unavailable")
            assert ended.error.sent == ("yes" if ended.error.kind == "bad_response" else "maybe")
        outcomes.append(complete)
    assert {True, False} == set(outcomes)


async def test_stream_without_end_mark(lab: HostProvider, fake: InProcessUpstream) -> None:
    """A stream without [DONE] is complete when every choice gave its finish reason."""
    fake.script([rule({"no_done": True})])
    ended, wire = await stream(lab, chat())
    assert isinstance(ended, Result)
    assert wire.text == SENTENCE


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        (True, "unavailable"),
        ({"message": "slow down", "code": 429}, "rate_limited"),
        ({"message": f"key {KEY}"}, "unavailable"),
    ],
)
async def test_error_inside_a_stream(lab: HostProvider, fake: InProcessUpstream, told: Any, kind: str) -> None:
    """An error event fails the call after what came before it; it is not passed on as an event."""
    fake.script([rule({"sse_error_midstream": told})])
    ended, wire = await stream(lab, chat())
    assert isinstance(ended, CallFailure)
    assert (ended.error.kind, ended.error.sent) == (kind, "yes")
    assert KEY not in ended.message
    assert wire.text != ""
    assert not any("error" in event for event in wire.events)


async def test_broken_event(lab: HostProvider, fake: InProcessUpstream) -> None:
    """An event that is no JSON ends the stream as a bad response; the ones before it had been passed on."""
    fake.script([rule({"invalid_json": True})])
    ended, wire = await stream(lab, chat())
    assert isinstance(ended, CallFailure)
    assert ended.error.kind == "bad_response"
    assert wire.events != []


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        ({"html": True}, "bad_response"),
        ({"body": {"error": {"message": "no credit", "code": "insufficient_quota"}}}, "payment"),
        ({"body": "", "headers": {"content-type": "text/event-stream"}}, "bad_response"),
        ({"body": ": hello\n\n", "headers": {"content-type": "text/event-stream"}}, "bad_response"),
        ({"body": {"choices": [{"index": 0, "message": {"role": "assistant", "content": "all at once"}}]}}, "whole"),
    ],
)
async def test_a_stream_that_is_none(
    lab: HostProvider, fake: InProcessUpstream, behaviour: dict[str, Any], outcome: str
) -> None:
    """A host that does not stream gives its whole answer, its error, or a bad response."""
    fake.script([rule(behaviour)])
    ended, wire = await stream(lab, chat())
    if outcome == "whole":
        assert isinstance(ended, Result)
        assert isinstance(ended.body, bytes)
    else:
        assert isinstance(ended, CallFailure)
        assert ended.error.kind == outcome
    assert wire.events == []


async def test_cancel_closes_the_connection(lab: HostProvider, fake: InProcessUpstream) -> None:
    """A cancelled stream is hung up on at once: the host sees its client go while it still has much to say."""
    fake.script([rule({"chunks": 10_000, "chunk_interval_s": 0.05})])
    wire = RecordingWire()
    request = make_request(chat(), stream=True)
    task = asyncio.create_task(lab.generate(request, Stream(request, wire, CREDIT)))
    await asyncio.wait_for(wire.arrived.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await fake.wait_async(arrivals=1, finished=1)
    assert fake.stats().open_connections == 0


async def test_cancel_before_the_answer(lab: HostProvider, fake: InProcessUpstream) -> None:
    """A call cancelled while it waits for the answer hangs up too."""
    fake.script([rule({"hang": True})])
    task = asyncio.create_task(call(lab, chat()))
    await fake.wait_async(arrivals=1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await fake.wait_async(arrivals=1, finished=1)


async def test_connections_are_used_again(lab: HostProvider, fake: InProcessUpstream) -> None:
    """Calls and complete streams, one after the other, share one connection."""
    for _ in range(3):
        await call(lab, chat())
        ended, _ = await stream(lab, chat())
        assert isinstance(ended, Result)
        await asyncio.gather(*lab._tasks)
    assert fake.stats().total_connections == 1


async def test_late_end_of_a_stream(connections: Connections) -> None:
    """A stream is over at [DONE]; its connection is used again although the end of the body comes later."""
    opened: list[asyncio.StreamWriter] = []
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(writer)
        while await reader.readline():
            size = 0
            while (line := await reader.readline()) != b"\r\n":
                name, _, value = line.partition(b":")
                size = int(value) if name.lower() == b"content-length" else size
            await reader.readexactly(size)
            event = b"data: [DONE]\n\n"
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await over.wait()
            writer.write(b"0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        provider = HostProvider("x", {"base_url": f"http://127.0.0.1:{port}", "models": {"m1": {}}}, connections)
        await provider.start()
        for _ in range(2):
            over.clear()
            ended, _ = await stream(provider, chat())
            assert isinstance(ended, Result)
            assert len(provider._tasks) == 1
            over.set()
            await asyncio.gather(*provider._tasks)
        assert len(opened) == 1
        await provider.stop()


async def test_many_at_once(lab: HostProvider, fake: InProcessUpstream) -> None:
    """Nothing in the client queues calls behind each other."""
    fake.script([rule({"delay_s": 0.2})])
    results = await asyncio.gather(*(call(lab, chat()) for _ in range(150)))
    assert len(results) == 150
    assert fake.stats().max_active == 150


async def test_models_are_listed(fake: InProcessUpstream, connections: Connections) -> None:
    """Without configured models the host's list is asked at start, end dates kept; with a declaration, merged."""
    bare = HostProvider("bare", {"base_url": fake.base_url}, connections)
    await bare.start()
    assert {model.id: model.shutdown_date for model in await bare.models()} == {
        "m1": None, "gpt-4o-mini": None, "old-model": "2026-12-31",
    }  # fmt: skip
    declared = HostProvider(
        "declared",
        {"base_url": fake.base_url, "models": {"old-model": {"context": 5}}, "options": {"list_models": True}},
        connections,
    )
    await declared.start()
    await asyncio.gather(*declared._tasks)
    first, *rest = await declared.models()
    assert (first.id, first.context, first.shutdown_date) == ("old-model", 5, "2026-12-31")
    assert [model.id for model in rest] == ["m1", "gpt-4o-mini"]
    for provider in (bare, declared):
        await provider.stop()


async def test_undeclared_hosts_are_left_alone(lab: HostProvider, fake: InProcessUpstream) -> None:
    """A host with configured models and no declaration is never asked anything that was not a call."""
    probed = await lab.probe()
    assert probed.ok
    assert probed.models is None
    assert fake.log() == []


@pytest.mark.parametrize(
    "behaviour", [{"status": 404}, {"status": 401}, {"html": True}, {"body": "[]x"}, {"status": 500}]
)
async def test_list_that_fails(fake: InProcessUpstream, connections: Connections, behaviour: dict[str, Any]) -> None:
    """A host that answers but gives no list stays ready with its configured models."""
    fake.script([rule(behaviour)])
    settings = {"base_url": fake.base_url, "models": {"m1": {}}, "options": {"list_models": True}}
    provider = HostProvider("x", settings, connections)
    await provider.start()
    await asyncio.gather(*provider._tasks)
    assert provider.state == "ready"
    assert [model.id for model in await provider.models()] == ["m1"]
    probed = await provider.probe()
    assert not probed.ok
    await provider.stop()


async def test_unreachable_host_is_degraded(connections: Connections) -> None:
    """A host that cannot be reached is degraded with the reason, and ready again once a look succeeds."""
    server = InProcessUpstream()
    await server.start()
    port, url = server.port, server.base_url
    await server.stop()
    provider = HostProvider("x", {"base_url": url}, connections)
    await provider.start()
    assert provider.state == "degraded"
    assert "cannot be reached" in provider.reason
    async with InProcessUpstream(port=port):
        probed = await provider.probe()
        assert probed.ok
        assert (provider.state, provider.reason) == ("ready", "")
        assert len(await provider.models()) == 3
    await provider.stop()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"base_url": "http://h/v1", "api_key": {"env": "NO_SUCH_KEY_HERE"}}, "NO_SUCH_KEY_HERE is not set"),
        ({"base_url": "http://h/v1", "api_key": {"file": "/no/such/file"}}, "/no/such/file"),
        ({"base_url": "ftp://h/v1"}, "not an http"),
        ({"base_url": None}, "base_url is missing"),
        ({"base_url": "http://user:hunter2@h/v1"}, "must not carry"),
    ],
)
async def test_not_configured(connections: Connections, settings: dict[str, Any], words: str) -> None:
    """Without a key or a usable address the provider says so and refuses calls unsent."""
    provider = HostProvider("x", settings, connections)
    await provider.start()
    assert provider.state == "not_configured"
    assert words in provider.reason
    assert "hunter2" not in provider.reason
    failure = await failure_of(call(provider, chat()))
    assert failure.error.sent == "no"
    assert not (await provider.probe()).ok
    await provider.stop()


async def test_headers_sent(connections: Connections, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key, the paying organisation and configured headers travel; another header may carry the key."""
    seen: list[dict[str, str]] = []

    async def answer(request: aiohttp.web.BaseRequest) -> aiohttp.web.Response:
        seen.append({name.lower(): value for name, value in request.headers.items()})
        await request.read()
        return aiohttp.web.json_response({"choices": []}, headers={"set-cookie": "a=b"})

    from aiohttp import web

    server = web.Server(answer)
    runner = web.ServerRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    monkeypatch.setenv("LAB_KEY", KEY)
    base = {"base_url": f"{site.name}/v1?api-version=2", "models": {"m1": {}}, "api_key": {"env": "LAB_KEY"}}
    first = HostProvider("x", {**base, "bill_to": "my-org", "headers": {"X-Title": "t"}}, connections)
    second = HostProvider("y", {**base, "options": {"auth_header": "api-key"}}, connections)
    for provider in (first, second):
        await provider.start()
        await call(provider, chat())
        await call(provider, chat())
        await provider.stop()
    assert seen[0]["authorization"] == f"Bearer {KEY}"
    assert (seen[0]["x-hf-bill-to"], seen[0]["x-title"], seen[0]["content-type"]) == ("my-org", "t", "application/json")
    assert "cookie" not in seen[1]
    assert (seen[2].get("authorization"), seen[2]["api-key"]) == (None, KEY)
    await runner.cleanup()


def test_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Base URLs lose their last slash; the environment's proxy is taken unless the host is excepted."""
    assert checked_url("https://h.example/v1/") == "https://h.example/v1"
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,.internal")
    assert proxy_for("https://h.example/v1") == "http://proxy.example:3128"
    assert proxy_for("https://x.internal/v1") is None
    assert proxy_for("http://127.0.0.1:9000/v1") is None


async def test_compressed_answers_are_bounded(connections: Connections) -> None:
    """A compressed answer is unpacked as long as it stays within the limit; a bomb is given up on."""
    from aiohttp import web

    async def answer(request: web.BaseRequest) -> web.Response:
        filler = "x" * (int((await request.json())["max_tokens"]))
        response = web.json_response({"choices": [], "filler": filler})
        response.enable_compression(web.ContentCoding.gzip)
        return response

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    provider = HostProvider("x", {"base_url": site.name, "models": {"m1": {}}}, connections)
    await provider.start()
    fine = await call(provider, chat(max_tokens=10_000))
    assert isinstance(fine.body, bytes)
    assert len(fine.body) > 10_000
    failure = await failure_of(call(provider, chat(max_tokens=40_000_000)))
    assert (failure.error.kind, failure.error.sent) == ("bad_response", "yes")
    assert "larger than" in failure.message
    await provider.stop()
    await runner.cleanup()
