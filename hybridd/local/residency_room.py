"""Room for one more model: the machine is looked at, a plan is made beside what is loaded, and who must leave is named.

Planning runs in a thread (it looks at the driver, and searches); the answers are plain values.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from hybridd.local import residency_policy as policy
from hybridd.local.facts import ModelFacts
from hybridd.local.gpus import Gpu
from hybridd.local.machine import MachineFacts
from hybridd.local.plan import ram_budget, usable_gpus
from hybridd.local.plan_space import Request
from hybridd.local.residency_models import Wanted
from hybridd.local.residency_ports import Ports
from hybridd.local.residency_worker import Worker
from hybridd.local.types import Memory, MemoryUse, Plan

VRAM_POLL_SECONDS = 0.05
LEAST_CONTEXT = 256


class Shrink(msgspec.Struct):
    """What earlier attempts of this load have taught: ``margin`` bytes more to keep free, at most ``context`` tokens
    for each request and ``parallel`` sequences."""

    margin: int = 0
    context: int | None = None
    parallel: int | None = None

    def take(self, how: str, plan: Plan) -> None:
        """The next attempt asks for less than ``plan`` did."""
        options = plan.options
        if options is None:
            return
        if how == "weights":
            side = plan.memory.device if plan.target == "gpu" else plan.memory.host
            self.margin += max(side.total // 8, 64 << 20)
        elif how == "kv":
            self.context = max(LEAST_CONTEXT, policy.per_sequence(options) // 2)
            self.parallel = max(1, options.sequences // 2)


class Room:
    """``look`` and ``place`` for one machine."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def look(self, workers: Sequence[Worker]) -> MachineFacts:
        own = [worker.pid for worker in workers if worker.pid is not None]
        return await asyncio.to_thread(self._ports.look, own)

    async def place(
        self, facts: ModelFacts, wanted: Wanted, shrink: Shrink, machine: MachineFacts, workers: Sequence[Worker]
    ) -> policy.Placement:
        """The plan for a model beside ``workers``, and who of them has to leave for it."""
        now = asyncio.get_running_loop().time()
        memory = {worker.model: memory_of(worker) for worker in workers}
        places = {worker.model: gpu_of(worker, machine) for worker in workers}
        residents = [
            policy.Resident(
                worker.model,
                memory[worker.model].device.total,
                now - worker.last_used,
                worker.load_seconds,
                worker.busy,
            )
            for worker in workers
        ]
        request, margin = await asyncio.to_thread(self._learned, facts, machine, request_of(wanted, shrink))
        margin += shrink.margin

        def planned(gone: Sequence[policy.Resident]) -> Plan:
            leaving = {one.model for one in gone}
            stay = [used for model, used in memory.items() if model not in leaving]
            left = [(places[model], used) for model, used in memory.items() if model in leaving]
            if wanted.max_loaded is not None and len(stay) >= wanted.max_loaded:
                reason = f"at most {wanted.max_loaded} models may be loaded at the same time (local.max_loaded)"
                return _refused(facts, request, reason)
            return self._plan(facts, machine, request, margin, stay, left, wanted.ram_limit)

        return await asyncio.to_thread(policy.place, residents, planned)

    def _learned(self, facts: ModelFacts, machine: MachineFacts, request: Request) -> tuple[Request, int]:
        """The request with what was measured to be fastest here, and the margin that earlier loads call for."""
        found = self._ports.calibrated(machine, facts)
        if found is not None:
            request = replace(request, flash_attention=found.flash_attention, micro_batch=found.micro_batch)
        return request, self._ports.margin(machine, facts)

    def _plan(
        self,
        facts: ModelFacts,
        machine: MachineFacts,
        request: Request,
        margin: int,
        stay: Sequence[Memory],
        left: Sequence[tuple[int | None, Memory]],
        ram_limit: int | None,
    ) -> Plan:
        """Weights are mapped from their file: the kernel counts those pages as available, though a model that stays
        needs them; and one that leaves gives back only what it has beside them. ``left``: with the GPU it is on."""
        private = sum(used.host.total - used.host.weights for _, used in left)
        available = machine.ram_available - sum(used.host.weights for used in stay)
        gpus = bool(usable_gpus(machine))
        back: int | dict[int, int] = private
        if gpus:
            available, back = available + private, _by_gpu(left)
        if ram_limit is not None:
            reserve = machine.ram_available - ram_budget(machine)
            here = ram_limit - sum(used.host.total for used in stay) + reserve - (0 if gpus else private)
            available = min(available, here)
        seen = replace(machine, ram_available=max(0, available))
        held = replace(request, reserved=sum(used.device.total for used in stay))
        return self._ports.plan(facts, seen, held, margin=margin, replaced=back)

    async def vram_back(self, before: MachineFacts, wanted: Mapping[int, int], timeout: float) -> bool:
        """Waits until each GPU (by its place in ``before``) has ``wanted`` bytes free: the driver gives a dead
        process's memory back a moment after its end. False: not within ``timeout`` seconds."""
        if not wanted:
            return True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            now = await self.look(())
            if all(_free(now, before.gpus[gpu], gpu) >= size for gpu, size in wanted.items()):
                return True
            if loop.time() >= deadline:
                return False
            await asyncio.sleep(VRAM_POLL_SECONDS)


def _free(now: MachineFacts, gpu: Gpu, place: int) -> int:
    """What is free now of a GPU that had this ``place`` in an earlier list; -1: it is not there."""
    same = next((one for one in now.gpus if gpu.uuid and one.uuid == gpu.uuid), None)
    if same is None and not gpu.uuid and place < len(now.gpus):
        same = now.gpus[place]
    return -1 if same is None else same.free


def gpu_of(worker: Worker, machine: MachineFacts) -> int | None:
    """The place in ``machine.gpus`` of the GPU a worker was planned for; None: it is on none that is there."""
    plan = worker.plan
    if plan.options is None or plan.target != "gpu":
        return None
    if plan.gpu_uuid:
        return next((place for place, gpu in enumerate(machine.gpus) if gpu.uuid == plan.gpu_uuid), None)
    return plan.options.gpu if plan.options.gpu < len(machine.gpus) else None


def held_on(machine: MachineFacts, workers: Iterable[Worker]) -> dict[int, int]:
    """Bytes that workers hold of each GPU, by its place in ``machine.gpus``."""
    return _by_gpu((gpu_of(worker, machine), memory_of(worker)) for worker in workers)


def _by_gpu(used: Iterable[tuple[int | None, Memory]]) -> dict[int, int]:
    held: dict[int, int] = {}
    for gpu, memory in used:
        if gpu is not None and memory.device.total > 0:
            held[gpu] = held.get(gpu, 0) + memory.device.total
    return held


def request_of(wanted: Wanted, shrink: Shrink) -> Request:
    """The wish for a plan: the configuration's, less what failed attempts have taught."""
    context, parallel = wanted.context, wanted.parallel
    if shrink.context is not None:
        context = min(context or shrink.context, shrink.context)
    if shrink.parallel is not None:
        parallel = min(parallel or shrink.parallel, shrink.parallel)
    return Request(goal=wanted.goal, context=context, parallel=parallel, vram_limit=wanted.vram_limit)


def memory_of(worker: Worker) -> Memory:
    """What a worker takes: as measured, and as planned where it cannot be (the process around llama.cpp's buffers)."""
    measured, planned = measured_memory(worker), worker.plan.memory
    if measured is None:
        return planned
    return Memory(device=_filled(measured.device, planned.device), host=_filled(measured.host, planned.host))


def _filled(measured: MemoryUse, planned: MemoryUse) -> MemoryUse:
    parts = {name: getattr(measured, name) or getattr(planned, name) for name in ("runtime", "projector", "draft")}
    return replace(measured, **parts)


def measured_memory(worker: Worker) -> Memory | None:
    said = worker.loaded.get("memory")
    if not isinstance(said, dict):
        return None
    try:
        return msgspec.convert(said, Memory)
    except msgspec.ValidationError:
        return None


def _refused(facts: ModelFacts, request: Request, reason: str) -> Plan:
    nothing = Memory(MemoryUse(), MemoryUse())
    return Plan(
        model=facts.id, goal=request.goal, target="cpu", options=None, memory=nothing, layers=len(facts.layers),
        budget=0, margin=0, reasons=[reason],
    )  # fmt: skip
