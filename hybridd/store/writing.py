"""What the writer thread does with its connection: batches, isolation of a bad row, checkpoints, reopening."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from hybridd.errors import StorageError
from hybridd.store import statements
from hybridd.store.connection import connect, storage_reason
from hybridd.store.rows import DispatchRow, RequestRow, SettleRow
from hybridd.store.statements import BATCH

# Checkpoint when about this many pages wait in the log and nobody waits for a commit. Large: hot pages are rewritten
# in the log by every commit but copied to the database once, and each checkpoint costs two fsyncs.
CHECKPOINT_PAGES: Final = 6_000
_PROBE_BYTES: Final = 256 * 1024

Waiting: TypeAlias = "tuple[DispatchRow, asyncio.Future[None]]"
Outcome: TypeAlias = "tuple[asyncio.Future[Any], Any, BaseException | None]"


class Callers(Protocol):
    """Those who wait for an outcome. Called on the writer's thread."""

    def acknowledge(self, batch: list[Waiting], /) -> None: ...

    def resolve(self, outcomes: list[Outcome], /) -> None: ...


# What a wrong row or statement raises, beside what SQLite itself says: too large a number, half a surrogate, no tuple.
_WRONG = (sqlite3.Error, OverflowError, ValueError, TypeError)

_log = logging.getLogger("hybridd.store")


class Execute(NamedTuple):
    """A small write nobody waits for."""

    sql: str
    params: tuple[Any, ...]


class Task(NamedTuple):
    """A function that runs in a transaction of its own; ``function`` None is a barrier."""

    function: Callable[[sqlite3.Connection], Any] | None
    future: asyncio.Future[Any]


Control: TypeAlias = "Execute | Task"


class Condemned(sqlite3.OperationalError):
    """Writing must not go on with this file, whatever SQLite says; the message is a sentence of its own."""


class Session:
    """One writing connection after another. Belongs to the writer's thread once that runs.

    Methods raise sqlite3.Error only when the storage refused; a row or statement that is itself wrong is answered or
    logged here and never stops the others.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.idle = False
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._full_sync = True
        self._pages = 0

    @property
    def unsynced(self) -> bool:
        """Whether something was committed since the last checkpoint."""
        return self._pages > 0

    @property
    def connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.OperationalError("the database is not open")
        return self._connection

    def open(self) -> None:
        connection = connect(self.path)
        try:
            statements.install(connection)
        except sqlite3.Error:
            connection.close()
            raise
        self._connection = connection
        self._full_sync = True
        if self._inode is None:
            self._inode = self._identity()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            connection.close()
        except sqlite3.Error as error:
            _log.warning("closing the database failed: %s", error)

    def reopen(self) -> None:
        """A fresh connection that has proved it can write. After an I/O error the old one cannot be trusted: what it
        believes written may never have reached the disk.

        The probe takes pages it does not need, so that a disk with room for one more row only stays refused.
        """
        self.close()
        self._verify_identity()
        self.open()
        connection = self.connection
        connection.execute("INSERT OR REPLACE INTO probe (id, filler) VALUES (1, randomblob(?))", (_PROBE_BYTES,))
        connection.execute("DELETE FROM probe")
        self.checkpoint()

    def describe(self, error: Exception) -> str:
        """The refusal as a sentence part that names the file."""
        if isinstance(error, Condemned):
            return str(error)
        return f"{storage_reason(error) or error} ({self.path}: {error})"

    def dispatch(self, waiting: deque[Waiting], callers: Callers) -> None:
        """Everything waiting, in durable commits of up to BATCH rows; each commit is acknowledged as it is made."""
        left = len(waiting)
        while left > 0:
            batch = [waiting.popleft() for _ in range(min(left, BATCH))]
            left -= len(batch)
            try:
                outcome = self._dispatch([row for row, _ in batch])
            except BaseException:
                waiting.extendleft(reversed(batch))  # the writer fails whatever waits
                raise
            if outcome is None:
                callers.acknowledge(batch)
            else:
                callers.resolve([(future, None, error) for (_, future), error in zip(batch, outcome, strict=True)])

    def _dispatch(self, rows: list[DispatchRow]) -> list[BaseException | None] | None:
        """None when all rows are on the disk, otherwise the outcome of each."""
        self._sync(full=True)
        self._pages += 4 + len(rows) // 16
        try:
            written = statements.DISPATCH.run(self.connection, rows)
        except _WRONG as error:
            if storage_reason(error):
                raise
            if len(rows) > 1:  # find the bad row; the good ones must not suffer for it
                return [error for row in rows for error in self._dispatch([row]) or (None,)]
            return [StorageError(f"the call cannot be recorded: {error}")]
        if written == len(rows):
            return None
        return [StorageError("the call was not recorded: its id is missing")] * len(rows)

    def settle(self, queue: deque[SettleRow]) -> int:
        """Up to BATCH settlements in one statement; how many were taken from the queue."""
        taken = [queue[index] for index in range(min(len(queue), BATCH))]
        # Two ends of one call in one statement would leave open which of them wins: the newest does.
        newest = {row.id: row for row in taken}
        changed = self._bookkeep(statements.SETTLE, list(newest.values()), "settlement")
        if changed < len(newest):
            _log.error("%d settlements name calls that are not recorded", len(newest) - changed)
        for _ in taken:
            queue.popleft()
        return len(taken)

    def request(self, queue: deque[RequestRow]) -> int:
        """Up to BATCH requests in one statement; how many were taken from the queue."""
        taken = [queue[index] for index in range(min(len(queue), BATCH))]
        self._bookkeep(statements.REQUEST, taken, "request")
        for _ in taken:
            queue.popleft()
        return len(taken)

    def _bookkeep(self, statement: statements.Batch, rows: Sequence[Any], what: str) -> int:
        self._sync(full=False)
        self._pages += 6 + len(rows) // 4
        try:
            return statement.run(self.connection, rows)
        except _WRONG as error:
            if storage_reason(error):
                raise
            if len(rows) > 1:
                return sum(self._bookkeep(statement, [row], what) for row in rows)
            _log.error("a %s cannot be recorded and is skipped: %s: %r", what, error, rows[0])
            return 1

    def control(self, queue: deque[Control], count: int, callers: Callers) -> None:
        """The first ``count`` entries in order: runs of small writes in one transaction, tasks in their own."""
        done = 0
        while done < count:
            head = queue[0]
            if isinstance(head, Task):
                outcome = self._task(head)
                queue.popleft()
                done += 1
                callers.resolve([outcome])
                continue
            run: list[Execute] = []
            for index in range(min(count - done, BATCH)):
                item = queue[index]
                if isinstance(item, Task):
                    break
                run.append(item)
            self._executes(run)
            for _ in run:
                queue.popleft()
            done += len(run)

    def _executes(self, run: list[Execute]) -> None:
        self._sync(full=False)
        self._pages += 4 + len(run)
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            for item in run:
                try:
                    connection.execute(item.sql, item.params)
                except _WRONG as error:
                    if storage_reason(error) or not connection.in_transaction:
                        raise
                    _log.error("a write is skipped: %s: %s", error, item.sql)
            connection.execute("COMMIT")
        except BaseException:
            _rollback(connection)
            raise

    def _task(self, task: Task) -> Outcome:
        if task.function is None:
            return (task.future, None, None)
        self._sync(full=True)
        self._pages += 8
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            value = task.function(connection)
            connection.execute("COMMIT")
        except BaseException as error:  # it belongs to the caller, unless the storage refused
            _rollback(connection)
            if isinstance(error, sqlite3.Error) and storage_reason(error):
                raise
            return (task.future, None, error)
        return (task.future, value, None)

    def checkpoint_if_large(self) -> None:
        """Between batches: copy the log into the database when it has grown, or when nothing happens."""
        if self._pages >= CHECKPOINT_PAGES or (self.idle and self._pages):
            self._verify_identity()
            self.checkpoint()
        self.idle = False

    def checkpoint(self, *, truncate: bool = False) -> None:
        """Sync the log, copy it into the database file, sync that. Readers may delay the copy, never a writer."""
        self.connection.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if truncate else 'PASSIVE'})").fetchall()
        self._pages = 0

    def _sync(self, *, full: bool) -> None:
        """In WAL mode NORMAL writes without an fsync; the next FULL commit or checkpoint syncs the same file."""
        if full != self._full_sync:
            self.connection.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
            self._full_sync = full

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return None
        return (found.st_dev, found.st_ino)

    def _verify_identity(self) -> None:
        """SQLite goes on writing to a file that was deleted or moved away, and everything would be lost at the end."""
        if self._inode is not None and self._identity() != self._inode:
            raise Condemned(f"the database file {self.path} was removed or replaced while in use; restart hybridd")


def _rollback(connection: sqlite3.Connection) -> None:
    if not connection.in_transaction:
        return  # SQLite has rolled back by itself, as it does after a full disk
    try:
        connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        _log.warning("rolling back failed: %s", error)
