"""The provider ``local`` on a real, tiny GGUF in real llama.cpp."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hybridd.plugin import CallFailure, Result, Stream, Usage
from plugins.llama_cpp.provider import Local
from tests.fakes.tiny_gguf import CONTEXT, make_tiny_gguf
from tests.plugins.support import (
    CREDIT,
    RecordingWire,
    call,
    chat,
    failure_of,
    make_request,
    plugin_process,
    stream,
    text_of,
)

pytest.importorskip("llama_cpp")


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_tiny_gguf(folder / "tiny.gguf", never_ends=True)
    make_tiny_gguf(folder / "other.gguf", seed=7, context=128, template=None)
    make_tiny_gguf(folder / "long.gguf", seed=3, context=4096, never_ends=True)
    (folder / "broken.gguf").write_bytes((folder / "tiny.gguf").read_bytes()[:20_000])
    return folder


@pytest.fixture
async def local(models_dir: Path) -> AsyncIterator[Local]:
    provider = Local("local", {"models_dir": str(models_dir), "default_model": "tiny", "vram_limit_mb": 4096})
    await provider.start()
    yield provider
    await provider.stop()


def ask(text: str = "hello world", model: str = "tiny", **more: Any) -> dict[str, Any]:
    return {**chat(text), "model": model, "max_tokens": 12, "seed": 1, **more}


async def collected(provider: Local, body: dict[str, Any], endpoint: str = "chat") -> tuple[str, Result, str | None]:
    """A call that does not stream: the text the SDK will answer with."""
    request = make_request(body, endpoint=endpoint)
    into = Stream(request, RecordingWire(), CREDIT)
    result = await provider.generate(request, into)
    return into.text, result, into.finish_reason


async def test_models_are_registered_without_loading(local: Local) -> None:
    """Models are known by stem, the default first, with the context they will have, before any is loaded."""
    told = {model.id: model.context for model in await local.models()}
    assert list(told) == ["tiny", "broken", "long", "other"]
    assert (told["tiny"], told["other"]) == (CONTEXT, 128)
    assert local.state == "ready"
    assert local._engine is None


async def test_answer_is_deterministic_and_counted(local: Local) -> None:
    """A seed fixes the answer; tokens are counted by the tokenizer; the details say what was really loaded."""
    first, result, reason = await collected(local, ask())
    again, _, _ = await collected(local, ask())
    different, _, _ = await collected(local, ask(seed=2))
    assert first == again != different
    assert reason == "length"
    assert result.usage is not None
    assert result.usage.output_tokens == 12
    details = result.details or {}
    assert (details["context"], details["layers"], details["gpu_layers"], details["template"]) == (
        CONTEXT,
        2,
        0,
        "gguf",
    )
    assert details["load_ms"] > 0
    # "[user]hello world\n[assistant]" with its beginning of sequence, in the tiny tokenizer
    engine = local._engine
    assert engine is not None
    assert result.usage.input_tokens == len(engine.chat_tokens([{"role": "user", "content": "hello world"}]))


async def test_stream_is_the_same_text(local: Local) -> None:
    """Streaming gives the same text in several pieces, an end with its reason, and usage only when asked for."""
    whole, _, _ = await collected(local, ask())
    ended, wire = await stream(local, ask())
    assert isinstance(ended, Result)
    assert wire.text == whole
    assert len(wire.events) > 2
    assert wire.events[-1]["choices"][0]["finish_reason"] == "length"
    ended, wire = await stream(local, ask(stream_options={"include_usage": True}))
    assert isinstance(ended, Result)
    assert ended.usage is not None
    assert wire.events[-1]["usage"]["completion_tokens"] == 12


async def test_long_prompts_in_batches(local: Local) -> None:
    """A prompt of several batches gives the same answer whether its beginning is still known or not."""
    body = ask("x" * 1500, model="long", max_tokens=5, temperature=0)
    fresh, result, _ = await collected(local, body)
    assert result.usage is not None
    assert result.usage.input_tokens > 1024
    known, _, _ = await collected(local, body)
    assert known == fresh


async def test_completion_endpoint(local: Local) -> None:
    """A plain prompt is continued without a chat template."""
    text, result, _ = await collected(local, {"model": "tiny", "prompt": "the fox", "max_tokens": 3}, "completion")
    assert text != ""
    assert local._engine is not None
    assert result.usage == Usage(input_tokens=len(local._engine.text_tokens("the fox")), output_tokens=3)


async def test_stop_string(local: Local) -> None:
    """An answer ends before a stop string, with the reason "stop"."""
    text, _, _ = await collected(local, ask())
    stop = next(one for one in text[1:] if one != "\ufffd")
    cut, result, reason = await collected(local, ask(stop=stop))
    assert cut == text[: text.index(stop)]
    assert reason == "stop"
    assert result.usage is not None
    assert result.usage.output_tokens < 12


async def test_overflow_is_an_error_with_the_numbers(local: Local) -> None:
    """A prompt larger than the context is refused with both figures, never cut; one that just fits is answered."""
    failure = await failure_of(call(local, ask("x" * 400)))
    assert (failure.error.kind, failure.error.sent) == ("too_large", "no")
    assert str(CONTEXT) in failure.message
    engine = local._engine
    assert engine is not None
    empty = len(engine.chat_tokens([{"role": "user", "content": ""}]))
    _, result, reason = await collected(local, ask("x" * (CONTEXT - empty - 2), max_tokens=50))
    assert result.usage is not None
    assert (result.usage.input_tokens + result.usage.output_tokens, reason) == (CONTEXT, "length")
    assert (result.details or {})["max_tokens"] == result.usage.output_tokens


async def test_models_change_places(local: Local) -> None:
    """Another model is loaded when asked for, chatml where it has no template; an unknown one is refused by name."""
    _, first, _ = await collected(local, ask())
    _, second, _ = await collected(local, ask(model="other"))
    assert (second.details or {})["template"] == "chatml"
    assert (second.details or {})["model"] == "other"
    _, third, _ = await collected(local, ask(model="local"))
    assert (third.details or {})["model"] == (first.details or {})["model"] == "tiny"
    failure = await failure_of(call(local, ask(model="nope")))
    assert (failure.error.kind, failure.error.sent) == ("not_found", "no")
    assert "tiny" in failure.message


async def test_broken_model(local: Local) -> None:
    """A file that llama.cpp cannot load fails its call, unsent, and the next model still loads."""
    failure = await failure_of(call(local, ask(model="broken")))
    assert (failure.error.kind, failure.error.sent) == ("unavailable", "no")
    assert "broken" in failure.message
    text, _, _ = await collected(local, ask())
    assert text != ""


async def test_cancel_between_tokens_and_in_the_queue(local: Local) -> None:
    """A running answer stops at its next token when cancelled; one that waits is never begun; the next goes on."""
    await collected(local, ask(model="long"))
    wire = RecordingWire()
    request = make_request(ask(model="long", max_tokens=4000), stream=True)
    running = asyncio.create_task(local.generate(request, Stream(request, wire, CREDIT)))
    await asyncio.wait_for(wire.arrived.wait(), 5)
    [turn] = local._turns
    waiting = asyncio.create_task(call(local, ask(model="tiny")))
    while len(local._turns) < 2:
        await asyncio.sleep(0)
    [queued] = local._turns - {turn}
    waiting.cancel()
    running.cancel()
    for task in (waiting, running):
        with pytest.raises(asyncio.CancelledError):
            await task
    text, result, _ = await collected(local, ask(model="long"))
    assert text != ""
    assert "load_ms" not in (result.details or {})
    assert turn.produced < 4000
    assert (queued.prompt, queued.produced) == (0, 0)
    assert local._turns == set()


async def test_requests_wait_their_turn(local: Local) -> None:
    """Requests are answered one at a time in the order they came, each as if it were alone."""
    alone = [(await collected(local, ask(f"question {n}")))[0] for n in range(4)]
    ended: list[int] = []

    async def one(n: int) -> str:
        text, _, _ = await collected(local, ask(f"question {n}"))
        ended.append(n)
        return text

    assert await asyncio.gather(*(one(n) for n in range(4))) == alone
    assert ended == [0, 1, 2, 3]


async def test_template_that_refuses(tmp_path: Path) -> None:
    """A chat template that refuses the messages, or tries to leave its sandbox, is the caller's error, not a crash."""
    for name, template in (("a", "{{ raise_exception('roles must alternate') }}"), ("b", "{{ ''.__class__.mro() }}")):
        make_tiny_gguf(tmp_path / f"{name}.gguf", template=template)
    provider = Local("local", {"models_dir": str(tmp_path)})
    await provider.start()
    for name, words in (("a", "roles must alternate"), ("b", "refuses the messages")):
        failure = await failure_of(call(provider, ask(model=name)))
        assert failure.error.kind == "bad_request"
        assert words in failure.message
    await provider.stop()


async def test_new_files_are_found(tmp_path: Path) -> None:
    """Without a file the provider says where it looked; a file that appears is served at once and told by the probe."""
    provider = Local("local", {"models_dir": str(tmp_path), "cache_dir": str(tmp_path / "cache")})
    await provider.start()
    assert provider.state == "not_configured"
    assert str(tmp_path) in provider.reason
    make_tiny_gguf(tmp_path / "fresh.gguf")
    assert (await provider.probe()).ok
    assert [model.id for model in await provider.models()] == ["fresh"]
    make_tiny_gguf(tmp_path / "later.gguf")
    ended, _ = await stream(provider, ask(model="later"))
    assert isinstance(ended, Result)
    await provider.stop()


async def test_without_llama_cpp(monkeypatch: pytest.MonkeyPatch, models_dir: Path) -> None:
    """A core install names the extra that is missing."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "llama_cpp" else found(name))
    provider = Local("local", {"models_dir": str(models_dir)})
    await provider.start()
    assert provider.state == "not_configured"
    assert "hybridd[local]" in provider.reason
    failure = await failure_of(call(provider, ask()))
    assert isinstance(failure, CallFailure)
    assert failure.error.sent == "no"
    await provider.stop()


async def test_process(models_dir: Path, tmp_path: Path) -> None:
    """The real program registers, answers, streams, cancels and stops; nothing of llama.cpp's chatter is left."""
    settings = {"local": {"models_dir": str(models_dir), "default_model": "tiny"}}
    async with plugin_process("plugins.llama_cpp", settings, tmp_path) as daemon:
        assert daemon.registered["local"]["models"][0]["id"] == "tiny"
        answer = (await daemon.ask("generate", "local", ask()))["result"]
        number, future = daemon.start("generate", "local", ask(), stream=True)
        await asyncio.wait_for(future, 10)
        assert text_of(daemon.events[number]) == answer["body"]["choices"][0]["message"]["content"]
        assert answer["body"]["choices"][0]["finish_reason"] == "length"
        assert answer["body"]["usage"]["completion_tokens"] == 12
        number, future = daemon.start("generate", "local", ask(model="long", max_tokens=4000), stream=True)
        await daemon.until(lambda one: number in one.events)
        await daemon.cancel(number)
        assert (await asyncio.wait_for(future, 5))["error"]["data"]["kind"] == "cancelled"
        too_long = await daemon.ask("generate", "local", ask("x" * 400))
        assert too_long["error"]["data"]["kind"] == "too_large"
        assert json.dumps(daemon.notes) == "[]"
    assert daemon.process.returncode == 0
    assert daemon.stderr == b""
