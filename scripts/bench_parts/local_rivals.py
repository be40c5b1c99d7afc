"""The servers that the local engine is held against, each in a process of its own, with the same file and settings.

They are not part of hybridd and need not be there: what is not installed is a line that says how to get it. Their
Python is ``HYBRIDD_BENCH_RIVALS`` (a virtual environment's ``bin/python``) or the one that runs the bench; the extra
``hybridd[bench]`` has what they need. llama-cpp-python's example batching server is no part of its package:
``HYBRIDD_BENCH_EXAMPLE`` names the file ``examples/server/server.py`` of its repository; without it that rival is
absent.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from scripts.bench_parts.daemon_process import ROOT, Process, StartFailed, environment
from scripts.bench_parts.loadgen import Target

START_TIMEOUT_S = 60.0
POLL_S = 0.02
CPP = "llama.cpp's C++ server (xllamacpp)"
PYTHON = "llama_cpp.server"
EXAMPLE = "llama-cpp-python's example server"


@dataclass(frozen=True)
class Setup:
    """How every engine of a comparison loads the file."""

    path: str
    context: int = 4096
    sequences: int = 8
    batch: int = 2048
    micro_batch: int = 512
    threads: int = 2
    flash_attention: bool = True
    unified: bool = False
    """One pool of cells for all sequences. As hybridd loads for a given ``parallel``: each has its own, which is faster
    for the C++ server too (8 callers: 180 against 165 tokens/s)."""


class Recipe(NamedTuple):
    """How a rival is started. ``modules`` must be importable in its Python; ``command`` follows that Python."""

    name: str
    modules: tuple[str, ...]
    missing: str
    command: tuple[str, ...]


def recipes(setup: Setup, port: int, home: Path) -> list[Recipe]:
    """The C++ server first; the example server only where its file is given."""
    wanted = json.dumps({**asdict(setup), "port": port})
    found = [
        Recipe(
            CPP,
            ("xllamacpp",),
            "pip install xllamacpp",
            (str(ROOT / "scripts" / "bench_parts" / "local_xllamacpp.py"), wanted),
        ),
        Recipe(
            PYTHON,
            ("llama_cpp", "fastapi", "sse_starlette", "starlette_context", "pydantic_settings"),
            "pip install 'llama-cpp-python[server]'",
            ("-m", "llama_cpp.server", *_python_arguments(setup, port)),
        ),
    ]
    example = os.environ.get("HYBRIDD_BENCH_EXAMPLE")
    if example:
        config = home / "example.json"
        config.write_text(json.dumps(_example_config(setup, port)))
        modules = ("llama_cpp", "fastapi", "openai", "jinja2", "websockets")
        found.append(Recipe(EXAMPLE, modules, "pip install openai fastapi jinja2", (example, "-C", str(config))))
    return found


def _python_arguments(setup: Setup, port: int) -> list[str]:
    given: dict[str, object] = {
        "model": setup.path,
        "n_ctx": setup.context,
        "n_batch": setup.batch,
        "n_ubatch": setup.micro_batch,
        "n_threads": setup.threads,
        "n_threads_batch": setup.threads,
        "flash_attn": setup.flash_attention,
        # By default a second request interrupts the first; then nothing could be measured.
        "interrupt_requests": False,
        "verbose": False,
        "port": port,
    }
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


def _example_config(setup: Setup, port: int) -> dict[str, object]:
    model = {
        "path": setup.path,
        "n_ctx": setup.context,
        "n_batch": setup.batch,
        "n_ubatch": setup.micro_batch,
        "n_seq_max": setup.sequences,
        "threads": setup.threads,
        "threads_batch": setup.threads,
        "flash_attn": setup.flash_attention,
        "kv_unified": setup.unified,
    }
    return {"server": {"host": "127.0.0.1", "port": port}, "model": model}


def python() -> str:
    return os.environ.get("HYBRIDD_BENCH_RIVALS") or sys.executable


def lacking(modules: Sequence[str]) -> list[str]:
    """Those of the modules that the rivals' Python does not find."""
    look = "import importlib.util, sys; print(*[m for m in sys.argv[1:] if importlib.util.find_spec(m) is None])"
    done = subprocess.run([python(), "-c", look, *modules], capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.split()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Rival(Process):
    """A rival that answers. Raises `StartFailed` when it does not within a minute."""

    def __init__(self, recipe: Recipe, port: int, home: Path) -> None:
        self.name, self.port = recipe.name, port
        env = environment(home)
        super().__init__([python(), *recipe.command], env=env, log=home / f"rival-{port}.log", cwd=home)
        until = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if time.monotonic() > until or not self.running():
                self.stop()
                raise StartFailed(f"{self.name} did not start:\n{self.last_lines()}")
            time.sleep(POLL_S)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/v1/models")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def target(self, model: str) -> Target:
        return Target(self.name, model, port=self.port, closes=self.name == CPP)

    def __enter__(self) -> Rival:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
