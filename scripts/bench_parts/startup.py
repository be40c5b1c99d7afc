"""The daemon at rest: how fast it starts, what it weighs, what it costs while nobody calls; and the command line."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

from scripts.bench_parts import report
from scripts.bench_parts.daemon_process import ROOT, Daemon, StartFailed, configuration
from scripts.bench_parts.house import House
from scripts.bench_parts.proc import children, cpu_seconds, rss_mib, threads

STARTS = 5
SETTLE_S = 5.0
STATUS_RUNS = 10


async def start(house: House) -> list[report.Figure]:
    """Spawn to the first 200 on the socket, in a state that exists already; a fresh state is shown beside it."""
    daemon = Daemon(house.scratch.home(), configuration(house.upstream.base_url))
    times = []
    for _ in range(STARTS + 1):
        times.append(daemon.start())
        daemon.stop()
    fresh, again = times[0], times[1:]
    group = "start"
    how = f"median of {STARTS} ({', '.join(f'{value:.2f}' for value in again)}); with a fresh database {fresh:.2f} s"
    return [report.at_most(group, "spawn to first 200", report.median(again), 0.8, "s", detail=how)]


async def idle(house: House) -> list[report.Figure]:
    """A daemon of its own whose plugin is connected and that nobody has loaded."""
    seconds = 10.0 if house.quick else 60.0
    daemon = Daemon(house.scratch.home(), configuration(house.upstream.base_url))
    with daemon:
        daemon.wait_routed()
        await asyncio.sleep(SETTLE_S)
        weight, plugins = rss_mib(daemon.pid), children(daemon.pid)
        before = cpu_seconds(daemon.pid), sum(map(cpu_seconds, plugins))
        began = time.monotonic()
        await asyncio.sleep(seconds)
        took = time.monotonic() - began
        after = cpu_seconds(daemon.pid), sum(map(cpu_seconds, plugins))
        own, theirs = (100 * (later - earlier) / took for earlier, later in zip(before, after, strict=True))
        group = "idle, one plugin connected"
        beside = f"{threads(daemon.pid)} threads; plugins {report.number(sum(map(rss_mib, plugins)))} MiB"
        return [
            report.at_most(group, "memory of the daemon", weight, 80, "MiB", detail=f"after {SETTLE_S:g} s; {beside}"),
            report.at_most(
                group,
                "CPU of the daemon",
                own,
                0.5,
                "%",
                detail=f"of one core over {seconds:g} s; plugins {report.number(theirs)} %",
            ),
        ]


async def status(house: House) -> list[report.Figure]:
    """``hybridd status`` from the command to its end."""
    times = _status_times(house.daemon)
    bare = _bare_python()
    how = f"median of {STATUS_RUNS}; an empty Python program takes {report.number(bare)} ms"
    return [report.at_most("command line", "hybridd status", report.median(times), 150, "ms", detail=how)]


def _status_times(daemon: Daemon) -> list[float]:
    """Milliseconds of each run, after one that fills the caches."""
    command = [sys.executable, "-m", "hybridd.cli.main", "status"]
    env = {**daemon.env, "PYTHONPATH": str(ROOT)}
    times = []
    for _ in range(STATUS_RUNS + 1):
        began = time.perf_counter()
        ended = subprocess.run(command, env=env, cwd=daemon.home, capture_output=True, timeout=30, check=False)
        times.append(1000 * (time.perf_counter() - began))
        if ended.returncode != 0:
            raise StartFailed(f"hybridd status ended with {ended.returncode}: {ended.stderr.decode()[-500:]}")
    return times[1:]


def _bare_python() -> float:
    times = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", ""], check=True, timeout=30)
        times.append(1000 * (time.perf_counter() - began))
    return report.median(times)
