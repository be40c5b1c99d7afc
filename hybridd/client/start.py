"""Starting the daemon from a client that asked for it (``auto_start=True``)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hybridd import locations
from hybridd.client import wire
from hybridd.client.stdlib import Api
from hybridd.errors import EXIT_STATE, DaemonUnreachable, HybriddError

START_SECONDS = 20.0
_OTHER_SECONDS = 3.0
_POLL_SECONDS = 0.05


def is_ready(socket: Path) -> bool:
    """Does a daemon answer ``/ready`` on the socket?"""
    try:
        Api(socket, timeout=2.0).send(wire.get("/ready"))
    except HybriddError:
        return False
    return True


def ensure_running(socket: Path, timeout: float = START_SECONDS) -> None:
    """Return when a daemon answers; start ``hybridd serve``, detached, when none does.

    Two clients may do this at once: the second daemon refuses to start and its client finds the first one.

    Raises:
        DaemonUnreachable: it did not start; the message ends with its last words and names the log.
    """
    if is_ready(socket):
        return
    log = locations.state_dir() / "logs" / "daemon.log"
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    environment = {**os.environ, "HYBRIDD_SOCKET": str(socket)}
    with log.open("ab") as output:
        began = output.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "hybridd.cli.main", "serve"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=environment,
        )
    _wait(socket, process, timeout, lambda: f"{_last_words(log, began)} (log: {log})")
    if Api(socket, timeout=5.0).send(wire.get("/v1/status")).get("pid") != process.pid:
        # Another one answers. Ours is still on its way to being refused, unless that one should stop in the meantime
        # and leave the place to a daemon that nobody waits for any more.
        process.terminate()
        process.wait()


def _wait(socket: Path, process: subprocess.Popen[bytes], timeout: float, reason: Callable[[], str]) -> None:
    deadline = time.monotonic() + timeout
    ended = False
    while not is_ready(socket):
        if not ended and process.poll() is not None:
            ended = True
            # EXIT_STATE may mean that another daemon holds the state and is still on its way to the socket.
            grace = _OTHER_SECONDS if process.returncode == EXIT_STATE else 0.0
            deadline = min(deadline, time.monotonic() + grace)
        if time.monotonic() >= deadline:
            raise DaemonUnreachable(f"The daemon did not start: {reason()}")
        time.sleep(_POLL_SECONDS)


def _last_words(log: Path, began: int) -> str:
    with log.open("rb") as written:
        written.seek(began)
        lines = written.read()[-4000:].decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
