"""The daemon: builds the house, opens the door, and leaves tidily.

Start:  configuration → socket and state locks → database → ledger recovery → hub → router → monitor → serve.
Stop:   no new calls → calls in flight finish or are settled → plugins → server → database.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import uvloop

from hybridd import locations, logs
from hybridd._version import __version__
from hybridd.api.app import App
from hybridd.api.bind import BoundSocket, bind
from hybridd.api.server import build_server
from hybridd.api.services import Services
from hybridd.bus import EventBus
from hybridd.clocks import SystemClock
from hybridd.config.loader import load
from hybridd.config.resolved import Resolved
from hybridd.errors import EXIT_FAILURE, EXIT_OK, ConfigError, HybriddError
from hybridd.ledger import Ledger
from hybridd.local.jobs import Jobs
from hybridd.local.pulls import Pulls
from hybridd.local.residency import Residency
from hybridd.local.residency_ports import real_ports
from hybridd.monitor import Monitor
from hybridd.monitor.log_events import LogEvents
from hybridd.providers import Hub, SpawnContext
from hybridd.routing.rests import load_rests, save_rest
from hybridd.routing.router import Router
from hybridd.store.database import Database

log = logs.get_logger("hybridd")
PULSE_SECONDS = 0.25
SWITCH_SECONDS = 0.001


def main(config: Path | None = None) -> int:
    """Runs until SIGTERM or SIGINT; returns the exit status.

    A configuration or state that cannot be used is one sentence on stderr and a stable exit status.
    """
    # The writer's and the log's threads share the interpreter with the event loop: by default one of them may hold it
    # for 5 ms, which is five routed calls.
    sys.setswitchinterval(SWITCH_SECONDS)
    logs.configure(level=os.environ.get("HYBRIDD_LOG_LEVEL", "info"))
    try:
        config = config.absolute() if config is not None else None
        resolved = load(config)
        bound = bind(locations.socket_path())
        try:
            database = Database.open(locations.state_dir(), clock=SystemClock())
            try:
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    return runner.run(Daemon(resolved, config, bound, database).run())
            finally:
                database.close()
        finally:
            bound.close()
    except HybriddError as error:
        sys.stderr.write(f"hybridd: {error.message}\n")
        return error.exit_code
    finally:
        logs.close()


class Daemon:
    """One running daemon. Lives inside the event loop."""

    def __init__(self, resolved: Resolved, config: Path | None, bound: BoundSocket, database: Database) -> None:
        self._resolved = resolved
        self._config_path = config
        self._bound = bound
        self._database = database
        self._clock = SystemClock()
        self._bus = EventBus(self._clock)
        self._log_events = LogEvents(logs.ring, self._bus)
        self._stop = asyncio.Event()
        self._ready = (False, "starting")
        self._reloading = asyncio.Lock()
        self._pulse_timer: asyncio.TimerHandle | None = None

    async def run(self) -> int:
        self._log_events.start()
        self._build()
        self._install_signals()
        serving = asyncio.ensure_future(self._server.serve(sockets=[self._bound.socket]))
        # Before the first request is read: one that waited in the socket's backlog must find its provider starting.
        await self._hub.apply(self._resolved.providers)
        stopping = asyncio.ensure_future(self._stop.wait())
        # A long history takes seconds to read: meanwhile the socket answers, and calls are refused with that reason.
        recovery = asyncio.ensure_future(self._ledger.recover())
        await asyncio.wait({recovery, stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
        if recovery.done():
            report = recovery.result()
            if report.unknown:
                log.warning("calls of an unclean stop are counted in full", calls=report.unknown)
            self._open()
        else:
            recovery.cancel()
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        await self._close()
        if serving.done():
            serving.result()
            return EXIT_FAILURE
        self._server.should_exit = True
        await serving
        await self._database.writer.barrier()
        return EXIT_OK

    def _open(self) -> None:
        """What was spent is known: calls are taken."""
        self._ready = (True, "ready")
        self._monitor.start()
        self._pulse()
        # The objects of the start live as long as the daemon: the collector need not look at them again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 10, 10)
        log.info("ready", version=__version__, socket=str(self._bound.path), state=str(locations.state_dir()))
        logs.notify("READY=1")

    def _build(self) -> None:
        rng = random.Random()
        spawn = SpawnContext(socket=self._bound.path)
        self._hub = Hub(clock=self._clock, bus=self._bus, spawn=spawn, rng=rng)
        self._residency = Residency(self._hub, self._bus, self._clock, real_ports())
        self._jobs = Jobs(self._bus, self._clock)
        self._ledger = Ledger(self._database, self._clock, self._bus)
        self._router = Router(
            hub=self._hub,
            ledger=self._ledger,
            database=self._database,
            clock=self._clock,
            bus=self._bus,
            rng=rng,
            resolved=self._resolved,
        )
        load_rests(self._database, self._router.cooldowns)
        self._hub.prepare(self._resolved.providers)
        self._router.providers_changed()
        self._monitor = Monitor(
            self._hub,
            self._ledger,
            self._database,
            self._bus,
            self._clock,
            lambda: self._router.resolved,
            provider_views=self._router.provider_views,
        )
        self._database.writer.on_state = self._monitor.storage_changed
        self._router.on_admitted = self._monitor.admitted
        self._router.on_rest.append(self._rest_changed)
        self._hub.on_registered.append(self._router.providers_changed)
        self._hub.on_observed.append(self._observed)
        self._hub.on_state.append(lambda provider: self._monitor.touch())
        services = Services(
            router=self._router,
            hub=self._hub,
            ledger=self._ledger,
            database=self._database,
            monitor=self._monitor,
            residency=self._residency,
            jobs=self._jobs,
            pulls=Pulls(self._jobs, self._ledger, self._residency),
            bus=self._bus,
            clock=self._clock,
            socket=self._bound.path,
            started_boot_ns=self._clock.boot_ns(),
            ready=lambda: self._ready,
            reload=self.reload,
        )
        self._server = build_server(App(services), hub=self._hub)

    def _pulse(self) -> None:
        """Four times a second the ledger publishes what changed, when somebody listens."""
        self._pulse_timer = asyncio.get_running_loop().call_later(PULSE_SECONDS, self._pulse)
        self._ledger.flush_events()

    def _install_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: asyncio.ensure_future(self._reload_logged()))

    async def _reload_logged(self) -> None:
        try:
            await self.reload()
        except HybriddError as error:
            log.error("reload refused, the old settings stay", error=error.message)

    async def reload(self) -> dict[str, Any]:
        """Reads the configuration again. A broken file changes nothing.

        Raises:
            ConfigError: what is wrong with it.
        """
        async with self._reloading:
            try:
                resolved = load(self._config_path)
            except ConfigError as error:
                log.error("configuration refused", error=error.message)
                raise
            self._refuse_unknown_past(resolved)
            self._resolved = resolved
            self._router.configure(resolved)
            await self._hub.apply(resolved.providers)
            self._router.providers_changed()
            self._monitor.reconfigure()
            log.info("configuration reloaded", path=resolved.path)
            return {"reloaded": True, "path": resolved.path, "providers": sorted(resolved.providers)}

    def _refuse_unknown_past(self, resolved: Resolved) -> None:
        """A window that looks further back than what is held in memory would start too empty."""
        held = self._ledger.horizon_seconds
        for spec in resolved.providers.values():
            for quota in spec.quotas:
                if (quota.window.seconds or 0) > held:
                    raise ConfigError(
                        f"{resolved.path}: the window {quota.window} of provider {spec.name} is longer than the "
                        f"{held // 86_400} days of history in memory; restart hybridd to use it",
                        param=f"providers.{spec.name}.quotas",
                    )

    def _rest_changed(self, target: Any, rest: Any) -> None:
        save_rest(self._database, target, rest)
        self._monitor.touch()
        provider = target[0]
        if self._bus.wanted("provider"):
            view = next((item for item in self._router.provider_views() if item.name == provider), None)
            self._bus.publish("provider", {"key": provider, "provider": view})

    def _observed(self, provider: str, observations: list[Any]) -> None:
        spec = self._router.resolved.providers.get(provider)
        if spec is not None:
            self._ledger.observe(provider, spec.account, None, observations, as_of=None)

    async def _close(self) -> None:
        """Finish or settle what is in flight, within ``server.shutdown_seconds``."""
        self._ready = (False, "stopping")
        logs.notify("STOPPING=1")
        grace = self._router.resolved.settings.server.shutdown_seconds
        self._router.gate.close()
        if self._pulse_timer is not None:
            self._pulse_timer.cancel()
        self._ledger.flush_events()
        try:
            async with asyncio.timeout(grace):
                await self._router.drain()
        except TimeoutError:
            log.warning(
                "calls still in flight at the deadline are cut and counted in full", calls=self._router.gate.in_flight
            )
        await self._monitor.stop()
        await self._jobs.close()
        await self._hub.close(min(grace, 3.0))
        try:
            async with asyncio.timeout(5):
                await self._router.drain()
        except TimeoutError:
            log.error("calls could not be settled; they are counted in full at the next start")
        orphans = await self._router.settle_orphans(1.0)
        if orphans:
            log.warning("a plugin that lives on may hold calls; they count in full at the next start", calls=orphans)
        self._log_events.stop()
        self._bus.close("hybridd is stopping")
        log.info("stopped", pid=os.getpid())
