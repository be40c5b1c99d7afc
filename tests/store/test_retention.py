"""Forgetting in small steps."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from hybridd.store import retention
from hybridd.store.database import Database
from hybridd.store.queries import feedback, samples
from tests.store.rows import T0_US, dispatch, request, settle, within

DAY_US = 86_400_000_000


async def _fill(database: Database, count: int, start: int) -> None:
    waiting = []
    for number in range(start, start + count):
        row = dispatch(number)
        waiting.append(database.writer.dispatch(row))
        database.writer.request(request(number))
    await within(10, asyncio.gather(*waiting))
    for number in range(start, start + count):
        database.writer.settle(settle(dispatch(number)))


async def _counts(database: Database) -> dict[str, Any]:
    tables = ("requests", "choices", "calls", "samples", "feedback", "rollup_hour", "rollup_day")
    return await database.reader.run(
        lambda c: {table: c.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}
    )


async def test_only_what_is_old_goes(database: Database) -> None:
    """Rows past their time go, in chunks; newer rows, open calls and rollups by day stay."""
    await _fill(database, 1200, 0)
    await database.writer.dispatch(dispatch(5000))
    await _fill(database, 10, 50 * DAY_US)
    old, new = T0_US / 1e6, T0_US / 1e6 + 50 * 86_400
    await database.writer.call(
        lambda c: samples.insert(
            c, [(name, at + n, 1.0) for name in ("a", "b") for at in (old, new) for n in range(700)]
        )
    )
    for at in (old, new):
        await database.writer.call(partial(feedback.add, at=at, score=1.0))
    gone = await within(20, retention.expire(database.writer, now=new + 1000, keep_seconds=30 * 86_400))
    assert gone["requests"] == 1200
    assert gone["calls"] == 1200
    assert gone["samples"] == 1400
    assert await _counts(database) == {
        "requests": 10, "choices": 10, "calls": 11, "samples": 1400, "feedback": 1, "rollup_hour": 1, "rollup_day": 2,
    }  # fmt: skip


async def test_calls_are_kept_for_the_longest_window(database: Database) -> None:
    """A short retention cannot make a monthly quota forget what was used."""
    await _fill(database, 5, 0)
    now = T0_US / 1e6 + 20 * 86_400
    gone = await within(20, retention.expire(database.writer, now=now, keep_seconds=86_400))
    assert (gone["requests"], gone["calls"]) == (5, 0)
    gone = await within(20, retention.expire(database.writer, now=now, keep_seconds=86_400, keep_calls_seconds=1.0))
    assert gone["calls"] == 5


async def test_dispatches_go_on_while_old_rows_are_deleted(database: Database) -> None:
    """Deleting many rows never holds a dispatch up for longer than one chunk."""
    await _fill(database, 6000, 0)
    expiring = asyncio.ensure_future(
        retention.expire(database.writer, now=T0_US / 1e6 + 90 * 86_400, keep_seconds=86_400)
    )
    made = 0
    while not expiring.done():
        await within(5, database.writer.dispatch(dispatch(100 * DAY_US + made)))
        made += 1
    assert (await expiring)["calls"] == 6000
    assert made > 10
