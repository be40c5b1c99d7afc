"""Memory that works differently: sliding windows, recurrent states, latent attention, encoders."""

from __future__ import annotations

import asyncio
import base64
import math
import struct
from pathlib import Path
from typing import Any

import pytest

from hybridd.plugin import CallFailure
from plugins.llama_cpp.provider import Local
from plugins.llama_cpp.sampling_params import Sampling
from tests.fakes.model_zoo import KINDS, make_model
from tests.plugins.llama_cpp.engines import running
from tests.plugins.llama_cpp.test_scheduler import prompt
from tests.plugins.support import call

pytest.importorskip("llama_cpp")

EMBEDDING = [kind for kind in KINDS if "bert" in kind or "embed" in kind]
TEXT = [kind for kind in KINDS if kind not in EMBEDDING]
# Tied weights repeat themselves for ever when they are greedy; drawn tokens depend on every figure.
HOT = Sampling(temperature=1.5, top_k=0, top_p=1, min_p=0, seed=1)
SMALL: dict[str, Any] = {"layers": 4, "vocabulary": 512, "weights": "f32", "never_ends": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zoo")


@pytest.mark.parametrize("unified", [True, False])
@pytest.mark.parametrize("kind", TEXT)
async def test_every_architecture(folder: Path, kind: str, unified: bool) -> None:
    """Company, shared beginnings, going on and a cancelled neighbour change no architecture's answers, whether its
    sequences share their cells or have their own."""
    path = make_model(folder / f"{kind}.gguf", kind, **SMALL)
    system = prompt(40, 1)
    asks = [[*system, *prompt(12 + 9 * n, n)[1:]] for n in range(4)]
    async with running(path, context=2048, sequences=3, micro_batch=64, unified=unified) as engine:
        alone = [(await engine.ask(tokens, limit=12, sampling=HOT, cache=False)).tokens for tokens in asks]
        gone = engine.sequence(prompt(300, 9), limit=5)
        engine.scheduler.submit([gone])
        while not engine.scheduler.figures.busy:
            await asyncio.sleep(0)
        engine.scheduler.cancel([gone])
        together = await asyncio.gather(*(engine.ask(tokens, limit=12, sampling=HOT) for tokens in asks))
        assert [said.tokens for said in together] == alone
        longer = [*asks[3], *alone[3], *prompt(5, 8)[1:]]
        fresh = await engine.ask(longer, limit=8, sampling=HOT, cache=False)
        assert (await engine.ask(longer, limit=8, sampling=HOT)).tokens == fresh.tokens


async def test_a_window_forgets(folder: Path) -> None:
    """Where a sliding window has dropped the cells before it, a shorter prompt is evaluated anew and right."""
    path = make_model(folder / "window.gguf", "gemma3", window=32, **SMALL)
    tokens = prompt(300, 3)
    async with running(path, context=1024, sequences=1, micro_batch=32) as engine:
        fresh = await engine.ask(tokens[:60], limit=8, sampling=HOT, cache=False)
        await engine.ask(tokens, limit=30, sampling=HOT)
        again = await engine.ask(tokens[:60], limit=8, sampling=HOT)
        assert again.tokens == fresh.tokens
        assert again.sequence.reused == 0
        on = await engine.ask([*tokens[:60], *again.tokens, 7, 8], limit=4)
        assert on.sequence.reused == 67


@pytest.fixture
async def embedder(folder: Path) -> Any:
    path = folder / "embed.gguf"
    if not path.exists():
        make_model(path, EMBEDDING[0], layers=2)
    provider = Local("local", {"path": str(path), "options": {"context": 512, "sequences": 4}})
    await provider.start()
    yield provider
    await provider.stop()


async def test_embeddings(embedder: Local) -> None:
    """Equal texts have equal vectors of length one, in any company; base64 holds the same numbers."""
    texts = ["hello world", "something else", "hello world", "a b c", "d", "e f", "hello world"]
    body = {"model": "e", "input": texts}
    many = await call(embedder, body, endpoint="embed")
    data = [one["embedding"] for one in many.body["data"]]  # type: ignore[index, call-overload]  # a dict
    alone = await call(embedder, {"model": "e", "input": texts[0]}, endpoint="embed")
    one = alone.body["data"][0]["embedding"]  # type: ignore[index, call-overload]  # as above
    assert data[0] == pytest.approx(one, abs=1e-5)
    assert data[0] == pytest.approx(data[2], abs=1e-5)
    assert data[0] == pytest.approx(data[6], abs=1e-5)
    assert data[0] != pytest.approx(data[1], abs=1e-3)
    assert all(math.isclose(math.hypot(*vector), 1.0, rel_tol=1e-5) for vector in data)
    packed = await call(embedder, {**body, "encoding_format": "base64"}, endpoint="embed")
    raw = base64.b64decode(packed.body["data"][1]["embedding"])  # type: ignore[index, call-overload]  # as above
    assert list(struct.unpack(f"<{len(raw) // 4}f", raw)) == pytest.approx(data[1], abs=1e-5)
    assert many.usage is not None
    assert many.usage.input_tokens == many.body["usage"]["prompt_tokens"] > 7  # type: ignore[index, call-overload]
    assert many.details is not None
    local = many.details["local"]
    assert (local["type_k"], local["type_v"]) == (None, None), "it has no KV cache"
    timings = many.details["timings"]
    assert timings == many.body["timings"]  # type: ignore[index, call-overload]  # as above
    assert timings["prompt_n"] == many.usage.input_tokens
    assert timings["prompt_per_second"] > 0


async def test_embeddings_refuse(embedder: Local) -> None:
    """Other dimensions, texts that are too long and chats are refused unsent, each with its reason."""
    for body, kind, words in (
        ({"input": "a", "dimensions": 7}, "unsupported", "no others"),
        ({"input": "word " * 600}, "too_large", "nothing is ever cut"),
        ({"input": [[10**6]]}, "bad_request", "the model's are 0 to"),
    ):
        with pytest.raises(CallFailure, match=words) as caught:
            await call(embedder, {"model": "e", **body}, endpoint="embed")
        assert (caught.value.error.kind, caught.value.error.sent) == (kind, "no")
    with pytest.raises(CallFailure, match="makes embeddings"):
        await call(embedder, {"model": "e", "messages": [{"role": "user", "content": "x"}]})
    [model] = await embedder.models()
    assert model.methods == ["embed"]


async def test_no_text_is_longer_than_the_positions_a_model_has_learned(folder: Path) -> None:
    """llama.cpp rounds a context up, and ends the process at the first token behind the table of positions: a text that
    long is refused, one that just fits is not."""
    path = make_model(folder / "positions.gguf", "bert", context=300, layers=2)
    provider = Local("local", {"path": str(path), "options": {"context": 600, "sequences": 2}, "positions": 300})
    await provider.start()
    try:
        fits = await call(provider, {"model": "e", "input": [[7] * 300, [8] * 300]}, endpoint="embed")
        assert fits.usage is not None
        assert fits.usage.input_tokens == 600
        with pytest.raises(CallFailure, match="nothing is ever cut") as caught:
            await call(provider, {"model": "e", "input": [[7] * 301]}, endpoint="embed")
        assert caught.value.error.kind == "too_large"
    finally:
        await provider.stop()


@pytest.mark.parametrize("kind", EMBEDDING)
async def test_any_context_and_any_number_of_sequences(folder: Path, kind: str) -> None:
    """llama.cpp shares an encoder's batch out among the sequences; a context that is no multiple of them loads too."""
    path = make_model(folder / f"odd-{kind}.gguf", kind, layers=2, context=300)
    options = {"context": 300, "sequences": 8, "batch": 300, "micro_batch": 300}
    provider = Local("local", {"path": str(path), "options": options, "positions": 300})
    await provider.start()
    try:
        done = await call(provider, {"model": "e", "input": [[7] * 290, [8, 9]] * 5}, endpoint="embed")
        assert len(done.body["data"]) == 10  # type: ignore[index, call-overload]  # a dict
    finally:
        await provider.stop()


async def test_many_embeddings_at_once(embedder: Local) -> None:
    """Requests that come together are answered each with its own vectors."""
    words = [f"text {n}" for n in range(12)]
    alone = [(await call(embedder, {"model": "e", "input": word}, endpoint="embed")).body for word in words]
    both = await asyncio.gather(*(call(embedder, {"model": "e", "input": word}, endpoint="embed") for word in words))
    for one, other in zip(alone, both, strict=True):
        expected = one["data"][0]["embedding"]  # type: ignore[index, call-overload]  # a dict
        assert other.body["data"][0]["embedding"] == pytest.approx(expected, abs=1e-5)  # type: ignore[index, call-overload]
