"""Which schema a database has, and how it gets the present one.

A fresh database is made from ``schema.sql``, which is the SQLModel metadata rendered once (importing SQLModel takes a
quarter of a second that the daemon's start does not have); a test holds the file, the tables and the migrations equal.
An older database is backed up and migrated by Alembic in a child process; a newer one is refused.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import hybridd
from hybridd import locations
from hybridd.errors import SchemaTooNew, StateError
from hybridd.store.connection import connect, storage_reason

# Every revision in order, oldest first; the last one is what this program works with. A test holds the list equal to
# `migrations/versions`.
REVISIONS: tuple[str, ...] = ("0001",)
HEAD = REVISIONS[-1]

SCHEMA_FILE = Path(__file__).with_name("schema.sql")


def create(connection: sqlite3.Connection) -> None:
    """All tables of the present schema in an empty database, in one transaction.

    Raises:
        sqlite3.Error: the disk refused; nothing is left behind then.
    """
    connection.execute("PRAGMA journal_mode = WAL")
    try:
        connection.executescript(f"BEGIN IMMEDIATE;\n{SCHEMA_FILE.read_text(encoding='utf-8')}\nCOMMIT;")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def revision(connection: sqlite3.Connection, path: Path) -> str | None:
    """The revision a database says it has; None when it holds no tables at all.

    Raises:
        StateError: it holds tables, but not hybridd's.
    """
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not names:
        return None
    if "alembic_version" not in names or "calls" not in names:
        raise StateError(
            f"the file {path} holds tables that are not hybridd's ({', '.join(sorted(names)[:5])}…); move it aside, or"
            " use another state directory (HYBRIDD_STATE_DIR)"
        )
    rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    if len(rows) != 1:
        raise StateError(
            f"the database {path} does not say which schema it has: alembic_version has {len(rows)} rows instead of"
            " one; move it aside, or put a backup in its place"
        )
    return str(rows[0][0])


def check_known(found: str, path: Path, known: Sequence[str] = REVISIONS) -> None:
    """Raises:
    SchemaTooNew: a revision this program has never heard of.
    """
    if found not in known:
        raise SchemaTooNew(
            f"the database {path} has schema revision {found!r}, written by a newer hybridd than this one"
            f" ({hybridd.__version__}, revision {known[-1]!r}); upgrade hybridd, or use another state directory"
            f" (HYBRIDD_STATE_DIR). Backups of older schemas, if any, are in {backups_dir(path)}"
        )


def backups_dir(path: Path) -> Path:
    return path.parent / "backups"


def newest_backup(path: Path) -> Path | None:
    found = sorted(backups_dir(path).glob("*.db"), key=lambda backup: backup.stat().st_mtime_ns)
    return found[-1] if found else None


def backup(path: Path, label: str) -> Path:
    """A consistent copy made with SQLite's own backup (never by copying the file), synced, under ``backups/``.

    Raises:
        StateError: it could not be made; a partial copy is removed.
    """
    folder = backups_dir(path)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    target = folder / f"{path.stem}-{label}-{stamp}-{os.getpid()}.db"
    partial = target.with_suffix(".partial")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        source, copy = connect(path, readonly=True), sqlite3.connect(partial, isolation_level=None)
        try:
            copy.execute("PRAGMA synchronous = FULL")
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
        finally:
            copy.close()
            source.close()
        os.replace(partial, target)
        _sync_folder(folder)
    except (OSError, sqlite3.Error) as error:
        partial.unlink(missing_ok=True)
        why = storage_reason(error) or str(error)
        raise StateError(f"the database {path} could not be backed up to {target}: {why}") from error
    return target


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def migrate(path: Path, found: str, *, target: str | None = None, migrations: Path | None = None) -> Path:
    """Bring an older database to the present schema; returns the backup made before.

    No connection of this process to the database may be open. Alembic runs in a child process, in one transaction, so
    that the daemon never imports it and a failure leaves the old schema as it was.

    Raises:
        StateError: the backup or the migration failed; the message holds the reason and names the backup.
    """
    saved = backup(path, found)
    package_parent = str(Path(hybridd.__file__).resolve().parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    search = package_parent + (os.pathsep + inherited if inherited else "")
    command = [
        sys.executable, "-m", "hybridd.store.migrate", "upgrade", "--database", str(path), "--to", target or HEAD,
        "--migrations", str(migrations or locations.migrations_dir()),
    ]  # fmt: skip
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": search}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise StateError(
            f"the database {path} could not be migrated from {found!r} to {target or HEAD!r}: {reason}."
            f" It is unchanged; a copy from before is {saved}",
            details={"backup": str(saved), "stderr": done.stderr[-4000:]},
        )
    return saved
