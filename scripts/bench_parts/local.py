"""Local generation: tokens per second and time to first token through each engine's own HTTP surface, in turns.

One model file, the same context, sequences, threads, batch sizes, cache types and flash attention everywhere; greedy
sampling; prompts that share no beginning, except where a warm prefix is the point.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from itertools import count, repeat
from pathlib import Path
from typing import NamedTuple

from scripts.bench_parts import local_models, report
from scripts.bench_parts.cpu import CpuMeter
from scripts.bench_parts.daemon_process import StartFailed
from scripts.bench_parts.house import House
from scripts.bench_parts.loadgen import Result, Target, chat_request, run
from scripts.bench_parts.local_house import LocalHouse
from scripts.bench_parts.local_rivals import CPP, Rival, Setup, free_port, lacking, recipes
from scripts.bench_parts.routed import errors_of, no_errors

PROMPT_TOKENS = 207
NEW_TOKENS = 64
CALLERS = 8
SAMPLE = 8
"""Requests of a sample at one caller; at eight callers it is two for each."""
GRACE_S = 120.0
HYBRIDD = "hybridd"
_TEXT = re.compile(rb'"content": ?"[^"]')
_LENGTH = re.compile(rb'"finish_reason": ?"length"')


class Sample(NamedTuple):
    """One engine's turn: eight requests one by one, sixteen by eight callers, and eight of one prompt."""

    one: Result
    eight: Result
    warm: Result


def whole(body: bytes) -> bool:
    """Whether the stream ended because all tokens that were asked for had come."""
    return body.rstrip().endswith(b"data: [DONE]") and _LENGTH.search(body) is not None


def spoken(body: bytes) -> bool:
    """Whether some text of the answer is there; an event with only a role is none."""
    return _TEXT.search(body) is not None


def requests(model: str, seeds: Iterator[int]) -> Iterator[bytes]:
    for seed in seeds:
        yield request(model, seed)


def request(model: str, seed: int) -> bytes:
    prompt = local_models.words(PROMPT_TOKENS, seed)
    return chat_request(model, stream=True, prompt=prompt, max_tokens=NEW_TOKENS, temperature=0)


async def generation(house: House) -> list[report.Figure]:
    """Every engine that is there, alternating; the targets compare with the C++ server in the same round."""
    with LocalHouse(house) as local, contextlib.ExitStack() as stack:
        setup = local.setup(local_models.SMALL)
        targets, absent = [local.target(Path(setup.path).stem)], []
        for recipe_at in range(len(recipes(setup, 0, local.home))):
            port = free_port()
            recipe = recipes(setup, port, local.home)[recipe_at]
            lack = lacking(recipe.modules)
            if lack:
                absent.append(report.context(GROUP, recipe.name, None, "", f"not installed: {recipe.missing}"))
                continue
            try:
                rival = stack.enter_context(Rival(recipe, port, local.home))
            except StartFailed as error:
                absent.append(report.context(GROUP, recipe.name, None, "", " ".join(str(error).split())[:300]))
                continue
            local.others[recipe.name] = [rival.pid]
            targets.append(rival.target(Path(setup.path).stem))
        samples, foreign = await _rounds(house, local, targets)
    return [*_figures(samples, foreign, setup), *absent]


GROUP = f"local generation, {PROMPT_TOKENS} + {NEW_TOKENS} tokens"


async def _rounds(
    house: House, local: LocalHouse, targets: list[Target]
) -> tuple[dict[str, list[Sample]], list[float]]:
    seeds = count(1)
    samples: dict[str, list[Sample]] = {}
    foreign = []
    for target in targets:  # the first answers of a server contain what it does once
        await run(target, requests(target.model, seeds), callers=CALLERS, calls=CALLERS, grace=GRACE_S)
    for index in range(2 if house.quick else 4):
        turn = index % len(targets)
        for target in targets[turn:] + targets[:turn]:
            meter = CpuMeter(local)
            samples.setdefault(target.name, []).append(await _sample(target, seeds))
            foreign.append(meter.read()[1])
    return samples, foreign


async def _sample(target: Target, seeds: Iterator[int]) -> Sample:
    fresh = requests(target.model, seeds)
    same = repeat(request(target.model, next(seeds)))
    return Sample(
        one=await run(target, fresh, calls=SAMPLE, check=whole, begun=spoken, grace=GRACE_S),
        eight=await run(target, fresh, callers=CALLERS, calls=2 * CALLERS, check=whole, begun=spoken, grace=GRACE_S),
        warm=await run(target, same, calls=SAMPLE, warm_up=1, check=whole, begun=spoken, grace=GRACE_S),
    )


def _rate(result: Result) -> float:
    # Seconds of the counted answers; the clock of a run starts before its warm-up.
    seconds = result.seconds if not result.latencies else min(result.seconds, sum(result.latencies))
    return result.answered * NEW_TOKENS / max(1e-9, seconds)


def _first_ms(sample: Sample) -> float:
    return 1000 * report.percentile(sample.eight.firsts, 0.5) if sample.eight.firsts else float("inf")


def _figures(samples: dict[str, list[Sample]], foreign: list[float], setup: Setup) -> list[report.Figure]:
    figures = [
        report.context(GROUP, name, report.median(_rate(one.eight) for one in found), "tokens/s", _described(found))
        for name, found in samples.items()
    ]
    settings = f"context {setup.context:,}, {setup.sequences} sequences, {setup.threads} threads, batch {setup.batch}"
    how = f"median of {len(samples[HYBRIDD])} alternating rounds, {SAMPLE} requests each; {settings}"
    if CPP in samples:
        pairs = list(zip(samples[HYBRIDD], samples[CPP], strict=True))
        for name, field in (("1 caller", "one"), (f"{CALLERS} callers", "eight"), ("1 caller, warm prefix", "warm")):
            ratio = report.median(_rate(getattr(a, field)) / max(1e-9, _rate(getattr(b, field))) for a, b in pairs)
            figures.append(report.at_least(GROUP, f"hybridd / C++ server, {name}", ratio, 0.98, "×", detail=how))
    others = {name: report.median(map(_first_ms, found)) for name, found in samples.items() if name != HYBRIDD}
    if others:
        best = min(others, key=lambda name: others[name])
        own = report.median(map(_first_ms, samples[HYBRIDD]))
        figures.append(
            report.at_most(
                GROUP, f"first token at {CALLERS} callers", own, others[best], "ms", detail=f"p50; best other: {best}"
            )
        )
    share = 100 * report.median(foreign)
    figures.append(report.context(GROUP, "other programs meanwhile", share, "%", "of the machine"))
    every = (result for found in samples.values() for sample in found for result in sample)
    figures.append(no_errors(GROUP, errors_of(every)))
    return figures


def _described(found: list[Sample]) -> str:
    one, warm = (report.median(_rate(getattr(sample, field)) for sample in found) for field in ("one", "warm"))
    first = report.median(map(_first_ms, found))
    return (
        f"at {CALLERS} callers; at 1 {report.number(one)}, warm {report.number(warm)}; "
        f"first token at {CALLERS} {report.number(first)} ms"
    )
