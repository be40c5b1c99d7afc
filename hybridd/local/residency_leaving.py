"""Workers on their way out, and the video memory of those that are dead: the next load counts on it only once the
driver has it back.

A worker that is asked to leave is looked at while it still holds its memory. One that crashes, or whose load fails,
is not: what was free before its load, less what our other workers have taken since, is what must be free again.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from hybridd.local.machine import MachineFacts
from hybridd.local.residency_room import Room, held_on, memory_of
from hybridd.local.residency_worker import Worker

logger = logging.getLogger("hybridd.local")

Start = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class Leaving:
    """``start`` makes a task that its owner keeps; ``changed`` is called when somebody is gone; ``timeout``: seconds
    that memory may take to come back."""

    def __init__(self, room: Room, timeout: float, start: Start, changed: Callable[[], None]) -> None:
        self._room = room
        self._timeout = timeout
        self._start = start
        self._changed = changed
        self._tasks: dict[Worker, asyncio.Task[None]] = {}
        self._mourned: dict[Worker, asyncio.Task[None]] = {}

    @property
    def workers(self) -> list[Worker]:
        """Those that were asked to leave and have not yet been buried with their memory."""
        return list(self._tasks)

    async def let_go(self, worker: Worker, why: str, everybody: Iterable[Worker]) -> None:
        """Ends it: drained, stopped; returns when its process is gone and its video memory is back. ``everybody``: all
        our workers."""
        leaving = self._tasks.get(worker)
        if leaving is None:
            logger.info("unloading %s: %s", worker.model, why)
            leaving = self._tasks[worker] = self._start(self._goodbye(worker, list(everybody)))
        await asyncio.shield(leaving)

    def died(self, worker: Worker, others: Iterable[Worker]) -> None:
        """It ended without being asked to, with what it held of the GPU. ``others``: our workers that live."""
        if worker.found is not None and worker not in self._tasks:
            wanted = _as_before(worker, others)
            if wanted:
                self._mourned[worker] = self._start(self._mourn(worker, worker.found, wanted))

    @property
    def awaited(self) -> list[str]:
        """The dead models whose memory is not known to be back."""
        return [worker.model for worker in self._owing()]

    async def vacated(self) -> None:
        """Waits until the memory of the dead is back, or has not come back in time."""
        while owing := self._owing():
            await asyncio.wait([self._tasks.get(one) or self._mourned[one] for one in owing])

    def _owing(self) -> list[Worker]:
        """One that is asked to leave owes nothing while it lives: it is planned with, like the others."""
        return [*(worker for worker in self._tasks if not worker.alive), *self._mourned]

    async def _goodbye(self, worker: Worker, everybody: list[Worker]) -> None:
        try:
            before = await self._before(worker, everybody)
            await worker.stop()
            if before is not None:
                held = held_on(before, [worker])
                wanted = {gpu: before.gpus[gpu].free + size * 9 // 10 for gpu, size in held.items()}
                # It may have died by itself before that look.
                again = _as_before(worker, [one for one in everybody if one.alive])
                wanted = {gpu: min(size, again.get(gpu, size)) for gpu, size in wanted.items()}
                await self._back(worker, before, wanted)
        finally:
            self._tasks.pop(worker, None)
            self._changed()
            tidy_later()

    async def _before(self, worker: Worker, everybody: list[Worker]) -> MachineFacts | None:
        """The machine with what it holds of the GPU; None: it holds nothing, or nobody can say. Then it leaves all the
        same, and the next load looks for itself."""
        if not memory_of(worker).device.total:
            return None
        try:
            return await self._room.look(everybody)
        except (OSError, RuntimeError) as error:
            logger.warning("the machine could not be looked at before %s left: %s", worker.model, error)
            return None

    async def _mourn(self, worker: Worker, before: MachineFacts, wanted: dict[int, int]) -> None:
        try:
            await self._back(worker, before, wanted)
        finally:
            self._mourned.pop(worker, None)

    async def _back(self, worker: Worker, before: MachineFacts, wanted: dict[int, int]) -> None:
        if not await self._room.vram_back(before, wanted, self._timeout):
            logger.warning("the video memory of %s is not back after %g s", worker.model, self._timeout)


def _as_before(worker: Worker, others: Iterable[Worker]) -> dict[int, int]:
    """Bytes that must be free once what a worker held is back. Whoever came since holds some of what was free before
    its load, and whoever left has given something back."""
    before = worker.found
    if before is None:
        return {}
    held = held_on(before, [worker])
    then, now = worker.beside, held_on(before, others)
    free = {gpu: before.gpus[gpu].free + then.get(gpu, 0) - now.get(gpu, 0) for gpu in held}
    return {gpu: free[gpu] - size // 10 for gpu, size in held.items()}


def tidy_later() -> None:
    """What a worker leaves behind (transports, sessions, tracebacks) hangs together in cycles. The daemon's collector
    runs so rarely that fifty loads grew the process by 2.5 MB; asked for, it takes a few milliseconds."""
    asyncio.get_running_loop().call_later(0.5, gc.collect)
