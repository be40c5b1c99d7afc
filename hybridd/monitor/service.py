"""The monitor: every few seconds it looks at limits, providers, money, the disk and the machine, and keeps the alerts.

Decisions are in :mod:`~hybridd.monitor.rules` and :mod:`~hybridd.monitor.book`; this module gathers the facts, on
time, and carries the outcome out. A check costs a few milliseconds and never blocks the loop: the database is read in
the reader's thread, drivers and kernel counters in threads of their own, providers are asked side by side.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from hybridd import logs
from hybridd.bus import EventBus
from hybridd.clocks import NS, Clock
from hybridd.config.resolved import Resolved
from hybridd.config.settings import MonitoringSettings
from hybridd.contracts.views import AlertView, LimitView, ProviderView
from hybridd.errors import StorageError
from hybridd.monitor import figures, retention, rules, series
from hybridd.monitor.alerts import Alerts
from hybridd.monitor.conditions import Condition, Facts
from hybridd.monitor.machine import Machine
from hybridd.monitor.ports import DatabasePort, HubPort, LedgerPort, ReservationPort
from hybridd.monitor.probes import Probes
from hybridd.monitor.spend import HourlySpend
from hybridd.monitor.watch import QuotaWatch

SETTLE_SECONDS = 1.0  # the first check, and the scheduler's import, wait until the socket has answered somebody
TOUCH_SECONDS = 0.05
PROBE_SECONDS = 4.0
READ_SECONDS = 5.0
RETENTION_SECONDS = 86_400.0
FIRST_RETENTION_SECONDS = 600.0


class Monitor:
    """See the module. Every method belongs to the event loop's thread.

    Args:
        provider_views: what the rules see of the providers; the hub's own view by default. The router's knows
            cooldowns, parking and tombstones.
        machine: where host and GPU samples come from; this machine by default.
    """

    def __init__(
        self,
        hub: HubPort,
        ledger: LedgerPort,
        database: DatabasePort,
        bus: EventBus,
        clock: Clock,
        get_resolved: Callable[[], Resolved],
        *,
        provider_views: Callable[[], list[ProviderView]] | None = None,
        machine: Machine | None = None,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        self._hub = hub
        self._ledger = ledger
        self._database = database
        self._bus = bus
        self._clock = clock
        self._get_resolved = get_resolved
        self._provider_views = provider_views or hub.provider_views
        self._log = logs.get_logger("hybridd.monitor")
        self.alerts = Alerts(database, bus, clock)
        """The alerts, for those who raise, resolve or list them directly."""
        self._probes = Probes(hub, ledger, clock)
        self._watch = QuotaWatch(self._crossed)
        self._spend = HourlySpend()
        self._series = series.Series()
        self._machine = machine or Machine(database.path.parent)
        self._notifier = logs.Notifier.from_environment()
        self._settle = settle_seconds
        self._scheduler: Any = None
        self._interval: float | None = None
        self._starting: asyncio.Task[None] | None = None
        self._touched: asyncio.TimerHandle | None = None
        self._timekeeper: asyncio.TimerHandle | None = None
        self._checking = asyncio.Lock()
        self._loaded = False
        self._early: list[Condition] = []
        self._usd_last_hour = 0.0
        self._latency: float | None = None
        self._checks = 0
        self._last_check: float | None = None
        self._last_check_ms = 0.0
        self._last_error = ""
        self._last_sweep: dict[str, Any] = {}

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take up the alerts of the run before and begin checking, shortly. Returns at once."""
        if self._starting is None:
            self._notifier.start_watchdog()
            self._starting = asyncio.get_running_loop().create_task(self._begin(), name="monitor-start")

    async def stop(self) -> None:
        """End the checks; one that runs is finished first."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
            self._starting = None
        if self._touched is not None:
            self._touched.cancel()
            self._touched = None
        if self._timekeeper is not None:
            self._timekeeper.cancel()
            self._timekeeper = None
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)
            self._scheduler = None
        async with self._checking:
            self._machine.close()
        self._notifier.stop_watchdog()

    def reconfigure(self) -> None:
        """The configuration was reloaded: apply the interval, pause or resume, look again soon."""
        self._watch.forget()
        scheduler = self._scheduler
        if scheduler is None:
            return
        interval = self._settings.check_interval_seconds
        if interval != self._interval:
            self._interval = interval
            scheduler.reschedule_job("check", trigger="interval", seconds=interval, timezone=UTC)
            scheduler.modify_job("check", misfire_grace_time=_grace(interval))
        if self.paused is None:
            scheduler.resume_job("check")
            self.touch()
        else:
            scheduler.pause_job("check")

    async def _begin(self) -> None:
        await self._load()
        await asyncio.sleep(self._settle)
        from apscheduler.schedulers.asyncio import AsyncIOScheduler

        self._interval = self._settings.check_interval_seconds
        now = datetime.now(UTC)
        scheduler = AsyncIOScheduler(timezone=UTC)
        scheduler.add_job(
            self.check_now, "interval", id="check", seconds=self._interval, next_run_time=now, coalesce=True,
            max_instances=1, misfire_grace_time=_grace(self._interval),
        )  # fmt: skip
        # Never skipped for having been late (the machine slept): the next chance would be a day away.
        scheduler.add_job(
            self.sweep, "interval", id="retention", seconds=RETENTION_SECONDS, coalesce=True, max_instances=1,
            next_run_time=now + timedelta(seconds=FIRST_RETENTION_SECONDS), misfire_grace_time=None,
        )  # fmt: skip
        scheduler.start()
        self._scheduler = scheduler
        if self.paused is not None:
            scheduler.pause_job("check")
        self._keep_time()

    def _keep_time(self) -> None:
        """The scheduler counts in wall time: when the clock was set back, its jobs would wait until their old time has
        come again. The loop's timers do not know the wall clock."""
        now, seconds = datetime.now(UTC), self._settings.check_interval_seconds
        for name, interval in (("check", seconds), ("retention", RETENTION_SECONDS)):
            due = self._scheduler.get_job(name).next_run_time  # None while paused
            if due is not None and due - now > timedelta(seconds=interval + 1):
                self._scheduler.modify_job(name, next_run_time=now)
        self._timekeeper = asyncio.get_running_loop().call_later(seconds, self._keep_time)

    async def _load(self) -> None:
        try:
            await self.alerts.load()
        except StorageError as error:
            # Without the old numbers new alerts would overwrite old rows; the next check tries again.
            self._last_error = str(error)
            self._log.error("the alerts of the run before cannot be read", reason=str(error))
            return
        self._loaded = True
        early, self._early = self._early, []
        for condition in early:
            self.alerts.open_now(condition)

    # -- what may happen between two checks ------------------------------------------------------------------------

    def admitted(self, reservation: ReservationPort) -> None:
        """A call was admitted: warn now if one of its quotas has fallen to its warning line. A few microseconds."""
        self._watch.admitted(reservation)

    def quota_touched(self, view: LimitView) -> None:
        """A quota has changed and may be low: warn at once instead of at the next check."""
        key = f"quota_low:{view.key}"
        if self.paused is None and not self.alerts.is_open(key):
            condition = rules.quota_low(view, self._now())
            if condition is not None:
                self._open(condition)

    def storage_changed(self, reason: str | None) -> None:
        """The writer's ``on_state``: why writes are refused, or None when they work again."""
        if reason is None:
            self.touch()
        elif self.paused is None:
            self._open(rules.storage_failed(reason))

    def touch(self) -> None:
        """Something worth a look has happened (a provider's state, a reload): evaluate the rules shortly, on what is in
        memory. Many touches make one look."""
        if self._touched is None and self._loaded:
            self._touched = asyncio.get_running_loop().call_later(TOUCH_SECONDS, self._look)

    def _look(self) -> None:
        self._touched = None
        if self.paused is None:
            self._evaluate(counts=False)

    def _crossed(self, key: str) -> None:
        if self.paused is not None:
            return
        for view in self._ledger.limits():
            if view.key == key:
                self.quota_touched(view)

    def _open(self, condition: Condition) -> None:
        if self._loaded:
            self.alerts.open_now(condition)
        else:
            self._early.append(condition)

    # -- the check -------------------------------------------------------------------------------------------------

    async def check_now(self) -> None:
        """One whole check. Does nothing while monitoring is switched off."""
        if self.paused is not None:
            return
        async with self._checking:
            started = self._clock.boot_ns()
            try:
                await self._check()
            except Exception as error:  # noqa: BLE001  # logged below, with its traceback
                # The next check must come whatever happened in this one.
                self._last_error = f"{type(error).__name__}: {error}"
                self._log.exception("a check failed")
            self._checks += 1
            self._last_check = self._now()
            self._last_check_ms = (self._clock.boot_ns() - started) / 1e6

    async def _check(self) -> None:
        if not self._loaded:
            await self._load()
        await self._read_figures()
        limits = self._evaluate(counts=True)
        views = self._provider_views()
        specs = self._get_resolved().providers
        # A plugin that stops when it is idle would never be idle if it were asked every half minute.
        skip = {name for name, spec in specs.items() if spec.idle_stop_seconds is not None}
        interval = self._settings.check_interval_seconds
        observed, _ = await asyncio.gather(
            self._probes.round(views, timeout=PROBE_SECONDS, interval=interval, skip=skip), self._machine.sample()
        )
        if observed:
            limits = self._evaluate(counts=False)
        self._keep_samples(limits)
        self._bus.publish("host", {"key": "host", **self.host_sample()})

    def _evaluate(self, *, counts: bool) -> Sequence[LimitView]:
        resolved = self._get_resolved()
        limits = self._ledger.limits()
        facts = Facts(
            now=self._now(),
            thresholds=resolved.settings.monitoring.alert_thresholds,
            limits=limits,
            providers=self._provider_views(),
            plugins=self._hub.plugin_views(),
            tasks={name: [str(ref) for ref in task.candidates] for name, task in resolved.tasks.items()},
            storage_failed=self._database.writer.failed,
            local_latency_seconds=self._latency,
            usd_last_hour=self._usd_last_hour,
        )
        if self._loaded:
            self.alerts.check(rules.evaluate(facts, self.alerts.open_keys), counts=counts)
        return limits

    async def _read_figures(self) -> None:
        now = self._now()
        local = [name for name, spec in self._get_resolved().providers.items() if spec.plugin == "llama_cpp"]
        reader = self._database.reader
        try:
            async with asyncio.timeout(READ_SECONDS):
                self._latency = await reader.run(figures.local_latency, local, now)
                sums = await reader.run(figures.spend_by_hour, int(now // 3600))
        except (StorageError, sqlite3.Error, TimeoutError) as error:
            self._last_error = f"recent figures cannot be read: {error or 'timeout'}"
            return
        self._usd_last_hour = self._spend.update(now, sums)

    def _keep_samples(self, limits: Sequence[LimitView]) -> None:
        rows = self._series.fresh(series.values(self._machine.host, self._machine.gpu, limits), self._now())
        for start in range(0, len(rows), 100):
            self._database.writer.execute(*series.insert(rows[start : start + 100]))

    async def sweep(self) -> None:
        """The daily tidying: thin samples, delete what is older than the retention allows."""
        days = self._settings.retention_days
        keep = retention.call_days(days, self._ledger.limits())
        try:
            done: dict[str, Any] = await retention.sweep(
                self._database, self._now(), days=days, keep_calls_days=keep, boot_ns=self._clock.boot_ns()
            )
        except (StorageError, sqlite3.Error) as error:
            done = {"error": str(error)}
            self._log.warning("old records could not be deleted; tried again in a day", reason=str(error))
        self._last_sweep = {"at": self._now(), **done}

    # -- for others ------------------------------------------------------------------------------------------------

    @property
    def paused(self) -> str | None:
        """Why there are no checks and no alerts, or None."""
        if not self._settings.enabled:
            return "monitoring.enabled is false"
        if not self._get_resolved().flags.enable_monitoring:
            return "flags.enable_monitoring is false"
        return None

    @property
    def open_alerts(self) -> int:
        """How many alerts are open, and neither acknowledged nor silenced."""
        return sum(view.state == "open" for view in self.alerts.live())

    async def list_alerts(
        self, *, state: str | None = None, limit: int = 100, before_id: int | None = None
    ) -> list[AlertView]:
        """Newest first. ``state``: ``live`` (not resolved), one of the states, or None for all.

        Raises:
            InvalidRequest: an unknown state.
        """
        return await self.alerts.list(state=state, limit=limit, before_id=before_id)

    async def ack(self, alert_id: int) -> AlertView:
        """Raises:
        NotFound: there is no such alert.
        """
        return await self.alerts.ack(alert_id)

    async def silence(self, alert_id: int, until: float, *, reason: str = "") -> AlertView:
        """``until``: UTC seconds; a moment that has passed ends the silence.

        Raises:
            NotFound: there is no such alert.
            InvalidRequest: ``until`` is not within the next year.
        """
        return await self.alerts.silence(alert_id, until, reason=reason)

    def raise_(self, condition: Condition) -> AlertView | None:
        """An alert by hand (a job that failed); it stays until :meth:`resolve`. None while monitoring is off."""
        if self.paused is not None:
            return None
        return self.alerts.raise_(condition)

    def resolve(self, key: str) -> bool:
        """False when nothing of that key was open."""
        return self.alerts.resolve(key)

    def host_sample(self) -> dict[str, Any]:
        """The newest figures of the machine and its GPUs, or the reasons why there are none."""
        return self._machine.view()

    def status(self) -> dict[str, Any]:
        """What the monitor itself is doing."""
        return {
            "paused": self.paused,
            "interval_seconds": self._settings.check_interval_seconds,
            "checks": self._checks,
            "last_check": self._last_check,
            "last_check_ms": round(self._last_check_ms, 3),
            "last_error": self._last_error,
            "open_alerts": self.open_alerts,
            "usd_last_hour": self._usd_last_hour,
            "local_latency_seconds": self._latency,
            "probes": {name: msgspec.to_builtins(status) for name, status in self._probes.status.items()},
            "retention": self._last_sweep,
            "log_lines_lost": logs.dropped(),
        }

    @property
    def _settings(self) -> MonitoringSettings:
        return self._get_resolved().settings.monitoring

    def _now(self) -> float:
        return self._clock.wall_ns() / NS


def _grace(interval: float) -> int:
    """A check may be as late as the next one is due."""
    return max(1, round(interval))
