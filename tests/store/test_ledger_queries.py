"""What the ledger rebuilds admission from."""

from __future__ import annotations

from typing import Any

from hybridd.store.database import Database
from hybridd.store.queries import ledger
from tests.store.rows import T0_US, dispatch, settle

T0_NS = T0_US * 1000
SECOND_US = 1_000_000


async def _ended(database: Database, number: int, **fields: Any) -> None:
    row = dispatch(number, boot=fields.pop("boot", 1), model=fields.pop("model", "m1"))
    await database.writer.dispatch(row)
    database.writer.settle(settle(row, **fields))


async def test_open_calls_and_last_id(database: Database) -> None:
    """Only calls without an end are open; the last id covers requests too."""
    for number in range(3):
        await database.writer.dispatch(dispatch(number))
    database.writer.settle(settle(dispatch(1)))
    assert await database.reader.run(ledger.open_calls) == [dispatch(0), dispatch(2)]
    assert await database.reader.run(ledger.last_id) == T0_US + 2
    assert (await database.reader.run(ledger.boots))[1].boot_id == "boot-1"


async def test_the_open_calls_are_found_by_index(database: Database) -> None:
    """Recovery does not read the table of calls."""
    plan = await database.reader.run(
        lambda c: c.execute("EXPLAIN QUERY PLAN SELECT * FROM calls WHERE state = 'dispatched' ORDER BY id").fetchall()
    )
    assert "calls_open" in plan[0][3]
