"""Reloads re-evaluate history without losing an open call; restarts in the middle of a window; broken disks."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from hybridd.bus import Subscription
from hybridd.clocks import ManualClock
from hybridd.contracts.protocol import Usage
from hybridd.contracts.quotas import Amounts
from hybridd.errors import StorageError
from hybridd.ledger import Ending, QuotaRefused
from hybridd.store.rows import DispatchRow
from tests.ledger.conftest import Build
from tests.ledger.support import OK, House, quota
from tests.ledger.test_windows import wall


async def test_a_changed_limit_keeps_what_is_counted(house: Build) -> None:
    """A lower limit applies to what was already spent, and the overrun is shown as debt."""
    it = await house(quota("requests", 10, "60s"))
    for _ in range(4):
        await it.done()
    it.ledger.configure([quota("requests", 6, "60s", buffer=1)])
    assert (it.view().remaining, it.view().used) == (1, 4)
    it.ledger.configure([quota("requests", 3, "60s")])
    assert (it.view().remaining, it.view().debt) == (0, 1)


@pytest.mark.parametrize("window", ["60s", "120s", "hour", "day", "month"])
async def test_an_added_quota_counts_what_was_spent_before(house: Build, window: str) -> None:
    """History is re-evaluated: ended and open calls both count in a quota that did not exist when they were made."""
    it = await house()
    for _ in range(3):
        await it.done(Amounts(1, 100, 0), Usage(70, 5))
        it.clock.advance(1)
    open_call = await it.sent(Amounts(1, 100, 50))
    it.ledger.configure([quota("requests", 10, window), quota("total_tokens", 10_000, window)])
    tokens = it.view("total_tokens")
    assert (tokens.used, tokens.reserved) == (225, 150)
    requests = it.view("requests")
    assert (requests.used, requests.reserved, requests.remaining) == (3, 1, 6)
    it.ledger.settle(open_call, Ending(kind="ok", usage=Usage(1, 1)))
    assert it.view("total_tokens").used == 227


async def test_a_question_during_the_recovery_loses_no_history(tmp_path: Path) -> None:
    """A request that comes while the rows are read asks for room; calls of its model still count in later quotas."""
    it = House(tmp_path, [quota("requests", 10, "60s")])
    it.ledger.configure(it.quotas)
    assert it.ledger.room("acc", "m1", "requests") == 10
    await it.ledger.recover()
    for _ in range(3):
        await it.done()
    it.ledger.configure([*it.quotas, quota("requests", 3, "3600s")])
    assert it.view("3600s").used == 3
    assert it.admitted() == 0
    it.close()


async def test_the_slack_of_a_very_long_window_survives_a_restart(house: Build) -> None:
    """A call counts a thousandth of the window longer than the window; the rows read at start go back as far."""
    days = 40
    it = await house(quota("requests", 1, f"{days * 86_400}s"))
    await it.done()
    it.clock.advance(days * 86_400 + 600)
    assert it.admitted() == 0
    await it.restart()
    assert it.admitted() == 0
    assert it.ledger.horizon_seconds == days * 86_400


async def test_an_added_rolling_quota_forgets_when_the_calls_do(house: Build) -> None:
    """What a new quota found in history expires at e + window + slack like everything else."""
    it = await house()
    await it.done()
    it.clock.advance(50)
    it.ledger.configure([quota("requests", 1, "60s")])
    refusal = it.ledger.refusal("acc", "m1", Amounts())
    assert refusal is not None
    assert refusal.retry_after == pytest.approx(10.06, abs=0.07)
    it.clock.advance(refusal.retry_after or 0)
    it.admit()


async def test_an_added_calendar_quota_leaves_out_earlier_periods(house: Build) -> None:
    """Yesterday's calls do not count today, to the skew."""
    it = await house(clock=ManualClock(wall_ns=wall("2026-11-19T23:59:54")))
    await it.done()
    it.clock.advance(1)
    await it.done()
    it.clock.advance(3_600)
    it.ledger.configure([quota("requests", 10, "day")])
    assert it.view().used == 1


async def test_reloading_under_way_loses_and_doubles_nothing(house: Build) -> None:
    """Quotas come, change and go while calls are open; each is counted once, in what is in force when it ends."""
    it = await house(quota("requests", 9, "60s"), quota("concurrent", 5))
    calls = [await it.sent() for _ in range(3)]
    for quotas in ([quota("concurrent", 5)], [quota("requests", 9, "60s"), quota("concurrent", 4)],
                   [quota("requests", 9, "60s"), quota("requests", 9, "hour"), quota("concurrent", 4)]):  # fmt: skip
        it.ledger.configure(quotas)
        calls.append(await it.sent())
        it.ledger.settle(calls.pop(0), OK)
    for call in calls:
        it.ledger.settle(call, OK)
    assert {view.key: (view.used, view.reserved) for view in it.ledger.limits()} == {
        "acc/requests/60s": (6, 0), "acc/requests/hour": (6, 0), "acc/concurrent/none": (0, 0),
    }  # fmt: skip


async def test_counted_by_arrival_after_a_reload(house: Build) -> None:
    """A call past its first byte goes on counting from that byte in a quota that is changed to arrivals."""
    it = await house(quota("requests", 1, "60s"))
    call = await it.sent()
    it.ledger.first_byte(call)
    it.clock.advance(30)
    it.ledger.configure([quota("requests", 1, "60s", counted="arrival")])
    refusal = it.ledger.refusal("acc", "m1", Amounts())
    assert refusal is not None
    assert refusal.retry_after == pytest.approx(30.06, abs=0.06)
    it.ledger.settle(call, OK)
    it.clock.advance(30.12)
    it.admit()


async def test_a_quota_said_twice_is_the_stricter_one(house: Build) -> None:
    """Configuration and plugin name the same quota: the lower figure rules."""
    it = await house(quota("requests", 10, "60s"), quota("requests", 4, "60s", source="plugin"))
    assert it.admitted() == 4


async def test_restart_in_the_middle_of_a_window(house: Build) -> None:
    """A restart forgets nothing: what was used 20 s ago counts for 40 s more, in every kind of window."""
    quotas = [quota("requests", 3, "60s"), quota("requests", 5, "day"), quota("total_tokens", 500, "3600s")]
    it = await house(*quotas)
    for _ in range(2):
        await it.done(Amounts(1, 100, 50), Usage(80, 20))
        it.clock.advance(10)
    before = [(view.key, view.used, view.remaining) for view in it.ledger.limits()]
    await it.restart()
    assert [(view.key, view.used, view.remaining) for view in it.ledger.limits()] == before
    it.admit()
    refusal = it.ledger.refusal("acc", "m1", Amounts())
    assert refusal is not None
    assert refusal.retry_after == pytest.approx(40.06, abs=0.07)


async def test_a_crash_leaves_calls_unknown_and_counted_in_full(house: Build) -> None:
    """Open rows become unknown with the whole reservation; they end at recovery plus the linger, never earlier."""
    quotas = [quota("concurrent", 2), quota("total_tokens", 1_000, "60s")]
    it = await house(*quotas)
    call = await it.sent(Amounts(1, 100, 200))
    it.clock.advance(100)
    await it.restart()
    assert it.report.unknown == 1
    row = await it.row(call)
    assert (row["state"], row["output_tokens"], row["error_code"]) == ("unknown", 200, "crash")
    assert row["ended_boot_ns"] == it.clock.boot_ns() + 5_000_000_000
    assert it.view("total_tokens").used == 300
    assert it.admitted() == 1
    it.clock.advance(5)
    assert it.admitted() == 1
    it.clock.advance(60.12)
    assert it.view("total_tokens").used == 0


async def test_across_a_reboot_the_wall_clock_and_the_uptime_tell_the_age(house: Build) -> None:
    """The age of an earlier boot's calls is the wall difference, but at least the uptime."""
    it = await house(quota("requests", 1, "600s"))
    await it.done()
    it.clock.reboot("boot-2", downtime_seconds=100, uptime_seconds=20)
    await it.restart()
    refusal = it.ledger.refusal("acc", "m1", Amounts())
    assert refusal is not None
    assert refusal.retry_after == pytest.approx(500.6, abs=0.7)
    it.clock.set_wall(it.clock.wall_ns() - 86_400 * 10**9)  # the battery of the clock is empty
    await it.restart()
    refusal = it.ledger.refusal("acc", "m1", Amounts())
    assert refusal is not None
    assert refusal.retry_after == pytest.approx(580.6, abs=0.7)
    it.clock.advance(581.2)
    assert it.ledger.refusal("acc", "m1", Amounts()) is None


async def test_wall_clock_steps_do_not_move_rolling_windows(house: Build) -> None:
    """A step of the wall clock, forward or back, changes nothing for a rolling quota, over restarts too."""
    it = await house(quota("requests", 1, "60s"))
    await it.done()
    for step in (86_400 * 400, -86_400 * 800):
        it.clock.set_wall(it.clock.wall_ns() + step * 10**9)
        assert it.view().remaining == 0
        await it.restart()
        assert it.view().remaining == 0
    it.clock.advance(60.12)
    assert it.view().remaining == 1


async def test_a_month_of_calls_is_summed_in_groups_never_too_early(house: Build) -> None:
    """Rows of all ages are coalesced at start, the newest end of each group standing for all of it."""
    it = await house(quota("requests", 10_000, "86400s"))

    def many(connection: sqlite3.Connection) -> None:
        now_boot, now_wall = it.clock.boot_ns(), it.clock.wall_ns()
        for n in range(4_000):
            age = 5 * 10**9 * n
            row = DispatchRow(now_wall // 1000 - age // 1000 - n, 1, "lab", "acc", "m1", "t", it.database.boot,
                              now_boot - age, now_wall - age, 1, 0, 0, 0, 0, 0, None)  # fmt: skip
            marks = ",".join("?" * len(row))
            connection.execute(f"INSERT INTO calls ({','.join(row._fields)}) VALUES ({marks})", row)
        connection.execute(
            "UPDATE calls SET state='settled', ended_boot=boot, ended_boot_ns=admitted_boot_ns,"
            " ended_wall_ns=admitted_wall_ns, reported=1, failed=0"
        )

    it.clock.advance(90_000)
    await it.database.writer.call(many)
    await it.restart()
    assert it.view().used == 4_000
    assert 2_900 < it.report.groups < 3_100  # beyond 10,000 s in pairs: groups of 10 s
    it.clock.advance(70_000)
    kept = sum(1 for n in range(4_000) if 5 * n + 70_000 < 86_486.4)
    held = sum(1 for n in range(4_000) if 5 * n + 70_000 < 86_486.4 + 86.4 + 10)  # a bucket and a group later
    assert kept <= it.view().used <= held


class Broken:
    """A writer that refuses, as with a full disk."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, row: DispatchRow) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_exception(self.error)
        return future


async def test_a_refused_row_releases_the_reservation(house: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk refused the row: the caller learns it, nothing was sent, so nothing counts."""
    it = await house(quota("requests", 1, "60s"), quota("concurrent", 1))
    call = it.admit()
    with monkeypatch.context() as patch:
        patch.setattr(it.database.writer, "dispatch", Broken(StorageError("disk full")))
        with pytest.raises(StorageError):
            await it.ledger.dispatch(call)
    assert call.state == "released"
    assert [view.remaining for view in it.ledger.limits()] == [1, 1]


async def test_while_the_disk_refuses_nothing_is_admitted(house: Build) -> None:
    """A failed writer closes admission with the reason, and opens it again when it recovers."""
    it = await house(quota("requests", 1, "60s"))
    it.database.writer.failed = "disk full"
    with pytest.raises(QuotaRefused, match="disk full") as refused:
        it.admit()
    assert refused.value.refusal.code == "storage_failed"
    assert it.ledger.refusal("acc", "m1", Amounts()) == refused.value.refusal
    it.database.writer.failed = None
    it.admit()


async def test_a_caller_that_leaves_while_its_row_is_written(house: Build) -> None:
    """Cancelled between reservation and commit: nothing was sent, the place is free, the row says released."""
    it = await house(quota("requests", 1, "60s"))
    call = it.admit()
    task = asyncio.ensure_future(it.ledger.dispatch(call))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    it.ledger.release(call)
    assert it.view().remaining == 1
    row = await it.row(call)
    assert (row["state"], row["requests"]) == ("released", 0)


async def test_quota_events_only_for_listeners_and_only_what_changed(house: Build) -> None:
    """The timer publishes the view of each quota that changed, keyed so that a slow reader sees the newest."""
    it = await house(quota("requests", 5, "60s"), quota("usd", 5_000_000, "month"))
    it.ledger.flush_events()
    seen: list[Any] = []
    reader: Subscription = it.bus.subscribe(lambda: None, ["quota"])
    it.ledger.flush_events()
    seen.append([event.data["key"] for event in reader.drain()])
    it.ledger.flush_events()
    seen.append(reader.drain())
    await it.sent()
    it.ledger.flush_events()
    (event,) = reader.drain()
    assert seen == [["acc/requests/60s", "acc/usd/month"], []]
    assert (event.kind, event.data["remaining"], event.data["reserved"]) == ("quota", 4, 1)


async def test_learned_token_ratios_survive_a_restart(house: Build) -> None:
    """What a model's provider counted changes the next estimate, after a restart too."""
    from hybridd.ledger.estimate import PromptSize

    it = await house()
    size = PromptSize(1_000)
    before = it.ledger.estimate_input("lab", "m1", size)
    for _ in range(10):
        it.ledger.learn("lab", "m1", size, 208)
    learned = it.ledger.estimate_input("lab", "m1", size)
    assert 208 <= learned < before
    it.ledger.flush_events()
    await it.restart()
    assert it.ledger.estimate_input("lab", "m1", size) == learned


async def test_limits_show_a_forecast(house: Build) -> None:
    """At one request a second a quota of 100 an hour with 40 left runs out in 40 s."""
    it = await house(quota("requests", 100, "3600s"))
    for _ in range(60):
        await it.done()
        it.clock.advance(1)
        it.ledger.flush_events()
    forecast = it.view().forecast
    assert forecast is not None
    assert forecast.exhausted_at == pytest.approx(it.clock.wall_ns() / 1e9 + 40, abs=3)
    assert forecast.per_second == pytest.approx(1, rel=0.05)
