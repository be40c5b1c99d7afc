"""The memory of local models as a stacked bar: weights, cache, compute, others, what is free and what stays free.

Pure functions of the house. All figures are bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from rich.cells import cell_len

from hybridd.i18n import N_, _, ngettext
from tui.house import House, Resident
from tui.text import RICH, Glyphs, Line, fit, parts, size_of, spark

SideName = Literal["device", "host"]


class Part(NamedTuple):
    """A stretch of the bar (its name to be translated), with its sign, the sign in ASCII and its style."""

    name: str
    size: int
    sign: str
    plain: str
    style: str


@dataclass(frozen=True, slots=True)
class Side:
    """The memory of one GPU, or of the machine. ``others``: used by anything but local models. ``budget``: what local
    models may take, as the last plan had it; None: no plan has said."""

    title: str
    total: int
    weights: int
    kv: int
    compute: int
    others: int
    budget: int | None

    @property
    def models(self) -> int:
        return self.weights + self.kv + self.compute

    def stack(self) -> list[Part]:
        """From the left; the last is kept free of models, and the sum is :attr:`total`."""
        left = max(0, self.total - self.models - self.others)
        free = left if self.budget is None else max(0, min(left, self.budget - self.models))
        return [
            Part(N_("weights"), self.weights, "▓", "#", "accent"),
            Part(N_("KV"), self.kv, "▒", "=", "accent"),
            Part(N_("compute"), self.compute, "▞", "+", "accent"),
            Part(N_("others"), self.others, "█", "%", "dim"),
            Part(N_("free"), free, "─", "-", "dim"),
            Part(N_("kept free"), left - free, "░", ".", "dim"),
        ]


def use_of(resident: Resident, side: SideName) -> dict[str, int]:
    """What a loaded model takes on one side, by part."""
    found = resident.memory.get(side)
    return {name: int(value) for name, value in found.items()} if isinstance(found, dict) else {}


def total_of(resident: Resident) -> int:
    """On both sides."""
    return sum(use_of(resident, "device").values()) + sum(use_of(resident, "host").values())


def _three(residents: Iterable[Resident], side: SideName) -> tuple[int, int, int]:
    weights = kv = compute = 0
    for one in residents:
        use = use_of(one, side)
        own, cache = use.get("weights", 0), use.get("kv", 0) + use.get("recurrent", 0)
        weights, kv, compute = weights + own, kv + cache, compute + sum(use.values()) - own - cache
    return weights, kv, compute


def _budget(residents: list[Resident], side: SideName, alone: Mapping[str, int]) -> int | None:
    """The newest plan of this side was made beside the models that were loaded before it: together that is the
    budget of all of them. While nothing is loaded, that of any plan."""
    target = "gpu" if side == "device" else "cpu"
    planned = [one for one in residents if one.plan and one.plan.get("target") == target]
    if not planned:
        return alone.get(target) if not residents else None
    newest = max(planned, key=lambda one: one.since)
    before = sum(sum(use_of(one, side).values()) for one in residents if one is not newest)
    return before + int((newest.plan or {}).get("budget") or 0)


def sides(house: House, alone: Mapping[str, int] | None = None) -> list[Side]:
    """Each GPU that llama.cpp can use, then the machine's memory. ``alone``: the budgets of plans (by their target,
    ``gpu`` or ``cpu``) that were made while nothing was loaded."""
    alone = alone or {}
    residents = list(house.local.values())
    made: list[Side] = []
    for index, gpu in enumerate(_gpus(house)):
        here = [one for one in residents if int((one.options or {}).get("gpu") or 0) == gpu["index"]]
        weights, kv, compute = _three(here, "device")
        others = max(0, gpu["total"] - gpu["free"] - weights - kv - compute)
        made.append(Side(f"GPU {index}" if index else "VRAM", gpu["total"], weights, kv, compute, others,
                         _budget(here, "device", alone if not index else {})))  # fmt: skip
    total, available = _ram(house)
    if total:
        weights, kv, compute = _three(residents, "host")
        # Weights are mapped from their file: the kernel counts those pages as available.
        others = max(0, total - available - kv - compute)
        made.append(Side("RAM", total, weights, kv, compute, others, _budget(residents, "host", alone)))
    return made


def _gpus(house: House) -> list[dict[str, Any]]:
    """With the newest figures there are: those of the host's samples, where they are of the same GPU."""
    usable = house.machine.get("gpus") or []
    sampled = {gpu.name: gpu for gpu in house.host.gpus}
    made = []
    for index, gpu in enumerate(usable):
        live = sampled.get(gpu["name"]) if len(sampled) == len(house.host.gpus) else None
        free = live.memory_free if live is not None and live.memory_total == gpu["total"] else gpu["free"]
        made.append({"index": live.index if live is not None else index, "total": gpu["total"], "free": free})
    return made


def _ram(house: House) -> tuple[int, int]:
    total, available = int(house.machine.get("ram_total") or 0), int(house.machine.get("ram_available") or 0)
    host = house.host
    if host.memory_total == total and host.memory_available is not None:  # no control group gives less
        available = host.memory_available
    return total, available


# ---- drawing -------------------------------------------------------------------------------------------------------


def bar_line(side: Side, width: int, signs: Glyphs) -> Line:
    """``RAM  ▓▓▓▒▞████────░░  3.1 of 12.0 GiB``"""
    whole = side.budget if side.budget is not None else side.total
    form = _("{used} of {whole} budget") if side.budget is not None and width >= 78 else _("{used} of {whole}")
    told = form.format(used=size_of(side.models), whole=size_of(whole))
    stack = side.stack()
    cells = max(4, width - 7 - max(16, len(told)) - 2)
    counts = parts([part.size for part in stack], max(side.total, 1), cells)
    if not stack[-1].size and counts[-1]:  # what rounding left over belongs to what is free
        counts[-2], counts[-1] = counts[-2] + counts[-1], 0
    drawn: Line = [
        ((part.sign if signs is RICH else part.plain) * number, part.style)
        for part, number in zip(stack, counts, strict=True)
        if number
    ]
    return [(fit(f" {side.title}", 7), "bold"), *drawn, (f"  {told}", "")]


def legend_lines(side: Side, width: int, signs: Glyphs) -> list[Line]:
    """Every part that is there, in as many lines as it takes."""
    lines: list[Line] = [[(" ", "")]]
    used = 1
    for part in side.stack():
        if not part.size and part.name not in {"weights", "free"}:
            continue
        sign = part.sign if signs is RICH else part.plain
        text = f" {_(part.name)} {size_of(part.size)}"
        taken = cell_len(sign + text) + 2
        if used + taken - 2 > width and used > 1:
            lines.append([(" ", "")])
            used = 1
        lines[-1] += [(sign, part.style), (f"{text}  ", "dim")]
        used += taken
    return lines


def speed_line(house: House, width: int, signs: Glyphs) -> Line:
    """Tokens per second of all local models together, and how many are loaded."""
    cells = 0 if width < 72 else 24 if width < 120 else 60
    speed = speed_now(house)
    graph: Line = []
    if cells:
        speeds = house.rates.local_speeds(house.now, cells)
        speeds[-1] = max(speeds[-1], speed)
        graph = [(spark(speeds, signs), "accent"), (" ", "")]
    ready = sum(one.state in {"ready", "draining"} for one in house.local.values())
    loading = len(house.local) - ready
    calls = sum(one.in_flight for one in house.local.values())
    told = "   " + loaded_text(ready)
    told += ", " + _("{count} loading").format(count=loading) if loading else ""
    told += "   " + calls_text(calls)
    return [(fit(" tok/s", 7), "bold"), *graph, (fit(f"{speed:,.1f}", 9, "right"), ""), (told, "dim")]


def speed_now(house: House) -> float:
    """What the workers said last while they answer, or what was written in the last seconds; whichever is more: a
    worker tells of an answer before it has ended, but not of one that was short."""
    said = sum(one.tokens_per_second or 0.0 for one in house.local.values() if one.in_flight)
    return max(said, house.rates.local_tokens(house.now))


def loaded_text(count: int) -> str:
    """``2 loaded``"""
    return ngettext("{count} loaded", "{count} loaded", count).format(count=count)


def calls_text(calls: int) -> str:
    """``2 calls in flight``"""
    return ngettext("{count} call in flight", "{count} calls in flight", calls).format(count=calls)
