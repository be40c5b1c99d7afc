"""How much memory and how many processors this process may really use: the machine's, less what a control group
(systemd's ``MemoryMax``, a container) takes away."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it ships no types
from msgspec import Struct

_PROC = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")


class Ram(Struct, frozen=True):
    """Bytes. ``reason``: what limits it to less than the machine has; empty without a limit."""

    total: int
    available: int
    reason: str = ""


def ram(proc: Path = _PROC, root: Path = _ROOT) -> Ram:
    """What the kernel could give now without swapping. A control group's file cache counts as available, as the
    machine's does."""
    memory = psutil.virtual_memory()
    found = Ram(total=int(memory.total), available=int(memory.available))
    for limit, used in _limits(proc, root):
        left = max(0, limit - used)
        if limit < found.total or left < found.available:
            reason = f"the control group of this process may use {limit / 2**20:,.0f} MiB"
            found = Ram(min(limit, found.total), min(left, found.available), reason)
    return found


def cores(proc: Path = _PROC, root: Path = _ROOT) -> tuple[int, int]:
    """(processors, physical cores) that this process may use, by its affinity and its control group's quota."""
    logical = psutil.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else logical
    for folder in _folders(proc, root, "cpu"):
        quota, period = _quota(folder)
        if quota > 0 and period > 0:
            usable = min(usable, max(1, math.ceil(quota / period)))
    physical = psutil.cpu_count(logical=False) or logical
    return usable, max(1, min(usable, physical))


def _limits(proc: Path, root: Path) -> Iterator[tuple[int, int]]:
    """(limit, used without file cache) of each control group that this process is in and that has a limit."""
    for folder in _folders(proc, root, "memory"):
        limit = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes")
        if limit is None or used is None:
            continue  # "max", or not a control group of ours
        yield limit, max(0, used - _cache(folder / "memory.stat"))


def _folders(proc: Path, root: Path, controller: str) -> Iterator[Path]:
    """The process's group of a controller and all above it; version 1 has a tree of its own for each controller."""
    try:
        lines = proc.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return  # no control groups here
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / controller if controllers else root
        folder = Path(os.path.normpath(f"{top}/{path}"))
        while folder != top and top in folder.parents:
            yield folder
            folder = folder.parent
        yield top


def _cache(stat: Path) -> int:
    """File cache that the kernel gives back under pressure."""
    try:
        lines = stat.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    values = dict(line.split(" ", 1) for line in lines if " " in line)
    # Version 1 gives its own figure for the group alone and a total with the groups below; the usage is the total.
    name = "total_inactive_file" if "total_inactive_file" in values else "inactive_file"
    value = values.get(name, "0")
    return int(value) if value.isdigit() else 0


def _quota(folder: Path) -> tuple[int, int]:
    """Microseconds of processor time per period; (0, 0) without a limit."""
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        old = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        return (old[0] or 0, old[1] or 0)
    return (int(quota), int(period)) if quota.isdigit() and period.isdigit() else (0, 0)


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
