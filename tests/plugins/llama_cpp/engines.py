"""Engines on real llama.cpp for the tests: loaded from tiny files, asked without a daemon."""

from __future__ import annotations

import asyncio
import contextlib
from array import array
from collections.abc import AsyncIterator
from collections.abc import Sequence as Items
from pathlib import Path
from typing import Any, NamedTuple

from plugins.llama_cpp import engine
from plugins.llama_cpp.asked import Asked
from plugins.llama_cpp.choice import Choice
from plugins.llama_cpp.engine import Engine, Options
from plugins.llama_cpp.responses import Writer
from plugins.llama_cpp.sampling_params import Sampling
from plugins.llama_cpp.scheduler import Scheduler
from plugins.llama_cpp.sequence import Channel, Sequence, seed_for

# Exact arithmetic as far as it goes: a batch's size must not change what is likeliest.
EXACT = {"type_k": "f32", "type_v": "f32", "flash_attention": False}
GREEDY = Sampling(temperature=0)
# Logits of the tiny models differ by this much at most between flash attention's ways.
NEAR = 0.03


class Said(NamedTuple):
    """``tokens``: of the answer."""

    tokens: list[int]
    sequence: Sequence


def sure(said: Said, flash: bool) -> list[int]:
    """The tokens of a greedy answer, asked with ``logprobs=2``, that stand whatever it shared its batches with. Exact
    arithmetic gives all of them; flash attention rounds differently for one row and for many, so that from the first
    near tie on another answer is as right."""
    shown = said.sequence.choice._scores._shown
    gaps = [scored.top[0].logprob - scored.top[1].logprob for _, scored in shown]
    tie = next((at for at, gap in enumerate(gaps) if gap < NEAR), len(gaps))
    return said.tokens[:tie] if flash else said.tokens


class Running:
    """A started engine; ``broken``: what its scheduler reported."""

    def __init__(self, loaded: Engine) -> None:
        self.engine = loaded
        self.broken: list[str] = []
        loaded.start(asyncio.get_running_loop(), self.broken.append)

    @property
    def scheduler(self) -> Scheduler:
        assert self.engine.scheduler is not None
        return self.engine.scheduler

    def sequence(
        self, prompt: Items[int], *, limit: int = 8, sampling: Sampling = GREEDY, seed: int | None = None,
        channel: Channel | None = None, streamed: bool = False, stops: tuple[str, ...] = (), **more: Any,
    ) -> Sequence:  # fmt: skip
        """A sequence that was not handed over yet."""
        channel = channel or Channel(asyncio.get_running_loop(), 1)
        asked = Asked(prompts=("",), sampling=sampling, stops=stops, logprobs=more.get("logprobs"))
        writer = Writer(answer_id="a", model="m", created=0, chat=False) if streamed else None
        return Sequence(
            array("i", prompt), choice=Choice(asked, 0, writer=writer), channel=channel, sampling=sampling,
            seed=seed_for(sampling, 0) if seed is None else seed, limit=limit, **more,
        )  # fmt: skip

    async def finish(self, sequence: Sequence) -> Said:
        """Waits for an answer that was handed over."""
        async with asyncio.timeout(30):
            while await sequence.channel.take():
                continue
        return Said(list(sequence.tokens[sequence.prompt :]), sequence)

    async def ask(self, prompt: Items[int], **more: Any) -> Said:
        sequence = self.sequence(prompt, **more)
        self.scheduler.submit([sequence])
        return await self.finish(sequence)


@contextlib.asynccontextmanager
async def running(path: Path, **options: Any) -> AsyncIterator[Running]:
    """``options``: of :class:`engine.Options`, on top of :data:`EXACT`."""
    loaded = await asyncio.to_thread(engine.load, path, Options(**{**EXACT, "context": 512, "batch": 256, **options}))
    started = Running(loaded)
    try:
        yield started
    finally:
        assert await asyncio.to_thread(loaded.close)
