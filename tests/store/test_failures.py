"""The disk refuses: nothing is acknowledged, nothing accepted is lost, and writing goes on when it can."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridd.errors import StateError, StorageError
from hybridd.store.database import Database
from tests.store.rows import dispatch, opened, request, settle, within

ROOT = Path(__file__).resolve().parents[2]


class States:
    """What ``on_state`` said, awaitable."""

    def __init__(self, database: Database) -> None:
        self.seen: list[str | None] = []
        self._changed = asyncio.Event()
        database.writer.on_state = self._take

    def _take(self, reason: str | None) -> None:
        self.seen.append(reason)
        self._changed.set()

    async def until(self, wanted: bool) -> None:
        """Until the newest state is a refusal (True) or none (False)."""
        while not self.seen or (self.seen[-1] is not None) != wanted:
            self._changed.clear()
            await within(10, self._changed.wait())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill(path: Path) -> None:
    """Write until the file system is full."""
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


async def _dispatch_many(database: Database) -> None:
    """Dispatches of a thousand bytes, one after another, until one fails."""
    for number in range(2, 400):
        await within(5, database.writer.dispatch(dispatch(number, price="x" * 1000)))


async def test_a_full_disk_stops_dispatching_and_recovers_by_itself(small_disk: Path) -> None:
    """On a really full disk dispatches fail with the reason, settlements wait, and both go on after room is made."""
    database = opened(small_disk / "state")
    states = States(database)
    try:
        row = dispatch(1)
        await within(5, database.writer.dispatch(row))
        ballast = small_disk / "ballast"
        with pytest.raises(OSError, match="No space left"):
            _fill(ballast)
        with pytest.raises(StorageError, match="the disk is full"):
            await _dispatch_many(database)
        await states.until(True)
        with pytest.raises(StorageError, match="the disk is full"):
            await database.writer.dispatch(dispatch(1000))
        with pytest.raises(StorageError):
            await database.writer.barrier()
        database.writer.settle(settle(row, input_tokens=77))
        database.writer.request(request(1))
        assert await within(5, database.reader.run(_state_of, row.id)) == "dispatched", "reading goes on"
        ballast.unlink()
        await states.until(False)
        await within(5, database.writer.dispatch(dispatch(2000)))
        await within(5, database.writer.barrier())
        assert await database.reader.run(_state_of, row.id) == "settled"
        counted = await database.reader.run(
            lambda c: c.execute("SELECT input_tokens, requests, calls FROM rollup_day").fetchall()
        )
        assert counted == [(77, 1, 1)]
    finally:
        database.close()


def test_a_read_only_disk_is_a_clear_error(small_disk: Path) -> None:
    """Starting on a file system that is mounted read-only names the place and changes nothing."""
    state = small_disk / "state"
    opened(state).close()
    before = (state / "hybridd.db").stat()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StateError, match=rf"{state}.*(Read-only|read-only|not writable)"):
        opened(state)
    after = (state / "hybridd.db").stat()
    assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)


def test_a_disk_that_is_full_at_the_start_is_a_clear_error(small_disk: Path) -> None:
    """Without room for a fresh schema the start fails with that reason, and works once there is room."""
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space left"):
        _fill(ballast)
    with pytest.raises(StateError, match=r"No space|disk is full|input/output"):
        opened(small_disk / "state")
    ballast.unlink()
    opened(small_disk / "state").close()


async def test_a_refusal_fails_everything_that_waits(database: Database) -> None:
    """When a commit is refused, every dispatch in it and behind it fails; none hangs and none is acknowledged."""
    states = States(database)
    await database.writer.dispatch(dispatch(0))
    await database.writer.call(lambda c: c.execute("PRAGMA max_page_count = 1"))
    big = [database.writer.dispatch(dispatch(number, price="x" * 3000)) for number in range(1, 600)]
    outcome = await within(10, asyncio.gather(*big, return_exceptions=True))
    failed = [index for index, each in enumerate(outcome, 1) if isinstance(each, StorageError)]
    assert failed
    await states.until(True)
    await states.until(False)
    kept = await database.reader.run(lambda c: {i for (i,) in c.execute("SELECT id FROM calls")})
    for index, each in enumerate(outcome, 1):
        assert (dispatch(index).id in kept) == (each is None)


async def test_requests_and_small_writes_are_kept_through_a_refusal(database: Database) -> None:
    """Whatever was accepted before and during a refusal is written after it, once."""
    states = States(database)
    database.writer.bind(asyncio.get_running_loop())
    await database.writer.call(lambda c: c.execute("PRAGMA max_page_count = 1"))
    for number in range(300):
        database.writer.execute("INSERT INTO samples VALUES (?, ?, 1.0)", ("s" * 500, float(number)))
        database.writer.request(request(number, client="c" * 500))
    await states.until(True)
    database.writer.request(request(300))
    await states.until(False)
    kept = await database.reader.run(
        lambda c: c.execute(
            "SELECT (SELECT count(*) FROM samples), (SELECT count(*) FROM requests), (SELECT requests FROM rollup_day)"
        ).fetchone()
    )
    assert kept == (300, 301, 301)


async def test_a_deleted_database_file_is_noticed(database: Database) -> None:
    """Writing into a file that was deleted would lose everything at the end: it is refused, and not recreated."""
    states = States(database)
    await database.writer.dispatch(dispatch(1))
    database.path.unlink()
    await states.until(True)
    with pytest.raises(StorageError, match="removed or replaced"):
        await database.writer.dispatch(dispatch(2))
    assert not database.path.exists()


async def test_condemned_means_until_the_next_start(database: Database) -> None:
    """A database found damaged takes no more writes, however often the writer tries."""
    states = States(database)
    database.writer.bind(asyncio.get_running_loop())
    database.writer.condemn("damaged, says the check")
    await states.until(True)
    with pytest.raises(StorageError, match="damaged, says the check"):
        await database.writer.dispatch(dispatch(1))
    with pytest.raises(StorageError, match="damaged, says the check"):
        await database.writer.call(lambda c: None)
    assert states.seen == ["damaged, says the check"]


SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
static int broken(void) { const char *p = getenv("BROKEN_DISK"); return p && access(p, F_OK) == 0; }
int fdatasync(int fd) {
  static int (*real)(int);
  if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
  if (broken()) { errno = EIO; return -1; }
  return real(fd);
}
int fsync(int fd) {
  static int (*real)(int);
  if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
  if (broken()) { errno = EIO; return -1; }
  return real(fd);
}
"""

CHILD = """
import asyncio, os, sys
from pathlib import Path
from hybridd.errors import StorageError
from tests.store.rows import dispatch, opened, settle
from tests.store.test_failures import States

async def main():
    database = opened(Path(sys.argv[1]))
    states = States(database)
    broken = Path(os.environ["BROKEN_DISK"])
    first = dispatch(1)
    await database.writer.dispatch(first)
    connection = database.writer._session.connection
    broken.touch()
    try:
        await database.writer.dispatch(dispatch(2))
    except StorageError as error:
        print(error.message)
    else:
        print("acknowledged without a sync")
    await states.until(True)
    database.writer.settle(settle(first))
    broken.unlink()
    await states.until(False)
    assert database.writer._session.connection is not connection
    await database.writer.dispatch(dispatch(3))
    await database.writer.barrier()
    rows = await database.reader.run(lambda c: c.execute("SELECT id, state FROM calls ORDER BY id").fetchall())
    print([(i - dispatch(0).id, s) for i, s in rows])
    database.close()

asyncio.run(main())
"""


def test_a_failed_sync_is_never_acknowledged(tmp_path: Path) -> None:
    """When fdatasync fails the dispatch fails, the connection is replaced, and the row is not in the database."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler for the failing fdatasync")
    source, shim = tmp_path / "shim.c", tmp_path / "shim.so"
    source.write_text(SHIM)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": str(shim),
        "BROKEN_DISK": str(tmp_path / "broken"),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path / "state")],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said, rows = done.stdout.splitlines()
    assert "input/output error" in said
    assert rows == "[(1, 'settled'), (3, 'dispatched')]"


def _state_of(connection: sqlite3.Connection, call: int) -> object:
    return connection.execute("SELECT state FROM calls WHERE id = ?", (call,)).fetchone()[0]
