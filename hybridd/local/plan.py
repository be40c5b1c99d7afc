"""The best feasible way to load a model: a pure function of the model's facts, the machine's and the wish.

What a plan may take on a GPU is the smaller of two: what ``vram_limit`` leaves beside the models that stay, and what is
really free (the desktop's and other programs' use is not) together with what a model that will be replaced gives back;
of either, the learned margin stays free. On the host it is the available memory less a reserve. A plan never takes
more, and more memory never makes it worse (:func:`quality_key`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from hybridd.errors import InvalidRequest
from hybridd.local import plan_reasons as reasons
from hybridd.local.facts import ModelFacts
from hybridd.local.gpus import Gpu
from hybridd.local.machine import MachineFacts
from hybridd.local.memory import estimate
from hybridd.local.plan_estimate import Estimator
from hybridd.local.plan_search import Found, Room, Search, Shortage
from hybridd.local.plan_space import MAX_SEQUENCES, Request, Space, Step, block_count, space, steps
from hybridd.local.types import Alternative, Memory, Plan, Target

__all__ = ["Request", "check", "plan", "quality_key", "ram_budget"]

_STEP = 1 << 20
_RESERVE_SHARE = 16
_RESERVE_LEAST = 256 << 20
_RESERVE_MOST = 2 << 30


class Site(Struct, frozen=True):
    """A place to load on. ``budget``: bytes on the target's side before the margin."""

    target: Target
    budget: int
    room: Room
    space: Space
    gpu: Gpu | None = None


def ram_budget(machine: MachineFacts) -> int:
    """Bytes of memory that models may take: what is available, less a sixteenth of the machine (256 MiB … 2 GiB), so
    that the programs beside us are not swapped out."""
    reserve = min(max(machine.ram_total // _RESERVE_SHARE, _RESERVE_LEAST), _RESERVE_MOST)
    return max(0, machine.ram_available - reserve)


def plan(
    facts: ModelFacts, machine: MachineFacts, request: Request | None = None, *, margin: int = 0,
    replaced: int | Mapping[int, int] = 0,
) -> Plan:  # fmt: skip
    """The best plan for the request's goal; ``options`` is None when nothing fits, with the reasons.

    Args:
        margin: bytes to keep free on the target's side, learned from earlier loads.
        replaced: bytes that the models to be replaced give back, by the index of their GPU; a number: on the GPU
            (``request.gpu``, or the first) where there is one, in memory otherwise.

    Raises:
        InvalidRequest: a wish below 1.
    """
    request = request or Request()
    check(request)
    if facts.kind not in {"text", "embedding"} or not facts.layers:
        return _nothing(facts, request, [reasons.no_model(facts)], Memory())
    sites = _sites(facts, machine, request, margin, replaced)
    order = steps(request.goal, block_count(facts))
    quick = Estimator(facts)
    outcomes = [(site, _search(facts, site, order, quick)) for site in sites]
    found = [
        _plan(facts, machine, request, site, outcome, margin)
        for site, outcome in outcomes
        if isinstance(outcome, Found)
    ]
    if not found:
        return _does_not_fit(facts, machine, request, outcomes, margin, replaced)
    best = max(found, key=quality_key)  # the first of equals: GPUs by free memory, then the processor
    others = [reasons.other(one, best, facts) for one in found if one is not best]
    short = [
        Alternative(outcome.options, reasons.too_large(outcome, site.gpu), outcome.needs)
        for site, outcome in outcomes
        if isinstance(outcome, Shortage)
    ]
    return replace(best, rejected=[*best.rejected, *others, *short])


def quality_key(plan: Plan) -> tuple[int, ...]:
    """Plans for the same model and request compare by it: a higher one is better for the goal."""
    options = plan.options
    if options is None:
        return (0,)
    values = {
        "layers": options.gpu_layers,
        "context": plan.sequence_context,
        "kv": (options.type_k, options.type_v).count("f16"),
        "micro_batch": options.micro_batch,
        "sequences": options.sequences,
    }
    return (1, *(step.worth(values[step.dimension]) for step in steps(plan.goal, plan.layers)))


def check(request: Request) -> None:
    """Raises InvalidRequest: a wish that no model could ever be loaded with."""
    for name in ("context", "parallel", "micro_batch"):
        value = getattr(request, name)
        if value is not None and value < 1:
            raise InvalidRequest(f"{name} is {value}; it must be at least 1.", param=name)
    if request.parallel is not None and request.parallel > MAX_SEQUENCES:
        raise InvalidRequest(
            f"parallel is {request.parallel}; llama.cpp answers {MAX_SEQUENCES} requests at the same time at most.",
            param="parallel",
        )


def _sites(
    facts: ModelFacts, machine: MachineFacts, request: Request, margin: int, replaced: int | Mapping[int, int]
) -> list[Site]:
    """Usable GPUs, the freest first, then the processor."""
    gpus = [gpu for gpu in usable_gpus(machine) if request.gpu in {None, gpu.index}]
    threads = machine.physical_cores
    ram = ram_budget(machine) if request.ram_limit is None else min(ram_budget(machine), request.ram_limit)
    found = []
    first = request.gpu if request.gpu is not None else machine.gpus[0].index if gpus else 0
    returned = {first: replaced} if isinstance(replaced, int) else replaced
    for gpu in gpus:
        back = returned.get(gpu.index, 0)
        budget = min(gpu.total, gpu.free + back)
        if request.vram_limit is not None:
            budget = min(budget, request.vram_limit - request.reserved)
        budget = max(0, budget)
        together = ram + back - margin if gpu.unified else None
        room = Room(device=budget - margin, host=ram, together=together)
        found.append(Site("gpu", budget, room, space(facts, request, gpu=gpu.index, threads=threads), gpu))
    found.sort(key=lambda site: -site.budget)
    if request.allow_cpu or not found:
        ram += 0 if gpus else sum(returned.values())
        alone = space(facts, request, gpu=None, threads=threads)
        found.append(Site("cpu", ram, Room(device=None, host=ram - margin), alone))
    return found


def usable_gpus(machine: MachineFacts) -> tuple[Gpu, ...]:
    """Those that the installed llama.cpp can use. Before it is installed: all, the plan says so."""
    return () if machine.offload is False else machine.gpus


def _search(facts: ModelFacts, site: Site, order: Sequence[Step], quick: Estimator) -> Found | Shortage:
    """The best choice that also fits by the whole estimate; should the quick one have been too low, with less room."""
    room, step = site.room, _STEP
    while True:
        found = Search(site.space, room, quick).best(order)
        if isinstance(found, Shortage):
            return found
        whole = estimate(facts, found.options)
        if site.room.holds(whole):
            return replace(found, memory=whole)
        over = max(whole.device.total - found.memory.device.total, whole.host.total - found.memory.host.total)
        room, step = room.less(max(over, step)), 2 * step


def _plan(facts: ModelFacts, machine: MachineFacts, request: Request, site: Site, found: Found, margin: int) -> Plan:
    plan = Plan(
        model=facts.id,
        goal=request.goal,
        target=site.target,
        options=found.options,
        memory=found.memory,
        layers=block_count(facts),
        budget=site.budget,
        margin=margin,
        gpu=site.gpu.name if site.gpu else "",
        gpu_uuid=site.gpu.uuid if site.gpu else "",
        sequence_context=site.space.context[found.choice.context],
    )
    said = reasons.chosen(plan, facts, machine, request, site.gpu, site.space, found)
    return replace(plan, reasons=said, rejected=reasons.rejected(found, facts))


def _does_not_fit(
    facts: ModelFacts,
    machine: MachineFacts,
    request: Request,
    outcomes: list[tuple[Site, Found | Shortage]],
    margin: int,
    replaced: int | Mapping[int, int],
) -> Plan:
    """Why not, and what would fit if a hard wish were dropped."""
    said = []
    least: Shortage | None = None
    for site, outcome in outcomes:
        assert isinstance(outcome, Shortage)
        said.append(reasons.too_large(outcome, site.gpu))
        least = outcome if least is None or outcome.over < least.over else least
    for wish in ("context", "parallel"):
        if getattr(request, wish) is not None:
            without = replace(request, **{wish: None}, goal="context" if wish == "context" else request.goal)
            eased = plan(facts, machine, without, margin=margin, replaced=replaced)
            said.append(reasons.would_fit(eased, wish, getattr(request, wish)))
    said += reasons.circumstances(facts, machine, request)
    memory = estimate(facts, least.options) if least else Memory()
    result = _nothing(facts, request, said, memory)
    site = outcomes[0][0]
    return replace(
        result, target=site.target, budget=site.budget, margin=margin, gpu=site.gpu.name if site.gpu else "",
        rejected=[Alternative(o.options, reasons.too_large(o, s.gpu), o.needs) for s, o in outcomes
                  if isinstance(o, Shortage)],
    )  # fmt: skip


def _nothing(facts: ModelFacts, request: Request, said: list[str], memory: Memory) -> Plan:
    return Plan(
        model=facts.id, goal=request.goal, target="cpu", options=None, memory=memory, layers=block_count(facts),
        budget=0, margin=0, reasons=said,
    )  # fmt: skip
