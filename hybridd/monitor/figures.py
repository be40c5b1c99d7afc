"""The figures a check reads from the recorded calls: recent local latency, and money per hour."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from statistics import median

# The newest requests looked at, whoever answered them: bounds the read on a machine that hardly uses local models.
LATEST = 2_000
RECENT = 50
RECENT_SECONDS = 3_600


def local_latency(connection: sqlite3.Connection, providers: Sequence[str], now: float) -> float | None:
    """Median latency, in seconds, of the last answers (at most 50, within an hour) of these providers; None without."""
    if not providers:
        return None
    marks = ", ".join("?" * len(providers))
    rows = connection.execute(
        f"SELECT latency_us FROM (SELECT provider, status, cache, latency_us FROM requests"
        f" WHERE id >= ? ORDER BY id DESC LIMIT {LATEST})"
        f" WHERE provider IN ({marks}) AND status < 400 AND cache <> 'hit' LIMIT {RECENT}",
        (int((now - RECENT_SECONDS) * 1e6), *providers),
    ).fetchall()
    return median(row[0] for row in rows) / 1e6 if rows else None


def spend_by_hour(connection: sqlite3.Connection, hour: int) -> dict[int, float]:
    """Dollars spent in ``hour`` (since the epoch) and the one before."""
    rows = connection.execute(
        "SELECT period, sum(usd_micro) FROM rollup_hour WHERE period >= ? GROUP BY period", (hour - 1,)
    )
    return {period: micro / 1e6 for period, micro in rows}
