"""Rollups are the sums of the rows, whatever is settled, repeated, retried or restarted."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridd.store.database import Database
from hybridd.store.statements import ROLLUP_SUMS
from tests.store.rows import dispatch, opened, request, settle, within

HOUR_US = 3_600_000_000
_CALLS = {
    "calls": "sum(state <> 'released')",
    "failed_calls": "sum(failed)",
    **{name: f"sum({name})" for name in ("input_tokens", "output_tokens", "bytes_down", "bytes_up", "usd_micro")},
}
_REQUESTS = {
    "requests": "count(*)",
    "cache_hits": "sum(cache = 'hit')",
    "failed_requests": "sum(status >= 400)",
    "latency_us_sum": "sum(latency_us)",
    "latency_us_max": "max(latency_us)",
    "first_token_us_sum": "coalesce(sum(first_token_us), 0)",
    "first_token_count": "count(first_token_us)",
}


def _from_rows(connection: sqlite3.Connection, span_us: int) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """The rollup table as it must be, computed from calls and requests in one go."""
    found: dict[tuple[Any, ...], dict[str, int]] = {}
    for table, period, sums, where in (
        ("calls", f"id / {span_us}", _CALLS, "state <> 'dispatched'"),
        ("requests", f"at_wall_ns / 1000 / {span_us}", _REQUESTS, "1"),
    ):
        columns = ", ".join(sums.values())
        rows = connection.execute(
            f"SELECT {period}, provider, model, task, {columns} FROM {table} WHERE {where} GROUP BY 1, 2, 3, 4"
        )
        for row in rows:
            found.setdefault(row[:4], dict.fromkeys(ROLLUP_SUMS, 0)).update(zip(sums, row[4:], strict=True))
    return {key: tuple(sums[name] for name in ROLLUP_SUMS) for key, sums in found.items()}


def _kept(connection: sqlite3.Connection, table: str) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    rows = connection.execute(f"SELECT period, provider, model, task, {', '.join(ROLLUP_SUMS)} FROM {table}")
    return {row[:4]: row[4:] for row in rows}


def _check(database: Database) -> None:
    for table, span in (("rollup_hour", HOUR_US), ("rollup_day", 24 * HOUR_US)):
        expected = database.reader.run_now(_from_rows, span)
        assert database.reader.run_now(_kept, table) == expected, table


amounts = st.integers(0, 10_000)
names = st.sampled_from(["a", "b"])
ends: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    state=st.sampled_from(["settled", "settled", "unknown", "released"]),
    input_tokens=amounts, output_tokens=amounts, usd_micro=amounts, bytes_down=amounts, failed=st.integers(0, 1),
)  # fmt: skip
calls = st.lists(st.tuples(st.integers(0, 100 * HOUR_US), names, names, st.lists(ends, max_size=3)), max_size=25)
finished: st.SearchStrategy[list[Any]] = st.lists(
    st.tuples(
        st.integers(0, 100 * HOUR_US),
        st.builds(
            dict,
            provider=names, status=st.sampled_from([200, 400, 502]), cache=st.sampled_from(["hit", "miss", "off"]),
            latency_us=amounts, first_token_us=st.none() | amounts,
        ),
    ),
    max_size=25,
)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(calls=calls, finished=finished, restart=st.booleans())
def test_rollups_equal_the_sum_over_rows(calls: list[Any], finished: list[Any], restart: bool) -> None:
    """For any calls, endings (repeated too), requests and a restart, both rollups equal SQL over the rows."""

    async def work(folder: Path) -> None:
        database = opened(folder)
        for at, provider, task, ended in {item[0]: item for item in calls}.values():
            row = dispatch(at, provider=provider, task=task)
            await database.writer.dispatch(row)
            for end in ended:
                database.writer.settle(settle(row, **end))
        if restart:
            database.close()
            database = opened(folder)
        for at, fields in finished:
            database.writer.request(request(at, **fields))
        await database.writer.barrier()
        _check(database)
        database.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(work(Path(folder)))


async def test_settling_again_replaces_and_does_not_add(database: Database) -> None:
    """A call settled twice, in one batch or in two, counts once, with the newest figures."""
    row = dispatch(1)
    await database.writer.dispatch(row)
    database.writer.settle(settle(row, state="unknown", input_tokens=500))
    database.writer.settle(settle(row, input_tokens=40))
    await within(5, database.writer.barrier())
    database.writer.settle(settle(row, input_tokens=30))
    await within(5, database.writer.barrier())
    found = await database.reader.run(lambda c: c.execute("SELECT calls, input_tokens FROM rollup_hour").fetchall())
    assert found == [(1, 30)]
    _check(database)


async def test_a_request_recorded_twice_counts_once(database: Database) -> None:
    """Retrying a batch after an error cannot double what was already written."""
    for _ in range(2):
        database.writer.request(request(1))
        await within(5, database.writer.barrier())
    found = await database.reader.run(lambda c: c.execute("SELECT requests FROM rollup_day").fetchall())
    assert found == [(1,)]
