"""How local models look from outside: files with their state, what is loaded, plans that were not carried out."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import msgspec
from msgspec import Struct

from hybridd.errors import InvalidRequest
from hybridd.local import residency_policy as policy
from hybridd.local.machine import MachineFacts
from hybridd.local.plan import usable_gpus
from hybridd.local.residency import Residency
from hybridd.local.residency_models import Known
from hybridd.local.residency_room import Shrink, memory_of
from hybridd.local.residency_worker import Worker
from hybridd.local.types import Goal, LoadOptions, Memory, Plan

ModelState = Literal["unloaded", "loading", "ready", "draining", "failed"]


class LocalModel(Struct):
    """One model file. ``reason``: why it cannot be loaded, or how far its load is. ``context``: tokens of one request,
    as loaded or at most; ``keep_alive``: seconds it stays after a call, None: for ever."""

    id: str
    path: str
    state: ModelState
    bytes: int
    architecture: str
    quantization: str
    kind: str
    parameters: int
    layers: int
    trained_context: int
    context: int | None
    keep_alive: float | None
    reason: str = ""


class ResidentView(Struct):
    """One loaded (or loading) model. Bytes, seconds; ``memory`` is ``measured`` or as planned; ``idle_seconds`` since
    its last call, ``leaves_in`` until its keep-alive ends it (None: it stays, or is busy). ``tokens_per_second``: of
    all its calls together, a few seconds ago at most; None: it answers nobody, or not for long enough."""

    model: str
    state: str
    pid: int | None
    since: float
    in_flight: int
    plan: Plan
    options: LoadOptions | None
    memory: Memory
    measured: bool
    loaded: dict[str, Any]
    load_seconds: float
    idle_seconds: float
    leaves_in: float | None
    fraction: float | None = None
    tokens_per_second: float | None = None


class GpuFigures(Struct):
    name: str
    total: int
    free: int


class Figures(Struct):
    """Memory in bytes. ``gpu_reason``: why no GPU is used."""

    ram_total: int
    ram_available: int
    gpus: list[GpuFigures]
    gpu_reason: str

    @classmethod
    def of(cls, machine: MachineFacts) -> Figures:
        usable = usable_gpus(machine)
        reason = machine.gpu_reason
        if machine.gpus and not usable:
            reason = "the installed llama.cpp cannot use a GPU"
        gpus = [GpuFigures(gpu.name, gpu.total, gpu.free) for gpu in usable]
        return cls(machine.ram_total, machine.ram_available, gpus, "" if usable else reason)


async def listing(residency: Residency) -> list[LocalModel]:
    """Every file, after a look into the folders (at most once a second)."""
    await residency.scan(newer_than=asyncio.get_running_loop().time() - 1.0)
    return [_model(residency, known) for known in residency.shelf.known.values()]


async def details(
    residency: Residency, model: str
) -> tuple[LocalModel, dict[str, Any] | None, Plan | None, ResidentView | None]:
    """One model with its facts, its plan and its worker.

    Raises:
        NotFound: there is no such model.
    """
    known = await residency.find(model)
    worker = residency.worker(known.id)
    facts = None if known.facts is None else msgspec.to_builtins(known.facts)
    if worker is not None:
        return _model(residency, known), facts, worker.plan, _resident(residency, worker)
    plan = None if known.facts is None else await what_if(residency, known.id, None, None, None)
    return _model(residency, known), facts, plan, None


async def what_if(
    residency: Residency, model: str, context: int | None, parallel: int | None, goal: Goal | None
) -> Plan:
    """The plan of a model beside what is loaded and busy now; nothing is loaded or ended for it.

    Raises:
        NotFound: there is no such model.
        InvalidRequest: its file cannot be planned, or a wish is below 1.
    """
    known = await residency.find(model)
    if known.facts is None:
        raise InvalidRequest(f"{known.id}: {known.problem}", param="model", code="bad_file")
    wanted = residency.shelf.wanted(known.id)
    wanted = msgspec.structs.replace(
        wanted,
        context=context if context is not None else wanted.context,
        parallel=parallel if parallel is not None else wanted.parallel,
        goal=goal or wanted.goal,
    )
    room = residency.loads.room
    workers = [worker for worker in residency.workers if worker.alive and worker.model != known.id]
    machine = await room.look(residency.workers)
    return (await room.place(known.facts, wanted, Shrink(), machine, workers)).plan


def residents(residency: Residency) -> list[ResidentView]:
    return [_resident(residency, worker) for worker in residency.workers]


def _model(residency: Residency, known: Known) -> LocalModel:
    facts = known.facts
    worker, pause, running = residency.worker(known.id), residency.pause(known.id), residency.load_of(known.id)
    state: ModelState = "unloaded"
    reason = ""
    if running is not None:
        state, reason = "loading", running.text
    elif worker is not None:
        state, reason = ("ready", "") if worker.state == "ready" else ("draining", worker.reason)
    elif known.problem or (pause is not None and pause.until > asyncio.get_running_loop().time()):
        state, reason = "failed", known.problem or (pause.reason if pause is not None else "")
    info = residency.models()[known.id]
    keep = residency.shelf.wanted(known.id).keep_alive
    return LocalModel(
        id=known.id,
        path=str(known.path),
        state=state,
        bytes=facts.bytes if facts is not None else known.bytes,
        architecture=facts.architecture if facts is not None else "",
        quantization=facts.quantization if facts is not None else "",
        kind=facts.kind if facts is not None else "",
        parameters=facts.parameters if facts is not None else 0,
        layers=len(facts.layers) if facts is not None else 0,
        trained_context=facts.trained_context if facts is not None else 0,
        context=info.context,
        keep_alive=keep,
        reason=reason,
    )


def _resident(residency: Residency, worker: Worker) -> ResidentView:
    now = asyncio.get_running_loop().time()
    keep = residency.keep_alive(worker)
    idle = 0.0 if worker.in_flight or not worker.last_used else now - worker.last_used
    leaves = None if worker.in_flight or keep == policy.FOREVER or worker.state != "ready" else max(0.0, keep - idle)
    return ResidentView(
        model=worker.model,
        state=worker.state,
        pid=worker.pid,
        since=worker.since,
        in_flight=worker.in_flight,
        plan=worker.plan,
        options=worker.plan.options,
        memory=memory_of(worker),
        measured="memory" in worker.loaded,
        loaded=worker.loaded,
        load_seconds=round(worker.load_seconds, 3),
        idle_seconds=round(idle, 3),
        leaves_in=None if leaves is None else round(leaves, 3),
        fraction=worker.fraction,
        tokens_per_second=worker.heartbeat.speed,
    )
