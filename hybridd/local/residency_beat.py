"""The decode heartbeat of one worker: while calls are open it is asked whether it still makes steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from hybridd.contracts import protocol as wire
from hybridd.local import residency_policy as policy

if TYPE_CHECKING:
    from hybridd.local.residency_worker import Worker
    from hybridd.providers.calls import PluginCall


class Heartbeat:
    """At most one question is open at a time. A hang is told to the worker as a violation, a new speed with
    ``on_change``."""

    def __init__(self, worker: Worker, on_change: Callable[[Worker], None]) -> None:
        self._worker = worker
        self._on_change = on_change
        self._speed = 0.0
        self._state = policy.Beat()
        self._timer: asyncio.TimerHandle | None = None
        self._asking = False

    @property
    def speed(self) -> float | None:
        """Tokens per second of all open calls together, as last asked; None: nothing is open, or only just."""
        return self._speed if self._speed and self._worker.in_flight else None

    def begin(self) -> None:
        """A call was opened. Harmless when it beats already."""
        if self._timer is None and not self._asking:
            loop = asyncio.get_running_loop()
            self._state, self._speed = policy.Beat(moved_at=loop.time()), 0.0
            self._timer = loop.call_later(self._worker.timing.probe_every, self._ask)

    def end(self) -> None:
        """The worker is dead."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ask(self) -> None:
        self._timer = None
        worker, session = self._worker, self._worker.session
        if not worker.in_flight or session is None or session.closed:
            return
        seconds = worker.timing.probe_timeout
        probe = wire.Probe(provider=next(iter(worker.settings)), deadline_ms=round(seconds * 1000))
        deadline = asyncio.get_running_loop().time() + seconds
        self._asking = True
        call = session.start_call(probe.provider, "probe", probe, deadline=deadline, on_events=None)
        call.add_done_callback(self._answered)

    def _answered(self, call: PluginCall) -> None:
        self._asking = False
        outcome = call.peek()
        details = outcome.details if isinstance(outcome, wire.ProbeResult) else None
        loop = asyncio.get_running_loop()
        worker, timing = self._worker, self._worker.timing
        self._state = policy.beat(self._state, loop.time(), details)
        if not worker.in_flight or worker.state not in ("ready", "draining"):
            return
        why = policy.hang(self._state, loop.time(), misses=timing.probe_misses, seconds=timing.hang)
        if why is None:
            speed = (details or {}).get("tokens_per_second")
            if isinstance(speed, (int, float)) and speed > 0:
                self._speed = float(speed)
                self._on_change(worker)
            self._timer = loop.call_later(timing.probe_every, self._ask)
        else:
            worker.violated(why, hung=True)
