"""Probes, systemd notifications, money per hour, recent figures."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd import logs
from hybridd.clocks import NS, ManualClock
from hybridd.contracts.protocol import Observation, ProbeResult
from hybridd.errors import ProviderError
from hybridd.monitor import Notifier, figures
from hybridd.monitor.probes import Probes
from hybridd.monitor.spend import HourlySpend
from hybridd.store.database import Database
from hybridd.store.rows import RequestRow
from tests.monitor.helpers import SmallHub, provider


class Listener:
    """The ledger's ear for observations."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def limits(self) -> list[Any]:
        return []

    def observe(
        self, provider: str, account: str, model: Any, observations: Any, *, as_of: None, as_of_boot_ns: Any = None
    ) -> None:
        self.heard.append((provider, account, model, observations, as_of_boot_ns))


async def test_probes_run_side_by_side_and_figures_reach_the_ledger(hub: SmallHub, clock: ManualClock) -> None:
    """All connected providers are asked at once; the figures are as of the moment the probe was sent."""
    listener, gate, waiting = Listener(), asyncio.Event(), []
    figure = Observation(unit="requests", remaining=4999)

    async def answer() -> ProbeResult:
        waiting.append(1)
        if len(waiting) == 3:
            gate.set()
        await gate.wait()
        clock.advance(1)
        return ProbeResult(observations=[figure])

    names = ["a", "b", "c"]
    hub.probes = dict.fromkeys(names, answer)
    probes = Probes(hub, listener, clock)
    sent = clock.boot_ns()
    assert await probes.round([provider(name) for name in names], timeout=5, interval=30)
    assert sorted(listener.heard) == [(name, name, None, [figure], sent) for name in names]
    assert all(status.ok for status in probes.status.values())


async def test_only_connected_providers_are_asked(hub: SmallHub, clock: ManualClock) -> None:
    """Idle, parked, retired ones and those told to skip are left alone."""
    states = ["ready", "cooling", "idle", "starting", "parked", "retired", "failed", "disabled", "not_configured"]
    views = [provider(f"p-{state}", state) for state in states] + [provider("skipped")]
    probes = Probes(hub, Listener(), clock)
    assert not await probes.round(views, timeout=5, interval=30, skip={"skipped"})
    assert hub.probed == ["p-ready", "p-cooling"]


async def test_a_failing_probe_is_asked_less_and_less(hub: SmallHub, clock: ManualClock) -> None:
    """Errors, refusals and silence double the pause up to ten minutes; a success ends it."""

    async def fail() -> ProbeResult:
        raise ProviderError("plugin lost")

    hub.probes["a"] = fail
    probes, asked = Probes(hub, Listener(), clock), []
    for _ in range(120):
        before = len(hub.probed)
        await probes.round([provider("a")], timeout=5, interval=30)
        if len(hub.probed) > before:
            asked.append(clock.boot_ns() // NS)
        clock.advance(30)
    gaps = [later - sooner for sooner, later in itertools.pairwise(asked)]
    assert gaps[:5] == [60, 120, 240, 480, 600]
    assert set(gaps[5:]) == {600}
    assert probes.status["a"].reason == "plugin lost"

    async def not_ok() -> ProbeResult:
        return ProbeResult(ok=False, reason="no route")

    hub.probes["a"] = not_ok
    clock.advance(600)
    await probes.round([provider("a")], timeout=5, interval=30)
    assert probes.status["a"].reason == "no route"
    del hub.probes["a"]
    clock.advance(600)
    await probes.round([provider("a")], timeout=5, interval=30)
    assert (probes.status["a"].ok, probes.status["a"].failures) == (True, 0)
    await probes.round([], timeout=5, interval=30)
    assert probes.status == {}


async def test_a_silent_probe_ends_at_its_deadline(hub: SmallHub, clock: ManualClock) -> None:
    """A provider that never answers delays the round by its timeout and no more."""
    never = asyncio.Event()

    async def hang() -> ProbeResult:
        await never.wait()
        return ProbeResult()

    hub.probes["a"] = hang
    probes = Probes(hub, Listener(), clock)
    await asyncio.wait_for(probes.round([provider("a")], timeout=0.02, interval=30), 5)
    assert probes.status["a"].reason == "no answer in time"


@pytest.fixture
def systemd(tmp_path: Path) -> Any:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(5)
        yield receiver


def test_systemd_hears_ready_and_stopping(systemd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each message is one datagram to NOTIFY_SOCKET, from the notifier or from logs.notify."""
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    notifier.ready("serving")
    notifier.status("busy")
    notifier.reloading(17)
    notifier.stopping()
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    assert logs.notify("READY=1")
    assert [systemd.recv(100).decode() for _ in range(5)] == [
        "READY=1\nSTATUS=serving",
        "STATUS=busy",
        "RELOADING=1\nMONOTONIC_USEC=17",
        "STOPPING=1",
        "READY=1",
    ]


def test_abstract_sockets_work() -> None:
    """An address that begins with @ is in the abstract namespace."""
    name = f"@hybridd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + name[1:])
        receiver.settimeout(5)
        assert Notifier(name).send("READY=1")
        assert receiver.recv(100) == b"READY=1"


async def test_the_watchdog_is_pinged_by_the_loop(systemd: Any, tmp_path: Path) -> None:
    """Pings come while the loop turns, at a third of the time allowed, and end with stopping."""
    notifier = Notifier.from_environment(
        {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000", "WATCHDOG_PID": str(os.getpid())}
    )
    notifier.start_watchdog()
    notifier.start_watchdog()
    loop = asyncio.get_running_loop()
    systemd.setblocking(False)
    got = [await asyncio.wait_for(loop.sock_recv(systemd, 100), 5) for _ in range(3)]
    assert got == [b"WATCHDOG=1"] * 3
    notifier.stopping()
    assert await asyncio.wait_for(loop.sock_recv(systemd, 100), 5) in (b"WATCHDOG=1", b"STOPPING=1")


def test_outside_systemd_nothing_happens(tmp_path: Path) -> None:
    """No socket, a dead socket, a watchdog for another process: no ping and no error."""
    assert Notifier.from_environment({}).send("READY=1") is False
    assert Notifier.from_environment({}).active is False
    assert Notifier(str(tmp_path / "nobody")).send("READY=1") is False
    other = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "30000", "WATCHDOG_PID": "1"}
    assert Notifier.from_environment(other).watchdog_seconds is None
    assert Notifier.from_environment({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "30000"}).watchdog_seconds == 0.03


HOUR = 3600.0
START = 500_000 * HOUR


@given(st.lists(st.tuples(st.floats(1, 200), st.floats(0, 3)), min_size=1, max_size=150))
def test_spend_is_close_to_the_true_last_hour(events: list[tuple[float, float]]) -> None:
    """Looked at after every payment, the figure is within the payments of one gap of the truth, and never negative."""
    spend, now, paid = HourlySpend(), START + 0.3 * HOUR, []
    spend.update(now, {})
    for gap, dollars in events:
        now += gap
        paid.append((now, dollars))
        hour = int(now // HOUR)
        sums = {h: sum(d for at, d in paid if int(at // HOUR) == h) for h in (hour, hour - 1)}
        got = spend.update(now, sums)
        truth = sum(d for at, d in paid if at > now - HOUR)
        near = sum(d for at, d in paid if abs(at - (now - HOUR)) <= 200)
        assert truth - near - 1e-6 <= got <= truth + near + 1e-6


def test_spend_after_a_restart_is_in_proportion() -> None:
    """Without earlier looks the hour before counts by the share of it that is within the last sixty minutes."""
    hour = int(START // HOUR)
    assert HourlySpend().update(START + 0.25 * HOUR, {hour: 1.0, hour - 1: 4.0}) == pytest.approx(1.0 + 3.0)
    assert HourlySpend().update(START, {}) == 0.0


def test_spend_survives_a_clock_set_back() -> None:
    """A look from the future is forgotten."""
    hour = int(START // HOUR)
    spend = HourlySpend()
    spend.update(START + HOUR, {hour: 4.0, hour + 1: 1.0})
    assert spend.update(START + 0.5 * HOUR, {hour: 4.0}) == 4.0


def request(number: int, clock: ManualClock, **changes: Any) -> RequestRow:
    values: dict[str, Any] = {
        "id": clock.wall_ns() // 1000 + number, "at_wall_ns": clock.wall_ns(), "task": "t", "requested": "auto",
        "provider": "local", "model": "m", "status": 200, "error_code": None, "stream": 0, "cache": "miss",
        "attempts": 1, "input_tokens": 1, "output_tokens": 1, "usd_micro": 0, "latency_us": 1_000_000,
        "first_token_us": None, "overhead_us": None, "tier": None, "subject": None, "client": None, "choice": "{}",
    }  # fmt: skip
    return RequestRow(**{**values, **changes})


async def test_local_latency_is_the_median_of_recent_local_answers(database: Database, clock: ManualClock) -> None:
    """Others' answers, failures, cache hits and old answers do not count."""
    now = clock.wall_ns() / NS
    assert await database.reader.run(figures.local_latency, ["local"], now) is None
    assert await database.reader.run(figures.local_latency, [], now) is None
    database.writer.request(request(-4_000_000_000, clock, latency_us=900_000_000))
    for number, seconds in enumerate((1, 200, 300)):
        database.writer.request(request(number, clock, latency_us=seconds * 1_000_000))
    database.writer.request(request(10, clock, provider="groq", latency_us=1))
    database.writer.request(request(11, clock, status=502, latency_us=1))
    database.writer.request(request(12, clock, cache="hit", latency_us=1))
    assert await database.reader.run(figures.local_latency, ["local"], now) == 200.0
