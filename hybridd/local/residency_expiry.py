"""When a loaded model that nobody uses leaves by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hybridd.local import residency_policy as policy
from hybridd.local.residency_worker import Worker


class Expiries:
    """One timer for each worker that is not for ever. ``keep_alive(worker)``: seconds after its last call;
    ``leave(worker)`` is called when they have passed."""

    def __init__(self, keep_alive: Callable[[Worker], float], leave: Callable[[Worker], None]) -> None:
        self._keep_alive = keep_alive
        self._leave = leave
        self._timers: dict[Worker, asyncio.TimerHandle] = {}

    def set(self, worker: Worker) -> None:
        """A call has ended, or the wish has changed: counted anew."""
        self.forget(worker)
        keep = self._keep_alive(worker)
        if keep != policy.FOREVER:
            loop = asyncio.get_running_loop()
            self._timers[worker] = loop.call_at(max(loop.time(), worker.last_used + keep), self._expire, worker)

    def forget(self, worker: Worker) -> None:
        timer = self._timers.pop(worker, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        for worker in list(self._timers):
            self.forget(worker)

    def _expire(self, worker: Worker) -> None:
        self.forget(worker)
        if worker.state != "ready":
            return
        loop = asyncio.get_running_loop()
        if worker.busy:
            if not worker.in_flight:  # promised, not begun: look again when the promise has lapsed
                self._timers[worker] = loop.call_later(1.0, self._expire, worker)
        elif loop.time() - worker.last_used + 0.001 >= self._keep_alive(worker):
            self._leave(worker)
        else:
            self.set(worker)
