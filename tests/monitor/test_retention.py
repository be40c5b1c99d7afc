"""Samples thin out, old records go, and nothing a quota still needs is deleted."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.clocks import NS, ManualClock
from hybridd.monitor import retention, series
from hybridd.store.database import Database
from hybridd.store.queries import feedback
from hybridd.store.queries.samples import names
from hybridd.store.rows import DispatchRow
from tests.monitor.helpers import HOST, NO_GPU, NOW, limit
from tests.monitor.test_small_parts import request

DAY = 86_400


def test_series_of_a_check() -> None:
    """Host, daemon and quotas have their names; a pace has no series, a missing disk no point."""
    found = series.values(HOST, NO_GPU, [limit(7), limit(1, unit="concurrent", key="c")])
    assert found == {
        "host.cpu_percent": 10,
        "host.load_1m": 0.5,
        "host.memory_available_mb": 4000,
        "daemon.rss_mb": 60,
        "host.disk_free_mb": 50_000,
        "quota.groq/requests/day.remaining": 7,
    }
    assert series.values(None, None, []) == {}


def test_only_news_is_written() -> None:
    """A value that did not move is written again after ten minutes, or when the clock was set back."""
    kept = series.Series()
    assert kept.fresh({"a": 1, "b": 2}, 1000) == [("a", 1000, 1), ("b", 1000, 2)]
    assert kept.fresh({"a": 1, "b": 3}, 1030) == [("b", 1030, 3)]
    assert kept.fresh({"a": 1}, 1600) == [("a", 1600, 1)]
    assert kept.fresh({"a": 1}, 500) == [("a", 500, 1)]


def test_series_that_ended_are_forgotten() -> None:
    """Memory does not grow with every quota there ever was."""
    kept = series.Series()
    for number in range(2000):
        kept.fresh({f"s{number}": 1.0}, 1000.0 + number)
    assert len(kept._last) <= 257


@pytest.mark.parametrize(
    ("days", "windows", "expected"),
    [
        (90, [], 90),
        (1, [], 33),
        (1, ["month", "60s", "day"], 33),
        (1, [f"{40 * DAY}s"], 42),
        (90, [f"{40 * DAY}s"], 90),
    ],
)
def test_calls_are_kept_as_long_as_any_quota_looks_back(days: int, windows: list[str], expected: int) -> None:
    """A short retention does not forget what a month or a longer window still counts."""
    assert retention.call_days(days, [limit(window=window) for window in windows]) == expected


def rows(connection: sqlite3.Connection, sql: str, *params: Any) -> list[Any]:
    return connection.execute(sql, params).fetchall()


async def test_samples_thin_out_with_age(database: Database) -> None:
    """Fresh ones stay, after two days one mean each ten minutes remains, after a fortnight one each hour; doing it
    again changes nothing."""
    points = []
    for age_days in (0, 3, 20, 100):
        base = (NOW - age_days * DAY) // 3600 * 3600 - 3600
        points += [("host.cpu_percent", base + step * 30, float(step)) for step in range(120)]
    points += [("daemon.rss_mb", NOW - 3 * DAY, 5.0)]

    def fill(connection: sqlite3.Connection) -> None:
        connection.executemany("INSERT INTO samples (name, at, value) VALUES (?, ?, ?)", points)

    await database.writer.call(fill)
    done = await retention.sweep(database, NOW, days=90, keep_calls_days=90, boot_ns=0)
    counts = {}
    for age_days in (0, 3, 20, 100):
        base = (NOW - age_days * DAY) // 3600 * 3600 - 3600
        sql = "SELECT count(*), avg(value) FROM samples WHERE name = 'host.cpu_percent' AND at >= ? AND at < ?"
        counts[age_days] = (await database.reader.run(rows, sql, base, base + 3600))[0]
    assert counts == {0: (120, 59.5), 3: (6, 59.5), 20: (1, 59.5), 100: (0, None)}
    assert (done["samples"], done["thinned"]) == (120, 6 + 6 + 1)
    assert await database.reader.run(names) == ["daemon.rss_mb", "host.cpu_percent"]
    again = await retention.sweep(database, NOW, days=90, keep_calls_days=90, boot_ns=0)
    assert (again["samples"], again["thinned"]) == (0, 0)


@given(st.integers(1, 3))
def test_thinning_keeps_means(seed: int) -> None:
    """A bucket's mean is the mean of what was in it."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE samples (name TEXT, at REAL, value REAL, PRIMARY KEY (name, at)) WITHOUT ROWID")
    connection.executemany("INSERT INTO samples VALUES ('a', ?, ?)", [(600.0 + i, i * seed) for i in range(10)])
    crowd = series.crowded(connection, "a", 1_800, 600)
    series.thin(connection, crowd)
    assert connection.execute("SELECT * FROM samples").fetchall() == [("a", 900.0, 4.5 * seed)]
    assert series.crowded(connection, "a", 1_800, 600).buckets == []
    connection.close()


def call(number: int, wall_ns: int) -> DispatchRow:
    return DispatchRow(number, number, "p", "p", "m", "", 1, 0, wall_ns, 1, 0, 0, 0, 0, 0, None)


async def test_old_records_go_in_pieces_and_the_rest_stays(database: Database, clock: ManualClock) -> None:
    """Requests, choices, ended calls, resolved alerts, feedback, hours and silences past their time are deleted; open
    calls, open alerts, days and newer rows are not."""
    now = clock.wall_ns() / NS
    old_us, new_us = int((now - 100 * DAY) * 1e6), int((now - DAY) * 1e6)

    def fill(connection: sqlite3.Connection) -> None:
        for start in (old_us, new_us):
            connection.executemany(
                "INSERT INTO calls (id, request_id, provider, account, model, task, boot, admitted_boot_ns,"
                " admitted_wall_ns, requests, input_tokens, output_tokens, bytes_down, bytes_up, usd_micro, state)"
                " VALUES (?, 1, 'p', 'p', 'm', '', 1, 0, 0, 1, 0, 0, 0, 0, 0, ?)",
                [(start + n, "dispatched" if n == 0 else "settled") for n in range(2 * retention.PIECE + 1)],
            )
        for at, state in ((now - 100 * DAY, "resolved"), (now - 100 * DAY, "open"), (now - DAY, "resolved")):
            connection.execute(
                "INSERT INTO alerts"
                " (key, name, severity, state, message, opened_at, updated_at, resolved_at, count, data)"
                " VALUES (?, 'n', 'info', ?, 'm', ?, ?, ?, 1, '{}')",
                (f"{state}{at}", state, at, at, at if state == "resolved" else None),
            )
        for at in (now - 100 * DAY, now - DAY):
            feedback.add(connection, at=at, score=1, subject="somebody")
        connection.executemany("INSERT INTO silences VALUES (?, 0, ?, '')", [("past", now - 1), ("future", now + 1)])

    await database.writer.call(fill)
    for base in (-100 * DAY, -DAY):
        database.writer.request(request(base * 1_000_000, clock, at_wall_ns=clock.wall_ns() + base * NS))
    before = await database.reader.run(
        rows, "SELECT (SELECT count(*) FROM rollup_hour), (SELECT count(*) FROM rollup_day)"
    )
    assert before == [(2, 2)]
    done = await retention.sweep(database, now, days=90, keep_calls_days=90, boot_ns=clock.boot_ns())
    assert done == {
        "calls": 2 * retention.PIECE, "choices": 1, "requests": 1, "alerts": 1, "rollup_hour": 1, "silences": 1,
        "feedback": 1, "samples": 0, "thinned": 0,
    }  # fmt: skip
    left = await database.reader.run(
        rows,
        "SELECT (SELECT count(*) FROM calls), (SELECT count(*) FROM calls WHERE state = 'dispatched'),"
        " (SELECT count(*) FROM requests), (SELECT count(*) FROM alerts), (SELECT count(*) FROM rollup_hour),"
        " (SELECT count(*) FROM rollup_day), (SELECT count(*) FROM silences),"
        " (SELECT count(*) FROM feedback)",
    )
    assert left == [(2 * retention.PIECE + 2, 2, 1, 2, 1, 2, 1, 1)]


async def test_a_clock_set_forward_deletes_no_call_that_still_counts(database: Database, clock: ManualClock) -> None:
    """The boot clock knows that a call of this boot is young; only what it calls old as well is deleted."""
    boot, tick, now_us = database.boot, clock.boot_ns(), clock.wall_ns() // 1000

    def fill(connection: sqlite3.Connection) -> None:
        for number, ended_boot in ((now_us, boot), (now_us + 1, boot + 1)):
            connection.execute(
                "INSERT INTO calls (id, request_id, provider, account, model, task, boot, admitted_boot_ns,"
                " admitted_wall_ns, requests, input_tokens, output_tokens, bytes_down, bytes_up, usd_micro, state,"
                " ended_boot, ended_boot_ns)"
                " VALUES (?, 1, 'p', 'p', 'm', '', 1, 0, 0, 1, 0, 0, 0, 0, 0, 'settled', ?, ?)",
                (number, ended_boot, tick),
            )

    await database.writer.call(fill)
    clock.set_wall(clock.wall_ns() + 200 * DAY * NS)
    wall = clock.wall_ns() / NS
    done = await retention.sweep(database, wall, days=90, keep_calls_days=90, boot_ns=clock.boot_ns())
    assert (done["calls"], await database.reader.run(rows, "SELECT ended_boot FROM calls")) == (1, [(boot,)])
    clock.advance(91 * DAY)
    done = await retention.sweep(database, wall + 91 * DAY, days=90, keep_calls_days=90, boot_ns=clock.boot_ns())
    assert done["calls"] == 1
