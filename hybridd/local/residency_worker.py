"""One worker process with one model, for one life. It never comes back: the residency makes another.

::

    planned ──load──► loading ──registered──► ready ──drain──► draining ──┐
                         │ exit, failure,        │ exit, violation, hang  │ last call ended
                         │ no sign of progress   ▼                        ▼
                         └───────────────────► failed                stopping ──process gone──► gone

``failed`` and ``gone`` are final, and in both the process is dead and reaped: there is no state for "perhaps".
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
from collections.abc import Callable, Mapping
from typing import Any, Literal

from hybridd.clocks import NS, Clock
from hybridd.contracts import protocol as wire
from hybridd.local import residency_policy as policy
from hybridd.local.machine import MachineFacts
from hybridd.local.residency_beat import Heartbeat
from hybridd.local.residency_promises import Promises
from hybridd.local.residency_starter import Starter
from hybridd.local.residency_timing import WorkerTiming
from hybridd.local.types import Cause, Plan
from hybridd.providers.calls import InFlight
from hybridd.providers.session import Session
from hybridd.providers.spawn import Child, ProcessPlan, SpawnContext, SpawnFailed

logger = logging.getLogger("hybridd.local")

WorkerState = Literal["planned", "loading", "ready", "draining", "stopping", "gone", "failed"]


class LoadError(Exception):
    """The model could not be loaded; the process is gone."""

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(message)
        self.cause: Cause = cause
        self.message = message


class Worker:
    """Implements :class:`hybridd.providers.fleet.OwnedProcess`, and counts its calls as in flight.

    ``on_change(worker)`` is called after every change of state and when its last open call has ended. ``total`` counts
    the provider's calls. ``found``: the machine as it was just before the load, and ``beside`` what our other workers
    held of each GPU then (bytes by its place in that list).
    """

    def __init__(
        self,
        model: str,
        plan: Plan,
        process: ProcessPlan,
        context: SpawnContext,
        clock: Clock,
        total: InFlight,
        on_change: Callable[[Worker], None],
        timing: WorkerTiming = WorkerTiming(),  # noqa: B008  # frozen
    ) -> None:
        self.model = model
        self.plan = plan
        self.state: WorkerState = "planned"
        self.reason = ""
        self.cause: Cause = "runtime"  # of an end by itself
        self.since = clock.wall_ns() / NS
        self.fraction: float | None = None
        self.load_seconds = 0.0
        self.last_used = 0.0
        self.keep_alive: float | None = None
        self.signature: object = None
        self.found: MachineFacts | None = None
        self.beside: Mapping[int, int] = {}
        self.session: Session | None = None
        self.info: wire.ModelInfo | None = None
        self._process = process
        self._context = context
        self._clock = clock
        self._total = total
        self._on_change = on_change
        self.timing = timing
        self._in_flight = 0
        self._promises = Promises(timing.promise)
        self._token: str | None = None
        self.version: str | None = None
        self._child: Child | None = None
        self._stderr: list[str] = []
        self._failure: wire.Failure | None = None
        self._violation = ""
        self._sign_at = 0.0
        self._news: asyncio.Future[None] | None = None
        self.heartbeat = Heartbeat(self, on_change)
        self._life: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._hurry = False

    # what it is

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        return self._process.config

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None and not self._child.exited.done() else None

    @property
    def exited(self) -> asyncio.Future[int] | None:
        return self._child.exited if self._child is not None else None

    @property
    def loaded(self) -> dict[str, Any]:
        """What the worker says it has loaded, measured; empty before it has."""
        details = self.info.details.get("loaded") if self.info is not None else None
        return details if isinstance(details, dict) else {}

    @property
    def alive(self) -> bool:
        return self.state in ("loading", "ready", "draining", "stopping")

    @property
    def usable(self) -> bool:
        """Loaded, and as far as anybody knows well."""
        session = self.session
        return self.state == "ready" and session is not None and not session.closed and not self._violation

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @in_flight.setter
    def in_flight(self, value: int) -> None:
        begins = value > self._in_flight
        self._total.in_flight += value - self._in_flight
        self._in_flight = value
        now = asyncio.get_running_loop().time()
        self.last_used = now
        if value:
            if begins:
                self._promises.keep()
            self.heartbeat.begin()
        else:
            self._notice()
            self._on_change(self)

    @property
    def busy(self) -> bool:
        """A call is open, or was promised its place a moment ago."""
        return self._in_flight > 0 or self._promises.open(asyncio.get_running_loop().time())

    def promise(self) -> None:
        """Somebody was told that it is ready and is about to write a call."""
        self._promises.give(asyncio.get_running_loop().time())

    @property
    def stderr(self) -> list[str]:
        """The last lines it printed."""
        return list(self._child.stderr) if self._child is not None else self._stderr

    # from the hub

    def take_token(self, token: str) -> bool:
        expected = self._token
        if expected is None or not secrets.compare_digest(expected.encode(), token.encode("utf-8", "replace")):
            return False
        self._token = None
        return True

    def attached(self, session: Session, version: str) -> None:
        self.session = session
        self.version = version
        self._sign()

    def registered(self) -> None:
        """Registrations come with what they say: see :meth:`took`."""

    def took(self, params: wire.Register) -> None:
        """Its registration: loaded, or why not."""
        if params.failure is not None:
            self._failure = params.failure
        elif params.state != "ready":
            self._failure = wire.Failure(cause="runtime", message=params.reason or params.state)
        elif params.models:
            self.info = params.models[0]
        self._notice()

    def progressed(self, progress: wire.Progress) -> None:
        if progress.operation == "load" and self.state == "loading":
            self.fraction = progress.fraction
            self._on_change(self)
        self._sign()

    def violated(self, reason: str, *, hung: bool = False) -> None:
        self._violation, self.cause = reason, "hung" if hung or "heartbeat" in reason else "runtime"
        self._ending(reason)

    def lost(self, session: Session, reason: str) -> None:
        if self.session is session:
            self.session = None
            self.reason = self.reason or f"lost its connection: {reason}"
            self._ending(self.reason)

    # life

    async def load(self, starter: Starter) -> None:
        """From the start of the process to the loaded model.

        Raises:
            LoadError: with the cause; the process is gone.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._sign()
        self._set("loading", "")
        try:
            child, self._token = await starter.start(self._context, self._process)
            self._child = child
        except SpawnFailed as error:
            self._set("failed", error.message)
            raise LoadError("runtime", error.message) from None
        try:
            failure = await self._until_loaded(child)
        except BaseException:
            await self._bury(child, "failed", "its load was given up")
            raise
        if failure is not None:
            await self._bury(child, "failed", failure.message)
            raise LoadError(failure.cause, failure.message)
        self.load_seconds = loop.time() - began
        self.last_used = loop.time()
        self.fraction = None
        self._set("ready", "")
        self._life = loop.create_task(self._live(child), name=f"worker {self.model}")

    async def stop(self, grace: float | None = None, *, drain: float | None = None) -> None:
        """Ends it for good: its calls may finish for ``drain`` seconds, then ``shutdown``, SIGTERM, SIGKILL. Returns
        when the process is gone."""
        if self._life is None:
            if self._child is not None:
                await self._bury(self._child, "gone", self.reason)
            return
        if not self.alive:  # what has ended by itself stays what it is
            await asyncio.wait([self._life])
            return
        if self._stopping is None:
            wait = self.timing.drain if drain is None else drain
            work = self._end(self.timing.stop if grace is None else grace, wait)
            self._stopping = asyncio.get_running_loop().create_task(work, name=f"stop worker {self.model}")
        elif drain == 0:
            self._hurry = True
            self._notice()
        await asyncio.shield(self._stopping)
        await asyncio.wait([self._life])

    def drain(self) -> None:
        """No new calls: it is to leave once its open ones have ended."""
        if self.state == "ready":
            self._set("draining", "it leaves when its calls have ended")

    async def dead(self, timeout: float) -> bool:
        """Waits for the end of a worker that is no longer usable."""
        if self._life is not None:
            await asyncio.wait([self._life], timeout=timeout)
        return not self.alive

    def undrain(self) -> None:
        """It stays after all."""
        if self.state == "draining" and self._stopping is None:
            self._set("ready", "")

    async def idle(self) -> None:
        """Waits until nothing is open or promised, or it is dead."""
        while self.alive and self.busy:
            await self._wait_news(0.25 if not self._in_flight else None)

    async def _until_loaded(self, child: Child) -> wire.Failure | None:
        loop = asyncio.get_running_loop()
        lost_at: float | None = None
        while True:
            if self._failure is not None:
                await asyncio.wait([child.exited], timeout=self.timing.stop)
                return self._failure
            if child.exited.done():
                code = child.exited.result()
                cause = policy.cause_of_death(code, list(child.stderr), loading=True)
                return wire.Failure(cause=cause, message=child.death())
            if self._violation:
                return wire.Failure(cause=self.cause, message=f"dropped: {self._violation}")
            if self.info is not None:
                return None
            now = loop.time()
            left = self._sign_at + self.timing.stall - now
            if left <= 0:
                stall = f"its load made no progress for {self.timing.stall:g} s"
                return wire.Failure(cause="hung", message=stall)
            if self.version is not None and self.session is None:
                lost_at = now if lost_at is None else lost_at
                if now - lost_at >= self.timing.stop:
                    return wire.Failure(cause="runtime", message=self.reason)
                left = min(left, lost_at + self.timing.stop - now)
            await self._wait_news(left)

    async def _live(self, child: Child) -> None:
        """A loaded worker until its end; buries it."""
        reason = ""
        lost_at: float | None = None
        loop = asyncio.get_running_loop()
        while not child.exited.done():
            wait: float | None = None
            if self._violation and self._stopping is None:
                reason = self._violation
                if self.session is not None:
                    self.session.close(reason)  # its callers are to learn this, not that a connection broke
                break
            if self.session is None and self._stopping is None:
                lost_at = loop.time() if lost_at is None else lost_at
                wait = lost_at + self.timing.stop - loop.time()
                if wait <= 0:
                    reason = self.reason
                    break
            await self._wait_news(wait)
        if self._stopping is not None:
            await self._bury(child, "gone", self.reason)
            return
        if not reason:
            self.cause = policy.cause_of_death(child.exited.result(), list(child.stderr), loading=False)
            reason = child.death()
        await self._bury(child, "failed", reason)
        logger.error("the worker of %s has ended (%s): %s", self.model, self.cause, reason)

    async def _end(self, grace: float, drain: float) -> None:
        child, session = self._child, self.session
        assert child is not None
        loop = asyncio.get_running_loop()
        if self._in_flight and drain > 0:
            self.drain()
            deadline = loop.time() + drain
            while self._in_flight and self.alive and not self._hurry and (left := deadline - loop.time()) > 0:
                await self._wait_news(left)
        self._set("stopping", self.reason)
        if session is not None and not session.closed:
            session.draining = True
            deadline = loop.time() + grace
            await session.shutdown(grace)
            await asyncio.wait([child.exited], timeout=max(0.2, deadline - loop.time()))
        if not child.exited.done():
            child.kill(signal.SIGTERM)
            await asyncio.wait([child.exited], timeout=grace)
        child.kill(signal.SIGKILL)
        self._notice()

    async def _bury(self, child: Child, state: WorkerState, reason: str) -> None:
        """The end of the process, proven by its reaped PID."""
        self._token = None
        self.heartbeat.end()
        child.kill(signal.SIGKILL)
        if not child.exited.done():
            await asyncio.wait([child.exited])
        if self.session is not None:
            self.session.close("its process has ended")
        self._stderr = list(child.stderr)
        child.close()
        if self.state not in ("failed", "gone"):
            self._set(state, reason)

    # inside

    def _ending(self, reason: str) -> None:
        """It is lost, though its process may live for a moment: nobody is to take it for ready."""
        if self.state in ("ready", "draining"):
            self._set("stopping", reason)
        self._notice()

    def _sign(self) -> None:
        self._sign_at = asyncio.get_running_loop().time()

    def _notice(self) -> None:
        news, self._news = self._news, None
        if news is not None and not news.done():
            news.set_result(None)

    async def _wait_news(self, timeout: float | None) -> None:
        if self._news is None:
            self._news = asyncio.get_running_loop().create_future()
        waits: list[asyncio.Future[Any]] = [self._news, *((self._child.exited,) if self._child is not None else ())]
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)

    def _set(self, state: WorkerState, reason: str) -> None:
        if state != self.state:
            self.since = self._clock.wall_ns() / NS
        self.state, self.reason = state, reason
        self._on_change(self)
