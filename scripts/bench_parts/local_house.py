"""A daemon with local models in a home of its own, and how its models are loaded, unloaded and looked at."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, Self

from scripts.bench_parts import local_models
from scripts.bench_parts.daemon_process import Daemon, StartFailed, ask, post
from scripts.bench_parts.house import House
from scripts.bench_parts.loadgen import Target
from scripts.bench_parts.local_rivals import Setup
from scripts.bench_parts.proc import children

STOP_MESSAGE = "the daemon did not load {model}: {status} {said}"


class LocalHouse:
    """Owns the daemon and the folder of its models. The daemon starts when it is first asked for, after the models
    were made: it is to find them."""

    def __init__(self, house: House, **settings: Any) -> None:
        self.home = house.scratch.home()
        self.models = self.home / "models"
        self.models.mkdir()
        self.settings = settings
        self.others: dict[str, list[int]] = {}
        """More processes whose time is not a stranger's."""
        self._daemon: Daemon | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._daemon is not None:
            self._daemon.stop()
        shutil.rmtree(self.models, ignore_errors=True)

    def make(self, shape: local_models.Shape, *, seed: int = 1, suffix: str = "") -> Path:
        return local_models.make(shape, self.models, seed=seed, suffix=suffix)

    def setup(self, shape: local_models.Shape) -> Setup:
        """The settings of a comparison, its model made and loaded by the daemon."""
        setup = Setup(path=str(self.make(shape)), threads=len(os.sched_getaffinity(0)))
        self.load(shape.name)
        return setup

    @property
    def daemon(self) -> Daemon:
        if self._daemon is None:
            # The configuration's context is that of each request; all eight together have the rivals' 4,096 cells.
            local = {"models_dir": str(self.models), "context": 512, "parallel": 8, **self.settings}
            off = {"enabled": False}
            config = {"github_models": off, "hugging_face": off, "specialists": off, "local": local}
            self._daemon = Daemon(self.home, config)
            self._daemon.start()
        return self._daemon

    def load(self, model: str) -> float:
        """Loads a model and returns the seconds that it took.

        Raises:
            StartFailed: it cannot be loaded; the daemon's words.
        """
        socket = self.daemon.socket
        began = time.perf_counter()
        self._post(socket, "/v1/local/load", {"model": model})
        return time.perf_counter() - began

    def unload(self, model: str) -> None:
        self._post(self.daemon.socket, "/v1/local/unload", {"model": model})

    def resident(self) -> list[dict[str, Any]]:
        """The loaded models as the daemon sees them."""
        status, said = ask(self.daemon.socket, "GET", "/v1/local/resident")
        if status != 200:
            raise StartFailed(f"the daemon does not say what is loaded: {status} {said[:300]}")
        rows: list[dict[str, Any]] = json.loads(said)["models"]
        return rows

    def _post(self, socket: Path, url: str, body: dict[str, Any]) -> dict[str, Any]:
        status, said = post(socket, url, body)
        if status != 200:
            raise StartFailed(STOP_MESSAGE.format(model=body.get("model"), status=status, said=said[:500]))
        answer: dict[str, Any] = json.loads(said)
        return answer

    def target(self, model: str) -> Target:
        return self.daemon.target(f"local:{model}")

    def processes(self) -> dict[str, list[int]]:
        found = {"generator": [os.getpid()], **self.others}
        if self._daemon is not None:
            found["daemon"] = [self._daemon.pid]
            found["worker"] = children(self._daemon.pid)
        return found
