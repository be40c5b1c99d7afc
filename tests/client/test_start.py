"""``auto_start=True`` with the real daemon."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it ships no types
import pytest

from hybridd import errors
from hybridd.client import AsyncClient, Client, start


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh home; whatever daemon was started for its socket is stopped at the end."""
    for name in ("STATE", "DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    for name in ("HYBRIDD_CONFIG", "HYBRIDD_BASE", "GITHUB_TOKEN", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HYBRIDD_STATE_DIR", str(tmp_path / "s"))
    socket = tmp_path / "d.sock"
    yield socket
    try:
        pid = Client(socket).status()["pid"]
    except errors.DaemonUnreachable:
        return
    process = psutil.Process(pid)
    os.kill(pid, signal.SIGTERM)
    process.wait(20)


async def test_a_daemon_is_started_and_found_again(place: Path) -> None:
    """The first client starts a daemon that outlives it; the next clients, sync and async, find that one."""
    with Client(place, auto_start=True) as client:
        pid = client.status()["pid"]
    assert os.getsid(pid) == pid, "the daemon must not die with the terminal of the client"
    with Client(place, auto_start=True) as client:
        assert client.status()["pid"] == pid
    async with AsyncClient(place, auto_start=True) as client2:
        assert (await client2.status())["pid"] == pid


def test_a_refused_daemon_leaves_time_for_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When our daemon gives way to one that holds the state but has no socket yet, the client waits for that one; any
    other failure is reported at once."""
    place = tmp_path / "d.sock"
    for code, found in ((errors.EXIT_STATE, True), (errors.EXIT_CONFIG, False)):
        process = subprocess.Popen(["sh", "-c", f"exit {code}"])
        process.wait(10)
        answers = iter([False, False, True])
        monkeypatch.setattr(start, "is_ready", lambda socket, answers=answers: next(answers))
        if found:
            start._wait(place, process, 20.0, lambda: "why")
            assert next(answers, None) is None
        else:
            with pytest.raises(errors.DaemonUnreachable, match="why"):
                start._wait(place, process, 20.0, lambda: "why")
            assert next(answers) is False


def test_clients_that_start_together_share_one_daemon(place: Path) -> None:
    """Four clients with ``auto_start`` at once end up with one daemon and no error."""

    def status(_: int) -> int:
        with Client(place, auto_start=True) as client:
            return client.status()["pid"]

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(status, range(4)))) == 1
