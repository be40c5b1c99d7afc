"""Samples over time: which are worth a row, and how they thin out with age."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

from msgspec import Struct

from hybridd.contracts.views import LimitView
from hybridd.local.gpus import GpuReport
from hybridd.monitor.host import HostSample

# A value that has not moved is written again only this often: the series stays drawable and the database small.
REPEAT_SECONDS = 600.0
# (older than, width of a bucket): seconds. One mean per bucket remains.
THINNING: tuple[tuple[float, int], ...] = ((2 * 86_400.0, 600), (14 * 86_400.0, 3600))
CHUNK_BUCKETS = 200

_INSERT = "INSERT INTO samples (name, at, value) VALUES {} ON CONFLICT DO NOTHING"


class Series:
    """Remembers what was written last, and decides what is new."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, float]] = {}

    def fresh(self, values: Mapping[str, float], now: float) -> list[tuple[str, float, float]]:
        """Rows (name, at, value) worth writing at ``now``."""
        rows: list[tuple[str, float, float]] = []
        for name, value in values.items():
            last = self._last.get(name)
            if last is None or last[1] != value or not 0 <= now - last[0] < REPEAT_SECONDS:
                self._last[name] = (now, value)
                rows.append((name, now, value))
        if len(self._last) > 4 * max(len(values), 64):
            self._last = {name: last for name, last in self._last.items() if name in values}
        return rows


def insert(rows: Iterable[tuple[str, float, float]]) -> tuple[str, tuple[str | float, ...]]:
    """One statement for all rows, and its parameters."""
    flat = [part for row in rows for part in row]
    return _INSERT.format(", ".join(["(?, ?, ?)"] * (len(flat) // 3))), tuple(flat)


def values(host: HostSample | None, gpu: GpuReport | None, limits: Iterable[LimitView]) -> dict[str, float]:
    """The series of one check, by name: ``host.…``, ``daemon.…``, ``gpu.<n>.…``, ``quota.<key>.remaining``.

    Bytes are rounded to megabytes, so that noise below that is no new row.
    """
    found: dict[str, float] = {}
    if host is not None:
        found["host.cpu_percent"] = round(host.cpu_percent)
        found["host.load_1m"] = round(host.load[0], 1)
        found["host.memory_available_mb"] = host.memory_available // 1_000_000
        found["daemon.rss_mb"] = host.daemon_rss // 1_000_000
        if host.disk_free is not None:
            found["host.disk_free_mb"] = host.disk_free // 1_000_000
    for device in gpu.gpus if gpu is not None else ():
        prefix = f"gpu.{device.index}."
        found[prefix + "memory_used_mb"] = device.memory_used // 1_000_000
        found[prefix + "memory_free_mb"] = device.memory_free // 1_000_000
        if device.utilization is not None:
            found[prefix + "utilization_percent"] = device.utilization
        if device.temperature is not None:
            found[prefix + "temperature_c"] = device.temperature
    for view in limits:
        if view.unit != "concurrent":
            found[f"quota.{view.key}.remaining"] = view.remaining
    return found


class Crowd(Struct, frozen=True):
    """Buckets of one series that hold more than one sample: (first, past the last, middle, mean) each."""

    name: str
    buckets: list[tuple[float, float, float, float]]


def crowded(connection: sqlite3.Connection, name: str, before: float, width: int) -> Crowd:
    """The oldest buckets of ``width`` seconds before ``before`` that can be thinned, at most CHUNK_BUCKETS."""
    rows = connection.execute(
        "SELECT CAST(at / ? AS INTEGER) AS bucket, avg(value) FROM samples WHERE name = ? AND at < ?"
        " GROUP BY bucket HAVING count(*) > 1 ORDER BY bucket LIMIT ?",
        (width, name, (before // width) * width, CHUNK_BUCKETS),
    )
    return Crowd(name, [(b * width, (b + 1) * width, (b + 0.5) * width, mean) for b, mean in rows])


def thin(connection: sqlite3.Connection, crowd: Crowd) -> None:
    """Replace each bucket's samples by their mean."""
    connection.executemany(
        "DELETE FROM samples WHERE name = ? AND at >= ? AND at < ?",
        [(crowd.name, first, last) for first, last, _, _ in crowd.buckets],
    )
    connection.executemany(
        "INSERT INTO samples (name, at, value) VALUES (?, ?, ?)",
        [(crowd.name, middle, mean) for _, _, middle, mean in crowd.buckets],
    )
