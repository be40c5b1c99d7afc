"""Opening SQLite the one way hybridd opens it, and reading its errors.

The database file must never be opened and closed with plain ``open``: POSIX drops every lock a process holds on a file
when any descriptor of it is closed, SQLite's included.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

MINIMUM_SQLITE = (3, 37, 0)  # STRICT tables
WAL_LIMIT_BYTES = 64 * 1024 * 1024
PAGE_BYTES = 4096
BUSY_MILLISECONDS = 5_000

# Primary result codes that say "the storage refused", as against "this statement is wrong".
_REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "the disk or the file is read-only",
    sqlite3.SQLITE_IOERR: "the disk reported an input/output error",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened",
    sqlite3.SQLITE_CORRUPT: "the file is damaged",
    sqlite3.SQLITE_NOTADB: "the file is not a database",
    sqlite3.SQLITE_NOMEM: "there is no memory left",
    sqlite3.SQLITE_PERM: "permission is denied",
    sqlite3.SQLITE_AUTH: "permission is denied",
    sqlite3.SQLITE_NOLFS: "the file is too large for this file system",
    sqlite3.SQLITE_BUSY: "another program holds a lock on it",
    sqlite3.SQLITE_LOCKED: "another program holds a lock on it",
    sqlite3.SQLITE_PROTOCOL: "another program holds a lock on it",
}
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def primary_code(error: sqlite3.Error) -> int:
    """The primary result code (13 for SQLITE_FULL …); 0 when the error did not come from SQLite itself."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def storage_reason(error: BaseException) -> str | None:
    """Why the storage refused, as a clause; None when the error is about the statement or its values."""
    if not isinstance(error, sqlite3.Error):
        return None
    return _REASONS.get(primary_code(error))


def connect(path: Path, *, readonly: bool = False, create: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode, usable from the one thread that takes it over.

    Writers run with ``synchronous=FULL``; checkpoints are the writer's own business, SQLite's automatic one is only
    the upper bound of the log's size.

    Raises:
        sqlite3.Error: as SQLite reports it.
    """
    mode = "ro" if readonly else "rwc" if create else "rw"
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_MILLISECONDS / 1000,
        cached_statements=128,
    )
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA cache_size = -4096")
        if readonly:
            connection.execute("PRAGMA query_only = ON")
            return connection
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_LIMIT_BYTES // PAGE_BYTES}")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection
