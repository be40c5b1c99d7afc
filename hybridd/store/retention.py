"""Forgetting what is older than the configured time, in small steps between which dispatches go first."""

from __future__ import annotations

import sqlite3
from functools import partial
from typing import Final

from hybridd.store.writer import Writer

CHUNK: Final = 500
# Quotas are computed from calls: the longest calendar window needs a month and its skew, whatever is configured.
CALLS_KEPT_SECONDS: Final = 35 * 86_400.0

# Table → the rows of one step, oldest first. `:us` and `:at` are the moment as microseconds and as UTC seconds.
_STEPS: Final[dict[str, str]] = {
    "requests": "DELETE FROM requests WHERE id IN (SELECT id FROM requests WHERE id < :us ORDER BY id LIMIT :chunk)",
    "choices": "DELETE FROM choices WHERE request_id IN"
    " (SELECT request_id FROM choices WHERE request_id < :us ORDER BY request_id LIMIT :chunk)",
    "calls": "DELETE FROM calls WHERE id IN"
    " (SELECT id FROM calls WHERE id < :us AND state <> 'dispatched' ORDER BY id LIMIT :chunk)",
    "rollup_hour": "DELETE FROM rollup_hour WHERE (period, provider, model, task) IN"
    " (SELECT period, provider, model, task FROM rollup_hour WHERE period < :at / 3600 LIMIT :chunk)",
    # Series by series through the primary key: samples have no index by time alone.
    "samples": "DELETE FROM samples WHERE (name, at) IN (WITH RECURSIVE series (name) AS"
    " (SELECT min(name) FROM samples UNION ALL SELECT (SELECT min(name) FROM samples WHERE name > series.name)"
    " FROM series WHERE series.name IS NOT NULL)"
    " SELECT old.name, old.at FROM series CROSS JOIN samples AS old"
    " WHERE old.name = series.name AND old.at < :at LIMIT :chunk)",
    "alerts": "DELETE FROM alerts WHERE id IN"
    " (SELECT id FROM alerts WHERE state = 'resolved' AND resolved_at < :at LIMIT :chunk)",
    "silences": "DELETE FROM silences WHERE until < :at",
    "feedback": "DELETE FROM feedback WHERE id IN (SELECT id FROM feedback WHERE at < :at LIMIT :chunk)",
}


async def expire(
    writer: Writer, *, now: float, keep_seconds: float, keep_calls_seconds: float = CALLS_KEPT_SECONDS
) -> dict[str, int]:
    """Delete what is older than ``keep_seconds``; how many rows of each table went.

    Rollups by day and whatever is not about a moment stay; so do open calls, and calls younger than
    ``keep_calls_seconds`` (pass the longest window of any quota when it is longer than a month). Times are seconds.

    Raises:
        StorageError: the disk refuses; what was deleted before stays deleted.
    """
    gone: dict[str, int] = {}
    for table, sql in _STEPS.items():
        keep = max(keep_seconds, keep_calls_seconds) if table == "calls" else keep_seconds
        moment = now - keep
        values = {"us": round(moment * 1e6), "at": moment, "chunk": CHUNK}
        while True:
            deleted = await writer.call(partial(_delete, sql=sql, values=values))
            gone[table] = gone.get(table, 0) + deleted
            if deleted < CHUNK:
                break
    return gone


def _delete(connection: sqlite3.Connection, sql: str, values: dict[str, float]) -> int:
    return connection.execute(sql, values).rowcount
