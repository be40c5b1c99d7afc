"""Figures of the store: durable reservations a second, latency of a lone one, and the report over a million calls."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import tempfile
import time
from pathlib import Path

from hybridd.clocks import SystemClock
from hybridd.store.database import Database
from hybridd.store.queries.report import ReportQuery, report
from hybridd.store.rows import DispatchRow, RequestRow, SettleRow

_TASKS = ("code_generation", "text_generation", "text_classification", "sentiment_analysis")
_PROVIDERS = tuple((f"provider{n}", f"model{m}") for n in range(4) for m in range(3))
_CHOICE = '{"task":"code_generation","chosen_model":"m1","provider":"lab","reason":"first in order","rejected":[]}'


def _dispatch(number: int, boot: int, kind: int = 0) -> DispatchRow:
    """``kind`` picks provider, model and task among 48 combinations."""
    provider, model = _PROVIDERS[kind % len(_PROVIDERS)]
    task = _TASKS[kind // len(_PROVIDERS) % len(_TASKS)]
    now = number * 1000
    return DispatchRow(
        number, number - 1, provider, provider, model, task, boot, now, now, 1, 200, 400, 0, 0, 300, None
    )  # fmt: skip


def _settle(row: DispatchRow) -> SettleRow:
    end = row.admitted_wall_ns + 800_000_000
    return SettleRow(
        "settled", row.boot, end, end, 1, 190, 120, 0, 0, 101, 1, None, None, row.id, row.provider, row.model,
        row.task, 0,
    )  # fmt: skip


def _request(row: DispatchRow) -> RequestRow:
    return RequestRow(
        row.request_id, row.admitted_wall_ns, row.task, "auto", row.provider, row.model, 200, None, 0, "miss", 1, 190,
        120, 101, 812_000, None, 700, None, None, "bench", _CHOICE,
    )  # fmt: skip


async def reservations_per_second(concurrency: int = 256, seconds: float = 2.0) -> float:
    """Durable dispatches acknowledged each second at the writer, wake-ups of the callers included."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        database = Database.open(Path(folder), clock=SystemClock())
        try:
            numbers = itertools.count(time.time_ns() // 1000)
            done = 0
            end = time.perf_counter() + seconds

            async def caller() -> None:
                nonlocal done
                while time.perf_counter() < end:
                    await database.writer.dispatch(_dispatch(next(numbers), database.boot))
                    done += 1

            start = time.perf_counter()
            await asyncio.gather(*(caller() for _ in range(concurrency)))
            return done / (time.perf_counter() - start)
        finally:
            database.close()


async def calls_per_second(concurrency: int = 256, seconds: float = 2.0) -> float:
    """The same with everything a call records: dispatch, settlement and request."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        database = Database.open(Path(folder), clock=SystemClock())
        try:
            numbers = itertools.count(time.time_ns() // 1000, 2)
            done = 0
            end = time.perf_counter() + seconds

            async def caller() -> None:
                nonlocal done
                while time.perf_counter() < end:
                    row = _dispatch(next(numbers), database.boot)
                    await database.writer.dispatch(row)
                    database.writer.settle(_settle(row))
                    database.writer.request(_request(row))
                    done += 1

            start = time.perf_counter()
            await asyncio.gather(*(caller() for _ in range(concurrency)))
            await database.writer.barrier()
            return done / (time.perf_counter() - start)
        finally:
            database.close()


async def lone_dispatch_microseconds(rounds: int = 2000, *, whole_call: bool = True) -> tuple[float, float]:
    """Median and 99th percentile of one dispatch at a time; with ``whole_call`` each is settled and recorded too."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        database = Database.open(Path(folder), clock=SystemClock())
        try:
            numbers = itertools.count(time.time_ns() // 1000, 2)
            taken: list[float] = []
            for _ in range(rounds):
                row = _dispatch(next(numbers), database.boot)
                start = time.perf_counter()
                await database.writer.dispatch(row)
                taken.append((time.perf_counter() - start) * 1e6)
                if whole_call:
                    database.writer.settle(_settle(row))
                    database.writer.request(_request(row))
            cuts = statistics.quantiles(taken, n=100)
            return cuts[49], cuts[98]
        finally:
            database.close()


async def report_milliseconds(rows: int = 1_000_000, days: int = 60) -> dict[str, float]:
    """Median milliseconds of reports over ``rows`` recorded calls spread over ``days``, through the reader."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        clock = SystemClock()
        database = Database.open(Path(folder), clock=clock)
        try:
            now = clock.wall_ns() // 1000
            step = days * 86_400_000_000 // rows
            first = now - rows * step
            for number in range(rows):
                row = _dispatch(first + number * step, database.boot, number)
                waiting = database.writer.dispatch(row)
                database.writer.settle(_settle(row))
                database.writer.request(_request(row))
                if number % 256 == 255:
                    await waiting
                    if number % 8192 == 8191:
                        await database.writer.barrier()
            await database.writer.barrier()
            results: dict[str, float] = {}
            for name, query in {
                "by provider": ReportQuery(group_by=("provider",), days=30),
                "by model and task": ReportQuery(group_by=("model", "task"), days=30),
                "by day": ReportQuery(group_by=("day",), days=30),
                "by hour": ReportQuery(group_by=("hour",), days=2),
                "everything": ReportQuery(group_by=("provider", "model", "task", "day"), days=30),
            }.items():
                taken = []
                for _ in range(5):
                    start = time.perf_counter()
                    await database.reader.run(report, query, now / 1e6)
                    taken.append((time.perf_counter() - start) * 1e3)
                results[name] = statistics.median(taken)
            return results
        finally:
            database.close()
