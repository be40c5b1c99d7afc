"""Small JSON files that several processes write: one writer at a time, and readers see the old content or the new."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Keeps other writers out; makes the file's folder. The lock is a file beside it, since the file is replaced."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with file.with_name(file.name + ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def replace(file: Path, content: bytes) -> None:
    """Writes the whole file, durably; a crash leaves the old one."""
    handle, temporary = tempfile.mkstemp(prefix=f".{file.stem}-", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise
