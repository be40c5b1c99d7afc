"""Our own socket: who gets it, what is refused, what is left behind."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridd.api.bind import bind
from hybridd.errors import AlreadyRunning, StateError


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="hb"))
    yield path
    shutil.rmtree(path)


def listening(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    return listener


def test_modes_and_cleanup(directory):
    """The directory is 0700, the socket 0600 whatever the umask, and both are as before after close."""
    before = os.umask(0)
    try:
        bound = bind(directory / "run" / "s", environ={})
    finally:
        os.umask(before)
    assert stat.S_IMODE((directory / "run").stat().st_mode) == 0o700
    assert stat.S_IMODE(bound.path.lstat().st_mode) == 0o600
    assert not bound.inherited
    assert os.umask(before) == before
    bound.socket.listen()
    bound.close()
    bound.close()
    assert not bound.path.exists()
    assert sorted(os.listdir(directory / "run")) == ["s.lock"]


def test_open_directory_is_closed(directory):
    """A directory of ours that others may enter is closed to them."""
    run = directory / "run"
    run.mkdir(mode=0o755)
    run.chmod(0o755)
    bind(run / "s", environ={}).close()
    assert stat.S_IMODE(run.stat().st_mode) == 0o700


def test_second_daemon_is_refused_and_first_keeps_serving(directory):
    """The second one gets AlreadyRunning with the first one's pid; the first one's socket is untouched."""
    first = bind(directory / "s", environ={})
    first.socket.listen()
    code = (
        "import sys; from pathlib import Path; from hybridd.api.bind import bind; bind(Path(sys.argv[1]), environ={})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(first.path)], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 1
    assert f"AlreadyRunning: another hybridd (pid {os.getpid()}) already serves {first.path}" in done.stderr
    with pytest.raises(AlreadyRunning):
        bind(first.path, environ={})
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(first.path))
    first.close()


def test_dead_socket_is_replaced(directory):
    """A socket nobody listens on any more is removed and bound anew."""
    listening(directory / "s").close()
    assert (directory / "s").is_socket()
    bound = bind(directory / "s", environ={})
    bound.socket.listen()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(bound.path))
    bound.close()


def test_lock_of_a_killed_daemon_is_free(directory):
    """A daemon that was killed leaves nothing that blocks the next start."""
    code = (
        "import os, sys; from pathlib import Path; from hybridd.api.bind import bind; "
        "bind(Path(sys.argv[1]), environ={}).socket.listen(); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(directory / "s")], cwd=Path(__file__).parents[2])
    assert done.returncode == -9
    assert (directory / "s").is_socket()
    bind(directory / "s", environ={}).close()


def test_foreign_live_socket_is_refused(directory):
    """A live socket of another program, without our lock, is neither taken nor removed."""
    other = listening(directory / "s")
    with pytest.raises(AlreadyRunning, match="another program already serves"):
        bind(directory / "s", environ={})
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(directory / "s"))
    other.close()


@pytest.mark.parametrize("what", ["file", "directory", "fifo", "symlink", "dangling symlink"])
def test_what_is_not_a_socket_is_left_alone(directory, what):
    """Anything else at the path is refused with a sentence and stays as it was."""
    path = directory / "s"
    if what == "file":
        path.write_text("precious")
    elif what == "directory":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    else:
        target = directory / "target"
        if what == "symlink":
            listening(target).close()
        path.symlink_to(target)
    before = path.lstat()
    with pytest.raises(StateError, match="is left alone"):
        bind(path, environ={})
    assert path.lstat().st_ino == before.st_ino


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_foreign_owner_is_left_alone(directory):
    """A socket or directory of another user is refused."""
    listening(directory / "s").close()
    os.chown(directory / "s", 12345, 12345)
    with pytest.raises(StateError, match="belongs to uid 12345"):
        bind(directory / "s", environ={})
    (directory / "theirs").mkdir()
    os.chown(directory / "theirs", 12345, 12345)
    with pytest.raises(StateError, match="belongs to uid 12345"):
        bind(directory / "theirs" / "s", environ={})


def test_symlinked_lock_is_refused(directory):
    """The lock file is never followed through a link."""
    (directory / "s.lock").symlink_to(directory / "elsewhere")
    with pytest.raises(StateError, match="symbolic link"):
        bind(directory / "s", environ={})
    assert not (directory / "elsewhere").exists()


def test_path_length_is_checked_first(directory):
    """107 bytes fit; one more is an error that says so and creates nothing."""
    room = 107 - len(str(directory)) - 1
    bind(directory / ("x" * room), environ={}).close()
    with pytest.raises(StateError, match="108 bytes long"):
        bind(directory / ("y" * (room + 1)), environ={})
    assert not any(name.startswith("y") for name in os.listdir(directory))


def test_unusable_directory(directory):
    """A path below a file is an error with the directory's name."""
    (directory / "file").write_text("")
    with pytest.raises(StateError, match="cannot be used: Not a directory"):
        bind(directory / "file" / "run" / "s", environ={})


def test_only_our_own_inode_is_unlinked(directory):
    """A socket that took the path over after us is not removed by our exit."""
    bound = bind(directory / "s", environ={})
    os.unlink(bound.path)
    successor = listening(directory / "s")
    bound.close()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(directory / "s"))
    successor.close()


ACTIVATED = """
import os, socket, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
path = Path(sys.argv[1])
listener = socket.socket(socket.AF_UNIX)
listener.bind(str(path)); listener.listen()
other = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
# Everything the interpreter opened stays clear of 3 and 4, where systemd puts what it passes.
os.dup2(other.fileno(), 30); os.dup2(listener.fileno(), 31)
other.close(); listener.close()
os.dup2(30, 3); os.dup2(31, 4)
from hybridd.api.bind import bind
from hybridd.errors import HybriddError
environ = {"LISTEN_FDS": sys.argv[3], "LISTEN_PID": sys.argv[4] or str(os.getpid())}
try:
    bound = bind(path, environ=environ)
except HybriddError as error:
    print(type(error).__name__, error)
else:
    print(bound.inherited, bound.socket.getsockname() == str(path), os.get_inheritable(bound.socket.fileno()))
    bound.close()
    print(path.is_socket())
"""


@pytest.mark.parametrize(
    ("count", "pid", "said"),
    [
        ("2", "", "True True False\nTrue\n"),
        ("1", "", "StateError none of the 1 sockets passed by the service manager is the Unix socket"),
        ("x", "", "StateError LISTEN_FDS is 'x', not a number\n"),
        ("2", "1", "AlreadyRunning another program already serves"),
    ],
)
def test_socket_activation(directory, count, pid, said):
    """The socket systemd passed for the path is used and its path left to systemd; variables for another pid are not
    ours."""
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", ACTIVATED, str(directory / "s"), root, count, pid]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.startswith(said), done.stderr
