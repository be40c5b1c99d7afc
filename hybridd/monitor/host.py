"""The machine's own figures: processor, memory, disk, load, and this process. Counters of the kernel through psutil."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it ships no types
from msgspec import Struct


class HostSample(Struct, frozen=True):
    """Bytes, and per cent of the whole machine (0…100) since the sample before. ``load`` is the 1, 5 and 15 minute load
    average; ``disk_*`` is about the file system that holds the state directory (None when it cannot be asked)."""

    cpu_percent: float
    cpu_count: int
    load: tuple[float, float, float]
    memory_total: int
    memory_available: int
    swap_used: int
    disk_total: int | None
    disk_free: int | None
    daemon_rss: int
    daemon_cpu_seconds: float
    daemon_threads: int
    daemon_open_files: int


def sampler(folder: Path) -> Callable[[], HostSample]:
    """A function that takes one sample; the folder's file system is the one that is looked at."""
    process = psutil.Process()
    psutil.cpu_percent(interval=None)  # the first call has nothing to compare with and answers 0

    def sample() -> HostSample:
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        total: int | None = None
        free: int | None = None
        try:
            disk = os.statvfs(folder)
        except OSError:
            # The folder may be gone (a test, an unmounted disk); the rest is still worth knowing.
            pass
        else:
            total, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
        with process.oneshot():
            times = process.cpu_times()
            rss, threads, files = process.memory_info().rss, process.num_threads(), process.num_fds()
        return HostSample(
            cpu_percent=psutil.cpu_percent(interval=None),
            cpu_count=psutil.cpu_count() or 1,
            load=psutil.getloadavg(),
            memory_total=memory.total,
            memory_available=memory.available,
            swap_used=swap.used,
            disk_total=total,
            disk_free=free,
            daemon_rss=rss,
            daemon_cpu_seconds=times.user + times.system,
            daemon_threads=threads,
            daemon_open_files=files,
        )

    return sample
