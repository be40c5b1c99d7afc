"""The database, opened once for each run of the daemon.

Order of a start: the state directory (0700) → its lock → the file (0600) → its schema → this boot and this run → the
integrity check when the last run did not end cleanly → the writer. Nothing is ever deleted or repaired behind the
user's back.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from pathlib import Path
from typing import Self

import hybridd
from hybridd.clocks import Clock
from hybridd.errors import StateError
from hybridd.store import schema
from hybridd.store.connection import DAMAGED, MINIMUM_SQLITE, connect, primary_code, storage_reason
from hybridd.store.lock import StateLock
from hybridd.store.reader import Reader
from hybridd.store.writer import Writer

FILE_NAME = "hybridd.db"
# A larger database is checked beside the running daemon: `quick_check` reads about 300 MB/s.
CHECK_AT_ONCE_BYTES = 32 * 1024 * 1024

_log = logging.getLogger("hybridd.store")


class Database:
    """The writer, the reader and what this run is. Made by :meth:`open`.

    Attributes:
        boot: row id in ``boots`` of the machine's present boot (the same for every run in it).
        run: row id in ``runs`` of this run of the daemon; 0 when opened for reading only.
        unclean: whether the run before this one did not end by :meth:`close`.
        migrated_from: the schema revision found, when it was an older one.
    """

    def __init__(self, path: Path, clock: Clock, lock: StateLock | None) -> None:
        self.path = path
        self.boot = 0
        self.run = 0
        self.unclean = False
        self.migrated_from: str | None = None
        self.writer = Writer(path)
        self.reader = Reader(path, None if lock is None else self.writer)
        self._clock = clock
        self._lock = lock
        self._closed = False

    @classmethod
    def open(cls, state_dir: Path, *, clock: Clock, readonly: bool = False) -> Self:
        """Open (and create, or migrate) the database of a state directory.

        ``readonly`` takes no lock and changes nothing: for programs that look into the state of a stopped daemon, or
        beside a running one.

        Raises:
            AlreadyRunning: another process holds the state directory.
            SchemaTooNew: the database was written by a newer hybridd.
            StateError: directory, file or schema cannot be used; the message says what to do. The file is unchanged.
        """
        if sqlite3.sqlite_version_info < MINIMUM_SQLITE:
            needed = ".".join(map(str, MINIMUM_SQLITE))
            raise StateError(f"SQLite {sqlite3.sqlite_version} is too old: hybridd needs {needed} or newer")
        path = state_dir / FILE_NAME
        if readonly:
            return cls._open_readonly(path, clock)
        _prepare(state_dir)
        lock = StateLock(state_dir)
        lock.acquire()
        database = cls(path, clock, lock)
        try:
            database._start()
        except sqlite3.Error as error:
            database._abandon()
            raise _unusable(path, error) from error
        except BaseException:
            database._abandon()
            raise
        return database

    def close(self) -> None:
        """Write what is queued and mark the run as ended cleanly. Blocks; may be called twice."""
        if self._closed:
            return
        self._closed = True
        self.reader.close()
        self.writer.close()
        if self._lock is None:
            return
        if self.writer.failed is None and not self.writer.running:
            try:
                connection = connect(self.path)
                try:
                    connection.execute(
                        "UPDATE runs SET stopped_wall_ns = ? WHERE id = ?", (self._clock.wall_ns(), self.run)
                    )
                finally:
                    connection.close()
            except sqlite3.Error as error:
                _log.error("the end of this run could not be recorded: %s (%s)", storage_reason(error), error)
        self._lock.release()

    @classmethod
    def _open_readonly(cls, path: Path, clock: Clock) -> Self:
        if not path.exists():
            raise StateError(f"there is no database at {path}: the daemon has not run with this state directory yet")
        database = cls(path, clock, None)
        database.writer.failed = "it was opened for reading only"
        try:
            connection = connect(path, readonly=True)
            try:
                found = schema.revision(connection, path)
                row = connection.execute("SELECT id FROM boots WHERE boot_id = ?", (clock.boot_id,)).fetchone()
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise _unusable(path, error) from error
        if found != schema.HEAD:
            schema.check_known(found or "none", path)
            raise StateError(f"the database {path} has the older schema {found!r}: start the daemon once to migrate it")
        database.boot = row[0] if row else 0
        return database

    def _start(self) -> None:
        fresh = not self.path.exists()
        if fresh:
            # Made here and not by SQLite, so that it never exists with wider permissions; -wal and -shm inherit them.
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        connection = self._with_present_schema()
        try:
            self.unclean = _ended_uncleanly(connection)
            size = self.path.stat().st_size
            if self.unclean and size <= CHECK_AT_ONCE_BYTES:
                check_integrity(connection, self.path)
            self._register(connection)
        finally:
            connection.close()
        self.writer.start()
        if self.unclean and size > CHECK_AT_ONCE_BYTES:
            threading.Thread(target=self._check_beside, name="hybridd-check", daemon=True).start()

    def _with_present_schema(self) -> sqlite3.Connection:
        connection = connect(self.path)
        try:
            found = schema.revision(connection, self.path)
            if found is None:
                schema.create(connection)
                return connection
            if found == schema.HEAD:
                connection.execute("PRAGMA journal_mode = WAL")
                return connection
            schema.check_known(found, self.path)
        except BaseException:
            connection.close()
            raise
        connection.close()
        saved = schema.migrate(self.path, found)
        self.migrated_from = found
        _log.info("the database was migrated from schema %s to %s; a copy from before is %s", found, schema.HEAD, saved)
        return connect(self.path)

    def _register(self, connection: sqlite3.Connection) -> None:
        wall, tick = self._clock.wall_ns(), self._clock.boot_ns()
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "INSERT INTO boots (boot_id, first_wall_ns, first_boot_ns) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (self._clock.boot_id, wall, tick),
        )
        (self.boot,) = connection.execute("SELECT id FROM boots WHERE boot_id = ?", (self._clock.boot_id,)).fetchone()
        (self.run,) = connection.execute(
            "INSERT INTO runs (boot, pid, version, started_wall_ns, started_boot_ns) VALUES (?, ?, ?, ?, ?)"
            " RETURNING id",
            (self.boot, os.getpid(), hybridd.__version__, wall, tick),
        ).fetchall()[0]
        connection.execute("COMMIT")

    def _check_beside(self) -> None:
        try:
            connection = connect(self.path, readonly=True)
            try:
                check_integrity(connection, self.path)
            finally:
                connection.close()
        except (StateError, sqlite3.Error) as error:
            _log.critical("%s", error)
            self.writer.condemn(str(error))

    def _abandon(self) -> None:
        self._closed = True
        self.reader.close()
        self.writer.close()
        if self._lock is not None:
            self._lock.release()


def check_integrity(connection: sqlite3.Connection, path: Path) -> None:
    """Raises:
    StateError: SQLite finds the file damaged; what it says is in ``details``.
    """
    found = [str(row[0]) for row in connection.execute("PRAGMA quick_check(10)")]
    if found != ["ok"]:
        raise _damaged(path, "; ".join(found)[:500])


def _ended_uncleanly(connection: sqlite3.Connection) -> bool:
    row = connection.execute("SELECT stopped_wall_ns FROM runs ORDER BY id DESC LIMIT 1").fetchone()
    return row is not None and row[0] is None


def _prepare(state_dir: Path) -> None:
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = state_dir.stat()
        if found.st_uid == os.getuid() and found.st_mode & 0o077:
            state_dir.chmod(0o700)
    except OSError as error:
        raise StateError(f"the state directory {state_dir} cannot be used: {error.strerror}") from error
    if not os.access(state_dir, os.W_OK | os.X_OK):
        raise StateError(f"the state directory {state_dir} is not writable; set HYBRIDD_STATE_DIR to one that is")


def _unusable(path: Path, error: sqlite3.Error) -> StateError:
    if primary_code(error) in DAMAGED:
        return _damaged(path, str(error))
    return StateError(f"the database {path} cannot be used: {storage_reason(error) or error} ({error})")


def _damaged(path: Path, finding: str) -> StateError:
    saved = schema.newest_backup(path)
    restore = (
        f"put the backup {saved} in its place" if saved else "start with an empty history (there is no backup yet)"
    )
    return StateError(
        f"the database {path} is damaged ({finding}). Nothing was changed. To go on: stop hybridd, move {path.name} and"
        f" its -wal and -shm files aside, and {restore}",
        details={"path": str(path), "backup": str(saved) if saved else None, "finding": finding},
    )
