"""What a step of the local engine costs beside llama.cpp: the engine alone, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import asdict
from typing import Any

from scripts.bench_parts import local_models, report
from scripts.bench_parts.daemon_process import ROOT, StartFailed, environment
from scripts.bench_parts.house import House
from scripts.bench_parts.local_rivals import Setup

GROUP = "a step of the local engine"
PROMPT_TOKENS, NEW_TOKENS = 207, 64


async def steps(house: House) -> list[report.Figure]:
    """The share of a step that is neither llama.cpp's computing nor its choosing of tokens, at 1 and at 8 callers."""
    home = house.scratch.home()
    setup = Setup(path=str(local_models.make(local_models.SMALL, home)), threads=len(os.sched_getaffinity(0)))
    figures = []
    for callers in (1, 8):
        wanted = {
            **asdict(setup),
            "callers": callers,
            "calls": 1 if house.quick else 4,
            "prompt_tokens": PROMPT_TOKENS,
            "new_tokens": NEW_TOKENS,
            "temperature": 0.8,
        }
        told = await asyncio.to_thread(_run, wanted, environment(home))
        figures += _figures(told, callers)
    os.unlink(setup.path)
    return figures


def _run(wanted: dict[str, Any], env: dict[str, str]) -> dict[str, float]:
    command = [sys.executable, "-m", "scripts.bench_parts.local_step", json.dumps(wanted)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**env, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise StartFailed(f"the engine failed: {done.stderr[-400:]}")
    told: dict[str, float] = json.loads(done.stdout)
    return told


def _figures(told: dict[str, float], callers: int) -> list[report.Figure]:
    whole = told["computing"] + told["sampling"] + told["other"]
    each = {name: 1000 * told[name] / told["steps"] for name in ("computing", "sampling", "other")}
    detail = (
        f"{report.number(each['computing'])} ms computing, {report.number(1000 * each['sampling'])} µs choosing, "
        f"{report.number(1000 * each['other'])} µs the rest; {told['answer_tokens'] / told['seconds']:.1f} tokens/s"
    )
    share = 100 * told["other"] / whole
    return [report.at_most(GROUP, f"Python's share, {callers} callers", share, 1.0, "%", detail=detail)]
