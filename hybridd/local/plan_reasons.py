"""Why a plan is what it is, in sentences with figures. Nothing is decided here."""

from __future__ import annotations

import re

from hybridd.contracts.units import size
from hybridd.local.facts import ModelFacts
from hybridd.local.gpus import Gpu
from hybridd.local.machine import MachineFacts
from hybridd.local.plan_search import Blocked, Found, Shortage
from hybridd.local.plan_space import WANTED, Request, Space, block_count, cached, trained, whole_batch
from hybridd.local.types import Alternative, LoadOptions, Plan

_GTX_16 = re.compile(r"\bGTX 16\d\d\b")
_USERS_SHOWN = 3


def chosen(
    plan: Plan, facts: ModelFacts, machine: MachineFacts, request: Request, gpu: Gpu | None, space: Space, found: Found
) -> list[str]:
    """The reasons of a plan that fits."""
    options = found.options
    blocked = {one.dimension: one.shortage for one in found.blocked}
    said = [_layers(options, plan.layers, gpu, blocked.get("layers"))]
    if gpu is not None and len(machine.gpus) > 1:
        which = f"{gpu.name} (number {gpu.index}), with {size(gpu.free)} free"
        said.append(f"Of {len(machine.gpus)} GPUs it is loaded on {which}; its process sees no other.")
    said.append(_context(plan, facts, request, space, blocked.get("context")))
    if cached(facts):
        said.append(_cache(options, space, request, blocked.get("kv")))
    if not whole_batch(facts) and "micro_batch" in blocked:
        short = blocked["micro_batch"]
        said.append(
            f"Micro-batch of {options.micro_batch}: {short.options.micro_batch} would need {size(short.over)} more; "
            f"prompts are read more slowly."
        )
    return said + _gpu_notes(gpu, options) + circumstances(facts, machine, request)


def circumstances(facts: ModelFacts, machine: MachineFacts, request: Request) -> list[str]:
    """What about the machine has shaped the plan, or would change it."""
    said = []
    if machine.offload is False and (machine.gpus or request.gpu is not None):
        said.append("The installed llama.cpp was built without GPU support, so the GPU is not used.")
    elif not machine.gpus:
        said.append(f"No GPU is used: {machine.gpu_reason or 'there is none'}.")
    elif machine.offload is None:
        said.append("llama-cpp-python is not installed; planned as if it were built for the GPU.")
    for gpu in machine.gpus if machine.offload is not False else ():
        said += _use(gpu)
    if request.vram_limit is not None and machine.offload is not False:
        left = request.vram_limit - request.reserved
        if any(gpu.free > left for gpu in machine.gpus):
            held = f", {size(request.reserved)} of it held by other models" if request.reserved else ""
            said.append(f"vram_limit_mb allows {size(request.vram_limit)}{held}; the GPU has more free.")
    if request.ram_limit is not None:
        said.append(f"ram_limit_mb allows {size(request.ram_limit)} of memory.")
    if machine.ram_reason:
        said.append(f"Memory: {machine.ram_reason}.")
    return said


def rejected(found: Found, facts: ModelFacts) -> list[Alternative]:
    """The next better value in each dimension, and what it lacks."""
    return [
        Alternative(one.shortage.options, _lacks(one, block_count(facts)), one.shortage.needs) for one in found.blocked
    ]


def other(plan: Plan, best: Plan, facts: ModelFacts) -> Alternative:
    """A plan for another place that fits but is not as good."""
    assert plan.options is not None, "only plans that fit are compared"
    if plan.target == "cpu":
        reason = "On the processor alone: it fits into memory, but is slower."
    else:
        reason = (
            f"On {plan.gpu}: {_count(plan.options, block_count(facts))}, context "
            f"{plan.sequence_context:,}; not better than on {best.gpu or 'the processor'}."
        )
    use = plan.memory.host if plan.target == "cpu" else plan.memory.device
    return Alternative(plan.options, reason, use.total)


def no_model(facts: ModelFacts) -> str:
    if facts.kind == "projector":
        return "This is a projector for images or sound: it is loaded beside its model, not by itself."
    return f"Files of architecture {facts.architecture or '?'!r} hold no model that can answer."


def too_large(short: Shortage, gpu: Gpu | None) -> str:
    """The least it takes on a site, and what is missing."""
    options = short.options
    what = f"context {options.context:,}"
    if options.sequences > 1:
        what += f" for {options.sequences} sequences"
    if gpu is None:
        place, least = "In memory", f"{what} needs {size(short.needs)}"
    else:
        place = f"On {gpu.name}"
        side = "of its memory" if short.side == "gpu" else "of the host's memory"
        layers = "the output layer alone" if options.gpu_layers == 1 else f"{options.gpu_layers} layers"
        least = f"even {layers} with {what} needs {size(short.needs)} {side}"
    return f"{place}: {least}, {size(short.over)} more than there is."


def would_fit(eased: Plan, wish: str, value: int) -> str:
    """What would fit without a hard wish."""
    name = {"context": "a context", "parallel": "sequences in parallel"}[wish]
    if eased.options is None:
        return f"Without asking for {name} it would not fit either."
    if wish == "context":
        return f"Instead of {value:,} tokens, a context of {eased.sequence_context:,} would fit."
    return (
        f"Instead of {value:,} sequences in parallel, {eased.options.sequences} would fit with a context of "
        f"{eased.sequence_context:,}."
    )


def blocks_on_gpu(options: LoadOptions) -> int:
    """llama.cpp offloads the output layer first and then the last blocks: ``n_gpu_layers`` counts it as one."""
    return max(0, options.gpu_layers - 1)


def _count(options: LoadOptions, layers: int) -> str:
    blocks = blocks_on_gpu(options)
    if blocks >= layers:
        return f"all {layers} layers and the output layer"
    if blocks == 0:
        return f"only the output layer and none of {layers} layers"
    return f"{blocks} of {layers} layers and the output layer"


def _layers(options: LoadOptions, layers: int, gpu: Gpu | None, short: Shortage | None) -> str:
    if gpu is None:
        return f"All {layers} layers are computed on the processor, with {options.threads} threads."
    text = f"{_count(options, layers)} on the GPU"
    text = text[0].upper() + text[1:]
    if short is None:
        return f"{text}."
    return f"{text}: {blocks_on_gpu(short.options)} would need {size(short.over)} more {_side(short)}."


def _context(plan: Plan, facts: ModelFacts, request: Request, space: Space, short: Shortage | None) -> str:
    options = plan.options
    assert options is not None, "only of a plan that fits"
    tokens, most = plan.sequence_context, trained(facts)
    each = "" if options.sequences == 1 else f" for each of {options.sequences} sequences"
    if space.shared and options.sequences > 1:
        each = f", shared by up to {options.sequences} sequences"
    text = f"Context of {tokens:,} tokens{each}"
    if request.context is not None:
        if tokens < request.context:
            return f"{text}: the model has no positions for the {request.context:,} that were asked for."
        if tokens > most:
            return f"{text}, as asked: the model was trained for {most:,} only, answers beyond that may be poor."
        return f"{text}, as asked."
    if short is not None:
        asked = short.options.context if space.shared else short.options.context // short.options.sequences
        return f"{text}: {asked:,} would need {size(short.over)} more {_side(short)}."
    if tokens >= most:
        return f"{text}: as long as the model was trained for."
    if not cached(facts):
        return f"{text}; a longer one would take no more memory, the model's state has a fixed size."
    return f"{text}" + (f", as wanted by default; it was trained for {most:,}." if tokens >= WANTED else ".")


def _cache(options: LoadOptions, space: Space, request: Request, short: Shortage | None) -> str:
    types = options.type_k if options.type_k == options.type_v else f"{options.type_k} (K) and {options.type_v} (V)"
    attention = "with flash attention" if options.flash_attention else "without flash attention"
    text = f"KV cache in {types}, {attention}"
    if request.kv is not None:
        return f"{text}, as asked."
    if short is not None:
        return f"{text}: f16 would need {size(short.over)} more {_side(short)}."
    if len(space.kv) == 1 and not options.flash_attention:
        return f"{text}; the model's head size allows no smaller type."
    return f"{text}."


def _gpu_notes(gpu: Gpu | None, options: LoadOptions) -> list[str]:
    if gpu is None:
        return []
    said = []
    if _GTX_16.search(gpu.name):
        # Turing without tensor cores: fp16 matrix products of a wide batch can be slower than one row at a time.
        said.append(
            f"{gpu.name} has no tensor cores: batch width and flash attention should be calibrated "
            f"(hybridd models bench)."
        )
    if not options.flash_attention:
        said.append("Flash attention is off: the GPU has no kernel for this model's head size, or it was asked so.")
    if gpu.unified:
        said.append("The GPU shares the host's memory: both sides together must fit.")
    return said


def _use(gpu: Gpu) -> list[str]:
    if gpu.used_by_others <= 0:
        return []
    known = [user for user in gpu.users if user.kind != "own"]
    named = [f"{user.name or user.pid} {size(user.used)}" for user in known if user.used][:_USERS_SHOWN]
    by = f" ({', '.join(named)})" if named else ""
    desktop = sum(user.used or 0 for user in known if user.kind == "desktop")
    shown = f", {size(desktop)} of it by the desktop" if desktop else ""
    return [f"{size(gpu.used_by_others)} of {gpu.name} are in use by others{by}{shown}."]


def _side(short: Shortage) -> str:
    return "than the GPU has free" if short.side == "gpu" else "than is available in memory"


def _lacks(one: Blocked, layers: int) -> str:
    short = one.shortage
    options = short.options
    what = {
        "layers": _count(options, layers),
        "context": f"a context of {options.context:,}",
        "kv": f"a KV cache in {options.type_v}",
        "micro_batch": f"a micro-batch of {options.micro_batch}",
        "sequences": f"{options.sequences} sequences",
    }[one.dimension]
    return f"{what[0].upper()}{what[1:]} would need {size(short.over)} more {_side(short)}."
