"""What loads really took beside what was predicted, and the safety margin that follows.

A residual is one load on one machine. It counts by the bytes that the prediction was short of; where it was too
generous nothing has to be kept free. Loads of the same model on the same machine say most, other models on that
machine less, and with no load at all only the figures this memory model was checked with are left.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from hybridd import locations
from hybridd.errors import StateError
from hybridd.local import state_file
from hybridd.local.types import LoadOptions, Memory, MemoryUse

MIB = 2**20
FIRST_MARGIN = 64 * MIB
"""Kept free before anything was ever loaded: twice the error that the model is held to in the tests."""
LEAST_MARGIN = 16 * MIB
_SPREADS = 3
_ENOUGH = 5
"""Loads of a model after which its own residuals alone decide."""
_MOST = 256
_MOST_OF_ONE = 16
"""Residuals kept, in all and of one model on one machine; the worst of them is never the one to go."""


class Residual(msgspec.Struct, frozen=True, kw_only=True):
    """``at``: seconds since the epoch. ``measured``: parts that could not be measured are 0 on both sides."""

    machine: str
    model: str
    at: float
    options: LoadOptions
    predicted: Memory
    measured: Memory

    @property
    def short(self) -> int:
        """Bytes that the prediction was short of, on the side that was shorter; negative when it was generous."""
        sides = [(self.predicted.host, self.measured.host)]
        if self.options.gpu_layers > 0:
            sides.append((self.predicted.device, self.measured.device))
        return max(_short(predicted, measured) for predicted, measured in sides)


class _Document(msgspec.Struct):
    residuals: list[Residual] = []


def margin(residuals: Sequence[Residual], *, machine: str = "", model: str = "") -> int:
    """Bytes to keep free when ``model`` is planned on ``machine``; never below the worst residual that speaks for them.

    Three standard deviations above the mean of what predictions were short of, and the worst that was seen. Of few
    loads little is known: until there are five of this model, other models of this machine are counted too, and the
    first margin is given up step by step.
    """
    here = [one for one in residuals if one.machine == machine or not machine]
    own = [one.short for one in here if one.model == model or not model]
    known = own if len(own) >= _ENOUGH else [one.short for one in here]
    if not known:
        return FIRST_MARGIN
    spread = statistics.pstdev(known) if len(known) > 1 else 0.0
    learned = int(statistics.fmean(known) + _SPREADS * spread)
    unsure = FIRST_MARGIN * max(_ENOUGH - len(known), 0) // _ENOUGH
    worst = max([*known, *own])
    return max(learned, worst, unsure, LEAST_MARGIN)


def path_of_file() -> Path:
    return locations.state_dir() / "local_loads.json"


def read(path: Path | None = None) -> list[Residual]:
    """The stored residuals, the oldest first; none when there is no file.

    Raises:
        StateError: the file cannot be read, or holds something else. It is not taken for an empty one.
    """
    file = path or path_of_file()
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StateError(f"{file} cannot be read: {error.strerror or error}") from error
    try:
        return msgspec.json.decode(content, type=_Document).residuals
    except msgspec.MsgspecError as error:
        raise StateError(
            f"{file} does not hold the loads of local models: {error}; move it away to start anew"
        ) from error


def store(residual: Residual, path: Path | None = None) -> None:
    """Adds one; safe between processes, never seen half written, bounded.

    Raises:
        StateError: the file cannot be read or written.
    """
    file = path or path_of_file()
    try:
        with state_file.locked(file):
            document = _Document(_bounded([*read(file), residual]))
            state_file.replace(file, msgspec.json.encode(document))
    except OSError as error:
        raise StateError(f"{file} cannot be written: {error.strerror or error}") from error


def compared(predicted: Memory, measured: Memory) -> tuple[Memory, Memory]:
    """Both without the parts that were not measured: llama.cpp tells of its buffers, not of the process around them."""
    return (
        Memory(device=_told(predicted.device, measured.device), host=_told(predicted.host, measured.host)),
        measured,
    )


def _told(predicted: MemoryUse, measured: MemoryUse) -> MemoryUse:
    names = MemoryUse.__struct_fields__
    return MemoryUse(**{name: getattr(predicted, name) if getattr(measured, name) else 0 for name in names})


def _short(predicted: MemoryUse, measured: MemoryUse) -> int:
    return measured.total - predicted.total


def _bounded(residuals: Iterable[Residual]) -> list[Residual]:
    """The worst of each model whatever its age, and the newest of each and of all, in order of age."""
    by_model: dict[tuple[str, str], list[Residual]] = {}
    for one in sorted(residuals, key=lambda one: one.at):
        by_model.setdefault((one.machine, one.model), []).append(one)
    worst = [max(several, key=lambda one: one.short) for several in by_model.values()]
    worst = sorted(worst, key=lambda one: one.at)[-_MOST:]
    rest = [one for several in by_model.values() for one in several[-_MOST_OF_ONE:] if one not in worst]
    surplus = max(len(worst) + len(rest) - _MOST, 0)
    newest = sorted(rest, key=lambda one: one.at)[surplus:]
    return sorted([*worst, *newest], key=lambda one: one.at)
