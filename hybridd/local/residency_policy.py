"""Decisions of residency, pure: who leaves for whom, what follows a failed load, when a worker is idle or hangs.

Times are seconds of one monotonic clock that is passed in; memory is in bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from hybridd.local.residency_timing import HANG_SECONDS
from hybridd.local.types import Cause, LoadOptions, Plan

# A context that is enough for ordinary work: no idle model leaves only to make a new one's larger than this.
COMFORTABLE_CONTEXT = 8192
FOREVER = float("inf")
LONGEST_KEEP_ALIVE = 10 * 365 * 86_400.0  # no timer is set for longer
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "ms": 0.001}
_DURATION = re.compile(r"(-?\d+(?:\.\d+)?)\s*(ms|s|m|h)?")


class Resident(msgspec.Struct, frozen=True):
    """One loaded model. ``bytes``: memory on the side that is short; ``idle``: seconds since its last call ended;
    ``busy``: a call is open or about to be written; ``reload_seconds``: what its last load took."""

    model: str
    bytes: int
    idle: float
    reload_seconds: float
    busy: bool = False


class Placement(msgspec.Struct, frozen=True):
    """``evict``: who leaves first; ``busy``: who of those with open calls must leave too, once these have ended.
    ``plan`` is the one that holds then; its options are None when nothing can make the model fit."""

    plan: Plan
    evict: tuple[str, ...] = ()
    busy: tuple[str, ...] = ()


Planner = Callable[[Sequence[Resident]], Plan]
"""The plan of the new model when these residents are gone."""


def keep_value(resident: Resident) -> float:
    """What it would cost to have it loaded again, weighed by how likely that seems: reload seconds x recency, with
    recency = 1 / (1 + minutes idle)."""
    return max(resident.reload_seconds, 0.001) / (1.0 + max(0.0, resident.idle) / 60.0)


def place(residents: Sequence[Resident], planned: Planner) -> Placement:
    """Who must leave so that the new model gets a plan as good as it could get, and never more than that.

    Those that are cheap to have back leave first. Busy ones never leave before their calls have ended, and only when
    nothing fits otherwise, or only the CPU would be left. Planning is monotone (more memory is never worse), so the
    prefix that suffices is searched from the short end, and whoever in it proved unnecessary stays.
    """
    free = sorted((one for one in residents if not one.busy), key=keep_value)
    best = planned(free)
    busy = sorted((one for one in residents if one.busy), key=keep_value)
    ideal = planned(residents) if busy else best
    # The CPU is where a model goes that has no place on the GPU, not one that would have it a moment later.
    if ideal.options is not None and (best.options is None or best.target != ideal.target):
        for count in range(1, len(busy) + 1):
            plan = planned([*free, *busy[:count]])
            if plan.options is not None and plan.target == ideal.target:
                return Placement(plan, busy=tuple(one.model for one in busy[:count]))
    if best.options is None:
        return Placement(best)
    chosen: list[Resident] = []
    plan = planned(chosen)
    for candidate in free:
        if as_good(plan, best):
            break
        chosen.append(candidate)
        plan = planned(chosen)
    for candidate in sorted(chosen, key=keep_value, reverse=True):
        without = [one for one in chosen if one is not candidate]
        attempt = planned(without)
        if as_good(attempt, best):
            chosen, plan = without, attempt
    return Placement(plan, tuple(one.model for one in chosen))


def as_good(plan: Plan, best: Plan) -> bool:
    """Would waiting for more memory be of no use? The same place, the same layers offloaded, and a context that is
    enough."""
    mine, ideal = plan.options, best.options
    if ideal is None:
        return True
    if mine is None or plan.target != best.target:
        return False
    enough = min(per_sequence(ideal), COMFORTABLE_CONTEXT)
    return (
        mine.gpu_layers >= ideal.gpu_layers
        and per_sequence(mine) >= enough
        and mine.sequences >= min(ideal.sequences, 2)
    )


def per_sequence(options: LoadOptions) -> int:
    """Tokens that one request may have, prompt and answer together."""
    return options.context if options.unified else options.context // max(1, options.sequences)


class Step(msgspec.Struct, frozen=True):
    """What follows a failed load. ``again``: try at once with ``shrink`` applied; otherwise not before ``delay``
    seconds, and with ``until_changed`` not before the file is another. ``alert``: somebody should know."""

    again: bool = False
    shrink: Literal["", "weights", "kv"] = ""
    delay: float = 0.0
    until_changed: bool = False
    alert: bool = False


FIRST_PAUSE = 2.0
LONGEST_PAUSE = 300.0
BREAKER = 5
"""Failures in a row, or crashes within the window, after which the longest pause is taken."""
BREAKER_WINDOW = 600.0


def after_failure(causes: Sequence[Cause], failed_before: int = 0) -> Step:
    """The retry rule of each cause. ``causes``: of the attempts of this load, oldest first, the last one just failed;
    ``failed_before``: loads of this model that failed in a row before.

    weights   the memory was less than planned: once more with fewer layers (a larger margin), then a pause
    kv        a smaller context, twice, then a pause
    runtime   once more as it was, then a pause that doubles, the longest one after five
    bad_file  never until the file changes
    driver    a pause and an alert; the CPU is not taken instead, silently or otherwise
    hung      (killed) once more, then a pause
    """
    cause = causes[-1]
    same = sum(1 for one in causes if one == cause)
    pause = LONGEST_PAUSE if failed_before >= BREAKER - 1 else min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**failed_before)
    if len(causes) > 3:  # causes that alternate must not go on for ever
        return Step(delay=pause, alert=True)
    match cause:
        case "bad_file":
            return Step(until_changed=True, alert=True)
        case "driver":
            return Step(delay=max(30.0, pause), alert=True)
        case "weights":
            return Step(again=True, shrink="weights") if same <= 1 else Step(delay=pause, alert=True)
        case "kv":
            return Step(again=True, shrink="kv") if same <= 2 else Step(delay=pause, alert=True)
        case "hung" | "runtime":
            return Step(again=True) if same <= 1 else Step(delay=pause, alert=failed_before >= BREAKER - 1)


_DRIVER = re.compile(
    r"cuda error|cuda driver|no cuda-capable device|driver version is insufficient|ggml_cuda_init", re.I
)
_MEMORY = re.compile(r"out of memory|failed to allocate|unable to allocate|cannot allocate|bad_alloc|std::bad", re.I)
_KV = re.compile(r"kv cache|kv_cache|kv buffer|compute buffer|compute_pp|failed to create.*context|n_ctx", re.I)
_FILE = re.compile(
    r"invalid magic|bad magic|not within the file bounds|wrong number of tensors|missing tensor|unknown model arch"
    r"|failed to read|error loading model|corrupt|gguf_init|unexpectedly reached end of file",
    re.I,
)


def cause_of_death(code: int, last_words: Sequence[str], *, loading: bool) -> Cause:
    """The cause of an end that nobody explained, from the exit code (negative: the signal) and what was printed.

    SIGBUS while a file is mapped means that the file is shorter than it said; SIGKILL during a load that we did not
    send is the kernel's out-of-memory killer.
    """
    text = "\n".join(last_words)
    if _MEMORY.search(text):
        return "kv" if _KV.search(text) else "weights"
    if _DRIVER.search(text):
        return "driver"
    if code == -7 or (loading and _FILE.search(text)):
        return "bad_file"
    if code == -9 and loading:
        return "weights"
    return "runtime"


def keep_alive_of(value: Any, default: float | None) -> float:
    """Seconds that a model stays after its last call: the configuration's (None: for ever), or what a request asks for
    in ``keep_alive``: seconds, or a text like "5m"; negative: for ever; 0: it leaves at once.

    Raises:
        ValueError: it is none of these.
    """
    if value is None:
        return FOREVER if default is None else float(default)
    seconds = _seconds(value)
    if seconds is None:
        raise ValueError(f'keep_alive is a duration like "5m" or a number of seconds, not {value!r}')
    return FOREVER if seconds < 0 or seconds > LONGEST_KEEP_ALIVE else seconds


def _seconds(value: Any) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) if math.isfinite(value) else None
    found = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    return None if found is None else float(found[1]) * _UNITS[found[2] or ""]


class _Asked(msgspec.Struct):
    keep_alive: Any = None


def asked_keep_alive(body: msgspec.Raw | bytes, before: float | None) -> float | None:
    """``keep_alive`` of a request; one that is no duration is the engine's to refuse, and changes nothing here."""
    try:
        asked = msgspec.json.decode(body, type=_Asked).keep_alive
        return before if asked is None else keep_alive_of(asked, None)
    except (msgspec.MsgspecError, ValueError):
        return before


class Beat(msgspec.Struct):
    """What is known of a worker's decoding: ``steps`` it has made, ``moved_at`` when that number last changed (or the
    engine was last idle), ``missed`` probes without an answer in a row."""

    steps: int = -1
    moved_at: float = 0.0
    missed: int = 0


def beat(before: Beat, now: float, details: dict[str, Any] | None) -> Beat:
    """The next state after a probe; ``details`` None: it was not answered."""
    if details is None:
        return Beat(before.steps, before.moved_at, before.missed + 1)
    steps = details.get("steps")
    if not isinstance(steps, int) or not details.get("busy", False) or steps != before.steps:
        return Beat(steps if isinstance(steps, int) else before.steps, now)
    return Beat(before.steps, before.moved_at)


def hang(state: Beat, now: float, *, misses: int = 2, seconds: float = HANG_SECONDS) -> str | None:
    """Why a worker with open calls counts as hung, or None."""
    if state.missed >= misses:
        return f"it did not answer {state.missed} probes in a row"
    if now - state.moved_at >= seconds:
        return f"no decoding step for {now - state.moved_at:.0f} s although calls are open"
    return None
