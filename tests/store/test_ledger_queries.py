"""What the ledger rebuilds admission from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hybridd.clocks import NS, ManualClock
from hybridd.store.database import Database
from hybridd.store.queries import ledger
from tests.store.rows import T0_US, dispatch, opened, settle

T0_NS = T0_US * 1000
SECOND_US = 1_000_000


async def _since(database: Database, **options: Any) -> list[ledger.EndedCalls]:
    return list(await database.reader.run(ledger.ended_since, **options))


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


async def test_ended_since_is_by_end_and_leaves_out_what_does_not_count(database: Database) -> None:
    """A long call that ended after the cut-off is in; released and open ones are not; the cut-off itself is in."""
    await _ended(database, 0, ended_wall_ns=T0_NS + 3000 * NS)
    await _ended(database, SECOND_US, ended_wall_ns=T0_NS + 10 * NS)
    await _ended(database, 2 * SECOND_US, ended_wall_ns=T0_NS + 2000 * NS, state="unknown")
    await _ended(database, 3 * SECOND_US, ended_wall_ns=T0_NS + 2500 * NS, state="released")
    await database.writer.dispatch(dispatch(4 * SECOND_US))
    found = await _since(database, wall_ns_cutoff=T0_NS + 2000 * NS)
    assert [(row.ended_wall_ns - T0_NS) // NS for row in found] == [3000, 2000]
    short = await _since(database, wall_ns_cutoff=T0_NS + 2000 * NS, longest_seconds=1.0)
    assert short == [], "the range of ids is bounded by the longest call"


async def test_ended_since_by_the_boot_clock_survives_a_wall_clock_that_jumped(tmp_path: Path) -> None:
    """After the wall clock was set forward by a year, calls of this boot are still found by the boot clock."""
    clock = ManualClock(wall_ns=T0_NS)
    database = opened(tmp_path, clock)
    await _ended(database, 0, ended_boot_ns=5 * NS)
    database.close()
    clock.set_wall(T0_NS + 365 * 86_400 * NS)
    database = opened(tmp_path, clock)
    try:
        cutoff = clock.wall_ns() - 60 * NS
        assert await _since(database, wall_ns_cutoff=cutoff) == []
        found = await _since(database, wall_ns_cutoff=cutoff, boot=database.boot, boot_ns_cutoff=4 * NS)
        assert [row.ended_boot_ns for row in found] == [5 * NS]
        late = await _since(database, wall_ns_cutoff=cutoff, boot=database.boot, boot_ns_cutoff=6 * NS)
        assert late == []
    finally:
        database.close()


async def test_buckets_never_expire_early(database: Database) -> None:
    """Coalesced calls keep their sums, the latest end and the earliest admission, apart by account, model and boot."""
    for number, end in enumerate((100, 105, 109, 110)):
        await _ended(database, number, ended_boot_ns=end, input_tokens=10, first_byte_boot_ns=end - 50)
    await _ended(database, 10, ended_boot_ns=101, model="m2")
    await _ended(database, 11, ended_boot_ns=102)
    found = await _since(database, wall_ns_cutoff=0, bucket_ns=10)
    by = {(row.model, row.ended_boot_ns): row for row in found}
    assert set(by) == {("m1", 109), ("m1", 110), ("m2", 101)}
    whole = by["m1", 109]
    assert (whole.requests, whole.input_tokens) == (4, 120)
    assert whole.admitted_wall_ns == T0_NS
    assert whole.first_byte_boot_ns is None, "one of them has no first byte"
    assert by["m1", 110].first_byte_boot_ns == 60


async def test_a_first_byte_of_another_boot_is_not_used(database: Database) -> None:
    """A call that a crash ended in another boot has no first byte on that boot's clock."""
    await _ended(database, 0, first_byte_boot_ns=5, ended_boot=2)
    (row,) = await _since(database, wall_ns_cutoff=0)
    assert row.first_byte_boot_ns is None
    assert row.boot == 2


async def test_calendar_sums_debit_every_period_touched(database: Database) -> None:
    """A call across the boundary counts on both sides, and skew widens it."""
    boundary = T0_NS + 100 * NS
    await _ended(database, 0, ended_wall_ns=boundary + NS, input_tokens=1)
    await _ended(database, SECOND_US, ended_wall_ns=boundary - NS, input_tokens=10)
    await _ended(database, 101 * SECOND_US, ended_wall_ns=boundary + 2 * NS, input_tokens=100)
    before = await database.reader.run(ledger.calendar_sums, boundary - 3600 * NS, boundary)
    after = await database.reader.run(ledger.calendar_sums, boundary, boundary + 3600 * NS)
    assert [(row.model, row.input_tokens) for row in before] == [("m1", 11)]
    assert [(row.model, row.input_tokens) for row in after] == [("m1", 101)]
    wide = await database.reader.run(lambda c: ledger.calendar_sums(c, boundary, boundary + 3600 * NS, skew_ns=5 * NS))
    assert [(row.requests, row.input_tokens) for row in wide] == [(3, 111)]
