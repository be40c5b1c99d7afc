"""Keeps the database bounded: thins samples, deletes what is older than ``monitoring.retention_days``.

In small pieces, each a transaction of its own, so that no reservation waits long behind one. Calls are kept at least
as long as any quota looks back, whatever the setting says: deleting them earlier would forget what was used.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from functools import partial

from hybridd.clocks import NS
from hybridd.contracts.views import LimitView
from hybridd.monitor import series
from hybridd.monitor.ports import DatabasePort
from hybridd.store.queries.samples import names

DAY = 86_400
PIECE = 2_000
# A calendar month, a day of clock trouble, and a day for calls that were open when it began.
LEAST_CALL_DAYS = 33


def call_days(retention_days: int, limits: Iterable[LimitView]) -> int:
    """For how many days calls are kept: the setting, a month at least, and two days more than the longest window."""
    longest = 0
    for view in limits:
        seconds = view.window[:-1]
        if view.window.endswith("s") and seconds.isdigit():
            longest = max(longest, -(-int(seconds) // DAY) + 2)
    return max(retention_days, LEAST_CALL_DAYS, longest)


async def sweep(database: DatabasePort, now: float, *, days: int, keep_calls_days: int, boot_ns: int) -> dict[str, int]:
    """Delete and thin what is due at ``now`` (UTC seconds). Returns rows deleted, by table, and buckets thinned.

    ``boot_ns`` is the same moment on the boot clock: a call of this boot is never older than that says, so a wall clock
    that was set forward forgets nothing that still counts.

    Raises:
        StorageError: the disk refuses; what was done stays done, the rest waits for the next day.
    """
    done: dict[str, int] = {}
    cutoff = now - days * DAY
    calls_cutoff_us = int((now - keep_calls_days * DAY) * 1e6)
    steps: tuple[tuple[str, Callable[[sqlite3.Connection], int]], ...] = (
        (
            "calls",
            partial(
                _delete_calls, before=calls_cutoff_us, boot=database.boot, boot_ns=boot_ns - keep_calls_days * DAY * NS
            ),
        ),
        ("choices", partial(_delete, table="choices", column="request_id", before=int(cutoff * 1e6))),
        ("requests", partial(_delete, table="requests", column="id", before=int(cutoff * 1e6))),
        ("alerts", partial(_delete_alerts, before=cutoff)),
        ("feedback", partial(_delete_feedback, before=cutoff)),
        ("rollup_hour", partial(_delete_rollups, before=int(cutoff // 3600))),
        ("silences", partial(_delete_silences, before=now)),
    )
    for table, step in steps:
        done[table] = await _until_done(database, step)
    done["samples"] = done["thinned"] = 0
    for name in await database.reader.run(names):
        done["samples"] += await _until_done(database, partial(_delete_samples, name=name, before=cutoff))
        for age, width in series.THINNING:
            done["thinned"] += await _thin(database, name, now - age, width)
    return done


async def _until_done(database: DatabasePort, step: Callable[[sqlite3.Connection], int]) -> int:
    total = 0
    while True:
        count = await database.writer.call(step)
        total += count
        if count < PIECE:
            return total


async def _thin(database: DatabasePort, name: str, before: float, width: int) -> int:
    total = 0
    while True:
        crowd = await database.reader.run(series.crowded, name, before, width)
        if crowd.buckets:
            await database.writer.call(partial(series.thin, crowd=crowd))
        total += len(crowd.buckets)
        if len(crowd.buckets) < series.CHUNK_BUCKETS:
            return total


def _delete(connection: sqlite3.Connection, *, table: str, column: str, before: int) -> int:
    """By a range of the primary key, oldest first."""
    sql = f"DELETE FROM {table} WHERE {column} IN (SELECT {column} FROM {table} WHERE {column} < ? ORDER BY 1 LIMIT ?)"
    return connection.execute(sql, (before, PIECE)).rowcount


def _delete_calls(connection: sqlite3.Connection, *, before: int, boot: int, boot_ns: int) -> int:
    # An open call is never forgotten, however old: recovery has to end it first.
    sql = (
        "DELETE FROM calls WHERE id IN (SELECT id FROM calls WHERE id < ? AND state <> 'dispatched'"
        " AND (ended_boot IS NOT ? OR ended_boot_ns < ?) ORDER BY id LIMIT ?)"
    )
    return connection.execute(sql, (before, boot, boot_ns, PIECE)).rowcount


def _delete_alerts(connection: sqlite3.Connection, *, before: float) -> int:
    sql = (
        "DELETE FROM alerts WHERE id IN"
        " (SELECT id FROM alerts WHERE state = 'resolved' AND resolved_at < ? ORDER BY id LIMIT ?)"
    )
    return connection.execute(sql, (before, PIECE)).rowcount


def _delete_feedback(connection: sqlite3.Connection, *, before: float) -> int:
    sql = "DELETE FROM feedback WHERE id IN (SELECT id FROM feedback WHERE at < ? ORDER BY id LIMIT ?)"
    return connection.execute(sql, (before, PIECE)).rowcount


def _delete_rollups(connection: sqlite3.Connection, *, before: int) -> int:
    # A table WITHOUT ROWID has no rowid to limit by: delete the oldest hours, as many as fit a piece.
    row = connection.execute(
        "SELECT max(period) FROM (SELECT period FROM rollup_hour WHERE period < ? ORDER BY period LIMIT ?)",
        (before, PIECE),
    ).fetchone()
    if row[0] is None:
        return 0
    return connection.execute("DELETE FROM rollup_hour WHERE period <= ?", (row[0],)).rowcount


def _delete_silences(connection: sqlite3.Connection, *, before: float) -> int:
    return min(PIECE - 1, connection.execute('DELETE FROM silences WHERE "until" <= ?', (before,)).rowcount)


def _delete_samples(connection: sqlite3.Connection, *, name: str, before: float) -> int:
    row = connection.execute(
        "SELECT max(at) FROM (SELECT at FROM samples WHERE name = ? AND at < ? ORDER BY at LIMIT ?)",
        (name, before, PIECE),
    ).fetchone()
    if row[0] is None:
        return 0
    return connection.execute("DELETE FROM samples WHERE name = ? AND at <= ?", (name, row[0])).rowcount
