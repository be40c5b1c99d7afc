"""A whole, real daemon for tests: its own HOME, socket and state, started as a user would, waited for without sleeping.

Readiness comes over ``NOTIFY_SOCKET`` (what systemd listens on): a test knows at once when the daemon serves or ended.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 30.0
STOP_SECONDS = 30.0


class House:
    """``with House(config) as house: house.http.post(...)``. ``config`` is the JSON configuration as a dict."""

    def __init__(self, config: dict[str, Any] | None = None, *, env: dict[str, str] | None = None) -> None:
        # Short, because a socket path has 108 bytes.
        self.home = Path(tempfile.mkdtemp(prefix="hy-"))
        self.socket = self.home / "run" / "hybridd.sock"
        self.state = self.home / "state"
        self.config_path = self.home / "hybrid_config.json"
        self.log_path = self.home / "daemon.log"
        self.env = {
            **{name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ},
            **{name: value for name, value in os.environ.items() if name.startswith(("COVERAGE", "COV_"))},
            "HOME": str(self.home),
            "LANGUAGE": "en",
            "HYBRIDD_SOCKET": str(self.socket),
            "HYBRIDD_STATE_DIR": str(self.state),
            "PYTHONPATH": str(ROOT),
            **(env or {}),
        }
        self.module = "hybridd.cli.main"
        self.python = sys.executable
        self.process: subprocess.Popen[bytes] | None = None
        self._client: httpx.Client | None = None
        self.write_config(config or {})

    def write_config(self, config: dict[str, Any]) -> None:
        self.config_path.write_text(json.dumps(config), encoding="utf-8")

    def start(self) -> House:
        """Starts the daemon and returns when it has said READY=1.

        Raises:
            AssertionError: it ended instead; the message holds its log.
        """
        notify = self.home / "notify"
        notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener, self.log_path.open("ab") as log:
            listener.bind(str(notify))
            self.process = subprocess.Popen(
                [self.python, "-m", self.module, "serve", "--config", str(self.config_path)],
                env={**self.env, "NOTIFY_SOCKET": str(notify)},
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            ended = os.pidfd_open(self.process.pid)
            try:
                self._await_ready(listener, ended)
            finally:
                os.close(ended)
        return self

    def _await_ready(self, listener: socket.socket, ended: int) -> None:
        while True:
            readable, _, _ = select.select([listener.fileno(), ended], [], [], START_SECONDS)
            if listener.fileno() in readable:
                if b"READY=1" in listener.recv(4096):
                    return
                continue
            assert ended not in readable, f"the daemon ended instead of starting:\n{self.log}"
            raise AssertionError(f"the daemon was not ready in {START_SECONDS} s:\n{self.log}")

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace") if self.log_path.exists() else ""

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def http(self) -> httpx.Client:
        if self._client is None:
            self._client = httpx.Client(
                transport=httpx.HTTPTransport(uds=str(self.socket)), base_url="http://hybridd", timeout=30
            )
        return self._client

    def async_http(self, **limits: int) -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(uds=str(self.socket), limits=httpx.Limits(**limits))
        return httpx.AsyncClient(transport=transport, base_url="http://hybridd", timeout=60)

    def chat(self, model: str, text: str = "hello there", **extra: Any) -> httpx.Response:
        headers = extra.pop("headers", None)
        body = {"model": model, "messages": [{"role": "user", "content": text}], **extra}
        return self.http.post("/v1/chat/completions", json=body, headers=headers)

    def cli(self, *arguments: str, stdin: str | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.python, "-m", "hybridd.cli.main", *arguments],
            env=self.env, cwd=self.home, input=stdin, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(STOP_SECONDS)
        self._forget_client()

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(STOP_SECONDS)
        self._forget_client()
        return status

    def _forget_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def __enter__(self) -> House:
        try:
            return self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        finally:
            if kind is not None:
                sys.stderr.write(self.log)
            shutil.rmtree(self.home, ignore_errors=True)


def lab(base_url: str, **settings: Any) -> dict[str, Any]:
    """A provider entry for the fake upstream: model m1 with a price, no key."""
    return {
        "plugin": "openai_compatible",
        "base_url": base_url,
        "models": {"m1": {"context": 8192, "price": {"input_per_million_usd": 0.15, "output_per_million_usd": 0.60}}},
        **settings,
    }
