"""The engine alone, in a process of its own: `python -m scripts.bench_parts.local_step '{"path": …, "callers": 8, …}'`.

Answers are asked for and read without any HTTP, so that what is left of a step beside llama.cpp is the engine's own
Python. Prints one JSON object: the scheduler's figures (seconds of computing, of choosing tokens and of everything
else), steps, tokens and the seconds of the whole run.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from plugins.llama_cpp import asked
from plugins.llama_cpp.choice import Choice
from plugins.llama_cpp.context import Context
from plugins.llama_cpp.native import Model
from plugins.llama_cpp.responses import Writer
from plugins.llama_cpp.scheduler import Scheduler
from plugins.llama_cpp.sequence import Channel, Sequence
from scripts.bench_parts import local_models


def main() -> None:
    wanted = json.loads(sys.argv[1])
    model = Model(Path(wanted["path"]))
    context = Context(
        model,
        context=wanted["context"],
        sequences=wanted["sequences"],
        batch=wanted["batch"],
        micro_batch=wanted["micro_batch"],
        threads=wanted["threads"],
        unified=wanted["unified"],
    )
    print(json.dumps(asyncio.run(_run(context, wanted))))
    context.close()
    model.close()


async def _run(context: Context, wanted: dict[str, Any]) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    scheduler = Scheduler(context, loop)
    scheduler.start()

    async def caller(first_seed: int) -> int:
        chunks = 0
        for turn in range(wanted["calls"]):
            sequence = _sequence(context, loop, wanted, first_seed + turn)
            scheduler.submit([sequence])
            while taken := await sequence.channel.take():
                chunks += len(taken)
        return chunks

    await caller(1)
    before = _seconds(scheduler)
    began = time.perf_counter()
    chunks = await asyncio.gather(*(caller(100 * (one + 1)) for one in range(wanted["callers"])))
    seconds = time.perf_counter() - began
    after = _seconds(scheduler)
    scheduler.stop()
    return {**{name: after[name] - before[name] for name in after}, "chunks": sum(chunks), "seconds": seconds}


def _seconds(scheduler: Scheduler) -> dict[str, float]:
    figures = scheduler.figures
    return {
        "computing": figures.computing,
        "sampling": figures.sampling,
        "other": figures.other,
        "steps": figures.steps,
        "answer_tokens": figures.answer_tokens,
    }


def _sequence(context: Context, loop: asyncio.AbstractEventLoop, wanted: dict[str, Any], seed: int) -> Sequence:
    text = local_models.words(wanted["prompt_tokens"], seed)
    body = {
        "messages": [{"role": "user", "content": text}],
        "stream": True,
        "max_tokens": wanted["new_tokens"],
        "temperature": wanted["temperature"],
    }
    meant = asked.read(body, chat=True)
    writer = Writer(answer_id=f"bench-{seed}", model="bench", created=0, chat=True)
    return Sequence(
        context.model.tokenize(text, add_special=True, parse_special=True),
        choice=Choice(meant, 0, writer=writer),
        channel=Channel(loop, 1),
        sampling=meant.sampling,
        seed=seed,
        limit=wanted["new_tokens"],
    )


if __name__ == "__main__":
    main()
