"""Our own Unix socket, bound by ourselves.

uvicorn would chmod the socket to 0666 and asyncio unlinks a live one without asking, so: directory 0700, ``flock`` on
``<path>.lock``, a socket from systemd when there is one (``LISTEN_FDS``), otherwise look (must be a socket of ours),
probe, unlink a dead one, bind under umask 0177. On exit only our own inode is unlinked.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from hybridd.errors import AlreadyRunning, StateError

# sizeof(sockaddr_un.sun_path), its terminating zero included
MAX_PATH_BYTES = 108
FIRST_PASSED_FD = 3
PROBE_SECONDS = 1.0


class BoundSocket:
    """A listening socket that is ours. ``close`` frees it, its lock, and its path if the path is still this socket."""

    def __init__(self, path: Path, listener: socket.socket, lock: int, inode: tuple[int, int] | None) -> None:
        self.path = path
        self.socket = listener
        self._lock: int | None = lock
        self._inode = inode

    @property
    def inherited(self) -> bool:
        """Passed in by the service manager, which also owns the path."""
        return self._inode is None

    def close(self) -> None:
        self.socket.close()
        if self._lock is None:
            return
        # The path goes before the lock: a successor that gets the lock must not lose its own socket to us.
        if self._inode is not None:
            with contextlib.suppress(FileNotFoundError):
                found = os.lstat(self.path)
                if (found.st_dev, found.st_ino) == self._inode:
                    os.unlink(self.path)
        # The lock file stays: unlinking it would let two daemons lock two different files of one name.
        os.close(self._lock)
        self._lock = None


def bind(path: Path, *, environ: Mapping[str, str] = os.environ) -> BoundSocket:
    """Binds ``path`` (or takes over the socket that systemd passed for it).

    Raises:
        AlreadyRunning: another daemon serves it; it keeps serving.
        StateError: the path cannot be used; the message says why and what would be right.
    """
    path = Path(os.path.abspath(path))
    if len(os.fsencode(path)) >= MAX_PATH_BYTES:
        raise StateError(
            f"socket path {path} is {len(os.fsencode(path))} bytes long; a Unix socket's path holds at most "
            f"{MAX_PATH_BYTES - 1}: set HYBRIDD_SOCKET to a shorter one"
        )
    inherited = _inherited(environ, path)
    _prepare_directory(path.parent, ours=inherited is None)
    lock = _lock(path)
    try:
        if inherited is not None:
            return BoundSocket(path, inherited, lock, None)
        _clear(path)
        listener, inode = _bind(path)
    except BaseException:
        os.close(lock)
        raise
    return BoundSocket(path, listener, lock, inode)


def _inherited(environ: Mapping[str, str], path: Path) -> socket.socket | None:
    """systemd's protocol (sd_listen_fds(3)): ours when LISTEN_PID names us; the socket bound to ``path`` is taken, or
    the only one."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    try:
        count = int(environ.get("LISTEN_FDS", "0"))
    except ValueError:
        raise StateError(f"LISTEN_FDS is {environ['LISTEN_FDS']!r}, not a number") from None
    found: list[socket.socket] = []
    for fd in range(FIRST_PASSED_FD, FIRST_PASSED_FD + count):
        os.set_inheritable(fd, False)
        candidate = socket.socket(fileno=fd)
        if candidate.family != socket.AF_UNIX or candidate.type != socket.SOCK_STREAM:
            candidate.detach()
            continue
        found.append(candidate)
    named = [one for one in found if one.getsockname() == str(path)]
    chosen = named[0] if named else found[0] if len(found) == 1 else None
    if count and chosen is None:
        raise StateError(f"none of the {count} sockets passed by the service manager is the Unix socket {path}")
    for other in found:
        if other is not chosen:
            other.detach()
    if chosen is not None:
        chosen.setblocking(False)
    return chosen


def _prepare_directory(directory: Path, *, ours: bool) -> None:
    """The socket's directory: made with 0700; one that is ours is closed to others, a foreign one refused."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = os.stat(directory)
    except OSError as error:
        raise StateError(f"socket directory {directory} cannot be used: {error.strerror}") from None
    if not ours:
        return
    if found.st_uid not in (os.getuid(), 0):
        raise StateError(f"socket directory {directory} belongs to uid {found.st_uid}, not to {os.getuid()}")
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077 and found.st_uid == os.getuid() and not mode & stat.S_ISVTX:
        try:
            os.chmod(directory, 0o700)
        except OSError as error:
            raise StateError(f"socket directory {directory} cannot be closed to others: {error.strerror}") from None


def _lock(path: Path) -> int:
    """An exclusive ``flock`` on ``<path>.lock``, held as long as the returned descriptor is open."""
    lock_path = f"{path}.lock"
    try:
        fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        what = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise StateError(f"lock file {lock_path} cannot be opened: {what}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        os.close(fd)
        who = f" (pid {pid})" if pid.isdigit() else ""
        raise AlreadyRunning(f"another hybridd{who} already serves {path}") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode("ascii"), 0)
    return fd


def _clear(path: Path) -> None:
    """Makes room at ``path``: only a dead socket of our own is removed, anything else is refused untouched."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StateError(f"socket path {path} cannot be looked at: {error.strerror}") from None
    if stat.S_ISLNK(found.st_mode):
        raise StateError(f"socket path {path} is a symbolic link; it is left alone: remove it or choose another path")
    if not stat.S_ISSOCK(found.st_mode):
        raise StateError(f"socket path {path} is not a socket; it is left alone: remove it or choose another path")
    if found.st_uid != os.getuid():
        raise StateError(f"the socket {path} belongs to uid {found.st_uid}; it is left alone: choose another path")
    if _answers(path):
        raise AlreadyRunning(f"another program already serves {path}")
    os.unlink(path)


def _answers(path: Path) -> bool:
    """Does somebody listen? Only a refused connection says that nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


def _bind(path: Path) -> tuple[socket.socket, tuple[int, int]]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _umask(0o177):
            listener.bind(str(path))
        listener.setblocking(False)
        found = os.lstat(path)
    except OSError as error:
        listener.close()
        raise StateError(f"cannot bind the socket {path}: {error.strerror}") from None
    return listener, (found.st_dev, found.st_ino)


@contextlib.contextmanager
def _umask(mask: int) -> Iterator[None]:
    """The umask belongs to the process: use it before threads are started."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
