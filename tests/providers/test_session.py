"""One connection: what is kept, what is refused, and what costs a plugin its place."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from hybridd.contracts import protocol as wire
from hybridd.providers import CallFailed, Timing
from tests.providers.support import FAST, RawPlugin, house

EVENT = {"choices": [{"index": 0, "delta": {"content": "x"}}]}


def chunk(number, seq, events):
    return {"method": "stream/chunk", "params": {"id": number, "seq": seq, "events": events}}


async def failure(call):
    with pytest.raises(CallFailed) as caught:
        await asyncio.wait_for(call.result(), 5)
    return caught.value


# what is kept


async def test_call_and_answer(home):
    """A call is written with its deadline and trace, and its answer comes back with body and usage."""
    async with home.raw() as plugin:
        call = home.generate("raw", seconds=10)
        assert home.hub.providers["raw"].in_flight == 1
        request = await plugin.next("generate")
        assert 9000 < request["params"]["deadlineMs"] <= 10000
        assert request["params"]["body"]["messages"][0]["content"] == "hello big world"
        plugin.send({"id": request["id"], "result": {"body": {"a": 1}, "usage": {"inputTokens": 3, "outputTokens": 0}}})
        result = await call.result()
        assert bytes(result.body) == b'{"a": 1}'
        assert (result.usage.input_tokens, result.usage.output_tokens) == (3, 0)
        assert home.hub.providers["raw"].in_flight == 0


async def test_stream_in_order_then_final(home):
    """Chunks arrive in order, synchronously, before the final answer; credit given back reaches the plugin."""
    async with home.raw() as plugin:
        events: list[bytes] = []
        call = home.generate("raw", on_events=lambda some: events.extend(map(bytes, some)), credit=64)
        request = await plugin.next("generate")
        assert request["params"]["credit"] == 64
        plugin.send(chunk(request["id"], 0, [EVENT]))
        plugin.send(chunk(request["id"], 1, [EVENT]))
        await home.until(lambda: len(events) == 2)
        call.grant(40_000)
        credit = await plugin.next("stream/credit")
        assert credit["params"] == {"id": request["id"], "bytes": 40_000}
        plugin.send(chunk(request["id"], 2, [EVENT, EVENT]))
        plugin.send({"id": request["id"], "result": {}})
        await call.result()
        assert len(events) == 4


async def test_typed_error(home):
    """A typed error arrives whole; JSON-RPC's own codes become the kinds that fit."""
    async with home.raw() as plugin:
        call = home.generate("raw")
        request = await plugin.next("generate")
        data = {"kind": "rate_limited", "sent": "yes", "status": 429, "retryAfterMs": 1500, "usage": None}
        plugin.send({"id": request["id"], "error": {"code": -32010, "message": "slow down", "data": data}})
        error = await failure(call)
        assert (error.error.kind, error.error.sent, error.error.status) == ("rate_limited", "yes", 429)
        assert (error.retry_after, error.message, error.owner_gone) == (1.5, "slow down", None)
        call = home.generate("raw")
        request = await plugin.next("generate")
        plugin.send({"id": request["id"], "error": {"code": -32601, "message": "what?"}})
        assert (await failure(call)).error == wire.CallError(kind="unsupported", sent="no")


async def test_answer_without_body_is_a_bad_response(home):
    """A non-streaming answer without a body fails the call as bad_response and keeps the plugin."""
    async with home.raw() as plugin:
        call = home.generate("raw")
        request = await plugin.next("generate")
        plugin.send({"id": request["id"], "result": {"usage": {"inputTokens": 1, "outputTokens": 1}}})
        error = await failure(call)
        assert (error.error.kind, error.error.sent, error.error.usage.input_tokens) == ("bad_response", "yes", 1)
        assert home.hub.connected("raw")


async def test_empty_answers_are_bad_responses(home):
    """A body that is not an object, and a stream without an event, fail as bad_response and keep the plugin."""
    async with home.raw() as plugin:
        for on_events, result in ((None, {"body": [1]}), (lambda some: None, {})):
            call = home.generate("raw", on_events=on_events)
            request = await plugin.next("generate")
            plugin.send({"id": request["id"], "result": result})
            assert (await failure(call)).error.kind == "bad_response"
        assert home.hub.connected("raw")


async def test_call_without_connection_fails_as_not_sent(home):
    """A call to a provider nobody serves has failed at once with sent: no."""
    error = await failure(home.generate("nobody"))
    assert (error.error.kind, error.error.sent) == ("unavailable", "no")


async def test_observations_and_unknown_notifications(home):
    """limits/observed reaches the listeners; notifications and members nobody knows change nothing."""
    seen = []
    home.hub.on_observed.append(lambda provider, observations: seen.append((provider, observations)))
    async with home.raw() as plugin:
        plugin.send({"method": "weather", "params": {"sunny": True}})
        item = {"unit": "requests", "remaining": 7, "futureMember": [1]}
        plugin.send({"method": "limits/observed", "params": {"provider": "raw", "observations": [item]}, "x": 1})
        await home.until(lambda: seen)
        assert seen[0][0] == "raw"
        assert seen[0][1][0].remaining == 7
        assert home.hub.connected("raw")


async def test_a_listener_that_raises_costs_nobody(home, caplog):
    """A listener's bug is logged; the plugin stays."""
    home.hub.on_registered.append(lambda provider: 1 / 0)
    async with home.raw() as plugin:
        assert home.hub.connected("raw")
        assert (await plugin.register("raw"))["result"] == {}
    assert "a listener failed" in caplog.text


async def test_fragmented_message(home):
    """A message in several WebSocket fragments is one message."""
    async with home.raw() as plugin:
        call = home.generate("raw")
        request = await plugin.next("generate")
        answer = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": {"body": {"b": 2}}}).encode()
        conn = plugin.link._conn
        conn.send_text(answer[:10], fin=False)
        conn.send_continuation(answer[10:20], fin=False)
        conn.send_continuation(answer[20:], fin=True)
        plugin.link._write_control()
        assert bytes((await call.result()).body) == b'{"b": 2}'


async def test_large_message_both_ways(home):
    """A body of several megabytes goes out and comes back whole."""
    async with home.raw() as plugin:
        text = "é" * 3_000_000
        call = home.generate("raw", prompt=text)
        request = await plugin.next("generate")
        assert request["params"]["body"]["messages"][0]["content"] == text
        plugin.send({"id": request["id"], "result": {"body": {"text": text}}})
        assert msgspec.json.decode((await call.result()).body) == {"text": text}


# what costs a plugin its place

NEGATIVE = {"body": {}, "usage": {"inputTokens": -1, "outputTokens": 1}}
VIOLATIONS: dict[str, tuple[list[Any], str]] = {
    "unknown id": ([{"id": 999, "result": {}}], "unknown or already answered request 999"),
    "id of the wrong type": ([{"id": "x", "result": {}}], "unknown or already answered request 'x'"),
    "double answer": ([{"id": "ID", "result": {"body": {}}}] * 2, "already answered"),
    "result and error": ([{"id": "ID", "result": {}, "error": {"code": 1, "message": "x"}}], "exactly one of"),
    "neither result nor error": ([{"id": "ID"}], "exactly one of"),
    "negative usage": ([{"id": "ID", "result": NEGATIVE}], "is not valid"),
    "usage of the wrong type": ([{"id": "ID", "result": {"usage": {"inputTokens": "many"}}}], "is not valid"),
    "unknown error kind": (
        [{"id": "ID", "error": {"code": 1, "message": "", "data": {"kind": "odd"}}}],
        "is not valid",
    ),
    "chunk after the end": ([{"id": "ID", "result": {"body": {}}}, chunk("ID", 0, [EVENT])], "already answered"),
    "chunk for a call that does not stream": ([chunk("ID", 0, [EVENT])], "does not stream"),
    "not JSON": ([b"hello"], "is not valid"),
    "not an object": ([b"[1,2]"], "is not valid"),
    "a bomb of brackets": ([b'{"params":' + b"[" * 100_000], "is not valid"),
    "invalid UTF-8": (
        [b'{"id":1,"result":{"body":{"a":"\xff"}}}'],
        "not valid UTF-8",
    ),
    "observed for a stranger": (
        [{"method": "limits/observed", "params": {"provider": "other", "observations": []}}],
        "has not registered",
    ),
    "log of an unknown level": ([{"method": "log", "params": {"level": "loud", "message": ""}}], "is not valid"),
    "a second initialize with garbage": ([b'{"id":3,"method":"stream/chunk","params":{}}'], "is not valid"),
    "a flood": ([{"method": "progress", "params": {"operation": "x"}}] * 2100, "messages in a second"),
    "a huge log": ([{"method": "log", "params": {"level": "info", "message": "x" * 9_000_000}}], "bytes (at most"),
}


@pytest.mark.parametrize("name", VIOLATIONS)
async def test_violation_drops_the_plugin(home, name):
    """Whatever breaks the protocol drops the plugin with a reason and ends its calls at once, typed."""
    messages, reason = VIOLATIONS[name]
    async with home.raw() as plugin:
        first, second = home.generate("raw"), home.generate("raw")
        number = (await plugin.next("generate"))["id"]
        for message in messages:
            if not isinstance(message, bytes):
                message = json.loads(json.dumps(message).replace('"ID"', str(number)))
            plugin.send(message)
        said = await plugin.lost()
        error = await failure(second)
        assert (error.error.kind, error.error.sent) == ("unavailable", "maybe")
        assert reason in error.message
        assert "1008" in said
        assert first.done()
        assert not home.hub.connected("raw")
        assert home.hub.providers["raw"].in_flight == 0


STREAM_VIOLATIONS: dict[str, tuple[list[tuple[int, list[Any]]], str]] = {
    "a number left out": ([(0, [EVENT]), (2, [EVENT])], "chunk 2 of request"),
    "a number twice": ([(0, [EVENT]), (0, [EVENT])], "where 1 was due"),
    "no events": ([(0, [])], "has no events"),
    "an event that is no object": ([(0, ["text"])], "not a JSON object"),
    "more than its credit": ([(0, [EVENT]), (1, [EVENT])], "with a credit of"),
    "several events beyond its credit": ([(0, [EVENT, EVENT])], "with a credit of"),
}


@pytest.mark.parametrize("name", STREAM_VIOLATIONS)
async def test_stream_violation_drops_the_plugin(home, name):
    """Chunks out of order, empty, malformed or beyond the credit drop the plugin."""
    chunks, reason = STREAM_VIOLATIONS[name]
    async with home.raw() as plugin:
        events: list[Raw] = []
        call = home.generate("raw", on_events=events.extend, credit=10 if "credit" in name else 10_000)
        number = (await plugin.next("generate"))["id"]
        for seq, some in chunks:
            plugin.send(chunk(number, seq, some))
        error = await failure(call)
        assert reason in error.message
        assert error.error.sent == "maybe"


async def test_one_large_event_may_overdraw(home):
    """A single event larger than the whole credit passes while the balance is positive."""
    async with home.raw() as plugin:
        events: list[Raw] = []
        call = home.generate("raw", on_events=events.extend, credit=10)
        number = (await plugin.next("generate"))["id"]
        plugin.send(chunk(number, 0, [{"image": "x" * 100_000}]))
        plugin.send({"id": number, "result": {}})
        await call.result()
        assert len(events) == 1


async def test_binary_frame_is_a_violation(home):
    """Messages are text: a binary frame drops the plugin."""
    async with home.raw() as plugin:
        plugin.link._conn.send_binary(b"{}")
        plugin.link._write_control()
        assert "binary" in await plugin.lost()


async def test_unmasked_frame_is_a_broken_websocket(home):
    """Bytes that are no WebSocket drop the plugin with the parser's reason."""
    async with home.raw() as plugin:
        plugin.link._transport.write(b"\x81\x02{}")
        await home.until(lambda: not home.hub.connected("raw"))
        assert "masking" in await plugin.lost()


async def test_oversized_message_is_refused(home):
    """A frame that announces more than the cap drops the plugin before it is read."""
    async with home.raw() as plugin:
        plugin.link._transport.write(b"\x81\xff" + (wire.MAX_MESSAGE_BYTES + 1).to_bytes(8, "big") + b"\0\0\0\0")
        await home.until(lambda: not home.hub.connected("raw"))


# endings


async def test_eof_fails_calls_at_once(home):
    """A connection that ends fails its calls at once; its own process being dead resolves owner_gone."""
    async with home.raw() as plugin:
        call = home.generate("raw")
        await plugin.next("generate")
        plugin.link._transport.abort()
        error = await failure(call)
        assert (error.error.kind, error.error.sent) == ("unavailable", "maybe")
        await asyncio.wait_for(error.owner_gone, 2)


async def test_deadline_is_enforced_here_too(home):
    """A plugin that ignores the deadline is cancelled; its late answer proves the end and is no violation."""
    async with home.raw() as plugin:
        began = asyncio.get_running_loop().time()
        call = home.generate("raw", seconds=0.1)
        request = await plugin.next("generate")
        error = await failure(call)
        assert 0.1 <= asyncio.get_running_loop().time() - began + 0.002 < 1.0
        assert (error.error.kind, error.error.sent) == ("timeout", "maybe")
        assert not error.owner_gone.done()
        assert home.hub.providers["raw"].in_flight == 1
        assert (await plugin.next("cancel"))["params"] == {"id": request["id"], "reason": "deadline"}
        plugin.send({"id": request["id"], "result": {"body": {}}})
        await asyncio.wait_for(error.owner_gone, 2)
        assert home.hub.connected("raw")
        assert home.hub.providers["raw"].in_flight == 0


async def test_deadline_already_passed(home):
    """A call whose deadline has passed is never written."""
    async with home.raw():
        error = await failure(home.generate("raw", seconds=-1))
        assert (error.error.kind, error.error.sent) == ("timeout", "no")


async def test_cancel_waits_for_the_one_answer(home):
    """After a cancel the plugin's final answer is the outcome, and a second cancel adds nothing."""
    async with home.raw() as plugin:
        call = home.generate("raw")
        request = await plugin.next("generate")
        call.cancel("client gone")
        call.cancel("client gone")
        assert (await plugin.next("cancel"))["params"] == {"id": request["id"], "reason": "client gone"}
        data = {"kind": "cancelled", "sent": "yes"}
        plugin.send({"id": request["id"], "error": {"code": -32010, "message": "ok", "data": data}})
        error = await failure(call)
        assert (error.error.kind, error.error.sent, error.owner_gone) == ("cancelled", "yes", None)


async def test_cancel_is_bounded(home):
    """A plugin that does not answer a cancel ends the call here, and is dropped when it goes on owing the answer."""
    async with home.raw() as plugin:
        call = home.generate("raw")
        await plugin.next("generate")
        call.cancel("client gone")
        error = await failure(call)
        assert error.error.kind == "cancelled"
        assert error.owner_gone is not None
        beats = asyncio.ensure_future(plugin.next("nothing"))
        assert "was not answered within" in await plugin.lost()
        beats.cancel()
        await asyncio.wait_for(error.owner_gone, 2)


async def test_result_survives_its_waiter(home):
    """A caller that is cancelled while waiting may cancel the call and wait again for the one ending."""
    async with home.raw() as plugin:
        call = home.generate("raw")
        request = await plugin.next("generate")
        waiter = asyncio.create_task(call.result())
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.wait([waiter])
        call.cancel("client gone")
        plugin.send({"id": request["id"], "result": {"body": {"late": 1}}})
        assert bytes((await call.result()).body) == b'{"late": 1}'


async def test_heartbeats_degrade_then_drop():
    """Two unanswered pings degrade the provider, three drop the plugin; an answer heals."""
    timing = msgspec.structs.replace(FAST, heartbeat=0.05)
    async with house(timing) as home, home.raw() as plugin:
        runtime = home.hub.providers["raw"]
        await home.until(lambda: runtime.degraded)
        assert runtime.state == "ready"
        assert "2 heartbeats missed" in runtime.reason
        ping = await plugin.next("ping")
        plugin.send({"id": ping["id"], "result": {}})
        await home.until(lambda: not runtime.degraded)
        assert "3 heartbeats missed" in await plugin.lost()
        assert str(runtime.state) == "disconnected"


async def test_initialize_has_a_deadline():
    """A connection that never initializes is closed with that reason."""
    async with house(msgspec.structs.replace(FAST, initialize=0.1)) as home:
        plugin = await RawPlugin.connect(home.socket)
        assert "no initialize within 0.1 s" in await plugin.lost()


async def test_unsupported_version_names_the_supported_ones(home):
    """A plugin of another protocol version is told which ones are spoken here."""
    plugin = await RawPlugin.connect(home.socket)
    answer = await plugin.initialize(protocolVersions=["0", "99"])
    assert answer["error"]["code"] == wire.UNSUPPORTED_VERSION
    assert answer["error"]["data"] == {"supported": ["1"]}
    assert "99" in answer["error"]["message"]
    await plugin.lost()


@pytest.mark.parametrize(
    "message",
    [
        {"id": 1, "method": "provider/register", "params": {"provider": "x"}},
        {"method": "log", "params": {"level": "info", "message": "x"}},
        {"id": 1, "method": "initialize", "params": {"plugin": {"name": "x"}}},
        {"id": 1, "method": "initialize", "params": {"protocolVersions": ["1"], "plugin": {}, "instanceId": ""}},
    ],
)
async def test_anything_before_initialize_closes(home, message):
    """Before a valid initialize nothing is taken from a connection."""
    plugin = await RawPlugin.connect(home.socket)
    plugin.send(message)
    assert "1008" in await plugin.lost()


async def test_second_initialize_is_refused(home):
    """initialize is answered once."""
    async with home.raw() as plugin:
        assert "already answered" in (await plugin.initialize())["error"]["message"]


async def test_unknown_request_is_answered_and_harmless(home):
    """A request nobody knows gets -32601 and the connection stays."""
    async with home.raw() as plugin:
        plugin.send({"id": 9, "method": "weather"})
        answer = await plugin.next()
        assert (answer["id"], answer["error"]["code"]) == (9, wire.METHOD_NOT_FOUND)
        assert home.hub.connected("raw")


async def test_a_plugin_that_takes_no_input_is_not_fed(home):
    """When the plugin does not read, calls beyond the buffer's cap fail as not sent instead of filling the memory."""
    async with home.raw() as plugin:
        plugin.link._transport.pause_reading()
        calls = [home.generate("raw", prompt="x" * 8_000_000) for _ in range(9)]
        await asyncio.sleep(0)
        last = home.generate("raw")
        error = await failure(last)
        assert (error.error.kind, error.error.sent) == ("overloaded", "no")
        assert not calls[0].done()


async def test_a_plugin_that_asks_without_reading_is_dropped(home):
    """Answers that the plugin does not take are bounded: beyond the buffer's cap it may not ask for more."""
    async with home.raw() as plugin:
        plugin.link._transport.pause_reading()
        calls = [home.generate("raw", prompt="x" * 8_000_000) for _ in range(9)]
        await asyncio.sleep(0)
        plugin.send({"id": 9, "method": "weather"})
        error = await failure(calls[0])
        assert "asks without taking the answers" in error.message


async def test_what_a_plugin_tells_is_bounded(home, caplog):
    """A long text is cut, a flood of them is thinned, and a strange method's name is not sent back whole."""
    caplog.set_level("INFO", "hybridd.plugin")
    async with home.raw() as plugin:
        for _ in range(500):
            plugin.send({"method": "log", "params": {"level": "info", "message": "m" * 5000}})
        plugin.send({"id": 9, "method": "w" * 100_000})
        answer = await plugin.next()
        assert len(answer["error"]["message"]) < 200
        assert home.hub.connected("raw")
    told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("mmm")]
    assert 0 < len(told) <= 400
    assert {len(text) for text in told} == {2000}


def test_default_timing_is_the_designs():
    """The delays of the design: 5 s to initialize, 2 and 3 misses, 1 to 60 s of backoff, 5 failures in 10 minutes."""
    timing = Timing()
    assert (timing.initialize, timing.misses_degrade, timing.misses_drop) == (5.0, 2, 3)
    assert (timing.backoff_first, timing.backoff_max) == (1.0, 60.0)
    assert (timing.breaker_failures, timing.breaker_window) == (5, 600.0)
