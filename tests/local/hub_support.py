"""Pulls in real child processes against a hub on loopback, each test with its own folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tests.fakes.hub import TOKEN, FakeHub

ROOT = Path(__file__).resolve().parents[2]
REPO = "acme/tiny-GGUF"
NAME = "tiny-Q4_K_M.gguf"
BODY = bytes(range(256)) * 4096  # 1 MiB
HALF = len(BODY) // 2


class Ended(NamedTuple):
    """How a pull ended: its progress lines, and the result or the error of the last one."""

    code: int
    progress: list[dict[str, Any]]
    last: dict[str, Any]
    text: str

    @property
    def result(self) -> dict[str, Any]:
        assert "result" in self.last, self.text
        return dict(self.last["result"])

    @property
    def error(self) -> dict[str, Any]:
        assert "error" in self.last, self.text
        return dict(self.last["error"])


class Place:
    """Folders of one test, and the environment of its children."""

    def __init__(self, home: Path, hub: FakeHub) -> None:
        self.hub = hub
        self.home = home
        self.cache = home / "cache"
        self.models = home / "data" / "hybridd" / "models"
        self.state = home / "state"
        self.environment = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "HF_ENDPOINT": hub.url,
            "HYBRIDD_STATE_DIR": str(self.state),
            "XDG_DATA_HOME": str(home / "data"),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_CACHE_HOME": str(home / "xdg-cache"),
            "PYTHONPATH": str(ROOT),
            **{name: value for name, value in os.environ.items() if name.startswith("COVERAGE")},
        }

    def start(self, repo: str, *, program: str | None = None, **request: Any) -> subprocess.Popen[bytes]:
        """A running pull; its request has been sent. ``program``: Python to run instead of the module."""
        body = {"repo": repo, "cache_dir": str(self.cache), "retry_seconds": 0, "keep_free": 0, **request}
        command = [sys.executable, *(["-c", program] if program else ["-m", "hybridd.local.pull"])]
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            cwd=self.home,
        )
        assert child.stdin is not None
        child.stdin.write(json.dumps(body).encode())
        child.stdin.close()
        child.stdin = None
        return child

    def end(self, child: subprocess.Popen[bytes], before: bytes = b"") -> Ended:
        """Waits for it. ``before``: what was read of its output already."""
        out, err = child.communicate(timeout=60)
        text = (before + out).decode() + err.decode()
        lines = [json.loads(line) for line in (before + out).splitlines()]
        assert lines, text
        return Ended(child.returncode, lines[:-1], lines[-1], text)

    def pull(self, repo: str, **request: Any) -> Ended:
        """A pull from start to end; the exit status says the same as the last line."""
        ended = self.end(self.start(repo, **request))
        assert (ended.code == 0) == ("result" in ended.last), ended.text
        return ended

    def blobs(self) -> list[str]:
        return sorted(path.name for path in self.cache.glob("models--*/blobs/*"))

    def outside(self) -> list[Path]:
        """Files that lie neither in the cache nor in the state directory."""
        known = (self.cache, self.state, self.home / "xdg-cache")
        found = [path for path in self.home.rglob("*") if not path.is_dir()]
        return [path for path in found if not any(path.is_relative_to(folder) for folder in known)]

    def with_token(self, token: str = TOKEN) -> None:
        """The children find this token where the default configuration looks for it."""
        self.environment["HF_TOKEN"] = token


def content(path: str) -> bytes:
    """What a pulled path leads to."""
    return Path(path).read_bytes()
