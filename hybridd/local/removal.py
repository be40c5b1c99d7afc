"""Taking files away again: one model, or what nothing refers to any more.

Only entries inside hybridd's own two folders are ever unlinked; a symbolic link is unlinked, never followed. Every
function says what it would do before anything is done.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from hybridd.errors import InvalidRequest
from hybridd.local import index, names
from hybridd.local.library import Folders, Model, hub_place


class Removal(msgspec.Struct, frozen=True):
    """One entry to take away. ``bytes``: what the disk gets back (0 for a link); ``why``: in words."""

    path: str
    bytes: int
    why: str


def plan_removal(model: Model, where: Folders) -> list[Removal]:
    """What has to go for ``model`` to be gone: its files or links, and with them the Hub's blobs that nothing else
    refers to.

    Raises:
        InvalidRequest: a file lies outside the folders; hybridd did not put it there and does not take it away.
    """
    doomed = [Path(file) for file in model.files]
    for path in doomed:
        if not any(names.is_inside(folder, path) for folder in (where.models, where.hub)):
            raise InvalidRequest(
                f"{path} lies outside {where.models} and {where.hub}; hybridd removes only what lies in them",
                code="outside_library",
            )
    removals = []
    for path in doomed:
        place = hub_place(path, where.hub)
        if place is None:
            kind = "link; its target stays" if path.is_symlink() else "file"
            removals.append(Removal(str(path), _freed(path), kind))
            continue
        removals.append(Removal(str(path), 0, "link of the Hub's cache"))
        removals += _blob_of(path, where.hub, doomed)
    return removals


def _blob_of(pointer: Path, hub: Path, doomed: list[Path]) -> list[Removal]:
    """The blob behind a snapshot's link, if it lies in the same repository's folder and no other link needs it."""
    home = hub / pointer.relative_to(hub).parts[0]
    blob = Path(os.path.realpath(pointer))
    if not pointer.is_symlink():
        return []
    if blob.parent != Path(os.path.realpath(home / "blobs")):
        return []
    others = [link for link in _pointers(home) if link not in doomed and os.path.realpath(link) == str(blob)]
    return [] if others else [Removal(str(blob), _freed(blob), "content")]


def plan_collection(where: Folders) -> list[Removal]:
    """What nothing refers to: parts of downloads that nobody goes on with, blobs without a link, links to nothing."""
    removals: list[Removal] = []
    for home in sorted(where.hub.glob("models--*")):
        if home.is_dir() and not home.is_symlink():
            removals += _of_repository(where.hub, home)
    for path in _walk(where.models):
        if path.is_symlink() and not path.exists():
            removals.append(Removal(str(path), 0, "a link to nothing"))
    return removals


def _of_repository(hub: Path, home: Path) -> Iterator[Removal]:
    links = list(_pointers(home))
    needed = {os.path.realpath(link) for link in links}
    blobs = home / "blobs"
    for blob in sorted(blobs.iterdir()) if blobs.is_dir() and not blobs.is_symlink() else ():
        if blob.is_dir() and not blob.is_symlink():
            continue
        if not _idle(hub, home, blob.name.partition(".")[0]):
            continue  # a download writes it at this moment
        if blob.name.endswith(".incomplete"):
            yield Removal(str(blob), _freed(blob), "part of a download that ended")
        elif str(blob) not in needed and os.path.realpath(blob) not in needed:
            yield Removal(str(blob), _freed(blob), "content that no snapshot refers to")
    for link in links:
        if link.is_symlink() and not link.exists():
            yield Removal(str(link), 0, "a link to nothing")


def remove(removals: list[Removal], where: Folders) -> list[Removal]:
    """Takes the entries away, then empty folders and stale references. Returns those that were there.

    A Hub blob is taken only while its lock is free; a download that began meanwhile keeps it.

    Raises:
        InvalidRequest: an entry lies outside the folders.
        OSError: the disk refused.
    """
    done = []
    for one in removals:
        path = Path(one.path)
        if not any(names.is_inside(folder, path) for folder in (where.models, where.hub)):
            raise InvalidRequest(f"{path} lies outside hybridd's folders", code="outside_library")
        with _quiet(path, where.hub) as quiet:
            if not quiet or _needed(path, where.hub):
                continue
            try:
                path.unlink()
            except FileNotFoundError:
                continue
        done.append(one)
        _tidy(path, where)
    index.record({Path(one.path): None for one in done})
    return done


def _needed(path: Path, hub: Path) -> bool:
    """Does a link of the Hub's cache lead to this blob? One that was unreferenced may have got a link meanwhile."""
    if path.parent.name != "blobs" or not names.is_inside(hub, path):
        return False
    real = os.path.realpath(path)
    return any(os.path.realpath(link) == real for link in _pointers(path.parents[1]))


@contextmanager
def _quiet(path: Path, hub: Path) -> Iterator[bool]:
    """True while no download writes ``path``; for other files than blobs there is nothing to wait for."""
    if path.parent.name != "blobs" or not names.is_inside(hub, path):
        yield True
        return
    lock = _lock(hub, path.parents[1], path.name.partition(".")[0])
    if not lock.exists():
        yield True
        return
    with lock.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _idle(hub: Path, home: Path, etag: str) -> bool:
    with _quiet(home / "blobs" / etag, hub) as quiet:
        return quiet


def _lock(hub: Path, home: Path, etag: str) -> Path:
    return hub / ".locks" / home.name / f"{etag}.lock"


def _tidy(path: Path, where: Folders) -> None:
    """Removes folders that the removal left empty, up to hybridd's own, and references to commits without files."""
    for folder in path.parents:
        if folder in {where.models, where.hub} or folder.name in {"blobs", "refs", "snapshots"}:
            break
        try:
            folder.rmdir()
        except OSError:
            break
    place = hub_place(path, where.hub)
    if place is None:
        return
    home = where.hub / path.relative_to(where.hub).parts[0]
    if not (home / "snapshots" / place[1]).exists():
        for ref in _walk(home / "refs"):
            if not ref.is_symlink() and ref.read_text(encoding="utf-8", errors="replace").strip() == place[1]:
                ref.unlink()


def _pointers(home: Path) -> Iterator[Path]:
    yield from _walk(home / "snapshots")


def _walk(folder: Path) -> Iterator[Path]:
    """Files and links below a folder; linked folders are not entered."""
    for directory, inner, files in os.walk(folder):
        inner.sort()
        for name in sorted([*files, *(one for one in inner if Path(directory, one).is_symlink())]):
            yield Path(directory, name)


def _freed(path: Path) -> int:
    """Bytes that unlinking gives back: none while another hard link holds them."""
    status = path.lstat()
    return status.st_size if not path.is_symlink() and status.st_nlink == 1 else 0
