"""The SDK in a real process behind a real hub: what an author returns, raises and reports, and what arrives."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from hybridd.contracts import protocol as wire
from hybridd.providers import CallFailed
from tests.providers.support import ROOT, house

SOURCE = textwrap.dedent(
    """
    import asyncio
    from hybridd.plugin import (
        CallFailure, Model, Observation, Plugin, ProbeResult, Provider, Quota, Result, Usage, run
    )

    CHUNK = b'{"id":"c","choices":[{"index":0,"delta":{"content":"raw"},"finish_reason":null}]}'
    SEEN = []

    class Many(Provider):
        async def models(self):
            return [Model(id="m", context=9), *([Model(id="late")] if self.settings.get("late") else [])]

        async def quotas(self):
            return [Quota(unit="requests", limit=5, window="60s", models=["m"])]

        async def generate(self, request, stream):
            return await getattr(self, request.prompt_text.replace(" ", "_"))(request, stream)

        async def text(self, request, stream):
            return "plain text"

        async def nothing(self, request, stream):
            return None

        async def a_number(self, request, stream):
            return 7

        async def whole(self, request, stream):
            message = {"role": "assistant", "content": None, "tool_calls": [
                {"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}
            return {"id": "w", "created": 1, "model": "m", "object": "chat.completion",
                    "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
                    "usage": {"prompt_tokens": 3, "completion_tokens": 4,
                              "prompt_tokens_details": {"cached_tokens": 2}}}

        async def parts(self, request, stream):
            for part in ("one ", "two ", "three"):
                await stream.send(part)
            return Result(usage=Usage(input_tokens=1, output_tokens=3))

        async def batch(self, request, stream):
            await stream.send(*([CHUNK] * 30))
            return Result(usage=Usage(input_tokens=1, output_tokens=3), upstream_ms=1.5, details={"on": "cpu"},
                          observations=[Observation(unit="requests", remaining=4)])

        async def broken_event(self, request, stream):
            await stream.send(CHUNK)
            await stream.send(b'{"broken":')

        async def broken_body(self, request, stream):
            return Result(b"<html>")

        async def bytes_body(self, request, stream):
            return Result(b'{"exact":  "bytes"}')

        async def failure(self, request, stream):
            raise CallFailure("rate_limited", "slow down", sent="yes", status=429, retry_after=2.5,
                              upstream_code="rl", usage=Usage(input_tokens=1, output_tokens=0))

        async def bug(self, request, stream):
            raise KeyError("oops")

        async def sleep(self, request, stream):
            try:
                await asyncio.sleep(60)
            finally:
                SEEN.append("ended")

        async def seen(self, request, stream):
            return " ".join(SEEN)

        async def deadline(self, request, stream):
            return str(round(request.deadline))

        async def change(self, request, stream):
            self.settings["late"] = True
            self.state, self.reason = "degraded", "tired"
            await self.changed()
            self.observed([Observation(unit="total_tokens", remaining=10, reset_ms=5)])
            self.log("warning", "something happened", number=3)
            self.progress("loading", "half", 0.5)
            return "changed"

        async def embed(self, request):
            return {"object": "list", "data": [request.body["input"]], "usage": {"prompt_tokens": 2}}

        async def probe(self):
            return ProbeResult(observations=[Observation(unit="requests", remaining=1)], details={"v": 1})

    class Broken(Provider):
        async def start(self):
            raise RuntimeError("no engine")

    async def build(config):
        return [(Broken if settings.get("broken") else Many)(name, settings)
                for name, settings in config.providers.items()]

    run(Plugin("many", "1.2", build))
    """
)


@pytest.fixture
async def home():
    async with house() as built:
        specs = {
            "many": built.spec("many", SOURCE, process="p"),
            "lame": built.spec("lame", SOURCE, process="p", plugin_config={"broken": True}),
        }
        specs["lame"] = msgspec.structs.replace(specs["lame"], command=specs["many"].command)
        await built.hub.apply(specs)
        await built.hub.ensure_connected("many", 10)
        yield built


async def whole(home, what: str, **body: Any):
    return await asyncio.wait_for(home.generate("many", prompt=what, **body).result(), 5)


async def streamed(home, what: str, **body: Any):
    frames: list[list[Any]] = []
    call = home.generate(
        "many", prompt=what, on_events=lambda some: frames.append([msgspec.json.decode(one) for one in some]), **body
    )
    return await asyncio.wait_for(call.result(), 5), frames


async def failed(home, what: str, **options: Any) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        await asyncio.wait_for(home.generate("many", prompt=what, **options).result(), 5)
    return caught.value


def texts(frames):
    return [choice["delta"].get("content") for frame in frames for event in frame for choice in event["choices"]]


async def test_text_becomes_an_answer(home):
    """A string is wrapped into an OpenAI chat completion; usage stays absent."""
    result = await whole(home, "text")
    body = msgspec.json.decode(result.body)
    assert (body["object"], body["model"]) == ("chat.completion", "m")
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "plain text", "refusal": None}
    assert body["choices"][0]["finish_reason"] == "stop"
    assert result.usage is None
    assert "usage" not in body


async def test_text_becomes_chunks_when_streaming(home):
    """The same string streams as a role-bearing chunk and a finishing one."""
    result, frames = await streamed(home, "text")
    events = [event for frame in frames for event in frame]
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": "plain text"}
    assert events[-1]["choices"][0]["finish_reason"] == "stop"
    assert isinstance(result.body, msgspec.UnsetType)


async def test_parts_stream_and_collect(home):
    """Text parts are chunks for a streaming caller and one text for another; usage is a chunk only when asked for."""
    result, frames = await streamed(home, "parts")
    assert texts(frames) == ["one ", "two ", "three", None]
    assert result.usage == wire.Usage(input_tokens=1, output_tokens=3)
    _, frames = await streamed(home, "parts", stream_options={"include_usage": True})
    assert frames[-1][0]["usage"] == {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
    body = msgspec.json.decode((await whole(home, "parts")).body)
    assert body["choices"][0]["message"]["content"] == "one two three"
    assert body["usage"]["total_tokens"] == 4


async def test_batch_travels_in_two_frames(home):
    """The first event is flushed alone, the rest of the same read in one frame, bytes untouched."""
    result, frames = await streamed(home, "batch")
    assert [len(frame) for frame in frames] == [1, 29]
    assert (result.upstream_ms, result.details) == (1.5, {"on": "cpu"})
    assert result.observations[0].remaining == 4
    assert msgspec.json.decode((await whole(home, "batch")).body)["choices"][0]["message"]["content"] == "raw" * 30


async def test_small_credit_paces_the_stream(home):
    """With a credit smaller than the answer the plugin waits for grants, splits its frames, and loses nothing."""
    granted = []
    calls: list[Any] = []

    def on_events(some: list[Raw]) -> None:
        granted.append(len(some))
        size = sum(map(len, some))
        asyncio.get_running_loop().call_later(0.001, lambda: calls[0].grant(size))

    calls.append(home.generate("many", prompt="batch", on_events=on_events, credit=200))
    await asyncio.wait_for(calls[0].result(), 5)
    assert sum(granted) == 30
    assert max(granted) <= 3
    assert home.hub.connected("many")


async def test_without_grants_a_stream_waits_until_its_deadline(home):
    """A reader that takes nothing holds the stream: it ends by its deadline, and the plugin is unharmed."""
    seen: list[Raw] = []
    with pytest.raises(CallFailed) as caught:
        await home.generate("many", prompt="batch", on_events=seen.extend, credit=100, seconds=0.2).result()
    assert caught.value.error.kind == "timeout"
    assert 0 < len(seen) < 30
    assert await whole(home, "text")


async def test_dict_answer_gives_usage_and_streams(home):
    """A dict is the body; its usage is read, cached tokens included; its tool calls stream as chunks."""
    result = await whole(home, "whole")
    assert result.usage == wire.Usage(input_tokens=3, output_tokens=4, cached_input_tokens=2)
    _, frames = await streamed(home, "whole")
    events = [event for frame in frames for event in frame]
    assert events[0]["choices"][0]["delta"]["tool_calls"][0]["index"] == 0
    assert events[1]["choices"][0]["finish_reason"] == "tool_calls"
    assert {event["object"] for event in events} == {"chat.completion.chunk"}


async def test_bytes_pass_untouched(home):
    """The upstream's bytes arrive as they were."""
    assert bytes((await whole(home, "bytes body")).body) == b'{"exact":  "bytes"}'


@pytest.mark.parametrize(
    ("what", "kind", "sent", "message"),
    [
        ("failure", "rate_limited", "yes", "slow down"),
        ("bug", "internal", "maybe", "KeyError: 'oops'"),
        ("a number", "internal", "maybe", "not int"),
        ("broken body", "bad_response", "yes", "is not JSON"),
    ],
)
async def test_failures_are_typed(home, what, kind, sent, message):
    """What a provider raises, or returns wrongly, fails that call with a kind; the process goes on."""
    error = await failed(home, what)
    assert (error.error.kind, error.error.sent) == (kind, sent)
    assert message in error.message
    assert await whole(home, "text")


async def test_failure_carries_everything(home):
    """Status, hint, code and usage of a failure arrive."""
    error = (await failed(home, "failure")).error
    assert (error.status, error.retry_after_ms, error.upstream_code) == (429, 2500, "rl")
    assert error.usage == wire.Usage(input_tokens=1, output_tokens=0)


async def test_broken_event_costs_one_call(home):
    """An upstream's broken event fails its call as bad_response and not the plugin."""
    seen: list[Raw] = []
    with pytest.raises(CallFailed) as caught:
        await home.generate("many", prompt="broken event", on_events=seen.extend).result()
    assert (caught.value.error.kind, len(seen)) == ("bad_response", 1)
    assert home.hub.connected("many")


async def test_cancel_and_deadline_reach_the_provider(home):
    """A cancel and a passed deadline cancel the provider's task, which answers once."""
    call = home.generate("many", prompt="sleep")
    call.cancel("client gone")
    with pytest.raises(CallFailed) as caught:
        await asyncio.wait_for(call.result(), 2)
    assert (caught.value.error.kind, caught.value.owner_gone) == ("cancelled", None)
    error = await failed(home, "sleep", seconds=0.1)
    assert (error.error.kind, error.owner_gone) == ("timeout", None)
    body = msgspec.json.decode((await whole(home, "seen")).body)
    assert "ended" in body["choices"][0]["message"]["content"]
    body = msgspec.json.decode((await whole(home, "deadline", seconds=20)).body)
    assert body["choices"][0]["message"]["content"] == "20"


async def test_embed_predict_probe(home):
    """embed answers, predict is unsupported and not sent, probe gives its facts."""
    deadline = asyncio.get_running_loop().time() + 5
    embed = wire.Embed("many", "m", Raw(b'{"input":"x"}'))
    result = await home.hub.start_call("many", "embed", embed, deadline=deadline).result()
    assert msgspec.json.decode(result.body)["data"] == ["x"]
    assert result.usage == wire.Usage(input_tokens=2, output_tokens=0)
    predict = wire.Predict("many", "m", Raw(b"{}"))
    with pytest.raises(CallFailed) as caught:
        await home.hub.start_call("many", "predict", predict, deadline=deadline).result()
    assert (caught.value.error.kind, caught.value.error.sent) == ("unsupported", "no")
    probe = await home.hub.probe("many", 2)
    assert (probe.ok, probe.observations[0].remaining, probe.details) == (True, 1, {"v": 1})


async def test_changes_and_notifications(home, caplog):
    """changed() registers again; observed, log and progress arrive."""
    caplog.set_level("INFO")
    seen = []
    home.hub.on_observed.append(lambda provider, observations: seen.append(observations[0].reset_ms))
    events = home.hub._bus.subscribe(lambda: None, ["plugin"])
    assert await whole(home, "change")
    runtime = home.hub.providers["many"]
    assert set(runtime.models) == {"m", "late"}
    assert (runtime.degraded, runtime.reason) == (True, "tired")
    assert runtime.quotas[0].models == ["m"]
    assert seen == [5]
    assert "something happened" in caplog.text
    progress = [event.data for event in events.drain() if event.data.get("event") == "progress"]
    assert progress[0]["fraction"] == 0.5


async def test_a_provider_that_cannot_start_leaves_its_siblings(home):
    """start() that raises makes its provider degraded with the reason; the others work."""
    await home.until(lambda: home.hub.connected("lame"))
    assert home.hub.providers["lame"].reason == "start failed: RuntimeError: no engine"
    assert [view.version for view in home.hub.plugin_views()] == ["1.2"]


async def test_bad_bodies(home):
    """A body that is not an object fails as the caller's mistake; a missing prompt is an empty one."""
    params = wire.Generate("many", "m", Raw(b"[1]"))
    deadline = asyncio.get_running_loop().time() + 5
    with pytest.raises(CallFailed) as caught:
        await home.hub.start_call("many", "generate", params, deadline=deadline).result()
    assert (caught.value.error.kind, caught.value.error.sent) == ("bad_request", "no")


async def test_a_deeply_nested_body_is_refused(home):
    """A body nested more deeply than decoders go is the caller's mistake and nobody's end."""
    params = wire.Generate("many", "m", Raw(b"[" * 5000 + b"]" * 5000))
    deadline = asyncio.get_running_loop().time() + 5
    with pytest.raises(CallFailed) as caught:
        await home.hub.start_call("many", "generate", params, deadline=deadline).result()
    assert (caught.value.error.kind, caught.value.error.sent) == ("bad_request", "no")
    assert await whole(home, "text")


async def test_shutdown_finishes_calls():
    """A shutdown lets calls in flight finish, refuses new ones, stops the providers and exits with 0."""
    source = """
    import asyncio
    from hybridd.plugin import Model, Provider, run
    class Calm(Provider):
        name = "calm"
        async def models(self): return [Model(id="m")]
        async def generate(self, request, stream):
            await asyncio.sleep(0.3)
            return "done"
        async def stop(self):
            open("stopped", "w").write("yes")
    run(Calm)
    """
    async with house() as home:
        await home.hub.apply({"calm": home.spec("calm", textwrap.dedent(source))})
        await home.hub.ensure_connected("calm", 10)
        call = home.generate("calm")
        session = home.hub.providers["calm"].session
        assert session is not None
        process = home.hub.process_of("calm")
        assert process is not None
        exited = process.exited
        assert exited is not None
        await session.shutdown(2)
        late = home.generate("calm")
        answer = await call.result()
        assert isinstance(answer.body, Raw)
        assert b"done" in bytes(answer.body)
        with pytest.raises(CallFailed) as caught:
            await late.result()
        assert (caught.value.error.kind, caught.value.error.sent) == ("unavailable", "no")
        assert await asyncio.wait_for(exited, 5) == 0
        assert (home.directory / "stopped").read_text() == "yes"


def run_plugin(source: str, socket: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "HYBRIDD_SOCKET": socket}
    return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, env=environ, timeout=20)


def test_no_daemon_is_one_line_and_exit_1(tmp_path):
    """Without a daemon a plugin ends with exit code 1 and one line that names the socket."""
    source = "from hybridd.plugin import Provider, run\nclass P(Provider): name = 'p'\nrun(P)"
    done = run_plugin(source, str(tmp_path / "none"))
    assert done.returncode == 1
    assert done.stderr.startswith(f"p: no daemon answers on {tmp_path / 'none'}: ")
    assert done.stderr.count("\n") == 1


async def test_losing_the_daemon_ends_the_plugin(home):
    """A plugin whose daemon goes away ends with exit code 1 and says so."""
    source = "from hybridd.plugin import Provider, run\nclass P(Provider): name = 'own'\nrun(P)"
    task = asyncio.create_task(asyncio.to_thread(run_plugin, source, str(home.socket)))
    await home.until(lambda: home.hub.connected("own"))
    session = home.hub.providers["own"].session
    assert session is not None
    session.close("the daemon stops")
    done = await task
    assert done.returncode == 1
    assert "the daemon stops" in done.stderr


def test_the_sdk_is_light():
    """Importing the SDK loads neither HTTP clients nor the daemon's parts."""
    code = "import sys, hybridd.plugin; print(*sorted(sys.modules))"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ).stdout.split()
    assert "hybridd.contracts.protocol" in modules
    heavy = {"aiohttp", "httpx", "pydantic", "sqlmodel", "uvicorn", "hybridd.providers", "hybridd.config.settings"}
    assert heavy & set(modules) == set()
