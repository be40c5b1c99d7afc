"""Alerts with their rows, events and log lines, on a real database."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hybridd import logs
from hybridd.bus import EventBus
from hybridd.clocks import NS, ManualClock
from hybridd.errors import InvalidRequest, NotFound
from hybridd.monitor.alerts import Alerts
from hybridd.monitor.conditions import Condition
from hybridd.store.database import Database


def condition(key: str = "quota_low:a", name: str = "QuotaLow", **data: Any) -> Condition:
    return Condition(key, name, "warning", f"{key} is low.", "groq", data)


@pytest.fixture
async def alerts(database: Database, bus: EventBus, clock: ManualClock) -> Alerts:
    made = Alerts(database, bus, clock)
    await made.load()
    return made


@pytest.fixture
async def log_file(tmp_path: Path) -> AsyncIterator[Path]:
    level = logging.getLogger().level
    logs.configure("info", True, None, tmp_path / "alerts.log", fd=2)
    yield tmp_path / "alerts.log"
    logs.close()
    logging.getLogger().setLevel(level)


def lines(path: Path) -> list[dict[str, Any]]:
    logs.close()
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_a_change_reaches_database_bus_and_log(
    alerts: Alerts, database: Database, bus: EventBus, clock: ManualClock, log_file: Path
) -> None:
    """One opening is one row, one event and one line, with the same figures."""
    events = bus.subscribe(lambda: None, kinds=["alert"])
    alerts.check([condition(remaining=3)])
    (row,) = await database.reader.run(lambda c: c.execute("SELECT id, key, state, count, data FROM alerts").fetchall())
    assert row == (1, "quota_low:a", "open", 1, '{"remaining":3}')
    (event,) = events.drain()
    assert (event.data["change"], event.data["id"], event.data["data"]) == ("opened", 1, {"remaining": 3})
    (line,) = lines(log_file)
    assert (line["change"], line["key"], line["message"], line["at"]) == (
        "opened",
        "quota_low:a",
        "quota_low:a is low.",
        "2026-09-21T14:13:20.000Z",
    )


async def test_open_alerts_survive_a_restart(
    alerts: Alerts, database: Database, bus: EventBus, clock: ManualClock
) -> None:
    """A new run takes up the open alerts with their numbers, and does not open them a second time."""
    alerts.check([condition("quota_low:a"), condition("quota_low:b")])
    await alerts.ack(1)
    await alerts.silence(2, clock.wall_ns() / NS + 100)
    later = Alerts(database, bus, clock)
    await later.load()
    assert [(view.id, view.state) for view in later.live()] == [(2, "silenced"), (1, "acknowledged")]
    assert later.check([condition("quota_low:a"), condition("quota_low:b")]) == []
    later.check([condition("quota_low:c")])
    assert later.live()[0].id == 3
    clock.advance(101)
    later.check([condition("quota_low:b"), condition("quota_low:c")])
    assert [(view.id, view.state) for view in await later.list()] == [(3, "open"), (2, "open"), (1, "resolved")]


async def test_a_restart_right_after_a_resolution_opens_the_same_alert_again(
    alerts: Alerts, database: Database, bus: EventBus, clock: ManualClock
) -> None:
    """The ten minutes of memory outlive a restart; after them it is a new alert."""
    alerts.check([condition()])
    alerts.resolve("quota_low:a")
    clock.advance(60)
    later = Alerts(database, bus, clock)
    await later.load()
    (change,) = later.check([condition()])
    assert (change.what, change.alert.id, change.alert.count) == ("reopened", 1, 2)
    later.resolve("quota_low:a")
    clock.advance(601)
    last = Alerts(database, bus, clock)
    await last.load()
    (change,) = last.check([condition()])
    assert (change.what, change.alert.id) == ("opened", 2)
    rows = await database.reader.run(lambda c: c.execute("SELECT id, state, count FROM alerts ORDER BY id").fetchall())
    assert rows == [(1, "resolved", 2), (2, "open", 1)]


async def test_silenced_alerts_are_recorded_but_not_told(alerts: Alerts, clock: ManualClock, log_file: Path) -> None:
    """Under a silence the row and the event are there, the log line is not; its end is told."""
    now = clock.wall_ns() / NS
    alerts.check([condition()])
    view = await alerts.silence(1, now + 60, reason="known; api_key=canary-value")
    assert (view.state, view.silenced_until) == ("silenced", now + 60)
    alerts.resolve("quota_low:a")
    alerts.check([condition()])
    clock.advance(61)
    alerts.check([condition()])
    assert [line["change"] for line in lines(log_file)] == ["opened", "silenced", "unsilenced"]
    assert alerts.live()[0].state == "open"


async def test_ending_a_silence_early(alerts: Alerts, database: Database, clock: ManualClock) -> None:
    """A moment in the past ends it, in memory and in the table."""
    now = clock.wall_ns() / NS
    alerts.check([condition()])
    await alerts.silence(1, now + 60)
    assert (await alerts.silence(1, now)).state == "open"
    assert await database.reader.run(lambda c: c.execute("SELECT count(*) FROM silences").fetchone()) == (0,)


async def test_listing(alerts: Alerts, clock: ManualClock) -> None:
    """Newest first, by state, in pages; the newest state is shown even before it is on the disk."""
    for number in range(5):
        alerts.check([condition(f"quota_low:{number}")], counts=False)
    alerts.resolve("quota_low:1")
    await alerts.ack(3)
    assert [(v.id, v.state) for v in await alerts.list()] == [
        (5, "open"),
        (4, "open"),
        (3, "acknowledged"),
        (2, "resolved"),
        (1, "open"),
    ]
    assert [v.id for v in await alerts.list(limit=2)] == [5, 4]
    assert [v.id for v in await alerts.list(limit=2, before_id=4)] == [3, 2]
    assert [v.id for v in await alerts.list(state="open")] == [5, 4, 1]
    assert [v.id for v in await alerts.list(state="live")] == [5, 4, 3, 1]
    assert [v.id for v in await alerts.list(state="resolved")] == [2]
    assert [v.id for v in await alerts.list(state="resolved", before_id=2)] == []
    with pytest.raises(InvalidRequest, match="state 'shut' is not one of live, open"):
        await alerts.list(state="shut")
    for limit in (0, 1001):
        with pytest.raises(InvalidRequest, match="limit must be between"):
            await alerts.list(limit=limit)


async def test_history_beyond_memory_can_be_read(alerts: Alerts, clock: ManualClock) -> None:
    """An alert resolved long ago is read from its row; acknowledging it changes nothing."""
    alerts.check([condition()])
    alerts.resolve("quota_low:a")
    clock.advance(3600)
    alerts.check([])
    view = await alerts.ack(1)
    assert (view.state, view.provider, view.count) == ("resolved", "groq", 1)


async def test_unknown_alerts_and_senseless_times_are_refused(alerts: Alerts, clock: ManualClock) -> None:
    """No such alert is NotFound; not-a-number and the year 3000 are InvalidRequest."""
    with pytest.raises(NotFound, match="there is no alert 99"):
        await alerts.ack(99)
    with pytest.raises(NotFound):
        await alerts.silence(99, clock.wall_ns() / NS + 1)
    alerts.check([condition()])
    for until in (math.nan, math.inf, clock.wall_ns() / NS + 400 * 86_400):
        with pytest.raises(InvalidRequest, match="within the next year"):
            await alerts.silence(1, until)


async def test_no_key_reaches_the_rows(alerts: Alerts, database: Database) -> None:
    """A reason that quotes a key is masked before it is stored."""
    alerts.check(
        [Condition("k", "ProviderParked", "warning", "401: key sk-canary12345678", None, {"api_key": "canary"})]
    )
    await alerts.silence(1, 1_790_000_100.0, reason="Bearer canary12345")
    text = str(
        await database.reader.run(lambda c: [*c.execute("SELECT * FROM alerts"), *c.execute("SELECT * FROM silences")])
    )
    assert "canary" not in text


async def test_alerts_by_hand(alerts: Alerts) -> None:
    """A job's alert opens, counts and stays until it is resolved by hand."""
    failed = condition("job:train", "SpecialistRetrainingJobFailed")
    assert alerts.raise_(failed).count == 1
    assert alerts.raise_(failed).count == 2
    alerts.check([])
    alerts.check([])
    assert alerts.is_open("job:train")
    assert alerts.resolve("job:train")
    assert not alerts.resolve("job:train")


async def test_a_broken_disk_does_not_stop_alerts(alerts: Alerts, database: Database, bus: EventBus) -> None:
    """While writes are refused alerts still reach the bus, and their rows follow when the disk recovers."""
    events = bus.subscribe(lambda: None, kinds=["alert"])
    database.writer.condemn("test")
    alerts.check([condition()])
    assert [event.data["change"] for event in events.drain()] == ["opened"]
    assert alerts.open_keys == {"quota_low:a"}
