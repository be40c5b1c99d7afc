"""Loads models in real llama.cpp, in a process of its own: ``python -m tests.local.load_child``.

Reads a list of ``{"path", "options", "decode"}`` on stdin and prints one line of JSON for each: what llama.cpp logged
that it allocated, and by how much this process grew (bytes, of which anonymous).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from hybridd.local.types import LoadOptions, Memory, MemoryUse
from plugins.llama_cpp import dry_run
from plugins.llama_cpp.measure import Measured, measured

ROOT = Path(__file__).resolve().parents[2]


class Load(msgspec.Struct, frozen=True):
    path: str
    options: LoadOptions
    decode: bool = False


class Answer(msgspec.Struct, frozen=True):
    measured: Measured
    grown: int
    anonymous: int

    def memory(self) -> Memory:
        """In the planner's words."""
        return Memory(device=_use(self.measured.device), host=_use(self.measured.host))


def _use(use: Any) -> MemoryUse:
    return MemoryUse(**msgspec.to_builtins(use))


def load_all(loads: Sequence[Load], *, seconds: float = 60) -> list[Answer]:
    """What each load really took. Raises AssertionError with llama.cpp's words when one fails."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.local.load_child"],
        input=msgspec.json.encode(loads), capture_output=True, timeout=seconds, cwd=ROOT, check=False,
        env={**os.environ, "GGML_NO_BACKTRACE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return [msgspec.json.decode(line, type=Answer) for line in done.stdout.splitlines()]


def _main() -> None:
    from llama_cpp import llama_cpp as lib

    lines: list[str] = []
    log = lib.llama_log_callback(lambda level, text, _: lines.append((text or b"").decode("utf-8", "replace")))
    lib.llama_log_set(log, None)
    lib.llama_backend_init()
    for load in msgspec.json.decode(sys.stdin.buffer.read(), type=list[Load]):
        lines.clear()
        before = _resident()
        model = lib.llama_model_load_from_file(load.path.encode(), lib.llama_model_default_params())
        assert model, "".join(lines[-5:])
        wanted = dry_run.parameters(lib, model, msgspec.to_builtins(load.options))
        context = lib.llama_init_from_model(model, wanted)
        assert context, "".join(lines[-5:])
        answer = measured(lines)
        if load.decode:
            _decode(lib, context, wanted)
        after = _resident()
        print(json.dumps({"measured": msgspec.to_builtins(answer), "grown": after[0] - before[0],
                          "anonymous": after[1] - before[1]}), flush=True)  # fmt: skip
        lib.llama_free(context)
        lib.llama_model_free(model)


def _decode(lib: Any, context: Any, wanted: Any) -> None:
    """The largest batch there can be, so that every buffer is written to."""
    count = min(wanted.n_ubatch, wanted.n_ctx)
    batch = lib.llama_batch_init(count, 0, 1)
    batch.n_tokens = count
    for at in range(count):
        batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.logits[at] = 10 + at % 200, at, 1, at == count - 1
        batch.seq_id[at][0] = 0
    assert lib.llama_decode(context, batch) == 0
    lib.llama_batch_free(batch)


def _resident() -> tuple[int, int]:
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(fields["VmRSS"].split()[0]) * 1024, int(fields["RssAnon"].split()[0]) * 1024


if __name__ == "__main__":
    _main()
