"""What a machine was measured to do best with a model: stored by machine, model and build of llama.cpp, and read by
whoever plans a load.

Nothing here measures; ``plugins/llama_cpp/calibrate.py`` does. A finding of another build of llama.cpp, of another file
under the same name, or with another number of layers on the GPU says nothing about this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from hybridd import locations
from hybridd.errors import StateError
from hybridd.local import state_file
from hybridd.local.facts import ModelFacts
from hybridd.local.memory import estimate
from hybridd.local.types import LoadOptions, Memory, Plan

WIDTHS = (1, 2, 4, 8)
MICRO_BATCHES = (512, 128, 256, 1024, 2048)
_NOISE = 0.03
"""A finding replaces the plan's own choice only when it saves this share of the time, and more where the figures are
noisier: on a machine at rest repeated measurements differ by 2 %."""
_ENOUGH = 0.95
"""Of the highest throughput: the narrowest batch that reaches it is the best width."""
_PROMPT, _ANSWER = 1024, 256
"""Tokens of the request that candidates are compared by: a page in, a paragraph out."""
_MOST = 200
"""Findings kept; the oldest leave first."""


class Measured(msgspec.Struct, frozen=True):
    """One candidate. Speeds in tokens per second; ``decode_per_second`` by the sequences in a batch, all together. The
    spreads say how far repetitions lay from the figure, as a share of it; ``rounds``: how often all was measured."""

    flash_attention: bool
    micro_batch: int
    prefill_per_second: float
    decode_per_second: dict[int, float]
    prefill_spread: float = 0.0
    decode_spread: dict[int, float] = {}
    rounds: int = 1

    def seconds(self) -> float:
        """What one request of 1,024 tokens with an answer of 256 takes."""
        alone = self.decode_per_second[min(self.decode_per_second)]
        return _PROMPT / max(1e-9, self.prefill_per_second) + _ANSWER / max(1e-9, alone)

    def noise(self) -> float:
        """By what share of itself :meth:`seconds` may be off, going by the spreads of the figures it is made of."""
        alone = min(self.decode_per_second)
        prompt = _PROMPT / max(1e-9, self.prefill_per_second) * self.prefill_spread
        answer = _ANSWER / max(1e-9, self.decode_per_second[alone]) * self.decode_spread.get(alone, 0.0)
        return (prompt + answer) / max(1e-9, self.seconds())


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """A finding. ``bytes``: of the model's files; ``llama_cpp``: the package's version; ``build``: what it was compiled
    for; ``at``: seconds since the epoch; ``sequences``: the best batch width."""

    machine: str
    model: str
    bytes: int
    gpu_layers: int
    llama_cpp: str
    at: float
    flash_attention: bool
    micro_batch: int
    sequences: int
    measured: list[Measured]
    left_out: list[dict[str, Any]] = []
    build: str = ""
    context: int = 0
    type_k: str = "f16"
    type_v: str = "f16"
    threads: int = 0
    seconds: float = 0.0
    noise: float = 0.0
    """Share by which the figures that decided may be off."""
    gain: float = 0.0
    """Share of a request's time that the fastest candidate saves against the plan's own choice."""
    kept: bool = False
    """The plan's own choice stays: nothing was faster, or not by more than the noise."""


class _Document(msgspec.Struct):
    calibrations: list[Calibration] = []


class Verdict(msgspec.Struct, frozen=True):
    """``chosen``: what loads get; ``fastest``: what measured fastest, by ``gain`` of the time of the plan's own choice.
    ``noise``: the share by which the two may be off, at least 3 %."""

    chosen: Measured
    fastest: Measured
    gain: float
    noise: float


def judge(measured: Sequence[Measured]) -> Verdict:
    """The fastest by :meth:`Measured.seconds`; the first one (the plan's own) unless another is faster by more than the
    noise of both.

    Raises:
        ValueError: nothing was measured.
    """
    if not measured:
        raise ValueError("nothing was measured")
    own, fastest = measured[0], min(measured, key=Measured.seconds)
    gain = 1 - fastest.seconds() / max(1e-9, own.seconds())
    noise = max(_NOISE, own.noise() + (fastest.noise() if fastest is not own else 0.0))
    return Verdict(fastest if gain > noise else own, fastest, gain, noise)


def width(measured: Measured) -> int:
    """How many sequences a batch should have: the fewest that reach 95 % of the highest throughput, as far as the
    spread of their figures lets one say. On some cards (GTX 16xx) and processors a wide batch is slower than one
    sequence alone."""
    most = max(measured.decode_per_second.values())
    enough = (
        count
        for count, rate in measured.decode_per_second.items()
        if rate * (1 + measured.decode_spread.get(count, 0.0)) >= _ENOUGH * most
    )
    return min(enough)


def candidates(facts: ModelFacts, plan: Plan) -> list[dict[str, Any]]:
    """What is worth measuring: the plan's own setting first, then each flash attention and micro-batch whose memory
    stays within the plan's budget. The quantised V cache exists with flash attention only.

    Raises:
        ValueError: the plan loads nothing.
    """
    options = plan.options
    if options is None:
        raise ValueError("the plan loads nothing")
    own = (options.flash_attention, options.micro_batch)
    flash = (True, False) if options.type_v in ("f32", "f16", "bf16") else (True,)
    found = [own]
    for micro_batch in dict.fromkeys((options.micro_batch, *MICRO_BATCHES)):
        for on in flash:
            if (
                (on, micro_batch) not in found
                and micro_batch <= options.context
                and _fits(facts, plan, measured_options(options, flash_attention=on, micro_batch=micro_batch))
            ):
                found.append((on, micro_batch))
    return [{"flash_attention": on, "micro_batch": micro_batch} for on, micro_batch in found]


def measured_options(options: LoadOptions, **changes: Any) -> LoadOptions:
    """The options of a measuring context: every width fits into it, all sequences share its cells."""
    return msgspec.structs.replace(options, sequences=max(WIDTHS), unified=True, **changes)


def _fits(facts: ModelFacts, plan: Plan, options: LoadOptions) -> bool:
    return side(estimate(facts, options), plan) <= max(side(plan.memory, plan), plan.budget)


def side(memory: Memory, plan: Plan) -> int:
    """Bytes on the side that the plan's budget is for."""
    return memory.device.total if plan.target == "gpu" else memory.host.total


def llama_version() -> str:
    """The installed package's version; empty when it is not installed. Nothing is imported."""
    try:
        return metadata.version("llama-cpp-python")
    except metadata.PackageNotFoundError:
        return ""


def path_of_file() -> Path:
    return locations.state_dir() / "local_calibration.json"


def read(path: Path | None = None) -> list[Calibration]:
    """All findings, the newest last.

    Raises:
        StateError: the file is there and cannot be read.
    """
    file = path or path_of_file()
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Document).calibrations
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise StateError(
            f"the calibrations in {file} cannot be read: {error}. Without the file all are forgotten."
        ) from error


def find(
    findings: Sequence[Calibration], *, machine: str, facts: ModelFacts, gpu_layers: int | None = None, version: str
) -> Calibration | None:
    """The newest finding for that machine, model and version; ``gpu_layers`` None: of whichever offload."""
    for one in reversed(findings):
        same = (one.machine, one.model, one.bytes, one.llama_cpp) == (machine, facts.id, facts.bytes, version)
        if same and gpu_layers in (None, one.gpu_layers):
            return one
    return None


def store(calibration: Calibration, path: Path | None = None) -> None:
    """Keeps a finding in place of an older one for the same machine, model, version and offload.

    Raises:
        StateError: the file cannot be read or written.
    """
    file = path or path_of_file()
    try:
        with state_file.locked(file):
            kept = [one for one in read(file) if _key(one) != _key(calibration)]
            document = _Document([*kept, calibration][-_MOST:])
            state_file.replace(file, msgspec.json.format(msgspec.json.encode(document), indent=1))
    except OSError as error:
        raise StateError(f"the calibrations in {file} cannot be written: {error}") from error


def _key(one: Calibration) -> tuple[object, ...]:
    return (one.machine, one.model, one.llama_cpp, one.gpu_layers)
