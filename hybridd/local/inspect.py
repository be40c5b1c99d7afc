"""The facts of model files that nobody has vouched for, read in a child process with limits.

``python -m hybridd.local.inspect FILE…`` prints one line of JSON for each file, in the order given:
:class:`~hybridd.local.facts.ModelFacts`, or ``{"path", "error", "lasting"}``. The daemon calls :func:`inspect`, which
runs that child, and remembers what it said as long as the file and the code that read it stay the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path

import msgspec

from hybridd import locations
from hybridd.config.gguf_files import model_name
from hybridd.errors import HybriddError
from hybridd.local import inspect_cache
from hybridd.local.facts import ModelFacts, facts_of
from hybridd.local.gguf import BadGguf, open_model

BATCH = 200
FILE_SECONDS = 20.0  # of wall time, for one model with all its parts
CPU_SECONDS = 10
MEMORY_BYTES = 1024**3  # of address space
LINE_BYTES = 4 * 1024 * 1024
DEATHS = 3  # of children one after the other, before the rest is given up
_PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")
_ROOT = str(Path(locations.__file__).resolve().parent.parent)
_log = logging.getLogger(__name__)


class Refusal(msgspec.Struct, frozen=True):
    """``lasting``: reading the same file again would say the same."""

    path: str
    error: str
    lasting: bool = False


Answer = ModelFacts | Refusal


async def inspect(
    paths: Iterable[Path], *, cache: Path | None = None, seconds: float = FILE_SECONDS
) -> dict[Path, ModelFacts | str]:
    """The facts of each model, or a sentence saying why it has none. Never raises for what a file holds.

    Args:
        paths: of files; of a split model any part.
        cache: the file that remembers answers; by default one in the cache directory.
        seconds: of wall time, for one model.
    """
    wanted = list(dict.fromkeys(paths))
    found: dict[Path, ModelFacts | str] = {path: f"{str(path)!a} is not UTF-8" for path in wanted if _nameless(path)}
    kept = await asyncio.to_thread(inspect_cache.Cache.read, cache or locations.cache_dir() / "models.json")
    states = await asyncio.to_thread(lambda: {path: inspect_cache.state(path) for path in wanted})
    for path in wanted:
        known = kept.get(path, states[path])
        if known is not None:
            found[path] = known
    fresh: dict[Path, ModelFacts | str] = {}
    async for path, answer in _answers([path for path in wanted if path not in found], seconds):
        found[path] = answer if isinstance(answer, ModelFacts) else answer.error
        if isinstance(answer, ModelFacts) or answer.lasting:
            fresh[path] = found[path]
    if fresh:
        await asyncio.to_thread(kept.write, fresh, states)
    return {path: found[path] for path in wanted}


def _nameless(path: Path) -> bool:
    """Has it a name that can neither be a program's argument nor be said in JSON?"""
    try:
        return b"\0" in str(path).encode()
    except UnicodeEncodeError:
        return True


async def _answers(paths: Sequence[Path], seconds: float) -> AsyncIterator[tuple[Path, Answer]]:
    """One answer for each path. A file that brings a child down costs that file, not the others."""
    left, deaths = list(paths), 0
    while left:
        batch, died = left[:BATCH], False
        async with _Child(batch, seconds) as child:
            for path in batch:
                answer = await child.answer(path)
                yield path, answer
                left.remove(path)
                died = child.ended
                deaths = deaths + 1 if died else 0
                if died:
                    break
        if deaths == DEATHS:
            for path in left:
                yield path, Refusal(str(path), f"{path} was not read: the program that reads models fails")
            return


class _Child:
    """One process that reads a batch; used in ``async with``."""

    def __init__(self, paths: Sequence[Path], seconds: float) -> None:
        self._paths = [os.path.abspath(path) for path in paths]
        self._seconds = seconds
        self._process: asyncio.subprocess.Process | None = None
        self.ended = False

    async def __aenter__(self) -> _Child:
        passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
        passed |= {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hybridd.local.inspect", "--", *self._paths),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=passed | {"PYTHONPATH": _ROOT},
            cwd="/",
            limit=LINE_BYTES,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()

    async def answer(self, path: Path) -> Answer:
        """What the child says of ``path``, the next of its files."""
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), self._seconds)
            return _decode(line) if line.endswith(b"\n") else await self._death(path)
        except TimeoutError:
            problem = f"it was not read within {self._seconds:g} s"
        except ValueError as error:  # a line beyond the limit, or one that is no answer
            problem = f"what its reader said cannot be used: {error}"
        self.ended = True
        return Refusal(str(path), f"{path}: {problem}")

    async def _death(self, path: Path) -> Refusal:
        assert self._process is not None
        assert self._process.stderr is not None
        self.ended = True
        said = (await self._process.stderr.read())[-2000:].decode("utf-8", "replace")
        status = await self._process.wait()
        if status == -signal.SIGXCPU:
            return Refusal(str(path), f"{path} took more than {CPU_SECONDS} s of processor time to read", lasting=True)
        _log.warning("The reader of models ended with status %s at %s: %s", status, path, said)
        return Refusal(str(path), f"{path} was not read: its reader ended with status {status}")


def _decode(line: bytes) -> Answer:
    """Raises:
    ValueError: the line is neither facts nor a refusal.
    """
    fields = msgspec.json.decode(line)
    kind: type[Answer] = Refusal if isinstance(fields, dict) and "error" in fields else ModelFacts
    return msgspec.convert(fields, kind)


def main(arguments: Sequence[str]) -> int:
    """Reads the files named, limited in memory, processor time, descriptors and what it may write."""
    _limit()
    for path in [one for one in arguments if one != "--"]:
        _more_time()
        sys.stdout.buffer.write(msgspec.json.encode(_look(path)) + b"\n")
        sys.stdout.buffer.flush()
    return 0


def _look(path: str) -> Answer:
    try:
        return facts_of(open_model(Path(path)), model_name(Path(path)), path)
    except BadGguf as error:
        return Refusal(path, error.message, lasting=True)
    except HybriddError as error:
        return Refusal(path, error.message)
    except MemoryError:
        return Refusal(path, f"{path} took more than {MEMORY_BYTES:,} bytes of memory to read", lasting=True)


def _limit() -> None:
    limits = {
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_FSIZE: LINE_BYTES * BATCH,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 64,
    }
    for kind, wanted in limits.items():
        _, hard = resource.getrlimit(kind)
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (most, most))


def _more_time() -> None:
    """Another :data:`CPU_SECONDS` from now on; beyond them SIGXCPU ends the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(used.ru_utime + used.ru_stime) + CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
