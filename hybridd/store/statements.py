"""The writer's SQL: one statement, one step, for a whole batch of rows.

``sqlite3`` gives up the interpreter lock for every step and must win it back afterwards, which costs up to a switch
interval (5 ms by default) while the event loop computes. ``executemany`` steps once a row: 256 rows beside a busy
loop took 165 ms; the same rows as one ``INSERT … SELECT FROM (VALUES …)`` take 5 to 16 ms, and a lone row runs as one
autocommitted statement instead of BEGIN, INSERT, COMMIT (10 ms against 5). Hence batches are padded with NULL rows to
a few fixed sizes (so that few statements are prepared), and rollups are kept by temporary triggers of the writer's
connection, in the same transaction and without the interpreter: 2 µs a row.

The triggers add the difference between the old and the new row, so settling a call again, or retrying a batch after an
error, can never count twice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any

from hybridd.store.rows import DispatchRow, RequestRow, SettleRow

_SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
BATCH = _SIZES[-1]

HOUR_US = 3_600_000_000
DAY_US = 86_400_000_000

ROLLUP_SUMS = (
    "requests", "cache_hits", "failed_requests", "calls", "failed_calls", "input_tokens", "output_tokens", "bytes_down",
    "bytes_up", "usd_micro", "latency_us_sum", "latency_us_max", "first_token_us_sum", "first_token_count",
)  # fmt: skip

_AMOUNTS = ("input_tokens", "output_tokens", "bytes_down", "bytes_up", "usd_micro")
# An open call holds its reservation, which no rollup contains; an ended one is replaced by the difference.
_CALL_PARTS = {
    "calls": "(NEW.state <> 'released') - (OLD.state NOT IN ('dispatched', 'released'))",
    "failed_calls": "NEW.failed - coalesce(OLD.failed, 0)",
    **{name: f"NEW.{name} - iif(OLD.state = 'dispatched', 0, OLD.{name})" for name in _AMOUNTS},
}
_REQUEST_PARTS = {
    "requests": "1",
    "cache_hits": "NEW.cache = 'hit'",
    "failed_requests": "NEW.status >= 400",
    "latency_us_sum": "NEW.latency_us",
    "latency_us_max": "NEW.latency_us",
    "first_token_us_sum": "coalesce(NEW.first_token_us, 0)",
    "first_token_count": "NEW.first_token_us IS NOT NULL",
}


def _upsert(table: str, period: str, parts: dict[str, str]) -> str:
    values = ", ".join(parts.get(name, "0") for name in ROLLUP_SUMS)
    updates = ", ".join(
        f"{name} = max({name}, excluded.{name})" if name.endswith("_max") else f"{name} = {name} + excluded.{name}"
        for name in parts
    )
    return (
        f"INSERT INTO {table} (period, provider, model, task, {', '.join(ROLLUP_SUMS)})"
        f" VALUES ({period}, NEW.provider, NEW.model, NEW.task, {values}) ON CONFLICT DO UPDATE SET {updates};"
    )


def _rollups(micros: str, parts: dict[str, str]) -> str:
    return _upsert("rollup_hour", f"{micros} / {HOUR_US}", parts) + _upsert("rollup_day", f"{micros} / {DAY_US}", parts)


_REQUEST_COLUMNS = RequestRow._fields[:-1]
_TRIGGERS = f"""
CREATE TEMP TRIGGER call_ended AFTER UPDATE OF state ON main.calls WHEN NEW.state <> 'dispatched' BEGIN
  {_rollups("NEW.id", _CALL_PARTS)}
END;
CREATE TEMP VIEW finished AS SELECT {", ".join(_REQUEST_COLUMNS)}, '' AS choice FROM main.requests;
CREATE TEMP TRIGGER request_finished INSTEAD OF INSERT ON finished
WHEN NOT EXISTS (SELECT 1 FROM main.requests WHERE id = NEW.id) BEGIN
  INSERT INTO requests ({", ".join(_REQUEST_COLUMNS)}) VALUES ({", ".join(f"NEW.{c}" for c in _REQUEST_COLUMNS)});
  INSERT OR REPLACE INTO choices (request_id, choice) SELECT NEW.id, NEW.choice WHERE NEW.choice <> '';
  {_rollups("NEW.at_wall_ns / 1000", _REQUEST_PARTS)}
END;
"""


def install(connection: sqlite3.Connection) -> None:
    """Create the rollup triggers for this connection."""
    connection.executescript(_TRIGGERS)


class Batch:
    """One statement over up to :data:`BATCH` rows, in a few padded sizes. ``{rows}`` in the SQL is the VALUES list."""

    def __init__(self, sql: str, width: int) -> None:
        self._sql = sql
        self._width = width
        self._prepared: dict[int, str] = {}

    def run(self, connection: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> int:
        """Execute for 1..BATCH rows; the number of rows changed in the table itself (triggers not counted).

        Raises:
            sqlite3.Error: nothing of this statement is kept then.
        """
        count = len(rows)
        size = count if count < 3 else next(size for size in _SIZES if size >= count)
        sql = self._prepared.get(size)
        if sql is None:
            row = "(" + ", ".join("?" * self._width) + ")"
            sql = self._prepared[size] = self._sql.replace("{rows}", ", ".join([row] * size))
        values = list(chain.from_iterable(rows))
        values.extend((None,) * ((size - count) * self._width))
        return connection.execute(sql, values).rowcount


DISPATCH = Batch(
    f"INSERT INTO calls ({', '.join(DispatchRow._fields)}) SELECT * FROM (VALUES {{rows}}) WHERE column1 IS NOT NULL",
    len(DispatchRow._fields),
)

_SETTLED = [name for name in SettleRow._fields if name not in {"id", "provider", "model", "task"}]
SETTLE = Batch(
    "UPDATE calls SET "
    + ", ".join(f"{name} = ended.column{SettleRow._fields.index(name) + 1}" for name in _SETTLED)
    + " FROM (VALUES {rows}) AS ended"
    + f" WHERE calls.id = ended.column{SettleRow._fields.index('id') + 1}",
    len(SettleRow._fields),
)

REQUEST = Batch(
    f"INSERT INTO finished ({', '.join(RequestRow._fields)}) SELECT * FROM (VALUES {{rows}}) WHERE column1 IS NOT NULL",
    len(RequestRow._fields),
)
