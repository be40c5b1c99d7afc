"""A plan as rows, figures and bars: plain data and text for the command line and for screens. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from hybridd.contracts.units import size
from hybridd.local.facts import ModelFacts
from hybridd.local.gpus import Gpu
from hybridd.local.machine import MachineFacts
from hybridd.local.plan_reasons import blocks_on_gpu
from hybridd.local.plan_space import cached
from hybridd.local.types import Fit, LoadOptions, MemoryUse, Plan

_FIT = {"gpu": "on the GPU", "partly": "partly on the GPU", "memory": "in memory", "no": "does not fit"}
# Part of a bar → its sign, and the one for terminals that show ASCII only. One column each, on every terminal.
_SIGNS: dict[str, tuple[str, str]] = {
    "in use": ("█", "#"),
    "weights": ("▓", "W"),
    "KV cache": ("▒", "K"),
    "state": (":", "S"),
    "compute": ("=", "C"),
    "runtime": ("+", "R"),
    "other parts": ("~", "P"),
    "kept free": ("-", "-"),
    "free": ("░", "."),
}


class Part(NamedTuple):
    """A stretch of a bar. Bytes."""

    name: str
    size: int


class Bar(NamedTuple):
    """What goes where on one side; ``total`` is the sum of the parts, in bytes. ``missing``: bytes that do not fit."""

    title: str
    total: int
    parts: tuple[Part, ...]
    missing: int = 0


def fit(plan: Plan) -> Fit:
    """How well it fits: all layers on the GPU, some of them, none, or not at all."""
    if plan.options is None:
        return "no"
    if plan.target == "cpu":
        return "memory"
    return "gpu" if plan.options.gpu_layers > plan.layers else "partly"


def fit_text(plan: Plan) -> str:
    return _FIT[fit(plan)]


def rows(plan: Plan, facts: ModelFacts) -> list[tuple[str, str]]:
    """What the plan is, as (what, text) pairs."""
    described = [part for part in (facts.architecture, facts.quantization, size(facts.bytes)) if part]
    found = [("Model", facts.id), ("", ", ".join(described)), ("Goal", plan.goal)]
    options = plan.options
    if options is None:
        return [*found, ("Result", "it does not fit")]
    where = plan.gpu if plan.target == "gpu" else "the processor"
    found += [
        ("Runs on", f"{where} ({fit_text(plan)})"),
        ("Layers", layers_text(plan)),
        ("Context", context_text(plan)),
        ("KV cache", _cache(options) if cached(facts) else "none"),
        ("Batch", f"{options.batch:,}, micro-batch {options.micro_batch:,}"),
        ("Threads", str(options.threads) if options.threads else "as many as the cores allow"),
    ]
    return found


def layers_text(plan: Plan) -> str:
    options = plan.options
    if options is None or plan.target == "cpu":
        return f"{plan.layers} on the processor"
    return f"{blocks_on_gpu(options)} of {plan.layers} on the GPU, and the output layer"


def context_text(plan: Plan) -> str:
    options = plan.options
    if options is None:
        return "-"
    if options.sequences == 1:
        return f"{plan.sequence_context:,} tokens"
    if plan.sequence_context * options.sequences == options.context:
        return f"{plan.sequence_context:,} tokens for each of {options.sequences} sequences"
    return f"{options.context:,} tokens, shared by up to {options.sequences} sequences"


def memory_rows(plan: Plan) -> list[tuple[str, int, int]]:
    """(part, bytes on the GPU, bytes on the host), without the parts that there are not; the last row is the sum."""
    device, host = plan.memory.device, plan.memory.host
    found = [
        (name, left, right)
        for (name, left), (_, right) in zip(_parts(device), _parts(host), strict=True)
        if left or right
    ]
    return [*found, ("total", device.total, host.total)]


def bars(plan: Plan, machine: MachineFacts) -> list[Bar]:
    """The GPU's bar, where the plan uses one, and the memory's."""
    found = []
    gpu = _gpu(plan, machine)
    if gpu is not None:
        kept = max(0, gpu.free - max(0, plan.budget - plan.margin))
        found.append(_bar(plan.gpu, gpu.total, gpu.total - gpu.free, plan.memory.device, kept))
    if gpu is None or not gpu.unified:
        used = machine.ram_total - machine.ram_available
        kept = max(0, machine.ram_available - plan.budget + plan.margin) if plan.target == "cpu" else 0
        found.append(_bar("Memory", machine.ram_total, used, plan.memory.host, kept))
    return found


def draw(bar: Bar, cells: int, *, rich: bool) -> str:
    """The bar in ``cells`` columns. A part that is there shows at least one, as long as there are columns for it."""
    counts = [0 if part.size <= 0 else max(1, round(part.size / max(bar.total, 1) * cells)) for part in bar.parts]
    while sum(counts) > cells:
        counts[counts.index(max(counts))] -= 1
    if 0 < sum(counts) < cells:
        counts[counts.index(max(counts))] += cells - sum(counts)
    column = 0 if rich else 1
    return "".join(_SIGNS[part.name][column] * count for part, count in zip(bar.parts, counts, strict=True))


def legend(bar: Bar, *, rich: bool) -> list[str]:
    """``▓ weights 2,497 MiB`` for each part that is there."""
    column = 0 if rich else 1
    return [f"{_SIGNS[part.name][column]} {part.name} {size(part.size)}" for part in bar.parts if part.size > 0]


def as_data(plan: Plan, facts: ModelFacts | None, machine: MachineFacts) -> dict[str, Any]:
    """Everything, for ``--json`` and the API. Bytes."""
    data: dict[str, Any] = msgspec.to_builtins(plan)
    data["fit"] = fit(plan)
    data["totals"] = {"device": plan.memory.device.total, "host": plan.memory.host.total}
    data["bars"] = [
        {"title": bar.title, "total": bar.total, "missing": bar.missing, "parts": dict(bar.parts)}
        for bar in bars(plan, machine)
    ]
    if facts is not None:
        data["facts"] = _facts(facts)
    data["machine"] = msgspec.to_builtins(machine)
    return data


def _facts(facts: ModelFacts) -> Mapping[str, Any]:
    return {
        "id": facts.id, "path": facts.path, "files": list(facts.files), "bytes": facts.bytes, "name": facts.name,
        "architecture": facts.architecture, "quantization": facts.quantization, "kind": facts.kind,
        "parameters": facts.parameters, "trained_context": facts.trained_context, "layers": len(facts.layers),
    }  # fmt: skip


def _gpu(plan: Plan, machine: MachineFacts) -> Gpu | None:
    if plan.target != "gpu":
        return None
    if plan.options is None:
        return next((one for one in machine.gpus if one.name == plan.gpu), None)
    return next((one for one in machine.gpus if one.index == plan.options.gpu), None)


def _bar(title: str, total: int, used: int, use: MemoryUse, kept: int) -> Bar:
    free = total - used - use.total
    missing = max(0, -free)
    free = max(0, free)
    kept = min(kept, free)
    parts = [Part("in use", used), *(Part(*part) for part in _parts(use)), Part("kept free", kept)]
    parts.append(Part("free", free - kept))
    return Bar(title, sum(part.size for part in parts), tuple(parts), missing)


def _parts(use: MemoryUse) -> list[tuple[str, int]]:
    return [
        ("weights", use.weights),
        ("KV cache", use.kv),
        ("state", use.recurrent),
        ("compute", use.compute + use.output),
        ("runtime", use.runtime),
        ("other parts", use.projector + use.draft),
    ]


def _cache(options: LoadOptions) -> str:
    attention = "on" if options.flash_attention else "off"
    return f"{options.type_k} (keys) and {options.type_v} (values), flash attention {attention}"
