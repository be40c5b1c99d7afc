"""Series of samples: host, GPU, quotas, latencies."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any, Final

from hybridd.errors import InvalidRequest

INSERT: Final = "INSERT OR REPLACE INTO samples (name, at, value) VALUES (?, ?, ?)"
"""For ``writer.execute(INSERT, (name, at, value))``; ``at`` is UTC seconds."""
MAX_POINTS: Final = 5_000
_DEFAULT_POINTS = 500
_DEFAULT_SECONDS = 86_400.0


def insert(connection: sqlite3.Connection, samples: Iterable[tuple[str, float, float]]) -> None:
    """Many samples ``(name, at, value)`` in one transaction; the same name and time again replaces."""
    connection.executemany(INSERT, samples)


def names(connection: sqlite3.Connection) -> list[str]:
    """Every series that has a sample, found by jumping through the primary key and not by reading the samples."""
    rows = connection.execute(
        "WITH RECURSIVE found (name) AS (SELECT min(name) FROM samples UNION ALL"
        " SELECT (SELECT min(name) FROM samples WHERE name > found.name) FROM found WHERE found.name IS NOT NULL)"
        " SELECT name FROM found WHERE name IS NOT NULL"
    )
    return [name for (name,) in rows]


def latest(connection: sqlite3.Connection, name: str) -> tuple[float, float] | None:
    """The newest ``(at, value)`` of a series."""
    row = connection.execute(
        "SELECT at, value FROM samples WHERE name = ? ORDER BY at DESC LIMIT 1", (name,)
    ).fetchone()
    return None if row is None else (row[0], row[1])


def history(
    connection: sqlite3.Connection,
    name: str,
    since: float | None = None,
    until: float | None = None,
    step: float | None = None,
    *,
    now: float,
) -> dict[str, Any]:
    """``{series, since, until, step, points}``; points are ``[at, mean]``, oldest first, one for each step with data.

    ``at`` is the step's beginning. Default: the last day in 500 steps. ``since`` and ``until`` are UTC seconds.

    Raises:
        InvalidRequest: the period ends before it begins, or has more than MAX_POINTS steps.
    """
    end = now if until is None else until
    start = end - _DEFAULT_SECONDS if since is None else since
    if not start < end:
        raise InvalidRequest("the period ends before it begins: 'since' must be earlier than 'until'", param="since")
    width = max((end - start) / _DEFAULT_POINTS, 0.001) if step is None else step
    if not width > 0 or (end - start) / width > MAX_POINTS:
        raise InvalidRequest(f"step must be positive and give at most {MAX_POINTS} points", param="step")
    rows = connection.execute(
        "SELECT cast((at - :start) / :width AS INTEGER) AS bucket, avg(value) FROM samples"
        " WHERE name = :name AND at >= :start AND at < :end GROUP BY bucket ORDER BY bucket",
        {"name": name, "start": start, "end": end, "width": width},
    )
    points = [[start + bucket * width, value] for bucket, value in rows]
    return {"series": name, "since": start, "until": end, "step": width, "points": points}
