"""One plugin process over its lives: one supervisor task owns it, everybody else only asks.

::

    idle ──want──► starting ──registered──► ready ──exit──► backoff ──► starting
     ▲                │ exit, no registration    │ idle_stop    │ 5 failures in 10 minutes
     └────────────────┼───────── stopping ◄──────┘              ▼
                      └──────────────────────────────────────► failed (until the window has passed)
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from hybridd.clocks import NS, Clock
from hybridd.contracts.protocol import Progress
from hybridd.contracts.views import PluginView, ProviderStateName
from hybridd.providers.limits import Backoff
from hybridd.providers.spawn import Child, ProcessPlan, SpawnContext, SpawnFailed, spawn

if TYPE_CHECKING:
    from hybridd.providers.session import Session

logger = logging.getLogger("hybridd.providers")

ProcessState = Literal["idle", "starting", "ready", "backoff", "failed", "stopping", "stopped"]


class PluginProcess:
    """Keeps one plan running. ``on_change`` is called after every change of state."""

    def __init__(
        self,
        plan: ProcessPlan,
        context: SpawnContext,
        clock: Clock,
        on_change: Callable[[PluginProcess], None],
        idle_seconds: Callable[[PluginProcess], float | None],
    ) -> None:
        timing = context.timing
        self.plan = plan
        self.state: ProcessState = "idle" if plan.on_demand else "starting"
        self.reason = ""
        self.restarts = 0
        self.since = clock.wall_ns() / NS
        self.session: Session | None = None
        self.violation = ""
        self._context = context
        self._clock = clock
        self._on_change = on_change
        self._idle_seconds = idle_seconds
        self._backoff = Backoff(
            first=timing.backoff_first,
            longest=timing.backoff_max,
            failures=timing.breaker_failures,
            window=timing.breaker_window,
            rng=context.rng,
        )
        self._token: str | None = None
        self._child: Child | None = None
        self._stderr: list[str] = []
        self._version: str | None = None
        self._wanted = asyncio.Event()
        self._closing = asyncio.Event()
        # The last life ended because it was idle: the next one waits until somebody needs it, eager or not.
        self._rested = False
        self._grace = timing.stop
        self._news: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self.ready_at = 0.0
        self._progress_at = 0.0

    # asked for by the hub

    def run(self) -> None:
        """Starts the supervisor task."""
        self._task = asyncio.get_running_loop().create_task(self._supervise(), name=f"plugin {self.plan.key}")

    def want(self) -> None:
        """Somebody needs it: an on-demand process starts, an idle one stays."""
        self._wanted.set()

    def take_token(self, token: str) -> bool:
        """True once for the token of the present life."""
        expected = self._token
        if expected is None or not secrets.compare_digest(expected.encode(), token.encode("utf-8", "replace")):
            return False
        self._token = None
        return True

    def attached(self, session: Session, version: str) -> None:
        self.session = session
        self._version = version

    def registered(self) -> None:
        if self.state == "starting":
            self.ready_at = asyncio.get_running_loop().time()
            self._set("ready", "")
            self._notice()

    def progressed(self, progress: Progress) -> None:
        """A start that goes on is not overdue."""
        self._progress_at = asyncio.get_running_loop().time()

    def violated(self, reason: str) -> None:
        """It broke the protocol: this life is over."""
        self.violation = reason
        self._notice()

    def lost(self, session: Session, reason: str) -> None:
        if self.session is session:
            self.session = None
            if self.state in ("starting", "ready"):
                self._set(self.state, f"lost its connection: {reason}")
            self._notice()

    async def close(self, grace: float) -> None:
        """Ends it for good: ``shutdown``, then SIGTERM, then SIGKILL."""
        self._grace = grace
        self._closing.set()
        self._notice()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def settled(self, timeout: float) -> None:
        """Waits until it is ready, has failed or need not start yet."""
        try:
            async with asyncio.timeout(timeout):
                while self.state == "starting":
                    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._waiters.append(waiter)
                    await waiter
        except TimeoutError:
            logger.warning("plugin %s is still starting after %g s", self.plan.key, timeout)

    @property
    def settings(self) -> dict[str, dict[str, object]]:
        """What travels in ``initialize``: settings by provider name."""
        return self.plan.config

    @property
    def started(self) -> bool:
        return self._task is not None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None and not self._child.exited.done() else None

    @property
    def exited(self) -> asyncio.Future[int] | None:
        """Of the present life's process."""
        return self._child.exited if self._child is not None else None

    def provider_state(self) -> tuple[ProviderStateName, str, bool]:
        """The state of a provider that has no connection, as far as the process goes."""
        if self.state == "backoff":
            return "disconnected", self.reason, False
        if self.state in ("stopping", "stopped"):
            resting = self.plan.on_demand or self.plan.idle_stop is not None
            return ("idle" if resting else "disconnected"), self.reason, False
        if self.state == "idle":
            return "idle", self.reason, False
        return ("failed" if self.state == "failed" else "starting"), self.reason, False

    def view(self, providers: list[str]) -> PluginView:
        return PluginView(
            name=self.plan.key,
            state=self.state,
            pid=self.pid,
            restarts=self.restarts,
            providers=providers,
            since=self.since,
            version=self._version,
            reason=self.reason,
            stderr=list(self._child.stderr) if self._child is not None else self._stderr,
        )

    # the supervisor

    async def _supervise(self) -> None:
        while not self._closing.is_set():
            if (self.plan.on_demand or self._rested) and not self._wanted.is_set():
                self._set("idle", "")
                await self._first(self._wanted.wait(), self._closing.wait())
                continue
            failure, curable = await self._live()
            if self._closing.is_set():
                break
            self._rested = failure is None
            if failure is None:
                continue
            self.restarts += 1
            now = self._clock.boot_ns() / NS
            delay, broken = self._backoff.failed(now) if curable else self._backoff.open(now)
            if broken:
                self._set("failed", f"{failure}; not tried again for {delay:.0f} s")
                logger.error("plugin %s has failed: %s", self.plan.key, failure)
                self._wanted.clear()
            else:
                self._set("backoff", f"{failure}; starts again in {delay:.1f} s")
                logger.warning("plugin %s: %s; starts again in %.1f s", self.plan.key, failure, delay)
            await self._first(self._closing.wait(), timeout=delay)
        self._set("stopped", "")

    async def _live(self) -> tuple[str | None, bool]:
        """One life; (why it failed or None, whether trying again can help)."""
        self._token = secrets.token_urlsafe(32)
        self.violation = ""
        self._set("starting", "")
        try:
            child = self._child = await spawn(self._context, self.plan, self._token)
        except SpawnFailed as error:
            return error.message, False
        try:
            failure = await self._until_ready(child) or await self._until_end(child)
        finally:
            self._token = None
            child.kill(signal.SIGKILL)
            await asyncio.wait([child.exited])
            if self.session is not None:
                self.session.close("its process has ended")
            self._stderr = list(child.stderr)
            child.close()
        return failure, True

    async def _until_ready(self, child: Child) -> str | None:
        began = asyncio.get_running_loop().time()
        while self.state == "starting" and not self._closing.is_set():
            since = max(began, self._progress_at)
            left = since + self._context.timing.start - asyncio.get_running_loop().time()
            if child.exited.done():
                return child.death()
            if self.violation:
                return f"dropped: {self.violation}"
            if left <= 0:
                return f"it did not register a provider within {self._context.timing.start:g} s"
            await self._wait(child, left)
        return None

    async def _until_end(self, child: Child) -> str | None:
        """A ready process: until it dies, is no longer wanted, or has been idle for long enough."""
        timing = self._context.timing
        lost_at: float | None = None
        while True:
            now = asyncio.get_running_loop().time()
            wait: float | None = None
            if child.exited.done():
                return child.death()
            if self.violation:
                return f"dropped: {self.violation}"
            if self._closing.is_set():
                await self._end(child)
                return None
            if self.session is None:
                lost_at = now if lost_at is None else lost_at
                wait = lost_at + timing.stop - now
                if wait <= 0:
                    return self.reason or "it lost its connection"
            elif self.plan.idle_stop is not None:
                idle = self._idle_seconds(self)
                wait = self.plan.idle_stop if idle is None else self.plan.idle_stop - idle
                if idle is not None and wait <= 0:
                    self._wanted.clear()
                    await self._end(child)
                    return None
            await self._wait(child, wait)

    async def _end(self, child: Child) -> None:
        """Graceful: no new calls, ``shutdown``, and signals for a plugin that does not follow."""
        self._set("stopping", "")
        loop = asyncio.get_running_loop()
        if self.session is not None:
            self.session.draining = True
            deadline = loop.time() + self._grace
            await self.session.shutdown(self._grace)
            await asyncio.wait([child.exited], timeout=max(0.2, deadline - loop.time()))
        if not child.exited.done():
            child.kill(signal.SIGTERM)
            await asyncio.wait([child.exited], timeout=min(self._grace, self._context.timing.stop))

    async def _wait(self, child: Child, timeout: float | None) -> None:
        """Until the child exits, something is told to us, or the time is up."""
        self._news = asyncio.get_running_loop().create_future()
        try:
            futures: list[asyncio.Future[object]] = [child.exited, self._news]  # type: ignore[list-item]  # invariance
            await asyncio.wait(futures, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._news = None

    def _notice(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def _first(self, *waits: object, timeout: float | None = None) -> None:
        tasks = [asyncio.ensure_future(wait) for wait in waits]  # type: ignore[call-overload]  # coroutines only
        try:
            await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    def _set(self, state: ProcessState, reason: str) -> None:
        if state != self.state:
            self.since = self._clock.wall_ns() / NS
        self.state, self.reason = state, reason
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._on_change(self)
