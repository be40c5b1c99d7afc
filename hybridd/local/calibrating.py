"""Calibrates one model: ``python -m hybridd.local.calibrating``, a process of its own, or in the CLI's.

One JSON object on standard input, ``{"model": id, "path": "…", "seconds": 120, "vram_limit": bytes | null}``; lines of
JSON on standard output: ``{"state", "done", "total", …}`` while it measures, at the end ``{"result": {…}}`` (the
calibration, stored by then) or ``{"error": …}`` (:mod:`hybridd.local.child`). The measuring itself happens in a further
process: llama.cpp may end the one that it lives in.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import PIPE
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from hybridd import locations
from hybridd.errors import HybriddError, InvalidRequest, ProviderError
from hybridd.local import calibration
from hybridd.local.calibration import Calibration, Measured
from hybridd.local.child import error_line, read_request
from hybridd.local.facts import ModelFacts
from hybridd.local.inspect import inspect
from hybridd.local.machine import MachineFacts, look
from hybridd.local.plan import Request, plan
from hybridd.local.types import LoadOptions, Plan

DEFAULT_SECONDS = 120.0
MOST_SECONDS = 3600.0
_GRACE_S = 300.0
"""Beyond its budget: loading from a slow disk, and one candidate that was begun in time."""
_LINE_BYTES = 1 << 20
_PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
_PASSED_TOO = ("LD_LIBRARY_PATH", "LLAMA_CPP_LIB_PATH")


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """What standard input says. ``seconds``: of measuring. ``vram_limit``: bytes."""

    model: str
    path: str
    seconds: float = DEFAULT_SECONDS
    vram_limit: int | None = None


async def calibrate(asked: Asked) -> AsyncIterator[dict[str, Any]]:
    """The lines of progress; the last one is the result, which is stored by then.

    Raises:
        HybriddError: no such model, no room for it, llama.cpp is not installed or fails.
    """
    if not 0 < asked.seconds <= MOST_SECONDS:
        raise InvalidRequest(
            f"seconds is {asked.seconds:g}; it is above 0 and at most {MOST_SECONDS:g}.", param="seconds"
        )
    version = calibration.llama_version()
    if not version:
        raise ProviderError("llama-cpp-python is not installed; install the extra: hybridd[local].")
    yield {"state": "planning", "done": 0, "total": 0}
    path = Path(asked.path)
    facts = (await inspect([path]))[path]
    if isinstance(facts, str):
        raise InvalidRequest(facts, param="model")
    if facts.kind != "text":
        raise InvalidRequest(
            f"{asked.model} writes no answers ({facts.kind}): texts go through it whole, nothing is left to choose.",
            param="model",
        )
    facts = msgspec.structs.replace(facts, id=asked.model)
    machine = await asyncio.to_thread(look)
    planned = plan(facts, machine, Request(vram_limit=asked.vram_limit))
    if planned.options is None:
        raise ProviderError(f"{asked.model} cannot be calibrated: {' '.join(planned.reasons)}")
    options = calibration.measured_options(planned.options)
    request = {
        "path": asked.path,
        "options": msgspec.to_builtins(options),
        "candidates": calibration.candidates(facts, planned),
        "widths": calibration.WIDTHS,
        "seconds": asked.seconds,
    }
    async for line in _measure(request, asked.seconds + _GRACE_S):
        if "result" not in line:
            yield line
            continue
        made = conclude(line["result"], facts, machine, planned, options, version)
        await asyncio.to_thread(calibration.store, made)
        yield {"result": msgspec.to_builtins(made)}


def conclude(
    result: dict[str, Any], facts: ModelFacts, machine: MachineFacts, planned: Plan, options: LoadOptions, version: str
) -> Calibration:
    """The finding that the measured candidates amount to."""
    measured = msgspec.convert(result["measured"], list[Measured], strict=False)
    verdict = calibration.judge(measured)
    chosen = verdict.chosen
    return Calibration(
        machine=machine.machine_id,
        model=facts.id,
        bytes=facts.bytes,
        gpu_layers=options.gpu_layers,
        llama_cpp=version,
        build=result["build"],
        at=time.time(),
        flash_attention=chosen.flash_attention,
        micro_batch=chosen.micro_batch,
        sequences=calibration.width(chosen),
        measured=measured,
        left_out=result["left_out"],
        context=options.context,
        type_k=options.type_k,
        type_v=options.type_v,
        threads=result["threads"],
        seconds=result["seconds"],
        noise=round(verdict.noise, 4),
        gain=round(verdict.gain, 4),
        kept=chosen is measured[0],
    )


async def _measure(request: dict[str, Any], timeout: float) -> AsyncIterator[dict[str, Any]]:
    environment = {name: os.environ[name] for name in (*_PASSED, *_PASSED_TOO) if name in os.environ}
    environment["PYTHONPATH"] = str(locations.plugins_dir().parent)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "plugins.llama_cpp.calibrate",
        stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment, limit=_LINE_BYTES,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    noise: deque[bytes] = deque(maxlen=20)
    listening = asyncio.create_task(_collect(child.stderr, noise))
    try:
        async with asyncio.timeout(timeout):
            child.stdin.write(json.dumps(request).encode())
            child.stdin.close()
            finished = False
            async for raw in child.stdout:
                line = json.loads(raw)
                if "error" in line:
                    raise ProviderError(f"llama.cpp: {line['error']['message']}")
                finished = finished or "result" in line
                yield line
            await listening
            code = await child.wait()
            if not finished:
                last = b" ".join(noise).decode("utf-8", "replace").strip()[-300:]
                raise ProviderError(f"the measuring process ended with status {code} and no result. {last}")
    except TimeoutError:
        raise ProviderError(f"the measuring process did not end within {timeout:g} s") from None
    finally:
        listening.cancel()
        if child.returncode is None:
            child.kill()
            await child.wait()


async def _collect(stream: asyncio.StreamReader, lines: deque[bytes]) -> None:
    async for line in stream:
        lines.append(line)


async def _serve() -> int:
    try:
        async for line in calibrate(read_request(Asked)):
            _say(line)
    except HybriddError as error:
        _say({"error": error_line(error)})
        return 1
    return 0


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(asyncio.run(_serve()))
