"""The writer thread: durable dispatches, bookkeeping, tasks, bad rows."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridd.errors import StorageError
from hybridd.store.database import Database
from hybridd.store.rows import DispatchRow
from hybridd.store.writer import KEEP
from tests.store.rows import dispatch, opened, request, settle, within


def _scalar(connection: sqlite3.Connection, sql: str) -> object:
    return connection.execute(sql).fetchone()[0]


async def test_dispatch_is_visible_to_another_connection_once_resolved(database: Database) -> None:
    """A resolved dispatch is a committed row, readable from outside."""
    await within(5, database.writer.dispatch(dispatch(7)))
    outside = sqlite3.connect(database.path)
    try:
        row = outside.execute("SELECT * FROM calls").fetchone()
    finally:
        outside.close()
    assert row[: len(DispatchRow._fields)] == tuple(dispatch(7))
    assert row[len(DispatchRow._fields)] == "dispatched"


@pytest.mark.parametrize("count", [1, 2, 3, 5, 17, 255, 256, 257, 700])
async def test_every_batch_size_is_written_completely(database: Database, count: int) -> None:
    """However many dispatches wait together, each becomes exactly one row with its own values."""
    rows = [dispatch(number, model=f"m{number}") for number in range(count)]
    await within(10, asyncio.gather(*(database.writer.dispatch(row) for row in rows)))
    for row in rows:
        database.writer.settle(settle(row, input_tokens=row.id % 1000))
    found = await database.reader.run(
        lambda c: c.execute("SELECT id, model, state, input_tokens FROM calls ORDER BY id").fetchall()
    )
    assert found == [(row.id, row.model, "settled", row.id % 1000) for row in rows]


async def test_a_bad_row_fails_alone(database: Database) -> None:
    """One row that cannot be stored fails its own caller; those beside it are recorded."""
    await within(5, database.writer.dispatch(dispatch(0)))
    rows = [
        dispatch(1),
        dispatch(0),
        dispatch(2),
        dispatch(3, provider=None),
        dispatch(4, usd_micro=2**70),
        dispatch(6, model="\ud800"),
        dispatch(5),
    ]
    outcome = await within(5, asyncio.gather(*(database.writer.dispatch(row) for row in rows), return_exceptions=True))
    assert [type(each) for each in outcome] == [
        type(None), StorageError, type(None), StorageError, StorageError, StorageError, type(None)
    ]  # fmt: skip
    assert database.writer.failed is None
    assert await database.reader.run(_scalar, "SELECT count(*) FROM calls") == 4


async def test_a_dispatch_without_an_id_is_never_acknowledged(database: Database) -> None:
    """The padding of batches cannot swallow a row: a missing id is an error."""
    with pytest.raises(StorageError, match="id is missing"):
        await within(5, database.writer.dispatch(dispatch(0, id=None)))


async def test_a_bad_settlement_or_request_is_skipped_and_the_rest_written(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """A settlement that is wrong by itself is logged with its values; its neighbours are kept."""
    first, second = dispatch(1), dispatch(2)
    await asyncio.gather(database.writer.dispatch(first), database.writer.dispatch(second))
    database.writer.settle(settle(first, requests="many"))
    database.writer.settle(settle(second))
    database.writer.request(request(1, latency_us=None))
    database.writer.request(request(2))
    await within(5, database.writer.barrier())
    states = await database.reader.run(lambda c: c.execute("SELECT state FROM calls ORDER BY id").fetchall())
    assert states == [("dispatched",), ("settled",)]
    assert await database.reader.run(_scalar, "SELECT count(*) FROM requests") == 1
    assert "a settlement cannot be recorded" in caplog.text
    assert "a request cannot be recorded" in caplog.text


async def test_a_settlement_of_an_unknown_call_is_reported(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Settling a call that was never recorded leaves a trace in the log."""
    database.writer.settle(settle(dispatch(9)))
    await within(5, database.writer.barrier())
    assert "1 settlements name calls that are not recorded" in caplog.text


async def test_call_returns_after_commit_and_rolls_back_on_error(database: Database) -> None:
    """A task's result arrives with its transaction committed; an exception leaves nothing behind."""

    def good(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO probe VALUES (5, x'00')")
        return 5

    def bad(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO probe VALUES (6, x'00')")
        raise LookupError("no")

    assert await within(5, database.writer.call(good)) == 5
    with pytest.raises(LookupError):
        await within(5, database.writer.call(bad))
    with pytest.raises(sqlite3.IntegrityError):
        await within(5, database.writer.call(good))
    assert await database.reader.run(lambda c: c.execute("SELECT id FROM probe").fetchall()) == [(5,)]


async def test_execute_keeps_order_and_skips_what_is_wrong(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Small writes run in the order queued; a wrong one is logged and does not undo the others."""
    database.writer.execute("INSERT INTO probe VALUES (1, x'01')")
    database.writer.execute("INSERT INTO nowhere VALUES (1)")
    database.writer.execute("UPDATE probe SET filler = ? WHERE id = 1", (b"\x02",))
    await within(5, database.writer.barrier())
    assert await database.reader.run(_scalar, "SELECT filler FROM probe") == b"\x02"
    assert "no such table: nowhere" in caplog.text


async def test_barrier_covers_everything_queued_before_it(database: Database) -> None:
    """After the barrier, settlements, requests and small writes queued before it are committed."""
    row = dispatch(1)
    await database.writer.dispatch(row)
    database.writer.settle(settle(row))
    database.writer.request(request(1))
    database.writer.execute("INSERT INTO probe VALUES (1, x'01')")
    await within(5, database.writer.barrier())
    outside = sqlite3.connect(database.path)
    try:
        counts = [
            _scalar(outside, sql)
            for sql in (
                "SELECT count(*) FROM calls WHERE state = 'settled'",
                "SELECT count(*) FROM requests",
                "SELECT count(*) FROM choices",
                "SELECT count(*) FROM probe",
            )
        ]
    finally:
        outside.close()
    assert counts == [1, 1, 1, 1]


async def test_the_reader_sees_what_was_queued_before(database: Database) -> None:
    """A query waits for bookkeeping that was queued before it, without anybody asking for a barrier."""
    database.writer.request(request(3))
    assert await within(5, database.reader.run(_scalar, "SELECT count(*) FROM requests")) == 1


async def test_a_caller_that_left_disturbs_nobody(database: Database) -> None:
    """A cancelled dispatch is still recorded, and its neighbours are acknowledged."""
    left = database.writer.dispatch(dispatch(1))
    left.cancel()
    await within(5, database.writer.dispatch(dispatch(2)))
    assert await database.reader.run(_scalar, "SELECT count(*) FROM calls") == 2


async def test_close_writes_what_is_queued_and_ends_cleanly(tmp_path: Path) -> None:
    """Closing loses nothing, empties the log and marks the run as ended."""
    database = opened(tmp_path)
    row = dispatch(1)
    await database.writer.dispatch(row)
    database.writer.settle(settle(row))
    database.writer.request(request(1))
    database.close()
    database.close()
    assert not (tmp_path / "hybridd.db-wal").exists()
    again = opened(tmp_path)
    try:
        assert not again.unclean
        assert await again.reader.run(_scalar, "SELECT state FROM calls") == "settled"
        assert await again.reader.run(_scalar, "SELECT count(*) FROM runs WHERE stopped_wall_ns IS NULL") == 1
    finally:
        again.close()


async def test_the_log_stays_bounded(database: Database) -> None:
    """Under a steady stream of writes the write-ahead log is copied back and reused."""
    for start in range(0, 40_000, 500):
        rows = [dispatch(start + number) for number in range(500)]
        waiting = [database.writer.dispatch(row) for row in rows]
        await within(10, asyncio.gather(*waiting))
        for row in rows:
            database.writer.settle(settle(row))
    await within(5, database.writer.barrier())
    assert (database.path.with_name("hybridd.db-wal")).stat().st_size < 64 * 1024 * 1024
    assert database.path.stat().st_size > 1024 * 1024, "nothing was ever copied into the database file"


async def test_an_idle_writer_checkpoints_and_then_sleeps(database: Database) -> None:
    """After a second without writes the log is in the database file, and the writer stops waking up."""
    await database.writer.dispatch(dispatch(1))
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 5
    session = database.writer._session
    while session.unsynced and loop.time() < deadline:
        await asyncio.sleep(0.05)
    assert not session.unsynced
    assert database.path.stat().st_size > 0


def test_requests_kept_during_a_failure_are_bounded(tmp_path: Path) -> None:
    """While writes fail, at most KEEP requests and KEEP small writes are held; the overflow is counted."""
    database = opened(tmp_path)
    try:
        refused = threading.Event()
        database.writer.on_state = lambda reason: refused.set()
        database.writer.condemn("for the test")
        assert refused.wait(5)
        for number in range(KEEP + 5):
            database.writer.request(request(number))
            database.writer.execute("SELECT 1")
        assert database.writer.dropped == 10
    finally:
        database.close()


async def test_a_bug_while_dispatching_leaves_nobody_waiting(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers whose rows were already taken from the queue are failed too, whatever the exception was."""

    def broken(self: object, rows: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(type(database.writer._session), "_dispatch", broken)
        outcome = await within(
            5, asyncio.gather(*(database.writer.dispatch(dispatch(n)) for n in range(3)), return_exceptions=True)
        )
    assert [type(each) for each in outcome] == [StorageError] * 3


async def test_a_bug_in_the_writer_fails_closed_and_is_survived(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected exception fails what waits, keeps the settlements, and writing goes on with a fresh connection."""
    row = dispatch(1)
    await database.writer.dispatch(row)
    session = database.writer._session
    real = type(session).settle
    calls = 0

    def broken(self: object, queue: object) -> int:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise RuntimeError("a bug")
        return real(session, queue)  # type: ignore[arg-type]  # handed through

    monkeypatch.setattr(type(session), "settle", broken)
    recovered = asyncio.Event()
    database.writer.on_state = lambda reason: recovered.set() if reason is None else None
    database.writer.settle(settle(row))
    with pytest.raises(StorageError, match="a bug"):
        await within(5, database.writer.barrier())
    await within(10, recovered.wait())
    assert calls == 3
    assert "unexpected error" in caplog.text
    assert await database.reader.run(_scalar, "SELECT state FROM calls") == "settled"


async def test_what_a_generator_query_yields_comes_as_a_list(database: Database) -> None:
    """A generator is read inside its snapshot, not later on another thread."""

    def rows(connection: sqlite3.Connection) -> Iterator[int]:
        for (number,) in connection.execute("SELECT id FROM boots"):
            yield number

    found: object = await database.reader.run(rows)
    assert found == [1]
