"""Continuous batching on real llama.cpp: whatever happens around an answer, it is the one it would have been alone."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from hybridd.plugin import CallFailure
from plugins.llama_cpp.batching import Pace
from plugins.llama_cpp.sampling_params import Sampling
from plugins.llama_cpp.sequence import WINDOW, Sequence
from tests.fakes.tiny_gguf import make_tiny_gguf
from tests.plugins.llama_cpp.engines import GREEDY, running, sure

pytest.importorskip("llama_cpp")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_gguf(tmp_path_factory.mktemp("engine") / "tiny.gguf", never_ends=True, context=2048)


def prompt(size: int, seed: int) -> list[int]:
    draw = random.Random(seed)
    return [1, *(draw.randrange(3, 272) for _ in range(size - 1))]


@pytest.mark.parametrize(("unified", "flash"), [(True, False), (True, True), (False, False)])
async def test_together_is_as_alone(tiny: Path, unified: bool, flash: bool) -> None:
    """Sixteen mixed requests on five sequences get the very answers that each gets alone, whatever is batched."""
    asks = [(prompt(3 + 29 * (n % 7), n), 4 + 5 * (n % 5)) for n in range(16)]
    async with running(tiny, context=2048, sequences=5, unified=unified, flash_attention=flash) as engine:
        alone = [await engine.ask(tokens, limit=limit, cache=False, logprobs=2) for tokens, limit in asks]
        certain = [sure(said, flash) for said in alone]
        together = await asyncio.gather(*(engine.ask(tokens, limit=limit) for tokens, limit in asks))
        assert [said.tokens[: len(tokens)] for said, tokens in zip(together, certain, strict=True)] == certain
        assert [len(said.tokens) for said in together] == [limit for _, limit in asks]
        assert sum(map(len, certain)) > sum(limit for _, limit in asks) / 2
        assert engine.scheduler.figures.retries == 0


async def test_cells_run_out(tiny: Path) -> None:
    """With fewer cells than the answers need together, some go back and on again later; no answer changes."""
    asks = [(prompt(20 + n, n), 200) for n in range(6)]
    async with running(tiny, context=2048, sequences=6) as engine:
        alone = [(await engine.ask(tokens, limit=limit, cache=False)).tokens for tokens, limit in asks]
    async with running(tiny, context=256, sequences=6) as engine:
        together = await asyncio.gather(*(engine.ask(tokens, limit=limit) for tokens, limit in asks))
        assert [said.tokens for said in together] == alone
        assert engine.scheduler.figures.retries > 0
        assert engine.scheduler.figures.sent_back > 0


async def test_going_on_from_what_is_known(tiny: Path) -> None:
    """A prompt that begins like an earlier answer is evaluated from there on, and says what it would have said."""
    first = prompt(100, 1)
    async with running(tiny, context=1024, sequences=2) as engine:
        said = await engine.ask(first, limit=10)
        longer = [*first, *said.tokens, *prompt(20, 2)]
        known = await engine.ask(longer, limit=10)
        fresh = await engine.ask(longer, limit=10, cache=False)
        assert known.tokens == fresh.tokens
        assert (said.sequence.reused, known.sequence.reused, fresh.sequence.reused) == (0, 109, 0)
        assert known.sequence.timings().prompt_n == len(longer) - 109


@pytest.mark.parametrize("unified", [True, False])
async def test_sharing_a_beginning(tiny: Path, unified: bool) -> None:
    """Prompts with one beginning share it with a running and with a finished answer, and neither is disturbed."""
    system = prompt(80, 3)
    asks = [[*system, *prompt(30 + n, n)[1:]] for n in range(4)]
    async with running(tiny, context=2048, sequences=4, unified=unified) as engine:
        alone = [(await engine.ask(tokens, limit=30, cache=False)).tokens for tokens in asks]
        first = engine.sequence(asks[0], limit=30, streamed=True)
        engine.scheduler.submit([first])
        assert await first.channel.take()
        rest = await asyncio.gather(*(engine.ask(tokens, limit=30) for tokens in asks[1:]))
        assert (await engine.finish(first)).tokens == alone[0]
        assert [said.tokens for said in rest] == alone[1:]
        assert [said.sequence.reused for said in rest] == [80, 80, 80]


async def test_cells_of_their_own_are_computed_in_order(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoded tokens stand in the batch in the order of their slots, whoever came first: llama.cpp would compute them
    apart otherwise."""
    async with running(tiny, context=2048, sequences=4, unified=False) as engine:
        batches: list[list[int]] = [[]]
        context = engine.scheduler._context
        begin, put = context.begin, context.put

        def begun() -> None:
            batches.append([])
            begin()

        def written(token: int, position: int, slot: int) -> int:
            batches[-1].append(slot)
            return put(token, position, slot)

        monkeypatch.setattr(context, "begin", begun)
        monkeypatch.setattr(context, "put", written)
        first = [engine.ask(prompt(20 + n, n), limit=5 + 9 * (n % 3)) for n in range(4)]
        await asyncio.gather(*first, *(engine.ask(prompt(30 + n, n), limit=40) for n in range(8)))
        assert max(map(len, batches)) == 4
        assert all(batch == sorted(batch) for batch in batches)


async def test_answers_of_one_prompt(tiny: Path) -> None:
    """Several answers to one prompt evaluate it once, and each is what its seed gives alone."""
    tokens = prompt(90, 4)
    sampling = Sampling(temperature=1.5, seed=7)
    async with running(tiny, context=1024, sequences=4) as engine:
        alone = [(await engine.ask(tokens, sampling=sampling, seed=7 + n, cache=False)).tokens for n in range(4)]
        leader = engine.sequence(tokens, sampling=sampling, seed=7)
        rest = [engine.sequence(tokens, sampling=sampling, seed=7 + n, leader=leader) for n in (1, 2, 3)]
        engine.scheduler.submit([leader, *rest])
        said = [await engine.finish(one) for one in (leader, *rest)]
        assert [one.tokens for one in said] == alone
        assert len({tuple(one.tokens) for one in said}) > 1
        assert [one.sequence.timings().prompt_n for one in said] == [90, 1, 1, 1]


async def test_cancel_while_the_prompt_is_evaluated(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancel cuts off the step of a long prompt and frees its slot and cells; whoever waited for them goes on, and
    whoever shared the step says what it would have said."""
    monkeypatch.setattr(Pace, "budget", lambda self, decoding, needs: min(sum(needs), 2048 - decoding))
    async with running(tiny, context=4096, batch=2048, micro_batch=64, sequences=2) as engine:
        alone = [(await engine.ask(prompt(50, n), limit=12, cache=False)).tokens for n in (6, 7)]
        long = engine.sequence(prompt(2000, 5), limit=40)
        shares_the_step, waits = (engine.sequence(prompt(50, n), limit=12) for n in (6, 7))
        engine.scheduler.submit([long, shares_the_step, waits])
        async with asyncio.timeout(10):
            while engine.scheduler._wasteful is None:
                await asyncio.sleep(0)
        engine.scheduler.cancel([long])
        assert [(await engine.finish(one)).tokens for one in (shares_the_step, waits)] == alone
        assert (long.produced, long.evaluated, long.slot) == (0, 0, None)
        assert engine.scheduler.figures.retries == 1
        with pytest.raises(CallFailure):
            await engine.finish(long)


async def test_cancel_in_the_queue_and_between_tokens(tiny: Path) -> None:
    """One that waits is never begun; one that speaks says nothing more; the others are not disturbed."""
    async with running(tiny, context=1024, sequences=2) as engine:
        alone = (await engine.ask(prompt(30, 8), limit=600, cache=False)).tokens
        speaking = engine.sequence(prompt(30, 7), limit=900)
        other = engine.sequence(prompt(30, 8), limit=600)
        waiting = engine.sequence(prompt(30, 9), limit=5)
        engine.scheduler.submit([speaking, other, waiting])
        async with asyncio.timeout(10):
            while not speaking.produced:
                await asyncio.sleep(0)
        engine.scheduler.cancel([waiting, speaking])
        assert (await engine.finish(other)).tokens == alone
        assert (waiting.produced, waiting.evaluated) == (0, 0)
        assert speaking.over
        assert speaking.produced < 900
        assert engine.scheduler.active == engine.scheduler.waiting == 0


async def test_a_slow_reader_waits_alone(tiny: Path) -> None:
    """Who does not read is not decoded beyond its window, holds nobody up, and still gets every chunk at last."""
    async with running(tiny, context=1024, sequences=2) as engine:
        expected = (await engine.ask(prompt(30, 1), limit=200, cache=False)).tokens
        slow = engine.sequence(prompt(30, 1), limit=200, streamed=True)
        engine.scheduler.submit([slow])
        others = [await engine.ask(prompt(30, n), limit=100) for n in range(2, 5)]
        assert [len(said.tokens) for said in others] == [100] * 3
        held = slow.produced
        assert 0 < held <= 2 * WINDOW
        assert (await engine.ask(prompt(20, 9), limit=50)).sequence.produced == 50
        assert slow.produced == held
        assert (await engine.finish(slow)).tokens == expected


async def test_slow_readers_do_not_keep_the_slots(tiny: Path) -> None:
    """When every slot is a slow reader's, somebody who reads gets one; the slow answers come out whole."""
    async with running(tiny, context=1024, sequences=2) as engine:
        expected = [(await engine.ask(prompt(30, n), limit=120, cache=False)).tokens for n in (1, 2)]
        slow = [engine.sequence(prompt(30, n), limit=120, streamed=True) for n in (1, 2)]
        engine.scheduler.submit(slow)
        said = await engine.ask(prompt(30, 3), limit=20)
        assert len(said.tokens) == 20
        assert [(await engine.finish(one)).tokens for one in slow] == expected


async def test_a_short_prompt_does_not_wait_for_a_long_one(tiny: Path) -> None:
    """A short request that came later is answered while a long prompt is still evaluated, and that one is too."""
    async with running(tiny, context=2048, sequences=3, batch=128, micro_batch=64) as engine:
        long = engine.sequence(prompt(1900, 1), limit=5)
        short = engine.sequence(prompt(20, 2), limit=5)
        engine.scheduler.submit([long, short])
        await engine.finish(short)
        assert not long.over
        assert len((await engine.finish(long)).tokens) == 5


async def test_a_failure_of_one_is_its_own(tiny: Path) -> None:
    """A grammar that llama.cpp refuses fails its request alone, and the engine goes on."""
    async with running(tiny, context=512, sequences=2) as engine:
        other = engine.sequence(prompt(10, 1), limit=20)
        wrong = engine.sequence(prompt(10, 2), grammar="root ::= nothing")
        engine.scheduler.submit([other, wrong])
        with pytest.raises(CallFailure, match="grammar"):
            await engine.finish(wrong)
        assert len((await engine.finish(other)).tokens) == 20


@pytest.mark.parametrize(("unified", "flash"), [(True, True), (True, False), (False, True)])
async def test_everything_at_once(tiny: Path, unified: bool, flash: bool) -> None:
    """Forty requests with shared beginnings, cancels, slow readers and too few cells: every answer is still its own."""
    draw = random.Random(11)
    beginnings = [prompt(draw.randrange(2, 60), n) for n in range(4)]
    asks = [
        ([*draw.choice(beginnings), *prompt(draw.randrange(2, 50), n)[1:]], draw.randrange(1, 60)) for n in range(40)
    ]
    options = {"unified": unified, "flash_attention": flash}
    async with running(tiny, context=2048, sequences=5, **options) as engine:
        said = [await engine.ask(tokens, limit=limit, cache=False, logprobs=2) for tokens, limit in asks]
        alone = [sure(one, flash) for one in said]
    async with running(tiny, context=256 if unified else 1280, sequences=5, **options) as engine:
        gone: list[tuple[int, Sequence]] = []
        slow: list[tuple[int, Sequence]] = []
        kept: list[tuple[int, Sequence]] = []
        for n, (tokens, limit) in enumerate(asks):
            sequence = engine.sequence(tokens, limit=limit, streamed=n % 3 == 0)
            engine.scheduler.submit([sequence])
            (gone if n % 7 == 3 else slow if n % 9 == 0 else kept).append((n, sequence))
            for _ in range(draw.randrange(30)):
                await asyncio.sleep(0)
            if gone and draw.random() < 0.3:
                engine.scheduler.cancel([draw.choice(gone)[1]])
        engine.scheduler.cancel([sequence for _, sequence in gone])
        for n, sequence in [*kept, *slow]:
            tokens = (await engine.finish(sequence)).tokens
            assert (len(tokens), tokens[: len(alone[n])]) == (asks[n][1], alone[n]), n
        for n, sequence in gone:
            tokens = list(sequence.tokens[sequence.prompt :])[: len(alone[n])]
            assert tokens == alone[n][: len(tokens)], n
        assert engine.scheduler.active == engine.scheduler.waiting == 0


async def test_a_broken_engine_answers_everybody(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When llama.cpp fails for good, every request fails with the reason, also those that wait, and it is reported."""
    async with running(tiny, context=512, sequences=1) as engine:
        monkeypatch.setattr(engine.scheduler._context, "run", lambda: -3)
        asked = [engine.sequence(prompt(10, n)) for n in range(3)]
        engine.scheduler.submit(asked)
        for sequence in asked:
            with pytest.raises(CallFailure, match="-3"):
                await engine.finish(sequence)
        while not engine.broken:
            await asyncio.sleep(0)
        assert "-3" in engine.broken[0]


async def test_stop_strings_and_the_heartbeat(tiny: Path) -> None:
    """A stop string ends its answer alone, and the figures tell of steps and of rest."""
    async with running(tiny, context=512, sequences=2) as engine:
        plain = await engine.ask(prompt(12, 3), limit=40)
        text = plain.sequence.choice.text
        stop = text[10:13]
        cut, other = await asyncio.gather(
            engine.ask(prompt(12, 3), limit=40, stops=(stop,)), engine.ask(prompt(12, 3), limit=40)
        )
        assert cut.sequence.choice.text == text[: text.index(stop)]
        assert (cut.sequence.reason, other.sequence.reason) == ("stop", "length")
        assert other.sequence.choice.text == text
        told = engine.engine.figures()
        assert told["steps"] >= 40
        assert (told["sequences_used"], told["waiting"]) == (0, 0)


async def test_greedy_is_the_default_of_these_tests() -> None:
    """The invariants above compare what is likeliest, not what is drawn."""
    assert GREEDY.temperature == 0
