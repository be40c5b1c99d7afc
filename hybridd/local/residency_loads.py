"""Loads: one at a time, one for all who ask; what follows a failed one; who leaves to make room."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING

import msgspec

from hybridd.clocks import Clock
from hybridd.errors import HybriddError, ProviderError
from hybridd.local import residency_policy as policy
from hybridd.local.facts import ModelFacts
from hybridd.local.machine import MachineFacts
from hybridd.local.plan import usable_gpus
from hybridd.local.residency_models import Known
from hybridd.local.residency_pauses import Pauses
from hybridd.local.residency_ports import Ports
from hybridd.local.residency_room import Room, Shrink, held_on, measured_memory
from hybridd.local.residency_starter import Starter
from hybridd.local.residency_timing import ResidencyTiming, WorkerTiming
from hybridd.local.residency_worker import LoadError, Worker
from hybridd.local.types import Cause, Memory, Plan
from hybridd.providers import Hub
from hybridd.providers.spawn import ProcessPlan, SpawnContext, command_of

if TYPE_CHECKING:
    from hybridd.local.residency import Residency

logger = logging.getLogger("hybridd.local")


class Running:
    """One load that goes on, with those who wait for it. ``phase``: what it is at, in words."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self.phase = "waiting for its turn"
        self.worker: Worker | None = None
        self.starter = Starter()
        self.waiters = 0
        self.task: asyncio.Task[Worker] | None = None
        self.given_up = "hybridd is stopping"
        self.again = False

    @property
    def text(self) -> str:
        fraction = self.worker.fraction if self.worker is not None else None
        done = f" ({fraction:.0%})" if fraction is not None else ""
        return f"{self.known.id}: {self.phase}{done}"

    async def wait(self) -> Worker | None:
        """The loaded worker; None: another load is to begin. One that nobody waits for any more and that has not
        started is given up."""
        assert self.task is not None
        self.waiters += 1
        try:
            return await asyncio.shield(self.task)
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if self.task.cancelled() and not (me is not None and me.cancelling()):
                if self.again:
                    return None
                message = f"the load of {self.known.id} was given up: {self.given_up}"
                raise ProviderError(message, code="not_loaded", status=503) from None
            raise
        except HybriddError:
            raise
        except Exception as error:  # logged with its trace where the task ends; another provider may still answer
            raise ProviderError(f"loading {self.known.id} went wrong inside hybridd; see its log") from error
        finally:
            self.waiters -= 1
            if not self.waiters and self.worker is None and not self.task.done():
                self.task.cancel()


class Loads:
    """``running``: the loads that go on, by model."""

    def __init__(
        self,
        residency: Residency,
        hub: Hub,
        clock: Clock,
        ports: Ports,
        timing: ResidencyTiming,
        worker_timing: WorkerTiming,
    ) -> None:
        self.running: dict[str, Running] = {}
        self.pauses = Pauses(clock, residency.refresh)
        self.room = Room(ports)
        self._residency = residency
        self._hub = hub
        self._clock = clock
        self._ports = ports
        self._timing = timing
        self._worker_timing = worker_timing
        self._turn = asyncio.Lock()
        self._had_gpu = False

    @property
    def tasks(self) -> list[asyncio.Task[Worker]]:
        return [one.task for one in self.running.values() if one.task is not None]

    def start(self, known: Known) -> Running:
        """The load of this model that goes on, or a new one.

        Raises:
            ProviderError: it has failed and is not tried again for now.
        """
        running = self.running.get(known.id)
        if running is not None:
            return running
        self.pauses.check(known)
        running = self.running[known.id] = Running(known)
        running.task = asyncio.get_running_loop().create_task(self._load(running), name=f"load {known.id}")
        running.task.add_done_callback(lambda task: self._over(running, task))
        return running

    def give_up(self, model: str, why: str, *, again: bool = False) -> asyncio.Task[Worker] | None:
        """Ends the model's load, if one goes on: its task, which ends with the process. ``again``: those who wait for
        it begin another one."""
        running = self.running.get(model)
        if running is None or running.task is None:
            return None
        running.given_up, running.again = why, again
        running.task.cancel()
        return running.task

    def outdated(self, worker: Worker) -> bool:
        """Would this model be loaded differently now?"""
        return self._signature(worker.model) != worker.signature

    def crashed(self, worker: Worker) -> None:
        """A loaded worker ended by itself."""
        known = self._residency.shelf.known.get(worker.model)
        self.pauses.crashed(worker.model, known.stamp if known is not None else (), worker.cause, worker.reason)

    # one load

    async def _load(self, running: Running) -> Worker:
        known = running.known
        async with self._turn:
            old = self._residency.worker(known.id)
            if old is not None:
                if old.usable:
                    return old
                running.phase = "waiting for its former worker to end"
                if not await old.dead(self._worker_timing.stop):
                    await self._residency.let_go(old, "it is not usable any more")
            shrink, causes = Shrink(), list[Cause]()
            while True:
                plan, machine = await self._make_room(running, shrink)
                try:
                    worker = await self._start_worker(running, plan, machine)
                except LoadError as error:
                    causes.append(error.cause)
                    step = policy.after_failure(causes, self.pauses.failures(known.id))
                    logger.warning("loading %s failed (%s): %s", known.id, error.cause, error.message)
                    if step.again:
                        shrink.take(step.shrink, plan)
                        continue
                    until = policy.FOREVER if step.until_changed else step.delay
                    self.pauses.add(known, error.cause, error.message, until, alert=step.alert)
                    raise self.pauses.refusal(known.id) from None
                self.pauses.loaded(known.id)
                return worker

    async def _start_worker(self, running: Running, plan: Plan, machine: MachineFacts) -> Worker:
        known = running.known
        running.phase = "loading"
        worker = Worker(
            known.id, plan, self._process(known, plan), self._context(plan, machine), self._clock,
            self._hub.providers["local"], self._residency.changed, self._worker_timing,
        )  # fmt: skip
        worker.signature = self._signature(known.id)
        worker.found = machine
        worker.beside = held_on(machine, [one for one in self._residency.workers if one.alive])
        running.worker = worker
        self._residency.add(worker)
        try:
            await worker.load(running.starter)
        except BaseException:
            running.worker = None
            raise
        measured = measured_memory(worker)
        await self._check_offload(worker, plan, measured)
        if measured is not None and plan.options is not None:
            await asyncio.to_thread(self._ports.record, machine, plan.model, plan.options, plan.memory, measured)
        return worker

    async def _check_offload(self, worker: Worker, plan: Plan, measured: Memory | None) -> None:
        """A plan for the GPU that ended up on the CPU is a failure, not an answer that takes ten times as long.

        Raises:
            LoadError: the driver's fault; the worker is gone.
        """
        planned = plan.options.gpu_layers if plan.options is not None else 0
        taken = worker.loaded.get("gpu_layers", planned)
        if planned and (taken < planned or (measured is not None and measured.device.total == 0)):
            worker.drain()
            await self._residency.let_go(worker, "it runs on the CPU")
            raise LoadError(
                "driver", f"{planned} layers were to be on the GPU and {taken if measured is None else 0} are"
            )

    # room

    async def _make_room(self, running: Running, shrink: Shrink) -> tuple[Plan, MachineFacts]:
        """A plan that fits what is free now, once those who must leave have left.

        Raises:
            ProviderError: it does not fit, with the numbers; or the GPU's driver has gone.
        """
        facts = self._facts(running.known)
        wanted = self._residency.shelf.wanted(running.known.id)
        while True:
            dead = self._residency.leaving.awaited
            if dead:
                running.phase = f"waiting for the memory of {', '.join(dead)} to be free again"
                await self._residency.leaving.vacated()
            running.phase = "being planned"
            workers = [worker for worker in self._residency.workers if worker.alive]
            machine = await self.room.look(workers)
            self._refuse_lost_gpu(running.known, machine)
            placement = await self.room.place(facts, wanted, shrink, machine, workers)
            if placement.busy:
                await self._wait_for_busy(running, workers, placement)
                continue
            plan = placement.plan
            if plan.options is None:
                raise self._does_not_fit(running.known, plan)
            if not placement.evict:
                return plan, machine
            await running.starter.ahead(self._context(plan, machine), self._process(running.known, plan))
            await self._evict(running, workers, placement, machine)

    async def _evict(
        self, running: Running, workers: list[Worker], placement: policy.Placement, machine: MachineFacts
    ) -> None:
        leaving = [worker for worker in workers if worker.model in placement.evict]
        running.phase = f"waiting for {', '.join(placement.evict)} to leave"
        # Each waits for its own memory; of several on one GPU all of it must be back.
        freed = held_on(machine, leaving)
        wanted = {gpu: machine.gpus[gpu].free + size * 9 // 10 for gpu, size in freed.items()}
        why = f"{running.known.id} needs the room"
        await asyncio.gather(*(self._residency.let_go(worker, why) for worker in leaving))
        if not await self.room.vram_back(machine, wanted, self._timing.vram):
            logger.warning("video memory of ended workers is not back after %g s", self._timing.vram)

    async def _wait_for_busy(self, running: Running, workers: list[Worker], placement: policy.Placement) -> None:
        """Nothing fits before somebody's calls have ended: they get no new ones, so that this load has its turn."""
        running.phase = f"waiting for the calls of {', '.join(placement.busy)} to end"
        busy = [worker for worker in workers if worker.model in placement.busy]
        for worker in busy:
            worker.drain()
        try:
            await asyncio.gather(*(worker.idle() for worker in busy))
        except asyncio.CancelledError:
            for worker in busy:
                worker.undrain()
            raise
        await asyncio.gather(*(self._residency.let_go(worker, f"{running.known.id} needs the room") for worker in busy))

    # refusals

    def _facts(self, known: Known) -> ModelFacts:
        if known.facts is None:
            self.pauses.add(known, "bad_file", known.problem or "its file cannot be read", policy.FOREVER, alert=True)
            raise self.pauses.refusal(known.id)
        return known.facts

    def _refuse_lost_gpu(self, known: Known, machine: MachineFacts) -> None:
        """A GPU that was there and is not any more (a driver update, a suspend) is trouble, not a reason to go on
        slowly without a word."""
        if usable_gpus(machine):
            self._had_gpu = True
        elif self._had_gpu and machine.offload is not False:
            reason = f"the GPU that was there is gone: {machine.gpu_reason or 'the driver reports none'}"
            step = policy.after_failure(["driver"], self.pauses.failures(known.id))
            self.pauses.add(known, "driver", reason, step.delay, alert=True)
            raise self.pauses.refusal(known.id)

    @staticmethod
    def _does_not_fit(known: Known, plan: Plan) -> ProviderError:
        return ProviderError(
            f"{known.id} does not fit: {' '.join(plan.reasons).rstrip('.') or 'no plan was found'}",
            code="does_not_fit",
            status=503,
            details=msgspec.to_builtins(plan),
        )

    # inside

    def _context(self, plan: Plan, machine: MachineFacts) -> SpawnContext:
        """The worker sees the one GPU that it was planned for, by the name that both sides know it by (the driver's
        order need not be CUDA's); planned for the CPU it sees none, and takes no memory there."""
        context = self._hub.spawn_context
        if not usable_gpus(machine) or (plan.target == "gpu" and not plan.gpu_uuid):
            return context
        visible = plan.gpu_uuid if plan.target == "gpu" else ""
        return msgspec.structs.replace(context, environ={**context.environ, "CUDA_VISIBLE_DEVICES": visible})

    def _process(self, known: Known, plan: Plan) -> ProcessPlan:
        spec = self._residency.spec
        assert spec is not None
        assert plan.options is not None
        options = msgspec.structs.replace(plan.options, gpu=0) if plan.gpu_uuid else plan.options
        facts = known.facts
        settings = {
            "model": known.id,
            "path": str(known.path),
            "options": msgspec.to_builtins(options),
            "quantization": facts.quantization if facts is not None else "",
            "layers": plan.layers,
            "slots": plan.options.sequences,
            "positions": facts.trained_context if facts is not None and facts.learned_positions else 0,
        }
        return ProcessPlan(
            key=f"local:{known.id}",
            plugin=spec.plugin,
            command=command_of(spec) or (sys.executable, "-m", "plugins.llama_cpp"),
            environment=spec.environment,
            config={spec.name: settings},
            on_demand=False,
            idle_stop=None,
        )

    def _signature(self, model: str) -> object:
        """What a load depends on, beside the machine."""
        known = self._residency.shelf.known.get(model)
        spec = self._residency.spec
        if known is None or spec is None or not spec.enabled:
            return None
        wanted = msgspec.structs.replace(self._residency.shelf.wanted(model), keep_alive=None, max_loaded=None)
        return (known.path, known.stamp, wanted, spec.command)

    def _over(self, running: Running, task: asyncio.Task[Worker]) -> None:
        model = running.known.id
        self.running.pop(model, None)
        running.starter.drop()
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, ProviderError):
            logger.error("loading %s: %s", model, error, exc_info=error)
        if not self._residency.closed:
            self._hub.fleet_changed("local")
