"""What loads take beside what is planned, over the architectures of the zoo.

``python -m scripts.bench_parts.local_memory`` prints the tables of docs/local-memory.md.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from hybridd.local.facts import ModelFacts, facts_of
from hybridd.local.gguf import open_model
from hybridd.local.memory import estimate
from hybridd.local.residuals import FIRST_MARGIN, compared
from hybridd.local.types import LoadOptions, MemoryUse
from scripts.bench_parts import report
from scripts.bench_parts.house import House
from tests.fakes.model_zoo import KINDS, Zoo
from tests.local import offload_sizes
from tests.local.load_child import Load, load_all

MIB = 2**20
SCALE = {"width": 512, "layers": 16, "feed_forward": 1536, "vocabulary": 32768, "weights": "q8_0"}
QUICK = offload_sizes.SCALE
WAYS = {
    "4k": LoadOptions(context=4096, outputs=8),
    "4 × 2k, q8_0": LoadOptions(
        context=8192, sequences=4, unified=False, type_k="q8_0", type_v="q8_0", micro_batch=256
    ),
    "2k, no flash attention": LoadOptions(context=2048, flash_attention=False),
}
_PERCENT, _MIB = 3, 32
_PARTS = ("weights", "kv", "recurrent", "compute")


class Row(msgspec.Struct, frozen=True):
    """One load; bytes on one side."""

    kind: str
    way: str
    predicted: MemoryUse
    measured: MemoryUse

    @property
    def error(self) -> int:
        return self.predicted.total - self.measured.total

    @property
    def allowed(self) -> float:
        return max(_PERCENT / 100 * self.measured.total, _MIB * MIB)


async def figures(house: House) -> list[report.Figure]:
    """The plan's error over all architectures, loaded in real llama.cpp, against 3 % or 32 MiB."""
    folder = house.scratch.path / "zoo"
    folder.mkdir(exist_ok=True)
    return lines(await asyncio.to_thread(rows, folder, QUICK if house.quick else SCALE))


def lines(found: Sequence[Row]) -> list[report.Figure]:
    """The rows as figures."""
    group = f"plan against load, {len({row.kind for row in found})} architectures, {len(found)} loads"
    worst = max(found, key=lambda row: abs(row.error) / row.allowed)
    short = max(found, key=lambda row: -row.error)
    buffers = [_off(row.predicted.compute, row.measured.compute) for row in found]
    exact = sum(error < 0.01 for error in buffers) / len(buffers)
    how = f"{worst.kind}, {worst.way}: {worst.error / MIB:+.2f} MiB of {worst.measured.total / MIB:.0f} MiB"
    share = 100 * abs(worst.error) / worst.allowed
    return [
        report.at_most(group, "worst error, of 3 % or 32 MiB", share, 100, "%", detail=how),
        report.at_most(group, "short at worst", max(-short.error, 0) / MIB, FIRST_MARGIN / MIB, "MiB",
                       detail="the limit is the first margin"),
        report.context(group, "compute buffers right to 1 %", 100 * exact, "%", f"worst {100 * max(buffers):.1f} %"),
    ]  # fmt: skip


def rows(folder: Path, scale: dict[str, object] | None = None) -> list[Row]:
    """Loads every architecture in every way, in a child process. Blocks for some seconds."""
    zoo = Zoo(folder)
    jobs = []
    for kind in KINDS:
        one = _facts(zoo.path(kind, **(scale or SCALE)))
        for way, options in WAYS.items():
            asked = replace(options, batch=512, type_k="f16", type_v="f16") if one.kind == "embedding" else options
            jobs.append((kind, way, one, asked))
    answers = load_all([Load(one.path, options) for _, _, one, options in jobs], seconds=300)
    found = []
    for (kind, way, one, options), answer in zip(jobs, answers, strict=True):
        predicted = estimate(one, options)
        if one.kind == "embedding":  # its results get their place with the first text
            predicted = replace(predicted, host=replace(predicted.host, output=answer.measured.host.output))
        told, measured = compared(predicted, answer.memory())
        found.append(Row(kind, way, told.host, measured.host))
    return found


def offloaded(folder: Path) -> list[Row]:
    """Compute buffers on a GPU against dry runs of llama.cpp with a stand-in for one, as recorded. Caches and states
    are exact and left out."""
    zoo = Zoo(folder)
    found = []
    for recorded in offload_sizes.recorded():
        one = _facts(zoo.path(recorded.kind, **offload_sizes.SCALE))
        way = {one.offloadable: "all layers", len(one.layers): "all but one"}.get(recorded.options.gpu_layers, "half")
        predicted = MemoryUse(compute=estimate(one, recorded.options).device.compute)
        found.append(Row(recorded.kind, way, predicted, MemoryUse(compute=recorded.device.compute)))
    return found


def table(found: Sequence[Row]) -> str:
    """Markdown: MiB predicted and measured by part, and the error of the whole."""
    head = "| architecture | load | weights | KV cache | state | compute | all | error |\n|" + "---|" * 8 + "\n"
    return head + "".join(_line(row) for row in found)


def summary(found: Sequence[Row]) -> str:
    """Markdown: for each architecture and share of layers the worst error of a GPU's compute buffer."""
    ways = list(dict.fromkeys(row.way for row in found))
    lines = [f"| architecture | {' | '.join(ways)} |\n|" + "---|" * (len(ways) + 1) + "\n"]
    for kind in dict.fromkeys(row.kind for row in found):
        cells = [_worst([row for row in found if (row.kind, row.way) == (kind, way)]) for way in ways]
        lines.append(f"| {kind} | {' | '.join(cells)} |\n")
    return "".join(lines)


def _worst(found: Sequence[Row]) -> str:
    row = max(found, key=lambda row: abs(row.error))
    return f"{row.error / MIB:+.2f} MiB of {row.measured.compute / MIB:.1f}"


def _line(row: Row) -> str:
    parts = " | ".join(_pair(getattr(row.predicted, part), getattr(row.measured, part)) for part in _PARTS)
    whole = _pair(row.predicted.total, row.measured.total)
    return f"| {row.kind} | {row.way} | {parts} | {whole} | {row.error / MIB:+.2f} MiB |\n"


def _pair(predicted: int, measured: int) -> str:
    """One number when both are the same to the rounding of llama.cpp's log."""
    ours, theirs = f"{predicted / MIB:.1f}", f"{measured / MIB:.1f}"
    return ours if ours == theirs else f"{ours} / {theirs}"


def _off(predicted: int, measured: int) -> float:
    return abs(predicted / measured - 1) if measured else 0.0


def _facts(path: Path) -> ModelFacts:
    return facts_of(open_model(path), path.stem, str(path))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(table(rows(Path(folder))) + "\n" + summary(offloaded(Path(folder))))


if __name__ == "__main__":
    main()
