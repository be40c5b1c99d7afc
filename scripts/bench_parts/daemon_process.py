"""The processes of a bench: a scratch home, the daemon and the bare control, and how they are started and ended.

Every process is a child that is ended by its own id, and ends with the bench however that ends (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from scripts.bench_parts.loadgen import Target

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
POLL_S = 0.001
_PR_SET_PDEATHSIG = 1
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV", "SSL_CERT_FILE", "TMPDIR")

_libc = ctypes.CDLL(None)


class StartFailed(RuntimeError):
    """A process ended or did not answer in time; the message has the end of its output."""


def die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Scratch:
    """A private home on a real disk: its folders, the environment for a daemon in it, its configuration file.

    ``HYBRIDD_BENCH_DIR`` names another place; the default is the temporary folder, or /var/tmp when that one is in
    memory, because a durable write to memory costs nothing and would prove nothing.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="hybridd-bench-", dir=_scratch_parent()))
        self._serial = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def home(self) -> Path:
        """A fresh empty home."""
        self._serial += 1
        home = self.path / f"h{self._serial}"
        home.mkdir(mode=0o700)
        return home


def _scratch_parent() -> str:
    given = os.environ.get("HYBRIDD_BENCH_DIR")
    if given:
        return given
    folder = tempfile.gettempdir()
    return "/var/tmp" if file_system(Path(folder)) in ("tmpfs", "ramfs") and os.access("/var/tmp", os.W_OK) else folder


def file_system(path: Path) -> str:
    """The type of the file system that holds ``path``, as /proc/mounts names it."""
    best, kind = "", "unknown"
    resolved = str(path.resolve())
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, found, *_ = line.split()
        inside = mount == "/" or resolved == mount or resolved.startswith(f"{mount}/")
        if inside and len(mount) >= len(best):
            best, kind = mount, found
    return kind


def environment(home: Path) -> dict[str, str]:
    """The environment of a daemon that lives in ``home`` alone: no keys, no settings of the person who measures."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return {
        **kept,
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_STATE_HOME": str(home / "state"),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "HYBRIDD_SOCKET": str(home / "run" / "s"),
    }


LARGE = [
    {"unit": "requests", "window": "60s", "limit": 100_000_000},
    {"unit": "total_tokens", "window": "60s", "limit": 100_000_000_000},
    {"unit": "usd", "window": "month", "limit": 100_000_000},
    {"unit": "concurrent", "limit": 4096},
]
"""Quotas that bind every call and are never reached: the ledger does its whole work."""
TIGHT_REQUESTS = 400
TIGHT_CONCURRENT = 16
TIGHT = [
    {"unit": "requests", "window": "1s", "limit": TIGHT_REQUESTS},
    {"unit": "concurrent", "limit": TIGHT_CONCURRENT},
]
"""Quotas that a loaded daemon runs into at once."""


def configuration(base_url: str) -> dict[str, Any]:
    """The bench's configuration file: ``lab`` with large quotas and ``tight`` with small ones, nothing else enabled."""
    price = {"input_per_million_usd": 0.15, "output_per_million_usd": 0.60}
    model = {"context": 131_072, "price": price}

    def provider(names: Sequence[str], quotas: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "plugin": "openai_compatible",
            "base_url": base_url,
            "models": dict.fromkeys(names, model),
            "quotas": quotas,
        }

    return {
        "github_models": {"enabled": False},
        "hugging_face": {"enabled": False},
        "local": {"enabled": False},
        "providers": {"lab": provider(("m1", "slow", "four"), LARGE), "tight": provider(("t1",), TIGHT)},
        "tasks": {"text_generation": ["lab:m1"]},
    }


class Process:
    """A child with its output in a file."""

    def __init__(self, command: Sequence[str], *, env: dict[str, str], log: Path, cwd: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                preexec_fn=die_with_parent,  # noqa: PLW1509  # one prctl; the bench starts processes before any thread
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    def running(self) -> bool:
        return self._child.poll() is None

    def stop(self) -> int:
        """Ends it: politely, then by force; returns its exit status."""
        if self._child.stdin is not None:
            self._child.stdin.close()
        if self.running():
            self._child.terminate()
        try:
            return self._child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            return self._child.wait(STOP_TIMEOUT_S)

    def last_lines(self, count: int = 12) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])


class Daemon:
    """``hybridd serve`` in a home of its own."""

    def __init__(self, home: Path, config: dict[str, Any]) -> None:
        self.home = home
        self.env = environment(home)
        self.socket = Path(self.env["HYBRIDD_SOCKET"])
        self.config = home / "config.json"
        self.config.write_text(json.dumps(config))
        self._process: Process | None = None

    def start(self) -> float:
        """Spawns it and returns the seconds from there to the first 200 of ``/health``.

        Raises:
            StartFailed: it ended, or did not answer within 30 s.
        """
        command = [sys.executable, "-m", "hybridd.cli.main", "serve", "--config", str(self.config)]
        env = {**self.env, "PYTHONPATH": str(ROOT)}
        began = time.perf_counter()
        self._process = process = Process(command, env=env, log=self.home / "daemon.log", cwd=self.home)
        while time.perf_counter() - began < START_TIMEOUT_S:
            if _healthy(self.socket):
                return time.perf_counter() - began
            if not process.running():
                raise StartFailed(f"the daemon ended with status {self._ended()}:\n{process.last_lines()}")
            time.sleep(POLL_S)
        self._ended()
        raise StartFailed(f"the daemon did not answer within {START_TIMEOUT_S:g} s:\n{process.last_lines()}")

    def stop(self) -> None:
        """Ends it, its plugins with it; nothing to do when it does not run."""
        if self._process is not None:
            self._ended()

    def _ended(self) -> int:
        assert self._process is not None
        status = self._process.stop()
        self._process = None
        return status

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def output(self) -> str:
        assert self._process is not None
        return self._process.last_lines()

    def target(self, model: str = "lab:m1") -> Target:
        return Target("hybridd", model, path=str(self.socket))

    def wait_routed(self, models: Sequence[str] = ("lab:m1", "tight:t1")) -> None:
        """Until each model has answered once, so that no figure contains a plugin's start.

        Raises:
            StartFailed: a model did not answer within 30 s.
        """
        until, said = time.monotonic() + START_TIMEOUT_S, ""
        for model in models:
            while True:
                status, said = post(self.socket, "/v1/chat/completions", {"model": model, "messages": _HELLO})
                if status == 200:
                    break
                if time.monotonic() > until:
                    raise StartFailed(f"{model} does not answer: {status} {said[:500]}\n{self.output}")
                time.sleep(0.1)


_HELLO = [{"role": "user", "content": "hi"}]


class Control(Process):
    """The bare control on a socket of its own."""

    def __init__(self, home: Path, upstream: str) -> None:
        self.socket = home / "control.sock"
        command = [sys.executable, "-m", "scripts.bench_parts.control", str(self.socket), upstream]
        super().__init__(command, env={**environment(home)}, log=home / "control.log", cwd=ROOT)
        until = time.monotonic() + START_TIMEOUT_S
        while not _connects(self.socket):
            if time.monotonic() > until or not self.running():
                self.stop()
                raise StartFailed(f"the bare control did not start:\n{self.last_lines()}")
            time.sleep(POLL_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def target(self, model: str = "m1") -> Target:
        return Target("control", model, path=str(self.socket))


class UnixConnection(http.client.HTTPConnection):
    """The standard library's HTTP client on a Unix socket."""

    def __init__(self, path: Path, timeout: float = 15.0) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(path: Path, method: str, url: str, body: Any = None) -> tuple[int, str]:
    """Status and text of one request; ``(0, why)`` when there was no answer."""
    connection = UnixConnection(path)
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, url, data, {"content-type": "application/json"} if data else {})
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, f"{type(error).__name__}: {error}"
    finally:
        connection.close()


def post(path: Path, url: str, body: Any) -> tuple[int, str]:
    return ask(path, "POST", url, body)


def _connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(str(path))
        except OSError:
            return False
        return True


def _healthy(path: Path) -> bool:
    """One cheap look: connects only when there is a socket, and reads only the status line."""
    if not path.exists():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(5)
        try:
            sock.connect(str(path))
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return sock.recv(64).startswith(b"HTTP/1.1 200 ")
        except OSError:
            return False
