"""The lock on the state directory: two daemons must never share one database, whatever sockets they listen on."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from hybridd.errors import AlreadyRunning, StateError


class StateLock:
    """An exclusive ``flock`` on ``<state_dir>/hybridd.lock``, which also names the holder's process id.

    The kernel frees it when the process ends, however it ends; the file itself is never removed, because removing a
    lock file lets two processes lock two different files of the same name.
    """

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "hybridd.lock"
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock without waiting.

        Raises:
            AlreadyRunning: another process holds it; the message names its process id.
            StateError: the file cannot be created or locked.
        """
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StateError(f"cannot open the lock file {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            who = f"process {holder}" if holder.isdigit() else "another process"
            raise AlreadyRunning(
                f"{who} already runs hybridd with the state directory {self.path.parent}; stop it first,"
                " or give this one a state directory of its own (HYBRIDD_STATE_DIR)",
                details={"pid": int(holder) if holder.isdigit() else None, "state_dir": str(self.path.parent)},
            ) from error
        except OSError as error:
            os.close(descriptor)
            raise StateError(f"cannot lock {self.path}: {error.strerror}") from error
        self._descriptor = descriptor
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        except OSError:
            # A full disk must not keep the daemon from starting (it answers, refusing to dispatch); only the name of
            # the holder is missing then.
            return

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
