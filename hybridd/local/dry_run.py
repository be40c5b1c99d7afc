"""Asks llama.cpp what a load would take, in a child process that allocates nothing and is thrown away.

Weights come from the tensor table: llama.cpp does not count them in a dry run. What the process around the model takes
is the estimate's, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from hybridd import locations
from hybridd.local.facts import ModelFacts
from hybridd.local.memory import estimate
from hybridd.local.types import LoadFailure, LoadOptions, Memory, MemoryUse

SECONDS = 60.0
"""The largest vocabularies take a few seconds; beyond this something hangs."""
_KEPT_STDERR = 4000
_PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
_TOLD = ("kv", "recurrent", "compute", "output")


class _Use(msgspec.Struct):
    weights: int = 0
    kv: int = 0
    recurrent: int = 0
    compute: int = 0
    output: int = 0


class _Answer(msgspec.Struct):
    device: _Use = msgspec.field(default_factory=_Use)
    host: _Use = msgspec.field(default_factory=_Use)
    failure: LoadFailure | None = None


async def dry_run(facts: ModelFacts, options: LoadOptions, *, seconds: float = SECONDS) -> Memory | LoadFailure:
    """What llama.cpp would take, or why it would not load the model. The child never outlives this call.

    Args:
        facts: of the model; its path, an absolute one, is read.
        options: how it would be loaded.
        seconds: of wall time; a child that takes longer is killed, and the cause is ``hung``.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "plugins.llama_cpp.dry_run"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(),
        cwd="/",
    )
    asked = msgspec.json.encode({"path": str(Path(facts.path)), "options": options})
    try:
        out, said = await asyncio.wait_for(process.communicate(asked), seconds)
    except TimeoutError:
        return LoadFailure("hung", f"llama.cpp did not answer about {facts.id} within {seconds:g} s")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return _read(facts, options, process.returncode or 0, out, said)


def _read(facts: ModelFacts, options: LoadOptions, status: int, out: bytes, said: bytes) -> Memory | LoadFailure:
    try:
        answer = msgspec.json.decode(out, type=_Answer)
    except msgspec.MsgspecError:
        return _death(facts, status, said[-_KEPT_STDERR:].decode("utf-8", "replace"))
    if answer.failure is not None:
        return answer.failure
    predicted = estimate(facts, options)
    return Memory(device=_merged(predicted.device, answer.device), host=_merged(predicted.host, answer.host))


def _merged(predicted: MemoryUse, told: _Use) -> MemoryUse:
    parts: dict[str, Any] = {name: getattr(told, name) for name in _TOLD}
    # What is handed out grows with the first batch that asks for more than a row each.
    parts["output"] = max(told.output, predicted.output)
    return msgspec.structs.replace(predicted, **parts)


def _death(facts: ModelFacts, status: int, said: str) -> LoadFailure:
    """The child ended without an answer. llama.cpp aborts on files whose parts do not belong together."""
    last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "")
    if status == -signal.SIGABRT:
        return LoadFailure("bad_file", f"llama.cpp gives up on {facts.id}: {_assertion(said) or last}")
    if status == -signal.SIGKILL:
        return LoadFailure("runtime", f"the dry run of {facts.id} was killed, probably for its memory")
    if status < 0:
        return LoadFailure("bad_file", f"llama.cpp crashed on {facts.id} ({signal.Signals(-status).name})")
    return LoadFailure("runtime", f"the dry run of {facts.id} ended with status {status}: {last}")


def _assertion(said: str) -> str:
    line = next((line for line in said.splitlines() if "GGML_ASSERT" in line), "")
    return line[line.index("GGML_ASSERT") :].strip() if line else ""


def _environment() -> dict[str, str]:
    passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
    passed |= {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
    root = locations.plugins_dir().parent
    package = os.path.dirname(os.path.dirname(os.path.abspath(locations.__file__)))
    return passed | {"GGML_NO_BACKTRACE": "1", "PYTHONPATH": os.pathsep.join(dict.fromkeys((str(root), package)))}
