"""One state directory, one daemon."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hybridd.clocks import ManualClock
from hybridd.errors import AlreadyRunning, StateError
from hybridd.store.database import Database
from hybridd.store.lock import StateLock
from tests.store.rows import opened

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys
from pathlib import Path
from tests.store.rows import opened
database = opened(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    """While another process has the state open, opening fails naming its pid; after it is killed, it works."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdin is not None
    try:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(AlreadyRunning, match=f"process {holder.pid} ") as caught:
            opened(tmp_path)
        assert caught.value.details["pid"] == holder.pid
        beside = Database.open(tmp_path, clock=ManualClock(), readonly=True)
        assert beside.reader.run_now(lambda c: c.execute("SELECT count(*) FROM runs").fetchone()[0]) == 1
        beside.close()
    finally:
        holder.kill()
        holder.wait(10)
        holder.stdout.close()
        holder.stdin.close()
    database = opened(tmp_path)
    assert database.unclean
    database.close()


def test_the_same_process_cannot_open_twice(tmp_path: Path) -> None:
    """Even within one process the second lock is refused, and the first stays."""
    first = opened(tmp_path)
    with pytest.raises(AlreadyRunning, match=str(os.getpid())):
        opened(tmp_path)
    with pytest.raises(AlreadyRunning):
        opened(tmp_path)
    first.close()
    opened(tmp_path).close()


def test_permissions_are_private(tmp_path: Path) -> None:
    """The directory is 0700 and every file in it 0600, whatever the umask."""
    before = os.umask(0)
    try:
        database = opened(tmp_path / "a" / "state")
    finally:
        os.umask(before)
    try:
        folder = tmp_path / "a" / "state"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
        assert modes == dict.fromkeys(("hybridd.db", "hybridd.db-wal", "hybridd.db-shm", "hybridd.lock"), 0o600)
    finally:
        database.close()


def test_a_lock_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """A symbolic link in place of the lock is not followed."""
    (tmp_path / "hybridd.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError, match=r"hybridd\.lock"):
        StateLock(tmp_path).acquire()
    assert not (tmp_path / "elsewhere").exists()


def test_a_state_path_that_is_a_file_is_a_clear_error(tmp_path: Path) -> None:
    """The message names the path."""
    (tmp_path / "state").write_text("")
    with pytest.raises(StateError, match=r"state directory .*state"):
        opened(tmp_path / "state")


def test_reading_needs_a_database(tmp_path: Path) -> None:
    """Opening for reading where nothing ever ran says so and creates nothing."""
    with pytest.raises(StateError, match="has not run"):
        Database.open(tmp_path, clock=ManualClock(), readonly=True)
    assert list(tmp_path.iterdir()) == []
