"""The one owner of loaded models: who is loaded, on which plan, and who has to leave for whom.

Each model has its own worker process (:mod:`hybridd.local.residency_worker`). Asking for a model that is not loaded
starts one load, however many ask; all of them wait for it. Loads go one after the other: only then is the memory that
a plan counts on really there. A load looks at the machine, plans beside what stays, ends those that must leave, waits
for their processes and their video memory to be gone, looks again, and only then starts the worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from hybridd.bus import EventBus
from hybridd.clocks import Clock
from hybridd.config.resolved import ProviderSpec
from hybridd.contracts import protocol as wire
from hybridd.contracts.views import PluginView, ProviderStateName
from hybridd.errors import DeadlineExceeded, NotFound, Overloaded, ProviderError
from hybridd.local import residency_policy as policy
from hybridd.local import residency_seen as seen
from hybridd.local.residency_expiry import Expiries
from hybridd.local.residency_leaving import Leaving, tidy_later
from hybridd.local.residency_loads import Loads, Running
from hybridd.local.residency_models import Known, Shelf
from hybridd.local.residency_pauses import Pause
from hybridd.local.residency_ports import Ports
from hybridd.local.residency_timing import ResidencyTiming, WorkerTiming
from hybridd.local.residency_worker import Worker
from hybridd.providers import Hub
from hybridd.providers.calls import InFlight
from hybridd.providers.fleet import RoutedParams
from hybridd.providers.session import Session

logger = logging.getLogger("hybridd.local")

PROVIDER = "local"


class Residency:
    """Implements :class:`hybridd.providers.fleet.Fleet` for the provider ``local``."""

    def __init__(
        self,
        hub: Hub,
        bus: EventBus,
        clock: Clock,
        ports: Ports,
        timing: ResidencyTiming = ResidencyTiming(),  # noqa: B008  # frozen
        worker_timing: WorkerTiming = WorkerTiming(),  # noqa: B008  # frozen
    ) -> None:
        self.shelf = Shelf(ports)
        self._hub = hub
        self._bus = bus
        self._timing = timing
        self._spec: ProviderSpec | None = None
        self._workers: dict[str, Worker] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._expiries = Expiries(self.keep_alive, self._expired)
        self._scanner: asyncio.Task[None] | None = None
        self._scanned_at = float("-inf")
        self._scanning = asyncio.Lock()
        self._closed = False
        self._loads = Loads(self, hub, clock, ports, timing, worker_timing)
        self.leaving = Leaving(self._loads.room, timing.vram, self._start, self.refresh)
        hub.add_fleet(PROVIDER, self)

    # -- the fleet and its configuration

    @property
    def workers(self) -> list[Worker]:
        """Every process of ours that is not buried yet."""
        return [*self._workers.values(), *self.leaving.workers]

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def spec(self) -> ProviderSpec | None:
        return self._spec

    def prepare(self, spec: ProviderSpec | None) -> None:
        self._spec = spec
        if spec is None:
            self.shelf.prepare({}, None)
        else:
            self.shelf.prepare(spec.plugin_config, spec.idle_stop_seconds)

    def apply(self) -> None:
        """Workers whose model is loaded as it would be now stay; the others leave once their calls have ended."""
        why = "the configuration changed"
        for worker in list(self._workers.values()):
            if not self._loads.outdated(worker):
                self._set_expiry(worker)
            elif self._loads.give_up(worker.model, why, again=True) is None:
                self._start(self.let_go(worker, why))
        self._loads.pauses.forget(self.shelf.known, keep=False)
        if self._scanner is not None:
            self._scanner.cancel()
        self._scanner = self._start(self._scan_often())

    async def close(self, grace: float) -> None:
        self._closed = True
        for task in (*self._tasks, *self._loads.tasks):
            task.cancel()
        self._expiries.close()
        await asyncio.gather(*(worker.stop(grace, drain=0.0) for worker in self.workers), return_exceptions=True)
        await asyncio.gather(*self._tasks, *self._loads.tasks, return_exceptions=True)

    # -- calls

    def connected(self, model: str) -> bool:
        worker = self._workers.get(model)
        if worker is None or not worker.usable:
            return False
        worker.promise()
        return True

    def route(self, params: RoutedParams) -> tuple[Session, InFlight] | None:
        if isinstance(params, wire.Probe):
            return None
        worker = self._workers.get(params.model)
        if worker is None or worker.session is None or not worker.usable:
            return None
        if b'"keep_alive"' in bytes(params.body):
            worker.keep_alive = policy.asked_keep_alive(params.body, worker.keep_alive)
        return worker.session, worker

    async def ensure(self, model: str, timeout: float, *, promise: bool = True) -> None:
        """Loads the model if it is not loaded; many callers, one load. ``promise``: a call follows at once, so that it
        must not leave before.

        Raises:
            ProviderError: it cannot be loaded, or not now; ``retry_after`` when waiting helps.
            DeadlineExceeded: it is not loaded in time; the load goes on.
        """
        worker = self._workers.get(model)
        if worker is not None and worker.usable:
            if promise:
                worker.promise()
            return
        running: Running | None = None
        try:
            async with asyncio.timeout(timeout):
                known = await self.find(model)
                while True:
                    running = self._loads.start(known)
                    loaded = await running.wait()
                    if loaded is None:
                        known = await self.find(model)
                    elif loaded.usable:
                        if promise:
                            loaded.promise()
                        return
        except TimeoutError:
            how = running.phase if running is not None else "looking for its file"
            raise DeadlineExceeded(f"local:{model}: not loaded within {timeout:g} s ({how})") from None
        except NotFound as error:
            raise ProviderError(error.message, code=error.error_code, status=error.status) from None

    async def find(self, model: str) -> Known:
        """The model's entry, inspected, after another look into the folders where that is needed.

        Raises:
            NotFound: there is no such model.
        """
        known = self.shelf.known.get(model)
        if known is None or (known.facts is None and not known.problem) or self.shelf.stamp_now(known) != known.stamp:
            await self.scan()
            known = self.shelf.known.get(model)
        if known is None:
            there = ", ".join(list(self.shelf.known)[:10]) or "none"
            raise NotFound(
                f"there is no local model '{model}'; there are: {there}", param="model", code="model_not_found"
            )
        return known

    def refusal(self, model: str) -> ProviderError | None:
        known = self.shelf.known.get(model)
        return None if known is None else self._loads.pauses.standing(known)

    def register(self, session: Session, params: wire.Register) -> None:
        worker = session.process
        assert isinstance(worker, Worker)
        worker.took(params)

    async def look_again(self, model: str) -> bool:
        if model in self.shelf.known:
            return False
        await self.scan(newer_than=asyncio.get_running_loop().time())
        return model in self.shelf.known

    async def probe(self, timeout: float) -> wire.ProbeResult:
        await asyncio.wait_for(self.scan(), timeout)
        _, reason, degraded = self.state()
        return wire.ProbeResult(
            ok=not degraded, reason=reason, details={"unmetered": True, "loaded": sorted(self._workers)}
        )

    # -- what it looks like

    def models(self) -> Mapping[str, wire.ModelInfo]:
        return {name: self._info(known) for name, known in self.shelf.known.items()}

    def _info(self, known: Known) -> wire.ModelInfo:
        info = self.shelf.info(known)
        worker = self._workers.get(known.id)
        if worker is None or worker.info is None:
            return info
        told = worker.info
        return wire.ModelInfo(
            id=known.id, context=told.context or info.context, max_output=told.max_output, tasks=info.tasks,
            modalities=told.modalities, methods=told.methods, details={**info.details, **told.details},
        )  # fmt: skip

    def state(self) -> tuple[ProviderStateName, str, bool]:
        loading = [running.text for running in self._loads.running.values()]
        return seen.provider_state(self.shelf, self._workers.values(), loading, self._loads.pauses.all)

    def plugin_views(self) -> list[PluginView]:
        return seen.plugin_views(self.workers, self._loads.pauses.all, PROVIDER)

    # -- what the API shows and asks

    def worker(self, model: str) -> Worker | None:
        return self._workers.get(model)

    def pause(self, model: str) -> Pause | None:
        return self._loads.pauses.all.get(model)

    def load_of(self, model: str) -> Running | None:
        return self._loads.running.get(model)

    @property
    def loads(self) -> Loads:
        return self._loads

    async def unload(self, model: str) -> bool:
        """Ends the model's load, or its worker after its calls; False: there was none. Returns when it is gone."""
        load = self._loads.give_up(model, "it was unloaded")
        if load is not None:
            await asyncio.wait([load])
        worker = self._workers.get(model)
        if worker is None:
            return load is not None
        await self.let_go(worker, "asked to")
        return True

    async def clear(self) -> None:
        """Ends every worker, for something that needs the machine alone.

        Raises:
            Overloaded: one of them answers, or a model is being loaded; nothing was ended.
        """
        used = [worker.model for worker in self._workers.values() if worker.busy] + list(self._loads.running)
        if used:
            raise Overloaded(f"Local models are in use: {', '.join(sorted(set(used)))}.", retry_after=10.0)
        why = "something else needs the machine alone"
        await asyncio.gather(*(self.let_go(worker, why) for worker in list(self._workers.values())))

    async def scan(self, newer_than: float | None = None) -> bool:
        """Looks for files; True when there are others than before. ``newer_than``: a look that began after that (loop
        time) will do, so that many who ask at once cause one or two."""
        async with self._scanning:
            if newer_than is not None and self._scanned_at >= newer_than and self.shelf.inspected:
                return False
            self._scanned_at = asyncio.get_running_loop().time()
            changed = await self.shelf.scan()
        for worker in list(self._workers.values()):
            if worker.state == "ready" and self._loads.outdated(worker):
                self._start(self.let_go(worker, "its file changed"))
        if changed:
            self._loads.pauses.forget(self.shelf.known, keep=True)
            self._hub.fleet_changed(PROVIDER)
        return changed

    # -- for the loads

    def refresh(self) -> None:
        """What the provider looks like has changed."""
        if not self._closed:
            self._hub.fleet_changed(PROVIDER)

    def add(self, worker: Worker) -> None:
        self._workers[worker.model] = worker

    async def let_go(self, worker: Worker, why: str) -> None:
        """Ends a worker: drained, stopped; returns when its process is gone and its video memory is back."""
        everybody = self.workers
        if self._workers.get(worker.model) is worker:
            del self._workers[worker.model]
        self._expiries.forget(worker)
        await self.leaving.let_go(worker, why, everybody)

    def changed(self, worker: Worker) -> None:
        """A worker's state, progress or last call changed."""
        if worker.state in ("failed", "gone") and self._workers.get(worker.model) is worker:
            del self._workers[worker.model]
            self._expiries.forget(worker)
            if worker.state == "failed" and not self._closed:
                self.leaving.died(worker, [one for one in self.workers if one.alive])
                if worker.load_seconds:
                    self._loads.crashed(worker)
            tidy_later()
        if worker.state == "ready" and not worker.in_flight:
            self._set_expiry(worker)
        if self._closed:
            return
        self._hub.fleet_changed(PROVIDER)
        if self._bus.wanted("plugin"):
            view = seen.plugin_view(worker, PROVIDER)
            self._bus.publish("plugin", {"key": view.name, "event": "state", "plugin": view})

    # -- inside

    def _set_expiry(self, worker: Worker) -> None:
        if not self._closed and self._workers.get(worker.model) is worker:
            self._expiries.set(worker)

    def keep_alive(self, worker: Worker) -> float:
        """Seconds it stays after its last call: what the last request asked for, else the configuration's."""
        asked = worker.keep_alive
        return asked if asked is not None else policy.keep_alive_of(None, self.shelf.wanted(worker.model).keep_alive)

    def _expired(self, worker: Worker) -> None:
        self._start(self.let_go(worker, "idle"))

    async def _scan_often(self) -> None:
        while True:
            try:
                await self.scan()
            except (OSError, RuntimeError) as error:
                logger.warning("the folders of local models could not be looked at: %s", error)
            await asyncio.sleep(self._timing.scan)

    def _start(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("residency: %s", error, exc_info=error)
