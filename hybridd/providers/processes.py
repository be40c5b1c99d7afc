"""Every plugin process that the configuration asks for: made, kept while its plan is the same, replaced, retired."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping

from hybridd.clocks import Clock
from hybridd.providers.process import PluginProcess
from hybridd.providers.registry import ProviderRuntime
from hybridd.providers.session import Session
from hybridd.providers.spawn import ProcessPlan, SpawnContext


class Processes:
    """By key of the plan. ``runtimes``: the providers by name; ``on_change(process)`` after every change of state;
    ``withdraw(session)`` takes a retiring process's names away from it."""

    def __init__(
        self,
        spawn: SpawnContext,
        clock: Clock,
        runtimes: Mapping[str, ProviderRuntime],
        on_change: Callable[[PluginProcess], None],
        withdraw: Callable[[Session], None],
    ) -> None:
        self._spawn = spawn
        self._clock = clock
        self._runtimes = runtimes
        self._on_change = on_change
        self._withdraw = withdraw
        self._processes: dict[str, PluginProcess] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._replaced: set[PluginProcess] = set()

    def __iter__(self) -> Iterator[PluginProcess]:
        return iter(self._processes.values())

    def of(self, name: str) -> PluginProcess | None:
        """The process that serves a provider."""
        return next((one for one in self if name in one.plan.config), None)

    def apply(self, wanted: Mapping[str, ProcessPlan]) -> None:
        """Makes and retires; starts nothing."""
        for key, process in list(self._processes.items()):
            plan = wanted.get(key)
            if plan is None:
                del self._processes[key]
                self._retire(process, None)
            elif plan != process.plan or process.state == "failed" or self._may_have_new_key(process):
                # A reload is also how a user asks to try a failed plugin again, and to take a new key.
                self._processes[key] = successor = self._make(plan)
                self._retire(process, successor)
        for key, plan in wanted.items():
            if key not in self._processes:
                self._processes[key] = self._make(plan)

    def start(self) -> None:
        """Those that have not been."""
        for process in self:
            if not process.started:
                process.run()

    async def close(self, grace: float) -> None:
        await asyncio.gather(*(process.close(grace) for process in (*self, *self._replaced)))
        for task in tuple(self._retiring):
            task.cancel()

    def _may_have_new_key(self, process: PluginProcess) -> bool:
        """A key's program is only run by the plugin as it starts; so is a provider without its key looked at again.
        (Key files are part of the plan.)"""
        names = process.plan.config
        references = [settings.get("api_key") for settings in names.values()]
        if any(isinstance(reference, dict) and reference.get("command") for reference in references):
            return True
        return any(self._runtimes[name].state == "not_configured" for name in names if name in self._runtimes)

    def _idle_seconds(self, process: PluginProcess) -> float | None:
        """Seconds since the last call of any of its providers ended; None while one is open."""
        now = asyncio.get_running_loop().time()
        mine = [self._runtimes[name] for name in process.plan.config if name in self._runtimes]
        if any(runtime.in_flight for runtime in mine):
            return None
        latest = max((runtime.last_used for runtime in mine), default=0.0)
        return now - max(latest, process.ready_at)

    def _make(self, plan: ProcessPlan) -> PluginProcess:
        return PluginProcess(plan, self._spawn, self._clock, self._on_change, self._idle_seconds)

    def _retire(self, process: PluginProcess, successor: PluginProcess | None) -> None:
        self._replaced.add(process)
        task = asyncio.get_running_loop().create_task(self._drain(process, successor))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _drain(self, process: PluginProcess, successor: PluginProcess | None) -> None:
        """The old process goes once its successor has taken over and its calls are answered."""
        timing = self._spawn.timing
        loop = asyncio.get_running_loop()
        try:
            if successor is not None:
                await successor.settled(timing.start)
            session = process.session
            if session is not None:
                session.draining = True
                self._withdraw(session)
                await session.drained(loop.time() + timing.drain)
            await process.close(timing.stop)
        finally:
            self._replaced.discard(process)
