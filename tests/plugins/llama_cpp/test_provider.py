"""The provider ``local`` on a real, tiny GGUF in real llama.cpp: what the daemon and its callers get."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from hybridd.plugin import CallFailure, LoadFailed, Result, Stream
from plugins.llama_cpp.provider import Local
from tests.fakes.tiny_gguf import make_tiny_gguf
from tests.plugins.support import (
    CREDIT,
    ROOT,
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

OPTIONS = {"context": 1024, "sequences": 3, "batch": 256}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf", never_ends=True, context=1024)


def settings(path: Path, **options: Any) -> dict[str, Any]:
    return {"model": "tiny", "path": str(path), "options": {**OPTIONS, **options}, "quantization": "F32", "layers": 3}


@pytest.fixture
async def local(path: Path) -> AsyncIterator[Local]:
    provider = Local("local", settings(path))
    await provider.start()
    yield provider
    await provider.stop()


def ask(text: str = "hello world", **more: Any) -> dict[str, Any]:
    return {**chat(text), "model": "tiny", "max_tokens": 12, "seed": 1, **more}


def content(answer: Any, choice: int = 0) -> str:
    assert isinstance(answer, Result)
    body: Any = answer.body
    return str(body["choices"][choice]["message"]["content"])


async def test_what_was_loaded(local: Local) -> None:
    """The one model is told with everything that was really loaded, measured memory included."""
    [model] = await local.models()
    loaded = model.details["loaded"]
    assert (model.id, model.context, model.methods) == ("tiny", 1024, ["generate"])
    assert {key: loaded[key] for key in ("file", "quantization", "context", "sequences", "gpu_layers", "layers")} == {
        "file": "tiny.gguf", "quantization": "F32", "context": 1024, "sequences": 3, "gpu_layers": 0, "layers": 3,
    }  # fmt: skip
    assert loaded["memory"]["host"]["kv"] == 2 * 2 * 64 * 2 * 1024  # K and V, layers, width, bytes, cells
    assert loaded["load_ms"] > 0
    assert loaded["rss"] > 1 << 20


async def test_every_answer_says_how_it_was_made(local: Local) -> None:
    """Whole answers and ends of streams carry timings and what answered; the ledger gets usage and details."""
    answer = await call(local, ask())
    body: Any = answer.body
    assert body["local"] == {
        "file": "tiny.gguf", "quantization": "F32", "context": 1024, "gpu_layers": 0, "layers": 3, "type_k": "f16",
        "type_v": "f16",
    }  # fmt: skip
    assert (body["timings"]["predicted_n"], body["choices"][0]["finish_reason"]) == (12, "length")
    assert body["timings"]["prompt_n"] == body["usage"]["prompt_tokens"]
    assert body["timings"]["predicted_per_second"] > 0
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (body["usage"]["prompt_tokens"], 12)
    assert answer.details is not None
    assert answer.details["local"] == body["local"]
    _, wire = await stream(local, ask())
    assert wire.text == content(answer)
    assert wire.events[-1]["local"] == body["local"]
    assert wire.events[-1]["timings"]["cache_n"] == body["usage"]["prompt_tokens"] - 1
    _, wire = await stream(local, ask(stream_options={"include_usage": True}))
    assert wire.events[-1]["usage"]["completion_tokens"] == 12
    assert len(wire.events) > 3


async def test_callers_at_once(local: Local) -> None:
    """Ten callers on three sequences get what each gets alone, whole or streamed."""
    bodies = [ask(f"question {n} " + "x" * 11 * n, temperature=0) for n in range(10)]
    alone = [content(await call(local, body)) for body in bodies]
    whole = await asyncio.gather(*(call(local, body) for body in bodies))
    streamed = await asyncio.gather(*(stream(local, body) for body in bodies))
    assert [content(answer) for answer in whole] == alone
    assert [wire.text for _, wire in streamed] == alone


async def test_several_answers(local: Local) -> None:
    """``n`` answers are those of the seeds that follow each other; the prompt is counted once."""
    together = await call(local, ask(n=3, temperature=1.5))
    alone = [content(await call(local, ask(seed=1 + n, temperature=1.5))) for n in range(3)]
    assert [content(together, n) for n in range(3)] == alone
    assert together.usage is not None
    assert together.usage.output_tokens == 36
    assert together.usage.input_tokens == (await call(local, ask())).usage.input_tokens  # type: ignore[union-attr]
    _, wire = await stream(local, ask(n=3, temperature=1.5))
    for n in range(3):
        events = [event for event in wire.events if event["choices"][0]["index"] == n]
        assert text_of(events) == alone[n]
        assert events[-1]["choices"][0]["finish_reason"] == "length"


async def test_completions(local: Local) -> None:
    """Prompts are texts or token ids, several in one request; an echoed one comes back first."""
    both = await call(
        local, {"model": "tiny", "prompt": ["the fox", "a dog"], "max_tokens": 4, "temperature": 0, "echo": True},
        endpoint="completion",
    )  # fmt: skip
    body: Any = both.body
    assert [choice["text"][:7] for choice in body["choices"]] == ["the fox", "a dog" + body["choices"][1]["text"][5:7]]
    ids = await call(
        local, {"model": "tiny", "prompt": [1, 50, 60], "max_tokens": 4, "temperature": 0}, endpoint="completion"
    )
    assert ids.usage is not None
    assert (ids.usage.input_tokens, ids.usage.output_tokens) == (3, 4)
    failure = await failure_of(call(local, {"prompt": [1, 9999], "max_tokens": 4}, endpoint="completion"))
    assert (failure.error.kind, failure.error.param) == ("bad_request", "prompt")
    empty = await call(local, {"prompt": "", "max_tokens": 2}, endpoint="completion")
    assert empty.usage is not None
    assert empty.usage.input_tokens == 1


async def test_a_prompt_that_does_not_fit(local: Local) -> None:
    """It is refused with both numbers, never cut; one that just fits is answered up to the edge."""
    failure = await failure_of(call(local, ask("x" * 2000)))
    assert (failure.error.kind, failure.error.sent) == ("too_large", "no")
    assert failure.error.upstream_code == "context_length_exceeded"
    assert "1024" in failure.message
    empty = (await call(local, ask("", max_tokens=1))).usage
    assert empty is not None
    answer = await call(local, ask("x" * (1024 - empty.input_tokens - 2), max_tokens=50))
    assert answer.usage is not None
    assert answer.usage.input_tokens + answer.usage.output_tokens == 1024
    assert (answer.details or {})["max_tokens"] == answer.usage.output_tokens


async def test_forms(local: Local) -> None:
    """A schema's answer is JSON of that schema; a grammar's obeys it; a wrong grammar is the caller's error."""
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "boolean"}}}
    assert content(await call(local, ask(response_format=form))).strip() in ("true", "false")
    assert content(await call(local, ask(grammar='root ::= "yes" | "no"'))) in ("yes", "no")
    failure = await failure_of(call(local, ask(grammar="root ::= (((")))
    assert (failure.error.kind, failure.error.sent) == ("bad_request", "no")


async def test_cancel(local: Local) -> None:
    """A caller that goes stops its sequence; nothing of it is left behind."""
    wire = RecordingWire()
    request = make_request(ask(max_tokens=900), stream=True)
    running = asyncio.create_task(local.generate(request, Stream(request, wire, CREDIT)))
    await asyncio.wait_for(wire.arrived.wait(), 5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert content(await call(local, ask())) != ""
    told = (await local.probe()).details
    assert (told["sequences_used"], told["waiting"]) == (0, 0)
    assert told["answer_tokens"] < 900


async def test_a_reader_without_credit(local: Local) -> None:
    """A stream whose daemon gives no credit is paused, and the others are answered meanwhile."""
    wire = RecordingWire()
    request = make_request(ask(max_tokens=600), stream=True)
    into = Stream(request, wire, 2000)
    slow = asyncio.create_task(local.generate(request, into))
    await asyncio.wait_for(wire.arrived.wait(), 5)
    for n in range(4):
        assert content(await call(local, ask(f"question {n}"))) != ""
    assert len(wire.events) < 100
    assert not slow.done()
    into.grant(1 << 30)
    answer = await asyncio.wait_for(slow, 10)
    assert answer.usage is not None
    assert answer.usage.output_tokens == 600


async def test_loads_that_fail(path: Path, tmp_path: Path) -> None:
    """A broken file and wrong options are told with their causes."""
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(path.read_bytes()[:40_000])
    text = tmp_path / "text.gguf"
    text.write_text("this is no model")
    for file, cause in ((cut, "bad_file"), (text, "bad_file"), (tmp_path / "none.gguf", "bad_file")):
        with pytest.raises(LoadFailed) as caught:
            await Local("local", settings(file)).start()
        assert caught.value.failure.cause == cause
        assert file.name in caught.value.failure.message
    with pytest.raises(LoadFailed, match="options"):
        await Local("local", settings(path, context="many")).start()


_STARVED = """
import resource, sys
from pathlib import Path
from hybridd.plugin import LoadFailed
from plugins.llama_cpp import engine, scheduler, template  # what a load imports takes room, too
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (256 << 20), resource.RLIM_INFINITY))
try:
    engine.load(Path(sys.argv[1]), engine.Options(context=int(sys.argv[2])))
except LoadFailed as error:
    print(error.failure.cause)
"""


async def test_no_memory(path: Path) -> None:
    """Where memory ends, the cause says what it was wanted for: the cells, or what is computed with them."""
    for context, cause in ((1 << 21, "kv"), (1 << 18, "runtime")):
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _STARVED, str(path), str(context), cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        told, _ = await asyncio.wait_for(child.communicate(), 60)
        assert told.decode().strip() == cause, context


async def test_without_llama_cpp_or_a_model(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """A core install names the extra that is missing; settings without a file say so; calls are refused unsent."""
    bare = Local("local", {})
    await bare.start()
    assert (bare.state, "path" in bare.reason) == ("not_configured", True)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "llama_cpp" else found(name))
    provider = Local("local", settings(path))
    await provider.start()
    assert "hybridd[local]" in provider.reason
    failure = await failure_of(call(provider, ask()))
    assert isinstance(failure, CallFailure)
    assert failure.error.sent == "no"
    await provider.stop()


async def test_process(path: Path, tmp_path: Path) -> None:
    """The real program loads with progress, registers, answers, streams, cancels, and leaves no chatter behind."""
    async with plugin_process("plugins.llama_cpp", {"local": settings(path)}, tmp_path) as daemon:
        assert daemon.registered["local"]["models"][0]["id"] == "tiny"
        notes = [note for note in daemon.notes if note["method"] == "progress"]
        assert notes[-1]["fraction"] == 1.0
        assert (notes[-1]["operation"], notes[-1]["text"]) == ("load", "tiny")
        assert notes == daemon.notes
        answer = (await daemon.ask("generate", "local", ask()))["result"]
        number, future = daemon.start("generate", "local", ask(), stream=True)
        await asyncio.wait_for(future, 10)
        assert text_of(daemon.events[number]) == answer["body"]["choices"][0]["message"]["content"]
        number, future = daemon.start("generate", "local", ask(max_tokens=900), stream=True, credit=1000)
        await daemon.until(lambda one: number in one.events)
        await daemon.cancel(number)
        assert (await asyncio.wait_for(future, 5))["error"]["data"]["kind"] == "cancelled"
        while (told := (await daemon.ask("probe", "local"))["result"]["details"])["sequences_used"]:
            assert told["steps"] > 12
    assert daemon.process.returncode == 0
    assert daemon.stderr == b""


async def test_a_process_that_cannot_load(path: Path, tmp_path: Path) -> None:
    """The daemon is told the cause, and the process ends."""
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(path.read_bytes()[:40_000])
    async with plugin_process("plugins.llama_cpp", {"local": settings(cut)}, tmp_path) as daemon:
        assert daemon.registered["local"]["failure"]["cause"] == "bad_file"
        await asyncio.wait_for(daemon.process.wait(), 10)
    assert daemon.process.returncode == 1


async def test_loads_leave_nothing_behind(path: Path) -> None:
    """Loads with an answer each do not make the process grow."""

    async def once() -> None:
        provider = Local("local", settings(path))
        await provider.start()
        await call(provider, ask(max_tokens=2, grammar="root ::= [a-z]+"))
        await provider.stop()

    sizes = []
    for _ in range(5):
        for _ in range(7):
            await once()
        sizes.append(rss())
    # What is left behind by each load grows in every block; the allocator of a process full of tests moves in some.
    assert min(after - before for before, after in pairwise(sizes)) < 1 << 20


async def test_requests_leave_nothing_behind(local: Local) -> None:
    """Requests by the hundred do not make the process grow (``scripts/bench`` asks 2,000 times)."""
    bodies = [ask(f"question {n} " + "y" * n, max_tokens=2, temperature=n % 2) for n in range(20)]
    for _ in range(20):
        await asyncio.gather(*(call(local, body) for body in bodies))
    before = rss()
    for _ in range(30):
        await asyncio.gather(*(call(local, body) for body in bodies))
    assert rss() - before < 2 << 20


def rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
