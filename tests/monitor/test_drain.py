"""Our own traffic drains a quota of the real ledger: the warning comes before the first refusal."""

from __future__ import annotations

from typing import Any

import pytest

from hybridd.bus import EventBus
from hybridd.clocks import ManualClock
from hybridd.contracts.protocol import Observation
from hybridd.contracts.quotas import Amounts, Quota, Window
from hybridd.ledger import Ending, Ledger, QuotaRefused
from hybridd.monitor import Monitor
from hybridd.monitor.machine import Machine
from hybridd.store.database import Database
from tests.monitor.helpers import HOST, NO_GPU, SmallHub, quota, resolved


@pytest.fixture
async def ledger(database: Database, clock: ManualClock, bus: EventBus) -> Ledger:
    made = Ledger(database, clock, bus)
    await made.recover()
    return made


@pytest.fixture
async def monitor(database: Database, ledger: Ledger, hub: SmallHub, bus: EventBus, clock: ManualClock) -> Monitor:
    machine = Machine(database.path.parent, take_host=lambda: HOST, take_gpu=lambda: NO_GPU)
    made = Monitor(hub, ledger, database, bus, clock, resolved, machine=machine)
    await made.check_now()
    return made


ONE = Amounts()


def admit(ledger: Ledger, amounts: Amounts = ONE, model: str = "m1") -> Any:
    return ledger.admit(
        request_id=ledger.new_request_id(), provider="lab", account="lab", model=model, task="", amounts=amounts,
        price=None, linger_seconds=0,
    )  # fmt: skip


def names(monitor: Monitor) -> list[str]:
    return [view.name for view in monitor.alerts.live()]


@pytest.mark.parametrize(
    ("drained", "amounts"),
    [
        (quota(15, seconds=60, buffer=1), Amounts()),
        (quota(150), Amounts()),
        (quota(1), Amounts()),
        (quota(20, buffer=5), Amounts()),
        (quota(6000, seconds=60, unit="total_tokens"), Amounts(input_tokens=100, output_tokens=100)),
        (Quota(account="lab", unit="requests", limit=40, window=Window(calendar="month"), provider="lab"), Amounts()),
    ],
)
async def test_the_warning_comes_before_the_first_refusal(
    monitor: Monitor, ledger: Ledger, drained: Quota, amounts: Amounts
) -> None:
    """A burst within one tick, no check in between: the alert is open when the first refusal comes."""
    ledger.configure([drained])
    assert names(monitor) == []
    warned_at = None
    for number in range(1, 1000):
        try:
            reservation = admit(ledger, amounts)
        except QuotaRefused:
            break
        monitor.admitted(reservation)
        if warned_at is None and names(monitor) == ["QuotaLow"]:
            warned_at = number
    else:
        pytest.fail("nothing was refused")
    assert warned_at is not None
    assert warned_at < number
    if drained.buffer:
        assert drained.limit - warned_at == 2 * drained.buffer


async def test_a_smaller_limit_that_the_provider_reports_is_watched(monitor: Monitor, ledger: Ledger) -> None:
    """The warning line follows the limit in force: 15 reported where 1,000 were configured."""
    ledger.configure([quota(1_000)])
    call = admit(ledger)
    monitor.admitted(call)
    await ledger.dispatch(call)
    ledger.settle(call, Ending(kind="ok"))
    ledger.observe("lab", "lab", "m1", [Observation("requests", limit=15, window="86400s")], as_of=call)
    for _ in range(13):
        assert names(monitor) == []
        monitor.admitted(admit(ledger))
    assert names(monitor) == ["QuotaLow"]
    admit(ledger)
    with pytest.raises(QuotaRefused):
        admit(ledger)


async def test_without_the_watch_the_refusal_comes_first(monitor: Monitor, ledger: Ledger) -> None:
    """The control: the same burst, unwatched, is refused before anybody was warned; the check is too late."""
    ledger.configure([quota(15, seconds=60)])
    for _ in range(15):
        admit(ledger)
    with pytest.raises(QuotaRefused):
        admit(ledger)
    assert names(monitor) == []
    await monitor.check_now()
    assert names(monitor) == ["QuotaLow"]


async def test_only_the_crossing_is_looked_at(
    monitor: Monitor, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred admissions build the limits' views once."""
    ledger.configure([quota(1000)])
    looks: list[int] = []
    build = ledger.limits

    def counted() -> Any:
        looks.append(1)
        return build()

    monkeypatch.setattr(ledger, "limits", counted)
    for _ in range(950):
        monitor.admitted(admit(ledger))
    assert len(looks) == 1
    assert names(monitor) == ["QuotaLow"]


async def test_a_second_quota_is_watched_while_the_first_is_low(monitor: Monitor, ledger: Ledger) -> None:
    """Each quota of a call has its own line."""
    ledger.configure([quota(10, seconds=60), quota(100, models=frozenset({"m1"}))])
    for _ in range(9):
        monitor.admitted(admit(ledger))
    assert len(names(monitor)) == 1
    ledger.configure([quota(100, models=frozenset({"m1"}))])
    for _ in range(81):
        monitor.admitted(admit(ledger))
    assert sorted(view.key for view in monitor.alerts.live()) == [
        "quota_low:lab/requests/60s",
        "quota_low:lab/requests/86400s/m1",
    ]


async def test_it_resolves_by_itself_when_the_window_has_passed(
    monitor: Monitor, ledger: Ledger, clock: ManualClock
) -> None:
    """Two checks after the capacity has returned the alert is resolved, and a new drain opens it again."""
    ledger.configure([quota(10, seconds=60)])
    drain = [admit(ledger) for _ in range(10)]
    for reservation in drain:
        monitor.admitted(reservation)
        ledger.release(reservation)
    assert names(monitor) == ["QuotaLow"]
    for _ in range(2):
        clock.advance(30)
        await monitor.check_now()
    assert names(monitor) == []
    monitor.admitted(admit(ledger))
    for _ in range(9):
        monitor.admitted(admit(ledger))
    (view,) = monitor.alerts.live()
    assert view.count == 2


async def test_a_paused_monitor_is_silent(
    database: Database, ledger: Ledger, hub: SmallHub, bus: EventBus, clock: ManualClock
) -> None:
    """With the flag off neither a burst nor a check opens anything."""
    settings = resolved(flags={"enable_monitoring": False})
    monitor = Monitor(hub, ledger, database, bus, clock, lambda: settings)
    ledger.configure([quota(3)])
    for _ in range(3):
        monitor.admitted(admit(ledger))
    await monitor.check_now()
    monitor.storage_changed("disk full")
    assert monitor.raise_(_job()) is None
    assert names(monitor) == []
    assert monitor.status()["paused"] == "flags.enable_monitoring is false"
    assert monitor.status()["checks"] == 0


def _job() -> Any:
    from hybridd.monitor import Condition

    return Condition("job", "JobFailed", "critical", "The job failed.")
