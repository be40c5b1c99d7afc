"""Grammars in the running engine: answers under them are right, and a bad one costs nobody else anything."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # ships no types
import pytest

from hybridd.plugin import CallFailure
from plugins.llama_cpp import gbnf, schema
from plugins.llama_cpp.sampling_params import Sampling
from tests.fakes.tiny_gguf import make_tiny_gguf
from tests.plugins.llama_cpp.engines import Running, running

PROMPT = [1, 80, 81, 82]
X = 3 + ord("x")  # the tiny model has a token for each byte


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(make_tiny_gguf(tmp_path / "tiny.gguf"), sequences=4) as started:
        yield started


@pytest.mark.parametrize(
    "form",
    [
        {"type": "array", "items": {"type": "integer", "minimum": -3, "maximum": 30}, "minItems": 3, "maxItems": 5},
        {"type": "object", "properties": {"a": {"enum": ["x", "é"]}, "b": {"type": "boolean"}}, "required": ["a", "b"]},
        {"type": "string", "pattern": "^[ab]{2}(c|d)$"},
    ],
)
async def test_sampled_answers_are_valid(engine: Running, form: Any) -> None:
    """What a model of random weights says under a schema's grammar is valid under the schema, at any temperature."""
    made = schema.to_gbnf(form)
    for seed in range(4):
        said = await engine.ask(PROMPT, sampling=Sampling(temperature=2.0), seed=seed, grammar=made, limit=200)
        assert said.sequence.reason == "stop"
        jsonschema.validate(json.loads(said.sequence.choice.text), form)


async def test_a_grammar_nothing_can_follow(engine: Running) -> None:
    """Where no token of the model may follow, that answer fails as the caller's mistake and the others go on: llama.cpp
    itself would end the process."""
    dead = 'root ::= "ab" <[99999]>'
    gbnf.check(dead)
    other = engine.sequence(PROMPT, limit=6, grammar='root ::= "x"{20}')
    engine.scheduler.submit([other])
    with pytest.raises(CallFailure) as caught:
        await engine.ask(PROMPT, grammar=dead)
    assert (caught.value.error.kind, caught.value.error.param) == ("bad_request", "grammar")
    assert (await engine.finish(other)).tokens == [X] * 6
    assert engine.broken == []


async def test_a_grammar_whose_ways_double(engine: Running) -> None:
    """A grammar that leaves twice as many ways open with each token is stopped before it holds the engine up."""
    doubling = 'root ::= "x" root "y" | "x" root "z" | "x" root "w" | "q"'
    gbnf.check(doubling)
    wanted = Sampling(temperature=0, logit_bias=((X, 100.0),))
    began = time.monotonic()
    with pytest.raises(CallFailure) as caught:
        await engine.ask(PROMPT, grammar=doubling, sampling=wanted, limit=200)
    assert time.monotonic() - began < 20
    assert caught.value.error.param == "grammar"
    assert (await engine.ask(PROMPT, limit=3, grammar='root ::= "x"{20}')).tokens == [X] * 3


async def test_control_tokens_under_a_grammar(engine: Running) -> None:
    """A grammar knows control tokens by their names, so they are said by them: what is let through is what is read."""
    wanted = Sampling(temperature=0, logit_bias=((1, 100.0),))
    said = await engine.ask(PROMPT, grammar='root ::= "<s>" "x"', sampling=wanted)
    assert said.tokens[0] == 1
    assert said.sequence.choice.text == "<s>x"


async def test_an_invalid_grammar_that_got_through(engine: Running) -> None:
    """What only llama.cpp can see is wrong with a grammar is a 400 as well, never an answer without it."""
    with pytest.raises(CallFailure) as caught:
        await engine.ask(PROMPT, grammar="root ::= <no such token>")
    assert (caught.value.error.kind, caught.value.error.sent) == ("bad_request", "no")
