"""Time as a value that is passed in.

Rolling windows run on CLOCK_BOOTTIME (it counts suspended time and never jumps); calendar windows run on UTC wall
time. Both are integers of nanoseconds, so arithmetic is exact.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

NS = 1_000_000_000


class Clock(Protocol):
    """The two clocks of one machine. Tests pass a ``ManualClock``."""

    @property
    def boot_id(self) -> str: ...

    def boot_ns(self) -> int: ...

    def wall_ns(self) -> int: ...


class SystemClock:
    """The kernel's clocks."""

    def __init__(self) -> None:
        self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()

    @property
    def boot_id(self) -> str:
        return self._boot_id

    def boot_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def wall_ns(self) -> int:
        return time.time_ns()


class ManualClock:
    """A clock that moves only when told to."""

    def __init__(self, boot_ns: int = 1_000 * NS, wall_ns: int = 1_790_000_000 * NS, boot_id: str = "boot-1") -> None:
        self._boot_ns = boot_ns
        self._wall_ns = wall_ns
        self._boot_id = boot_id

    @property
    def boot_id(self) -> str:
        return self._boot_id

    def boot_ns(self) -> int:
        return self._boot_ns

    def wall_ns(self) -> int:
        return self._wall_ns

    def advance(self, seconds: float) -> None:
        """Both clocks move together, as on a healthy machine."""
        step = round(seconds * NS)
        self._boot_ns += step
        self._wall_ns += step

    def set_wall(self, wall_ns: int) -> None:
        """Only the wall clock jumps (NTP step, a user setting the date)."""
        self._wall_ns = wall_ns

    def reboot(self, boot_id: str, *, downtime_seconds: float = 30.0, uptime_seconds: float = 5.0) -> None:
        """The machine restarts: boot time starts again near zero, wall time goes on."""
        self._boot_id = boot_id
        self._wall_ns += round(downtime_seconds * NS)
        self._boot_ns = round(uptime_seconds * NS)
