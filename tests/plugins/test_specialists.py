"""The built-in sentiment specialist as a provider."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hybridd.plugin import Result, Usage
from plugins.specialists.provider import MAX_CHARACTERS, Specialists
from tests.plugins.support import call, chat, failure_of, plugin_process, stream, text_of

GOOD, BAD = "Este produto é incrível!", "This is terrible, it broke after a day."


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("specialists")


@pytest.fixture
async def specialists(cache: Path) -> AsyncIterator[Specialists]:
    provider = Specialists("specialists", {"cache_dir": str(cache)})
    await provider.start()
    yield provider
    await provider.stop()


async def test_label_is_the_answer(specialists: Specialists) -> None:
    """The answer's content is the label of the last user message; probabilities and version are beside it."""
    result = await call(specialists, {**chat(GOOD), "model": "sentiment"})
    assert isinstance(result.body, dict)
    assert result.body["choices"][0]["message"]["content"] == "positive"
    told = result.body["hybridd"]
    assert sum(told["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
    assert told["version"] == (result.details or {})["version"]
    assert result.usage == Usage(input_tokens=4, output_tokens=1)
    assert result.body["usage"] == {"prompt_tokens": 4, "completion_tokens": 1, "total_tokens": 5}
    assert (result.details or {})["tokens_counted"] == "whitespace-separated words"
    again = await call(specialists, {"model": "sentiment", "messages": [
        {"role": "user", "content": GOOD}, {"role": "assistant", "content": "ok"}, {"role": "user", "content": BAD},
    ]})  # fmt: skip
    assert isinstance(again.body, dict)
    assert again.body["choices"][0]["message"]["content"] == "negative"


async def test_streamed_label(specialists: Specialists) -> None:
    """A streaming caller gets the label as a chunk."""
    ended, wire = await stream(specialists, {**chat(GOOD), "model": "sentiment"})
    assert isinstance(ended, Result)
    assert wire.text == "positive"
    assert ended.usage == Usage(input_tokens=4, output_tokens=1)


async def test_batches(specialists: Specialists) -> None:
    """``predict`` takes a list or one text and answers for each, in order."""
    result = await call(specialists, {"model": "sentiment", "input": [GOOD, BAD]}, endpoint="predict")
    assert isinstance(result.body, dict)
    assert [(one["index"], one["label"]) for one in result.body["data"]] == [(0, "positive"), (1, "negative")]
    assert result.usage == Usage(input_tokens=12, output_tokens=2)
    one = await call(specialists, {"model": "sentiment", "input": GOOD}, endpoint="predict")
    assert isinstance(one.body, dict)
    assert one.body["data"][0]["label"] == "positive"


async def test_long_text_is_said_to_be_cut(specialists: Specialists) -> None:
    """Only the beginning of a very long text is read, and the details say so."""
    result = await call(specialists, {**chat("good " * MAX_CHARACTERS), "model": "sentiment"})
    assert (result.details or {})["truncated"] is True


@pytest.mark.parametrize(
    ("body", "endpoint", "kind"),
    [
        ({**chat("   "), "model": "sentiment"}, "chat", "bad_request"),
        ({"model": "sentiment", "messages": []}, "chat", "bad_request"),
        ({**chat(), "model": "irony"}, "chat", "not_found"),
        ({"model": "sentiment", "input": []}, "predict", "bad_request"),
        ({"model": "sentiment", "input": [1]}, "predict", "bad_request"),
        ({"model": "sentiment"}, "predict", "bad_request"),
        ({"model": "sentiment", "input": ["x"] * 10_001}, "predict", "bad_request"),
    ],
)
async def test_refusals(specialists: Specialists, body: dict[str, object], endpoint: str, kind: str) -> None:
    """Nothing to classify, too much of it or an unknown specialist is refused with a sentence."""
    failure = await failure_of(call(specialists, body, endpoint=endpoint))
    assert (failure.error.kind, failure.error.sent) == (kind, "no")


async def test_model_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """When the model cannot be loaded the provider is degraded and calls fail, unsent, with the reason."""
    import hybridd.mlops.sentiment as sentiment

    def fails(_: Path) -> None:
        raise ValueError("the data set is gone")

    monkeypatch.setattr(sentiment, "load_or_train", fails)
    provider = Specialists("specialists", {"cache_dir": str(tmp_path)})
    await provider.start()
    failure = await failure_of(call(provider, {**chat(GOOD), "model": "sentiment"}))
    assert (failure.error.kind, failure.error.sent) == ("unavailable", "no")
    assert "the data set is gone" in failure.message
    assert provider.state == "degraded"
    await provider.stop()


def processor_seconds(pid: int) -> float:
    """User and system time of a process, fields 14 and 15 of its ``stat`` (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_cold_start_with_training(tmp_path: Path) -> None:
    """From process start to the first answer, training included, takes under four seconds of work.

    Processor time, not the wall's: the work is all computing, and other tests share the machine.
    """
    async with plugin_process(
        "plugins.specialists", {"specialists": {"cache_dir": str(tmp_path / "c")}}, tmp_path
    ) as one:
        [model] = one.registered["specialists"]["models"]
        assert (model["id"], model["tasks"]) == ("sentiment", ["sentiment_analysis"])
        answer = (await one.ask("generate", "specialists", {**chat(GOOD), "model": "sentiment"}))["result"]
        assert processor_seconds(one.process.pid) < 4.0
        assert answer["body"]["choices"][0]["message"]["content"] == "positive"
        number, future = one.start("generate", "specialists", {**chat(BAD), "model": "sentiment"}, stream=True)
        await asyncio.wait_for(future, 5)
        assert text_of(one.events[number]) == "negative"
        batch = await one.ask("predict", "specialists", {"model": "sentiment", "input": [GOOD]})
        assert batch["result"]["body"]["data"][0]["label"] == "positive"
    assert one.process.returncode == 0
