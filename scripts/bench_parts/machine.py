"""What the figures were taken on: processor, disk, versions, load."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from scripts.bench_parts import report
from scripts.bench_parts.daemon_process import Scratch, file_system

LIBRARIES = ("uvicorn", "uvloop", "httptools", "aiohttp", "websockets", "msgspec", "pydantic", "SQLAlchemy", "sqlmodel")
SYNCS = 60
GROUP = "this machine"


def describe(scratch: Scratch) -> list[report.Figure]:
    """Context figures; the load average is the one before the bench began."""
    cores = len(os.sched_getaffinity(0))
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    sync = 1000 * sync_seconds(scratch.path)
    return [
        report.context(GROUP, "cores", cores, "", f"{processor()}; load before the bench {load}"),
        report.context(
            GROUP,
            "fdatasync of 4 KiB, p50",
            sync,
            "ms",
            f"on {file_system(scratch.path)} at {scratch.path.parent}; the floor of a lone durable reservation",
        ),
        report.context(
            GROUP, "Python", None, "", f"{platform.python_version()}, Linux {platform.release()}; {libraries()}"
        ),
    ]


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def libraries() -> str:
    found = []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} absent")
    return ", ".join(found)


def sync_seconds(folder: Path) -> float:
    """Median seconds of appending 4 KiB and waiting until the disk has it."""
    path = folder / "sync"
    times = []
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        for _ in range(SYNCS):
            began = time.perf_counter()
            os.write(descriptor, b"x" * 4096)
            os.fdatasync(descriptor)
            times.append(time.perf_counter() - began)
    finally:
        os.close(descriptor)
        path.unlink()
    return report.median(times)
