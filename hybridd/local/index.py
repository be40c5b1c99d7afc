"""What is known about files beyond their names: where they came from and which digest they had.

One small JSON file in the state directory, keyed by the file's real path. Written atomically under a lock, so the
daemon's children and the command line may write at the same time; whoever reads sees a whole old or a whole new one.
An entry is believed only as long as the file's size and modification time are those it was made with.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

from hybridd import locations
from hybridd.errors import StateError
from hybridd.local import state_file

VERSION = 1


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One file. ``bytes`` and ``modified_ns`` as they were when ``sha256`` was computed; ``at``: when, in seconds
    since the epoch. ``source``: ``hub``, ``ollama``, ``lm_studio`` or ``file``."""

    bytes: int
    modified_ns: int
    source: str = "file"
    sha256: str = ""
    repo: str = ""
    revision: str = ""
    file: str = ""
    at: float = 0.0


class _Document(msgspec.Struct):
    version: int = VERSION
    files: dict[str, Entry] = {}


def path_of_index() -> Path:
    return locations.state_dir() / "library.json"


def read(path: Path | None = None) -> dict[str, Entry]:
    """Real path → entry; empty when there is no index yet.

    Raises:
        StateError: the file is there and broken; it is never taken for an empty one.
    """
    file = path or path_of_index()
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Document).files
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StateError(
            f"the list of known model files {file} cannot be read ({error}); move it away and run `hybridd models "
            "verify` to make it anew"
        ) from error


def entry_of(entries: dict[str, Entry], path: Path) -> Entry | None:
    """The entry of a file, None when there is none or the file has changed since."""
    real = os.path.realpath(path)
    entry = entries.get(real)
    if entry is None:
        return None
    try:
        found = os.stat(real)
    except OSError:
        return None
    return entry if (found.st_size, found.st_mtime_ns) == (entry.bytes, entry.modified_ns) else None


def made(path: Path, *, source: str, sha256: str = "", repo: str = "", revision: str = "", file: str = "") -> Entry:
    """An entry for the file as it is now.

    Raises:
        OSError: it is gone.
    """
    found = os.stat(path)
    return Entry(
        bytes=found.st_size,
        modified_ns=found.st_mtime_ns,
        source=source,
        sha256=sha256,
        repo=repo,
        revision=revision,
        file=file,
        at=time.time(),
    )


def record(changes: dict[Path, Entry | None], path: Path | None = None) -> None:
    """Adds, replaces or (None) forgets entries, all in one step.

    Raises:
        StateError: the index cannot be read or written.
    """
    file = path or path_of_index()
    try:
        with state_file.locked(file):
            files = dict(read(file))
            for changed, entry in changes.items():
                real = os.path.realpath(changed)
                if entry is None:
                    files.pop(real, None)
                else:
                    files[real] = entry
            state_file.replace(file, msgspec.json.format(msgspec.json.encode(_Document(files=files)), indent=1))
    except OSError as error:
        raise StateError(f"the list of known model files {file} cannot be written: {error}") from error
