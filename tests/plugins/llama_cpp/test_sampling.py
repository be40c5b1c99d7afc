"""Sampler chains on real llama.cpp."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hybridd.plugin import CallFailure
from plugins.llama_cpp.sampling_params import Sampling
from tests.fakes.tiny_gguf import make_tiny_gguf
from tests.plugins.llama_cpp.engines import GREEDY, Running, running

pytest.importorskip("llama_cpp")

PROMPT = [1, *range(100, 120)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_gguf(tmp_path_factory.mktemp("sampling") / "tiny.gguf", context=1024)


async def said(engine: Running, limit: int = 24, **wanted: Any) -> list[int]:
    return (await engine.ask(PROMPT, limit=limit, sampling=Sampling(**wanted), cache=False)).tokens


async def test_seeds(tiny: Path) -> None:
    """A seed fixes the answer, another one changes it, and without one answers differ."""
    async with running(tiny) as engine:
        hot: dict[str, Any] = {"temperature": 1.5, "ignore_eos": True}
        first, again = await said(engine, seed=3, **hot), await said(engine, seed=3, **hot)
        assert first == again != await said(engine, seed=4, **hot)
        assert await said(engine, **hot) != await said(engine, **hot)


async def test_what_leaves_one_token_is_greedy(tiny: Path) -> None:
    """Temperature 0, top_k 1, a top_p of 0 and a min_p of 1 all take the likeliest token each time."""
    async with running(tiny) as engine:
        greedy = await said(engine, temperature=0)
        wanted: dict[str, Any]
        for wanted in ({"top_k": 1}, {"top_p": 0.0, "min_keep": 0}, {"min_p": 1.0}, {"temperature": 0, "mirostat": 1}):
            assert await said(engine, **{"temperature": 1.0} | wanted) == greedy, wanted


async def test_biases(tiny: Path) -> None:
    """A bias forces a token, a text's bias all of its tokens, minus infinity forbids; an unknown token is refused."""
    async with running(tiny) as engine:
        greedy = await said(engine, temperature=0)
        assert await said(engine, 5, temperature=0, logit_bias=((150, 100.0),)) == [150] * 5
        forbidden = tuple((token, -math.inf) for token in set(greedy))
        assert not set(await said(engine, temperature=0, logit_bias=forbidden)) & set(greedy)
        dog = set(await said(engine, 5, temperature=0, logit_bias=(("dog", 100.0),)))
        assert dog
        with pytest.raises(CallFailure, match="the model's are 0 to 271"):
            await said(engine, logit_bias=((5000, 1.0),))


async def test_end_tokens(tiny: Path) -> None:
    """The model ends its answer; with ignore_eos it goes on to the limit."""
    async with running(tiny, context=1024) as engine:
        likely: dict[str, Any] = {"temperature": 1.2, "seed": 1, "logit_bias": ((2, 20.0),)}
        ended = await engine.ask(PROMPT, limit=300, sampling=Sampling(**likely))
        on = await engine.ask(PROMPT, limit=300, sampling=Sampling(**likely, ignore_eos=True))
        assert (ended.sequence.reason, on.sequence.reason) == ("stop", "length")
        assert len(ended.tokens) < len(on.tokens) == 300


async def test_penalties(tiny: Path) -> None:
    """Repetition is punished over the answer and over the end of the prompt."""
    async with running(tiny) as engine:
        free = Counter(await said(engine, 120, temperature=0, ignore_eos=True))
        for wanted in ({"repeat_penalty": 3.0}, {"presence_penalty": 2.0, "frequency_penalty": 2.0}):
            kept = Counter(await said(engine, 120, temperature=0, ignore_eos=True, repeat_last_n=-1, **wanted))
            assert max(kept.values()) < max(free.values()), wanted
        first = (await said(engine, 1, temperature=0))[0]
        seen = await engine.ask(
            [*PROMPT[:-1], first, PROMPT[-1]], limit=1,
            sampling=Sampling(temperature=0, repeat_penalty=10.0), cache=False,
        )  # fmt: skip
        unseen = await engine.ask([*PROMPT[:-1], first, PROMPT[-1]], limit=1, cache=False)
        assert seen.tokens != unseen.tokens or unseen.tokens != [first]


async def test_every_sampler_works_together(tiny: Path) -> None:
    """Mirostat 1 and 2, DRY, XTC, typical, top-n-sigma and dynamic temperature give reproducible, complete answers."""
    async with running(tiny) as engine:
        for wanted in (
            {"mirostat": 1}, {"mirostat": 2, "mirostat_tau": 2.0}, {"dry_multiplier": 0.8},
            {"xtc_probability": 0.5}, {"typical_p": 0.5}, {"top_n_sigma": 1.0}, {"dynatemp_range": 0.5},
            {"samplers": ("temperature", "top_k")}, {"samplers": ()},
        ):  # fmt: skip
            again = [await said(engine, seed=5, ignore_eos=True, **wanted) for _ in range(2)]
            assert again[0] == again[1], wanted
            assert len(again[0]) == 24, wanted


async def test_logprobs(tiny: Path) -> None:
    """All probabilities together make one; the taken token's own is among them, and greedy takes the first."""
    async with running(tiny) as engine:
        answer = await engine.ask(PROMPT, limit=6, logprobs=272)
        scores = answer.sequence.choice.body()["logprobs"]
        assert len(scores["token_logprobs"]) == 6
        for taken, top in zip(answer.sequence.choice._scores._shown, scores["top_logprobs"], strict=True):
            found = taken[1]
            assert math.isclose(math.fsum(math.exp(one.logprob) for one in found.top), 1.0, rel_tol=1e-9)
            assert found.top[0].token == found.taken.token
            assert list(found.top) == sorted(found.top, key=lambda one: -one.logprob)
            assert top
        assert (await engine.ask(PROMPT, limit=6)).tokens == answer.tokens


async def test_grammars(tiny: Path) -> None:
    """A grammar lets nothing else through, at any temperature, and the answer ends when it is complete."""
    async with running(tiny) as engine:
        for sampling in (GREEDY, Sampling(temperature=2.0, seed=9)):
            answer = await engine.ask(PROMPT, limit=40, sampling=sampling, grammar='root ::= ("ab" | "c") [0-9]{3} "."')
            text = answer.sequence.choice.text
            assert text[:-4] in ("ab", "c")
            assert text[-4:-1].isdigit()
            assert (text[-1], answer.sequence.reason) == (".", "stop")
        free = await engine.ask(PROMPT, limit=10, cache=False)
        loose = await engine.ask(PROMPT, limit=10, cache=False, grammar="root ::= [\\x00-\\U0010FFFF]*")
        assert len(loose.tokens) == len(free.tokens)


async def test_a_grammar_without_a_way_out(tiny: Path) -> None:
    """Where a bias forbids all that the grammar allows, the answer fails and the process lives."""
    async with running(tiny) as engine:
        forbidden = tuple((token, -math.inf) for token in (51, 52))  # <0x30>, <0x31>
        for temperature in (0.0, 1.0):
            wanted = Sampling(temperature=temperature, logit_bias=forbidden, seed=1)
            with pytest.raises(CallFailure, match="no token of this model"):
                await engine.ask(PROMPT, sampling=wanted, grammar="root ::= [01]+")
        assert len((await engine.ask(PROMPT, limit=4)).tokens) == 4


async def test_a_grammar_with_penalties(tiny: Path) -> None:
    """Tokens that the grammar refused leave no trace: the answer is the same as when they are impossible."""
    async with running(tiny) as engine:
        wanted = Sampling(temperature=0, repeat_penalty=2.0, repeat_last_n=-1)
        digits = await engine.ask(PROMPT, limit=12, sampling=wanted, grammar="root ::= [0-9]{12}")
        others = tuple((token, -math.inf) for token in range(272) if not 51 <= token <= 60)  # <0x30> … <0x39>
        biased = await engine.ask(
            PROMPT, limit=12, sampling=Sampling(temperature=0, repeat_penalty=2.0, repeat_last_n=-1, logit_bias=others)
        )
        assert digits.tokens == biased.tokens
