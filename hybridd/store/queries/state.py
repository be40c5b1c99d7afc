"""What the daemon must remember across a restart: rests and tombstones, observed limits, what was learned.

Functions that return ``(sql, params)`` are for ``writer.execute(*…)``. ``data`` is JSON text of the owner's own making.
"""

from __future__ import annotations

import sqlite3
from typing import Any, NamedTuple

Statement = tuple[str, tuple[Any, ...]]


class ProviderStateRow(NamedTuple):
    """``provider`` is the name of what rests: a provider, or whatever narrower key its owner uses."""

    provider: str
    state: str
    reason: str
    since_wall_ns: int
    until_wall_ns: int | None = None
    data: str = "{}"


class ObservationRow(NamedTuple):
    """The newest report about one quota (``key``)."""

    key: str
    provider: str
    account: str
    as_of_wall_ns: int
    data: str


class ModelStatRow(NamedTuple):
    """Tokens the provider counted for each byte of prompt, learned from ``samples`` answers."""

    provider: str
    model: str
    tokens_per_byte: float
    samples: int
    updated_wall_ns: int
    data: str = "{}"


def provider_states(connection: sqlite3.Connection) -> list[ProviderStateRow]:
    return [ProviderStateRow(*row) for row in connection.execute(_select("provider_state", ProviderStateRow))]


def save_provider_state(row: ProviderStateRow) -> Statement:
    return _replace("provider_state", row)


def delete_provider_state(provider: str) -> Statement:
    return ("DELETE FROM provider_state WHERE provider = ?", (provider,))


def observations(connection: sqlite3.Connection) -> list[ObservationRow]:
    return [ObservationRow(*row) for row in connection.execute(_select("observations", ObservationRow))]


def save_observation(row: ObservationRow) -> Statement:
    """Keeps the newer of the two: reports may arrive out of order."""
    sql, parameters = _replace("observations", row)
    return (
        sql.replace("INSERT OR REPLACE", "INSERT")
        + " ON CONFLICT DO UPDATE SET provider = excluded.provider, account = excluded.account,"
        " as_of_wall_ns = excluded.as_of_wall_ns, data = excluded.data"
        " WHERE excluded.as_of_wall_ns >= observations.as_of_wall_ns",
        parameters,
    )


def delete_observation(key: str) -> Statement:
    return ("DELETE FROM observations WHERE key = ?", (key,))


def model_stats(connection: sqlite3.Connection) -> list[ModelStatRow]:
    return [ModelStatRow(*row) for row in connection.execute(_select("model_stats", ModelStatRow))]


def save_model_stat(row: ModelStatRow) -> Statement:
    return _replace("model_stats", row)


def _select(table: str, row: type[Any]) -> str:
    return f"SELECT {', '.join(row._fields)} FROM {table}"


def _replace(table: str, row: Any) -> Statement:
    fields = type(row)._fields
    return (
        f"INSERT OR REPLACE INTO {table} ({', '.join(fields)}) VALUES ({', '.join('?' * len(fields))})",
        tuple(row),
    )
