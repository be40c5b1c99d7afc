"""Reading the header of a model with a large vocabulary, ours beside the reader of the package ``gguf``."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from scripts.bench_parts import report
from scripts.bench_parts.daemon_process import ROOT
from scripts.bench_parts.house import House
from tests.fakes.vocabulary_gguf import MERGES, TOKENS, make_vocabulary_gguf

RUNS = 9
# Each run is a process of its own: what was imported before does not count, what the first read allocates does. The
# peak is set back before the read (proc_pid_clear_refs(5)); that of the imports would hide it.
_MEASURE = """
import json, re, sys, time
from pathlib import Path
{imports}
path = Path(sys.argv[1])
def status(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
began = time.perf_counter()
{read}
took = time.perf_counter() - began
print(json.dumps([1000 * took, (status("VmHWM") - before) / 1024]))
"""
_OURS = _MEASURE.format(imports="from hybridd.local import gguf", read="model = gguf.open_model(path)")
_THEIRS = _MEASURE.format(imports="from gguf import GGUFReader", read="model = GGUFReader(path)")


async def figures(house: House) -> list[report.Figure]:
    """Milliseconds and growth of memory for one header, in a fresh process each time."""
    return await asyncio.to_thread(measure, house.scratch.path / "vocabulary.gguf", 3 if house.quick else RUNS)


def measure(path: Path, runs: int = RUNS) -> list[report.Figure]:
    """As :func:`figures`, with the file made at ``path``."""
    make_vocabulary_gguf(path)
    ours = [_run(_OURS, path) for _ in range(runs)]
    milliseconds, mebibytes = (report.median([one[part] for one in ours]) for part in (0, 1))
    group = f"header of {TOKENS:,} tokens with {MERGES:,} merges"
    how = f"median of {runs} fresh processes; the file has {path.stat().st_size / 1e6:.1f} MB"
    lines = [
        report.at_most(group, "read", milliseconds, 150, "ms", detail=how),
        report.at_most(group, "memory for it", mebibytes, 10, "MiB", detail="growth of the peak RSS"),
    ]
    theirs = _run(_THEIRS, path)
    beside = f"one run, {report.number(theirs[1])} MiB more memory"
    return [*lines, report.context(group, "the reader of the package gguf", theirs[0], "ms", beside)]


def _run(program: str, path: Path) -> tuple[float, float]:
    command = [sys.executable, "-c", program, str(path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=120)
    milliseconds, mebibytes = json.loads(ended.stdout)
    return milliseconds, mebibytes
