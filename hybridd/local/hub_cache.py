"""The Hub's own cache layout, which other programs know too; every name in it has been checked.

::

    cache_dir/models--owner--name/blobs/<sha256>              the content
                                  blobs/<sha256>.incomplete   what has arrived of it; the next try goes on from here
                                  snapshots/<commit>/<file>   a link to the blob
                                  refs/<branch>               the commit
    cache_dir/.locks/models--owner--name/<sha256>.lock        held while a blob is written
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hybridd.local import names
from hybridd.local.hub_errors import HubError

CHUNK = 1 << 20


class Cache:
    """Paths of one repository inside the cache folder; every name has been checked."""

    def __init__(self, root: Path, repo: str) -> None:
        folder = "models--" + names.repository(repo).replace("/", "--")
        self.root = root
        self.home = root / folder
        self.locks = root / ".locks" / folder

    def blob(self, etag: str) -> Path:
        """Raises HubError ``bad_answer`` for an etag that is neither a sha256 nor a git digest."""
        if not (names.is_sha256(etag) or names.is_commit(etag)):
            raise HubError("bad_answer", f"the Hub gave the digest {etag[:80]!r}, which is none")
        return self.home / "blobs" / etag

    def pointer(self, commit: str, file: str) -> Path:
        if not names.is_commit(commit):
            raise HubError("bad_answer", f"the Hub gave the commit {commit[:80]!r}, which is none")
        return self.home.joinpath("snapshots", commit, *names.repository_file(file).split("/"))

    def ref(self, revision: str) -> Path:
        return self.home.joinpath("refs", *names.revision(revision).split("/"))

    @contextmanager
    def locked(self, etag: str) -> Iterator[None]:
        """The same lock file that huggingface_hub takes.

        Raises:
            HubError: ``busy``.
        """
        self.locks.mkdir(parents=True, exist_ok=True)
        with (self.locks / f"{etag}.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise HubError("busy", "another download of the same file is running; wait for it") from None
            yield


def partial(blob: Path) -> Path:
    return blob.with_name(blob.name + ".incomplete")


def held(blob: Path) -> int:
    """Bytes of a blob that need not come over the network again."""
    for path in (blob, partial(blob)):
        try:
            return path.stat().st_size
        except FileNotFoundError:
            continue
    return 0


def digest_of(path: Path, like: str, progress: Callable[[int], None]) -> str:
    """The file's digest of the same kind as ``like``: sha256, or for 40 digits git's (sha1 over a header and the
    content). ``progress`` is called with the bytes read so far."""
    if names.is_commit(like):
        # Not for security: it is git's name for the content, the only one the Hub has for small files.
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    else:
        digest = hashlib.sha256()
    done = 0
    with path.open("rb") as source:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            progress(done)
    return digest.hexdigest()


def point(pointer: Path, blob: Path) -> None:
    """The snapshot's link to the blob: relative, so that the cache may be moved. Replaced in one step."""
    pointer.parent.mkdir(parents=True, exist_ok=True)
    target = os.path.relpath(blob, pointer.parent)
    if pointer.is_symlink() and os.readlink(pointer) == target:
        return
    temporary = pointer.with_name(f".{pointer.name[:200]}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, pointer)
