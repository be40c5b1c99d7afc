"""Loads of local models: a swap of two large ones against llama.cpp's own time, and what many requests and many loads
leave behind in memory."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scripts.bench_parts import local_models, report
from scripts.bench_parts.daemon_process import ROOT, StartFailed, environment
from scripts.bench_parts.house import House
from scripts.bench_parts.loadgen import chat_request, run
from scripts.bench_parts.local_house import LocalHouse
from scripts.bench_parts.local_rivals import Setup
from scripts.bench_parts.proc import children, rss_mib
from scripts.bench_parts.routed import errors_of, no_errors

SWAPS = "swap between two 1 GB models"
GROWTH = "memory after many"
SETTLED = 0.25
"""The share of the requests, and of the loads, after which nothing may grow any more."""
GROWTH_MIB = 4.0
"""What counts as no growth: pools of allocators move by that much in both directions."""


async def swaps(house: House) -> list[report.Figure]:
    """From asking for the model that is not loaded to its first token, the other one loaded before; and a process of
    llama.cpp alone, from its start to its first token. The page cache is warm for both."""
    rounds = 2 if house.quick else 5
    with LocalHouse(house, max_loaded=1, parallel=1, context=4096) as local:
        paths = [local.make(local_models.LARGE, seed=seed, suffix=f"-{seed}") for seed in (1, 2)]
        for path in paths:
            await asyncio.to_thread(_read, path)
        local.load(paths[0].stem)
        own, alone = [], []
        for index in range(rounds):
            path = paths[(index + 1) % 2]
            own.append(await _first_token(local, path.stem))
            alone.append(await asyncio.to_thread(_llama_cpp, local, path))
    whole = [sum(one.values()) for one in alone]
    ratio = report.median(mine / other for mine, other in zip(own, whole, strict=True))
    parts = {name: report.median(one[name] for one in alone) for name in alone[0]}
    told = ", ".join(f"{name} {report.number(1000 * seconds)} ms" for name, seconds in parts.items())
    size = f"{path.stem[:-2]}, Q8_0, {local_models.LARGE.parameters / 1e9:.2f} B parameters"
    return [
        report.context(SWAPS, "hybridd", 1000 * report.median(own), "ms", f"to the first token; {size}"),
        report.context(SWAPS, "llama.cpp alone", 1000 * report.median(whole), "ms", f"a process of its own: {told}"),
        report.at_most(
            SWAPS, "hybridd / llama.cpp", ratio, 1.3, "×",
            detail=f"median of {rounds} pairs; the other model is unloaded, its process and memory gone, meanwhile",
        ),
    ]  # fmt: skip


def _read(path: Path) -> None:
    with path.open("rb") as file:
        while file.read(1 << 24):
            continue


async def _first_token(local: LocalHouse, model: str) -> float:
    result = await run(
        local.target(model), chat_request(local.target(model).model, prompt="ba", max_tokens=1), calls=1, grace=120
    )
    if not result.answered:
        raise StartFailed(f"{model} was not swapped in: {result.described()}\n{local.daemon.output}")
    return result.latencies[0]


def _llama_cpp(local: LocalHouse, path: Path) -> dict[str, float]:
    """Seconds before the load, of the load, and of the first token.

    Raises:
        StartFailed: the process failed.
    """
    setup = Setup(path=str(path), sequences=1)
    command = [sys.executable, "-m", "scripts.bench_parts.local_load", json.dumps(asdict(setup))]
    env = {**environment(local.home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise StartFailed(f"llama.cpp alone failed: {done.stderr[-300:]}")
    seconds: dict[str, float] = json.loads(done.stdout)
    return seconds


async def growth(house: House, requests: int | None = None, loads: int | None = None) -> list[report.Figure]:
    """Resident memory of the daemon and its worker over requests, and of the daemon over loads; a tiny model."""
    requests = requests or (400 if house.quick else 2000)
    loads = loads or (12 if house.quick else 50)
    with LocalHouse(house) as local:
        path = local.make(local_models.TINY)
        other = local.make(local_models.TINY, seed=2, suffix="-2")
        local.load(path.stem)
        result, figures = await _over_requests(local, path.stem, requests)
        figures.append(await asyncio.to_thread(_over_loads, local, [path.stem, other.stem], loads))
    return [*figures, no_errors(GROWTH, errors_of([result]))]


async def _over_requests(local: LocalHouse, model: str, count: int) -> tuple[Any, list[report.Figure]]:
    target = local.target(model)
    prompts = (
        chat_request(target.model, stream=True, prompt=local_models.words(8 + seed % 24, seed), max_tokens=8)
        for seed in range(10 * count)
    )
    first = await run(target, prompts, callers=4, calls=round(SETTLED * count), grace=120)
    before = _memory(local)
    result = await run(target, prompts, callers=4, calls=count - round(SETTLED * count), grace=300)
    result.errors += first.errors
    after = _memory(local)
    figures = [
        report.at_most(
            GROWTH, f"{count:,} requests: growth of the {name}", after[name] - before[name], GROWTH_MIB, "MiB",
            detail=f"{report.number(before[name])} MiB after {first.answered}; {result.per_second:.0f} requests/s",
        )
        for name in before
    ]  # fmt: skip
    return result, figures


def _over_loads(local: LocalHouse, models: list[str], count: int) -> report.Figure:
    """Loads two models in turn, unloading each; the growth of the daemon since a quarter of the loads."""
    before, seconds = 0.0, []
    for row in local.resident():
        local.unload(row["model"])
    for index in range(count):
        model = models[index % 2]
        seconds.append(local.load(model))
        local.unload(model)
        if index + 1 == round(SETTLED * count):
            before = rss_mib(local.daemon.pid)
    until = time.monotonic() + 10
    while (left := _workers(local)) and time.monotonic() < until:
        time.sleep(0.05)
    grown = rss_mib(local.daemon.pid) - before
    detail = f"{report.number(1000 * report.median(seconds))} ms a load; {len(left)} processes left over"
    return report.at_most(GROWTH, f"{count} loads: growth of the daemon", grown, GROWTH_MIB, "MiB", detail=detail)


def _memory(local: LocalHouse) -> dict[str, float]:
    return {"daemon": rss_mib(local.daemon.pid), "worker": sum(map(rss_mib, _workers(local)))}


def _workers(local: LocalHouse) -> list[int]:
    """The daemon's children that run llama.cpp."""
    return [pid for pid in children(local.daemon.pid) if b"llama_cpp" in _command(pid)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
