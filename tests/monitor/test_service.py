"""The monitor as a whole, on a real database and a real ledger."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hybridd.bus import EventBus
from hybridd.clocks import NS, ManualClock
from hybridd.config.resolved import Resolved
from hybridd.contracts.protocol import Observation, ProbeResult
from hybridd.contracts.quotas import Quota, Window
from hybridd.errors import StorageError
from hybridd.ledger import Ledger
from hybridd.monitor import Condition, Monitor
from hybridd.monitor.machine import Machine
from hybridd.store.database import Database
from tests.monitor.helpers import HOST, NO_GPU, SmallHub, plugin, provider, quota, resolved, spec
from tests.monitor.test_drain import admit
from tests.monitor.test_small_parts import request


class Bench:
    """A monitor with its surroundings, and switches for them."""

    def __init__(self, database: Database, ledger: Ledger, hub: SmallHub, bus: EventBus, clock: ManualClock) -> None:
        self.database, self.ledger, self.hub, self.bus, self.clock = database, ledger, hub, bus, clock
        self.resolved: Resolved = resolved()
        self.monitor = self.fresh()

    def fresh(self) -> Monitor:
        machine = Machine(self.database.path.parent, take_host=lambda: HOST, take_gpu=lambda: NO_GPU)
        return Monitor(
            self.hub, self.ledger, self.database, self.bus, self.clock, lambda: self.resolved,
            machine=machine, settle_seconds=0,
        )  # fmt: skip

    def names(self) -> list[str]:
        return sorted(view.name for view in self.monitor.alerts.live())

    async def checks(self, count: int = 1) -> list[str]:
        for _ in range(count):
            self.clock.advance(30)
            await self.monitor.check_now()
        return self.names()


@pytest.fixture
async def bench(database: Database, hub: SmallHub, bus: EventBus, clock: ManualClock) -> AsyncIterator[Bench]:
    ledger = Ledger(database, clock, bus)
    await ledger.recover()
    made = Bench(database, ledger, hub, bus, clock)
    yield made
    await made.monitor.stop()


async def until(condition: Any, seconds: float = 5) -> None:
    """Let the loop turn until the condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_check_opens_and_resolves(bench: Bench) -> None:
    """A retired provider, a failed plugin and a parked one are told at one check, and end two checks after they are
    well again."""
    bench.hub.providers = [provider("a", "retired"), provider("b", "parked", "402")]
    bench.hub.plugins = [plugin("p", "failed")]
    assert await bench.checks() == ["PluginFailed", "ProviderParked", "ProviderRetired"]
    bench.hub.providers, bench.hub.plugins = [provider("a"), provider("b")], [plugin("p")]
    assert len(await bench.checks(1)) == 3
    assert await bench.checks(1) == []


async def test_a_probe_sees_what_others_spend(bench: Bench) -> None:
    """Figures of an unmetered probe reach the ledger within the same check: the low account is told at once, with the
    drift, and the next call is bound by them."""
    bench.resolved = resolved(providers={"github_models": spec("github_models", "github_models")})
    bench.hub.providers = [provider("github_models")]
    bench.ledger.configure(
        [
            Quota(
                account="github_models", unit="requests", limit=5000, window=Window(seconds=3600), buffer=100,
                provider="github_models",
            )
        ]
    )  # fmt: skip

    async def rate_limit() -> ProbeResult:
        return ProbeResult(
            observations=[Observation(unit="requests", remaining=90, limit=5000, window="3600s", reset_ms=600_000)]
        )

    bench.hub.probes["github_models"] = rate_limit
    assert await bench.checks() == ["GithubRequestsLow", "QuotaDrift", "QuotaLow"]
    assert bench.ledger.room("github_models", "any", "requests") == 0
    assert bench.monitor.status()["probes"]["github_models"]["ok"]


async def test_money_and_latency_come_from_the_records(bench: Bench) -> None:
    """Slow local answers and spending are read from the database."""
    bench.resolved = resolved(
        providers={"local": spec("local", "llama_cpp")},
        monitoring={"alert_thresholds": {"local_latency_seconds": 2, "paid_usd_per_hour": 0.5}},
    )
    await bench.checks()
    bench.database.writer.request(request(0, bench.clock, latency_us=3_000_000))
    await bench.database.writer.call(
        lambda c: (
            c.execute(
                "UPDATE rollup_hour SET usd_micro = 600000 WHERE period = ?", (bench.clock.wall_ns() // NS // 3600,)
            ).rowcount
        )
    )
    assert await bench.checks() == ["LocalLatencyHigh", "SpendHigh"]
    bench.clock.advance(2 * 3600)
    assert await bench.checks(2) == []


async def test_idle_plugins_are_left_idle(bench: Bench) -> None:
    """A provider that stops when idle is not probed, or it would never be."""
    bench.resolved = resolved(
        providers={"specialists": spec("specialists", "specialists", idle_stop_seconds=300), "lab": spec("lab")}
    )
    bench.hub.providers = [provider("specialists"), provider("lab")]
    await bench.checks()
    assert bench.hub.probed == ["lab"]


async def test_samples_and_events(bench: Bench) -> None:
    """A check writes samples and publishes one host event with figures and reasons."""
    events = bench.bus.subscribe(lambda: None, kinds=["host"])
    bench.ledger.configure([quota(10)])
    await bench.checks()
    (event,) = events.drain()
    assert (event.data["key"], event.data["cpu_count"], event.data["gpu_reason"]) == ("host", 2, "no NVIDIA driver")
    names = await bench.database.reader.run(
        lambda c: [row[0] for row in c.execute("SELECT DISTINCT name FROM samples")]
    )
    assert "quota.lab/requests/86400s.remaining" in names
    assert "host.memory_available_mb" in names


async def test_a_stranger_view_of_the_providers_can_be_given(bench: Bench) -> None:
    """With the router's views the rules see tombstones the hub does not know."""
    bench.monitor = Monitor(
        bench.hub, bench.ledger, bench.database, bench.bus, bench.clock, lambda: bench.resolved,
        provider_views=lambda: [provider("x", "retired")],
        machine=Machine(bench.database.path.parent, take_host=lambda: HOST, take_gpu=lambda: NO_GPU),
    )  # fmt: skip
    assert await bench.checks() == ["ProviderRetired"]


async def test_the_disk_is_told_at_once(bench: Bench) -> None:
    """The writer's state change opens the critical alert without a check; after recovery checks resolve it."""
    await bench.checks()
    bench.monitor.storage_changed("No space left on device")
    assert bench.names() == ["StorageFailed"]
    bench.monitor.storage_changed(None)
    assert await bench.checks(2) == []


async def test_a_touch_is_one_early_look(bench: Bench) -> None:
    """Many touches make one look soon after, which opens but does not resolve."""
    bench.monitor.start()
    await until(lambda: bench.monitor.status()["checks"] == 1)
    bench.hub.providers = [provider("a", "retired")]
    for _ in range(100):
        bench.monitor.touch()
    await until(lambda: bench.names() == ["ProviderRetired"])
    bench.hub.providers = []
    looks: list[int] = []
    views = bench.hub.plugin_views
    bench.hub.plugin_views = lambda: looks.append(1) or views()  # type: ignore[method-assign,func-returns-value]
    for _ in range(3):
        looks.clear()
        bench.monitor.touch()
        await until(lambda: bool(looks))
    assert bench.names() == ["ProviderRetired"]


async def test_a_broken_part_does_not_end_the_checks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that raises is reported, the next one works."""

    def broken() -> Any:
        raise RuntimeError("limits are broken")

    with monkeypatch.context() as patch:
        patch.setattr(bench.ledger, "limits", broken)
        await bench.monitor.check_now()
    assert bench.monitor.status()["last_error"] == "RuntimeError: limits are broken"
    bench.hub.providers = [provider("a", "failed")]
    assert await bench.checks() == ["ProviderFailed"]


async def test_unreadable_records_do_not_hide_the_rest(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the database cannot be read, rules that need no record still speak."""
    await bench.checks()

    async def refuse(*args: Any) -> Any:
        raise StorageError("the database cannot be read")

    with monkeypatch.context() as patch:
        patch.setattr(bench.database.reader, "run", refuse)
        bench.hub.providers = [provider("a", "failed")]
        assert await bench.checks() == ["ProviderFailed"]
    assert "cannot be read" in bench.monitor.status()["last_error"]


async def test_nothing_is_numbered_before_the_old_alerts_are_known(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What happens before the old alerts are read waits, and gets the next number then."""
    await bench.checks()
    bench.monitor.raise_(Condition("old", "JobFailed", "warning", "old"))
    bench.monitor = bench.fresh()
    bench.ledger.configure([quota(3)])
    for _ in range(3):
        bench.monitor.admitted(admit(bench.ledger))
    assert bench.monitor.alerts.live() == []

    async def refuse(*args: Any) -> Any:
        raise StorageError("busy")

    with monkeypatch.context() as patch:
        patch.setattr(bench.database.reader, "run", refuse)
        await bench.monitor.check_now()
    assert bench.monitor.alerts.live() == []
    await bench.monitor.check_now()
    assert [(view.id, view.key) for view in bench.monitor.alerts.live()] == [
        (2, "quota_low:lab/requests/86400s"),
        (1, "old"),
    ]


async def test_the_scheduler_runs_the_checks_and_stop_ends_them(bench: Bench) -> None:
    """With a short interval checks follow each other; after stop there are none."""
    bench.resolved = resolved(monitoring={"check_interval_seconds": 0.01})
    bench.monitor.start()
    bench.monitor.start()
    await until(lambda: bench.monitor.status()["checks"] >= 3)
    await bench.monitor.stop()
    stopped = bench.monitor.status()["checks"]
    await asyncio.sleep(0.05)
    assert bench.monitor.status()["checks"] == stopped
    await bench.monitor.stop()


async def test_a_wall_clock_set_back_does_not_end_the_checks(bench: Bench) -> None:
    """The scheduler counts in wall time; its jobs are pulled in when they lie further ahead than their interval."""
    bench.resolved = resolved(monitoring={"check_interval_seconds": 0.05})
    bench.monitor.start()
    await until(lambda: bench.monitor.status()["checks"] >= 1)
    day = timedelta(days=1)
    for name in ("check", "retention"):  # what a clock set back by two days does to them
        bench.monitor._scheduler.modify_job(name, next_run_time=datetime.now(UTC) + 2 * day)
    seen = bench.monitor.status()["checks"]
    await until(lambda: bench.monitor.status()["checks"] >= seen + 3)
    assert bench.monitor._scheduler.get_job("retention").next_run_time <= datetime.now(UTC) + day


async def test_stopping_before_the_start_is_over(bench: Bench) -> None:
    """A daemon that stops at once leaves no task behind."""
    bench.monitor = Monitor(
        bench.hub, bench.ledger, bench.database, bench.bus, bench.clock, lambda: bench.resolved, settle_seconds=3600
    )
    bench.monitor.start()
    await asyncio.sleep(0)
    await asyncio.wait_for(bench.monitor.stop(), 5)


async def test_a_reload_applies_the_interval_and_the_switch(bench: Bench) -> None:
    """From an hour to a hundredth of a second, off, and on again, without a restart."""
    bench.resolved = resolved(monitoring={"check_interval_seconds": 3600})
    bench.monitor.start()
    await until(lambda: bench.monitor.status()["checks"] == 1)
    bench.resolved = resolved(monitoring={"check_interval_seconds": 0.01})
    bench.monitor.reconfigure()
    await until(lambda: bench.monitor.status()["checks"] >= 3)
    bench.resolved = resolved(monitoring={"check_interval_seconds": 0.01, "enabled": False})
    bench.monitor.reconfigure()
    paused_at = bench.monitor.status()["checks"]
    await asyncio.sleep(0.05)
    assert bench.monitor.status()["checks"] <= paused_at + 1
    assert bench.monitor.status()["paused"] == "monitoring.enabled is false"
    bench.resolved = resolved(monitoring={"check_interval_seconds": 0.01})
    bench.monitor.reconfigure()
    await until(lambda: bench.monitor.status()["checks"] > paused_at + 2)


async def test_starting_switched_off(bench: Bench) -> None:
    """A monitor that starts paused checks only once it is switched on."""
    bench.resolved = resolved(monitoring={"check_interval_seconds": 0.01, "enabled": False})
    bench.monitor.start()
    await until(lambda: bench.monitor._scheduler is not None)
    await asyncio.sleep(0.05)
    assert bench.monitor.status()["checks"] == 0
    bench.resolved = resolved(monitoring={"check_interval_seconds": 0.01})
    bench.monitor.reconfigure()
    await until(lambda: bench.monitor.status()["checks"] >= 2)


async def test_the_daily_sweep_reports(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was deleted, or why not, is in the status."""
    await bench.monitor.sweep()
    assert bench.monitor.status()["retention"]["calls"] == 0

    async def refuse(*args: Any) -> Any:
        raise StorageError("No space left on device")

    monkeypatch.setattr(bench.database.writer, "call", refuse)
    await bench.monitor.sweep()
    assert bench.monitor.status()["retention"]["error"] == "No space left on device"


async def test_alerts_for_the_api(bench: Bench) -> None:
    """Listing, acknowledging, silencing and the number open."""
    bench.hub.providers = [provider("a", "failed"), provider("b", "failed")]
    await bench.checks()
    assert bench.monitor.open_alerts == 2
    first, second = await bench.monitor.list_alerts(state="open")
    await bench.monitor.ack(first.id)
    await bench.monitor.silence(second.id, bench.clock.wall_ns() / NS + 60)
    assert bench.monitor.open_alerts == 0
    assert [view.state for view in await bench.monitor.list_alerts(state="live")] == ["acknowledged", "silenced"]
    assert bench.monitor.resolve(first.key)


async def test_a_check_is_cheap(bench: Bench) -> None:
    """With forty quotas and twenty providers a check stays under 20 ms of processor time (0.07 % of one at 30 s)."""
    bench.ledger.configure([quota(100 + n, account=f"a{n}", provider=f"a{n}") for n in range(40)])
    bench.hub.providers = [provider(f"a{n}") for n in range(20)]
    await bench.checks(3)
    started = time.process_time()
    await bench.checks(20)
    assert (time.process_time() - started) / 20 < 0.020
