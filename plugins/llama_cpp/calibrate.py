"""Measures how this machine runs one model best: ``python -m plugins.llama_cpp.calibrate`` (a process of its own).

One JSON object on standard input::

    {"path": "…", "options": {LoadOptions}, "candidates": [{"flash_attention": true, "micro_batch": 512}, …],
     "widths": [1, 2, 4, 8], "seconds": 60}

Each candidate is a context of its own on the one loaded model. Prefill is the median of three prompts; decoding is the
median of single steps with that many sequences in the batch, each behind a short prompt. While there is time, all are
measured a second time: what differs then, minutes later, is noise. ``prefill_spread`` and ``decode_spread`` say how far
repetitions lay from the figure, as a share of it. Lines on standard output:
``{"state": "measuring", "done": 1, "total": 8, "measured": {…}}`` and at the end ``{"result": {…}}`` or ``{"error":
{"code", "message"}}``. Speeds are tokens per second. A budget of time bounds the work: prompts and repetitions become
fewer when the machine is slow, and candidates that are left over are named in ``left_out``.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hybridd.plugin import LoadFailed
from plugins.llama_cpp.context import DONE, Context
from plugins.llama_cpp.native import Model

PROMPT_TOKENS = 512
"""Of a measured prompt, where the context and the time allow."""
SHORT_TOKENS = 64
"""Before the decoded tokens of each sequence."""
REPETITIONS = 3
STEPS = 16
DEFAULT_SECONDS = 120.0
_FIRST_TOKEN = 1_000
"""Random token ids above the control tokens that vocabularies begin with."""


class Failed(Exception):
    """llama.cpp could not compute a batch."""


class Candidate(NamedTuple):
    flash_attention: bool
    micro_batch: int


def main() -> int:
    """Exit status 0 with a result, 1 with an error line."""
    try:
        wanted = json.loads(sys.stdin.read())
        result = calibrate(wanted, _say)
    except (ValueError, KeyError, TypeError) as error:
        _say({"error": {"code": "bad_request", "message": f"not a calibration request: {error}"}})
        return 1
    except LoadFailed as error:
        _say({"error": {"code": "load_failed", "cause": error.failure.cause, "message": str(error)}})
        return 1
    except Failed as error:
        _say({"error": {"code": "failed", "message": str(error)}})
        return 1
    _say({"result": result})
    return 0


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def calibrate(
    wanted: dict[str, Any], say: Callable[[dict[str, Any]], None], clock: Callable[[], float] = time.perf_counter
) -> dict[str, Any]:
    """The measured candidates, the first of which is always there.

    Raises:
        LoadFailed: the model, or the context of the very first candidate, cannot be had.
        Failed: llama.cpp cannot compute with it.
    """
    options = dict(wanted["options"])
    candidates = [Candidate(bool(one["flash_attention"]), int(one["micro_batch"])) for one in wanted["candidates"]]
    if not candidates:
        raise ValueError("no candidates")
    widths = sorted({int(width) for width in wanted.get("widths", (1, 2, 4, 8)) if width > 0})
    began = clock()
    until = began + float(wanted.get("seconds", DEFAULT_SECONDS))
    say({"state": "loading", "done": 0, "total": len(candidates)})
    model = Model(Path(wanted["path"]), gpu_layers=int(options.get("gpu_layers", 0)), gpu=int(options.get("gpu", 0)))
    measured: list[dict[str, Any]] = []
    seconds: list[float] = []
    left_out: list[dict[str, Any]] = []
    try:
        # Twice the same work with other work in between: repetitions one after the other do not show what a machine
        # that warms up, or does something else, changes.
        for candidate in candidates:
            if measured and clock() > until:
                left_out.append({**candidate._asdict(), "reason": "no time was left"})
                continue
            started = clock()
            try:
                found = _measure(model, options, candidate, widths, until, clock)
            except (LoadFailed, Failed) as error:
                if not measured and candidate is candidates[-1]:
                    raise
                left_out.append({**candidate._asdict(), "reason": str(error)})
                continue
            measured.append(found)
            seconds.append(clock() - started)
            say({"state": "measuring", "done": len(measured), "total": len(candidates), "measured": found})
        for at, (first, took) in enumerate(zip(tuple(measured), seconds, strict=True)):
            # Only in full: with a shorter prompt other figures would come out, and no noise.
            if clock() + took > until:
                break
            say({"state": "repeating", "done": at + 1, "total": len(measured)})
            try:
                again = Candidate(first["flash_attention"], first["micro_batch"])
                measured[at] = together(first, _measure(model, options, again, widths, until, clock))
            except (LoadFailed, Failed):
                break  # what was measured once stands
    finally:
        model.close()
    return {
        "measured": measured,
        "left_out": left_out,
        "seconds": round(clock() - began, 3),
        "threads": measured[0]["threads"],
        "llama_cpp": version(),
        "build": build(),
    }


def together(first: dict[str, Any], again: dict[str, Any]) -> dict[str, Any]:
    """Two rounds of one candidate as one: the mean of each speed, and the larger of what either round and the two of
    them differ by."""
    prefill, spread = _mean(first, again, "prefill_per_second", "prefill_spread")
    decode, spreads = {}, {}
    for width, speed in first["decode_per_second"].items():
        other = again["decode_per_second"].get(width, speed)
        mean = (speed + other) / 2
        decode[width] = round(mean, 3)
        apart = abs(speed - other) / 2 / max(1e-9, mean)
        spreads[width] = round(max(apart, first["decode_spread"][width], again["decode_spread"].get(width, 0.0)), 4)
    return {
        **first, "prefill_per_second": prefill, "prefill_spread": spread,
        "decode_per_second": decode, "decode_spread": spreads, "rounds": 2,
    }  # fmt: skip


def _mean(first: dict[str, Any], again: dict[str, Any], speed: str, spread: str) -> tuple[float, float]:
    mean = (first[speed] + again[speed]) / 2
    apart = abs(first[speed] - again[speed]) / 2 / max(1e-9, mean)
    return round(mean, 3), round(max(apart, first[spread], again[spread]), 4)


def spread_of(seconds: list[float]) -> float:
    """How far repetitions lie from their median, as a share of it: half the distance between the quartiles, of three or
    fewer half their whole range. A single one says nothing: 0."""
    if len(seconds) < 2:
        return 0.0
    low, high = min(seconds), max(seconds)
    if len(seconds) > 3:
        low, _, high = statistics.quantiles(seconds, n=4)
    return (high - low) / 2 / max(1e-9, statistics.median(seconds))


def version() -> str:
    """Of the package: what was measured with another one says nothing."""
    import llama_cpp

    found: str = llama_cpp.__version__
    return found


def build() -> str:
    """What llama.cpp was compiled for, in its own words."""
    from llama_cpp import llama_cpp as lib

    return " ".join(lib.llama_print_system_info().decode("utf-8", "replace").split())


def _measure(
    model: Model,
    options: dict[str, Any],
    candidate: Candidate,
    widths: list[int],
    until: float,
    clock: Callable[[], float],
) -> dict[str, Any]:
    context = Context(
        model,
        context=int(options.get("context", 4096)),
        sequences=max(widths),
        batch=max(int(options.get("batch", 2048)), candidate.micro_batch),
        micro_batch=candidate.micro_batch,
        threads=int(options.get("threads", 0)),
        unified=True,
        type_k=str(options.get("type_k", "f16")),
        type_v=str(options.get("type_v", "f16")),
        flash_attention=candidate.flash_attention,
    )
    try:
        bench = _Bench(context, clock, until)
        bench.warm_up()
        prefill = bench.prefill()
        decode = {str(width): bench.decode(width) for width in widths if width <= context.sequences}
        return {
            **candidate._asdict(),
            "prefill_per_second": round(prefill[0], 3),
            "prefill_spread": round(prefill[1], 4),
            "decode_per_second": {width: round(speed, 3) for width, (speed, _) in decode.items()},
            "decode_spread": {width: round(spread, 4) for width, (_, spread) in decode.items()},
            "rounds": 1,
            "threads": context.threads,
        }
    finally:
        context.close()


class _Bench:
    """Timed work on one context."""

    def __init__(self, context: Context, clock: Callable[[], float], until: float) -> None:
        self._context, self._clock, self._until = context, clock, until
        vocabulary = context.model.vocabulary
        first = min(_FIRST_TOKEN, vocabulary // 2)
        # Any tokens do, as long as they differ: experts of a mixture are chosen by them.
        self._tokens = array("i", (first + (i * 7919) % (vocabulary - first) for i in range(context.cells)))
        self._per_token = 0.0

    def warm_up(self) -> None:
        """Weights come into memory and the graphs are built; also tells how long a token takes."""
        count = min(32, self._context.cells // 2)
        self._context.clear()
        self._run_prompt(count)
        began = self._clock()
        self._context.clear()
        self._run_prompt(count)
        self._per_token = (self._clock() - began) / count

    def prefill(self) -> tuple[float, float]:
        """Tokens per second of a prompt in micro-batches, the median of three, or of one when time is short; and
        their spread."""
        left = max(0.0, self._until - self._clock())
        # Longer than a micro-batch, or a wider one could not show what it is good for.
        count = min(max(PROMPT_TOKENS, self._context.micro_batch), self._context.cells - 1)
        if self._per_token * count * REPETITIONS > left:
            count = max(32, min(count, math.ceil(left / max(1e-9, self._per_token) / REPETITIONS)))
        seconds = []
        for _ in self._repeat(REPETITIONS):
            self._context.clear()
            began = self._clock()
            self._run_prompt(count)
            seconds.append(self._clock() - began)
        return count / max(1e-9, statistics.median(seconds)), spread_of(seconds)

    def decode(self, width: int) -> tuple[float, float]:
        """Tokens per second of ``width`` sequences together, and how much single steps differed."""
        context = self._context
        context.clear()
        room = context.cells // max(1, context.sequences)
        position = max(1, min(SHORT_TOKENS, room - STEPS - 2))
        for sequence in range(width):
            context.begin()
            context.put_run(self._tokens, 0, position, sequence, outputs=1)
            self._compute()
        seconds = []
        for step in self._repeat(min(STEPS, room - position - 1)):
            context.begin()
            for sequence in range(width):
                context.put(self._tokens[(step + sequence) % len(self._tokens)], position, sequence)
            began = self._clock()
            self._compute()
            seconds.append(self._clock() - began)
            position += 1
        return width / max(1e-9, statistics.median(seconds)), spread_of(seconds)

    def _repeat(self, times: int) -> Iterator[int]:
        """0, 1, …, as long as there is time; always the first."""
        for index in range(max(1, times)):
            if index and self._clock() > self._until:
                return
            yield index

    def _run_prompt(self, count: int) -> None:
        context = self._context
        for start in range(0, count, context.capacity):
            stop = min(count, start + context.capacity)
            context.begin()
            context.put_run(self._tokens, start, stop, 0, outputs=1 if stop == count else 0)
            self._compute()

    def _compute(self) -> None:
        code = self._context.run()
        if code != DONE:
            raise Failed(f"llama.cpp cannot compute a batch of {self._context.rows} tokens (code {code})")
        # A GPU works on after the call has returned; asking for the results waits for them.
        self._context.logits(self._context.rows - 1)


if __name__ == "__main__":
    sys.exit(main())
