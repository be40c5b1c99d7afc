"""Processor time: what a call costs each process, and how much of the machine was somebody else's meanwhile.

Throughput of a shared machine says little; the processor time of a call hardly changes with the neighbours.
"""

from __future__ import annotations

from typing import Protocol

from scripts.bench_parts.proc import cpu_seconds, machine_seconds


class Processes(Protocol):
    """Who knows the processes of a bench."""

    def processes(self) -> dict[str, list[int]]: ...


class CpuMeter:
    """Reads the clocks of all processes when made and again at `read`."""

    def __init__(self, house: Processes) -> None:
        self._processes = house.processes()
        self._own = self._seconds()
        self._machine = machine_seconds()

    def _seconds(self) -> dict[str, float]:
        return {name: sum(map(cpu_seconds, pids)) for name, pids in self._processes.items()}

    def read(self) -> tuple[dict[str, float], float]:
        """CPU seconds of each process since then, and the share (0 to 1) of the machine that others used."""
        own = {name: seconds - self._own[name] for name, seconds in self._seconds().items()}
        busy, idle = (now - then for now, then in zip(machine_seconds(), self._machine, strict=True))
        return own, min(1.0, max(0.0, busy - sum(own.values())) / max(1e-9, busy + idle))
