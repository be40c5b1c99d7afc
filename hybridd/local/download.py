"""One file from the Hub into the Hub's own cache layout, resumable and proven by its digest.

huggingface_hub gives the addresses, the metadata and the HTTP session. Its own download function is not used:
as of 2.4 it throws away what came when a process ends, and waits in place for as long as a 429 says.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from hybridd._version import __version__
from hybridd.local import names
from hybridd.local.hub import Hub, RepoFile, Repository
from hybridd.local.hub_cache import Cache, digest_of, held, partial, point
from hybridd.local.hub_errors import RETRYABLE, HubError

_T = TypeVar("_T")
READ_SECONDS = 30.0
CONNECT_SECONDS = 10.0
ATTEMPTS = 6
"""Tries without one new byte, after which a download gives up."""


class Meter(Protocol):
    """Who is told how far a download is."""

    def state(self, state: str, file: str) -> None: ...

    def at(self, done: int, arrived: int) -> None:
        """``done`` bytes of the file are there; ``arrived`` of them came over the network since the last call."""


class Fetched(msgspec.Struct, frozen=True):
    """A file that is there. ``resumed``: bytes that were there before; ``arrived``: bytes over the network."""

    file: RepoFile
    sha256: str
    blob: Path
    pointer: Path
    resumed: int
    arrived: int


class _Remote(msgspec.Struct, frozen=True):
    location: str
    etag: str
    bytes: int | None


def patiently(call: Callable[[], _T], wait: Callable[[int], None], tries: int = 3) -> _T:
    """``call()``, again while the Hub is not reachable or failing.

    Raises:
        HubError: the last one, or one that trying again does not help against.
    """
    for failures in range(1, tries):
        try:
            return call()
        except HubError as error:
            if error.error_code not in RETRYABLE:
                raise
            wait(failures)
    return call()


def fetch(
    hub: Hub, repository: Repository, file: RepoFile, cache: Cache, meter: Meter, wait: Callable[[int], None]
) -> Fetched:
    """The file in the cache, downloaded as far as it is not there.

    Args:
        hub: whom to ask.
        repository: the repository at the commit to take.
        file: which file.
        cache: where to.
        meter: told about progress.
        wait: called before a further try, with the number of tries that brought nothing.

    Raises:
        HubError: see :mod:`hybridd.local.hub_errors`. Except after a wrong checksum, what has arrived is kept.
        OSError: the disk failed.
    """
    remote = patiently(lambda: _ask(hub, repository, file), wait)
    blob = cache.blob(remote.etag)
    pointer = cache.pointer(repository.commit, file.path)
    sha256 = remote.etag if names.is_sha256(remote.etag) else ""
    if file.sha256 and file.sha256 != remote.etag:
        raise HubError("bad_answer", f"the Hub names two digests for {file.path}: {file.sha256} and {remote.etag}")
    with cache.locked(remote.etag):
        resumed, arrived = held(blob), 0
        blob.parent.mkdir(parents=True, exist_ok=True)
        if not blob.exists():
            transfer = _Transfer(hub, repository, file, partial(blob), meter)
            arrived = transfer.run(remote, wait)
            os.replace(partial(blob), blob)
        point(pointer, blob)
    return Fetched(file, sha256, blob, pointer, resumed, arrived)


class _Transfer:
    """The bytes of one blob into its partial file, over as many connections as it takes."""

    def __init__(self, hub: Hub, repository: Repository, file: RepoFile, path: Path, meter: Meter) -> None:
        self._hub = hub
        self._repository = repository
        self._file = file
        self._path = path
        self._meter = meter
        self._arrived = 0
        self._fresh = held(path) == 0
        """Has every byte that is kept come in this run?"""

    def run(self, remote: _Remote, wait: Callable[[int], None]) -> int:
        """Bytes that came over the network; the partial file is whole, synced and has the announced digest."""
        failures, farthest = 0, held(self._path)
        while True:
            try:
                self._connect(remote)
                if self._proven(remote):
                    return self._arrived
                farthest = 0
            except HubError as error:
                if error.error_code not in RETRYABLE:
                    raise
                there = held(self._path)
                failures = 0 if there > farthest else failures + 1
                farthest = max(there, farthest)
                if failures >= ATTEMPTS:
                    raise
                wait(failures)
                remote = _ask_again(self._hub, self._repository, self._file, remote)

    def _connect(self, remote: _Remote) -> None:
        """One connection, to its end."""
        have = held(self._path)
        if remote.bytes is not None and have > remote.bytes:
            self._path.unlink()
            have = 0
        if remote.bytes is not None and have == remote.bytes and have:
            return
        with self._open(remote, have) as response:
            start = _start(response, have, remote, self._file.path)
            self._fresh = self._fresh or start == 0
            with self._path.open("r+b" if self._path.exists() else "wb") as out:
                out.truncate(start)
                out.seek(start)
                self._copy(response, out, start, remote)
                out.flush()
                os.fsync(out.fileno())

    @contextmanager
    def _open(self, remote: _Remote, have: int) -> Iterator[Any]:
        import httpx2
        from huggingface_hub import get_session
        from huggingface_hub.utils._headers import build_hf_headers
        from huggingface_hub.utils._http import hf_raise_for_status

        token: Any = self._hub.token if self._hub.token and self._hub.is_home(remote.location) else False
        known = build_hf_headers(token=token, library_name="hybridd", library_version=__version__)
        headers = {**known, "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        limits = httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
        try:
            with get_session().stream("GET", remote.location, headers=headers, timeout=limits) as response:
                if response.status_code == 416:
                    self._path.unlink(missing_ok=True)
                    raise HubError("download_cut", f"the server refuses to go on with {self._file.path}")
                hf_raise_for_status(response)
                yield response
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise self._hub.explained(error, self._repository.repo, self._file.path) from error

    def _copy(self, response: Any, out: Any, start: int, remote: _Remote) -> None:
        done = start
        # As it comes from the network: pieces of a fixed size would lose the last one when the connection breaks.
        for chunk in response.iter_raw():
            done += len(chunk)
            if remote.bytes is not None and done > remote.bytes:
                raise HubError(
                    "size_mismatch", f"{self._file.path} is longer than the {remote.bytes:,} bytes announced"
                )
            with _together():
                out.write(chunk)
                self._arrived += len(chunk)
                self._meter.at(done, len(chunk))
        if remote.bytes is not None and done < remote.bytes:
            raise HubError("download_cut", f"{self._file.path} broke off after {done:,} of {remote.bytes:,} bytes")

    def _proven(self, remote: _Remote) -> bool:
        """Is the whole partial file what was announced? A wrong one is thrown away; False: it was pieced together
        with bytes of an earlier run, so a fresh one deserves a try."""
        self._meter.state("verifying", self._file.path)
        found = digest_of(self._path, remote.etag, lambda done: self._meter.at(done, 0))
        if found == remote.etag:
            return True
        self._path.unlink()
        self._meter.state("downloading", self._file.path)
        if not self._fresh:
            return False
        raise HubError(
            "checksum_mismatch",
            f"{self._file.path} has the digest {found}, not {remote.etag} as announced; it was thrown away",
            details={"expected": remote.etag, "found": found},
        )


@contextmanager
def _together() -> Iterator[None]:
    """A cancel comes before or after, not in between: what is written is counted."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ask(hub: Hub, repository: Repository, file: RepoFile) -> _Remote:
    """Where the file is and what it should be, from a HEAD request that never leaves the Hub's host."""
    from huggingface_hub import get_hf_file_metadata

    try:
        token: Any = hub.token or False
        found = get_hf_file_metadata(
            hub.url(repository, file),
            token=token,
            timeout=CONNECT_SECONDS,
            library_name="hybridd",
            library_version=__version__,
            endpoint=hub.endpoint,
        )
    except Exception as error:
        raise hub.explained(error, repository.repo, file.path) from error
    if found.commit_hash != repository.commit or found.etag is None:
        raise HubError("bad_answer", f"{hub.endpoint} does not say what {file.path} is; is it a Hub?")
    return _Remote(found.location, found.etag, found.size)


def _ask_again(hub: Hub, repository: Repository, file: RepoFile, before: _Remote) -> _Remote:
    """A fresh address: signed ones expire. An answer that fails like the download did leaves the old address."""
    try:
        return _ask(hub, repository, file)
    except HubError as error:
        if error.error_code not in RETRYABLE:
            raise
        return before


def _start(response: Any, have: int, remote: _Remote, name: str) -> int:
    """Where the body begins: ``have``, or 0 when the server ignored the range.

    Raises:
        HubError: a range that was not asked for, or of another file.
    """
    if response.status_code != 206:
        return 0
    given = response.headers.get("content-range", "")
    begins, _, total = given.removeprefix("bytes ").partition("/")
    same = remote.bytes is None or total in {"*", str(remote.bytes)}
    if not given.startswith("bytes ") or begins.partition("-")[0] != str(have) or not same:
        raise HubError("bad_answer", f"the server sent {given!r} of {name} when asked to go on at {have:,}")
    return have
