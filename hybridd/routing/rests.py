"""Rests that outlive a restart: tombstones, parking and long hints, one row for each target."""

from __future__ import annotations

import sqlite3

import msgspec

from hybridd.routing.cooldown import Cooldowns, Rest, RestState, Target
from hybridd.store.database import Database
from hybridd.store.queries.state import ProviderStateRow, delete_provider_state, provider_states, save_provider_state


def load_rests(database: Database, cooldowns: Cooldowns) -> None:
    """Puts back what was remembered. Blocks for one small query; used at start."""
    for row in database.reader.run_now(_read):
        target: Target = msgspec.json.decode(row.provider, type=tuple[str, str | None])
        state = msgspec.convert(row.state, RestState)
        failures = msgspec.json.decode(row.data, type=int)
        rest = Rest(state, row.reason, row.until_wall_ns, row.since_wall_ns, failures=failures)
        cooldowns.load(target, rest)


def save_rest(database: Database, target: Target, rest: Rest | None) -> None:
    """Queues the change; a crash before the commit forgets a rest, never a call."""
    key = msgspec.json.encode(target).decode()
    if rest is None:
        database.writer.execute(*delete_provider_state(key))
        return
    row = ProviderStateRow(key, rest.state, rest.reason, rest.since_wall_ns, rest.until_wall_ns, str(rest.failures))
    database.writer.execute(*save_provider_state(row))


def _read(connection: sqlite3.Connection) -> list[ProviderStateRow]:
    return provider_states(connection)
