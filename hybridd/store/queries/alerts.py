"""Alerts and silences. Whoever raises alerts decides; here they are only kept.

Functions that return ``(sql, params)`` are for ``writer.execute(*…)``.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final, NamedTuple

import msgspec

from hybridd.contracts.views import AlertView
from hybridd.errors import InvalidRequest

Statement = tuple[str, tuple[Any, ...]]
STATES: Final = ("open", "acknowledged", "silenced", "resolved")
MAX_LIMIT: Final = 1000
_COLUMNS = (
    "id, key, name, severity, state, message, provider, opened_at, updated_at, resolved_at, acknowledged_at, count,"
    " data"
)


class StoredAlert(NamedTuple):
    """An alert as kept: the view plus when it was acknowledged."""

    view: AlertView
    acknowledged_at: float | None


class Silence(NamedTuple):
    """``until`` and ``created_at`` are UTC seconds."""

    key: str
    created_at: float
    until: float
    reason: str


def next_id(connection: sqlite3.Connection) -> int:
    """The first id never used for an alert that is still kept."""
    return int(connection.execute("SELECT coalesce(max(id), 0) + 1 FROM alerts").fetchone()[0])


def save(alert: AlertView, acknowledged_at: float | None = None) -> Statement:
    """Insert the alert, or replace what is kept under its id."""
    return (
        f"INSERT OR REPLACE INTO alerts ({_COLUMNS}) VALUES ({', '.join('?' * 13)})",
        (
            alert.id, alert.key, alert.name, alert.severity, alert.state, alert.message, alert.provider,
            alert.opened_at, alert.updated_at, alert.resolved_at, acknowledged_at, alert.count,
            msgspec.json.encode(alert.data).decode(),
        ),
    )  # fmt: skip


def stored(connection: sqlite3.Connection, *, resolved_since: float | None = None) -> list[StoredAlert]:
    """Every alert that is not resolved, and those resolved at or after ``resolved_since``; oldest first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM alerts WHERE state <> 'resolved' OR resolved_at >= ? ORDER BY id",
        (float("inf") if resolved_since is None else resolved_since,),
    )
    return [StoredAlert(_view(row), row[10]) for row in rows]


def page(
    connection: sqlite3.Connection, *, state: str | None = None, before_id: int | None = None, limit: int = 100
) -> list[AlertView]:
    """Alerts, newest first; ``before_id`` continues a list.

    Raises:
        InvalidRequest: an unknown state or a bad limit.
    """
    if state is not None and state not in STATES:
        raise InvalidRequest(f"state {state!r} is not one of {', '.join(STATES)}", param="state")
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidRequest(f"limit must be between 1 and {MAX_LIMIT}", param="limit")
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM alerts WHERE (:state IS NULL OR state = :state) AND (:before IS NULL OR id < :before)"
        " ORDER BY id DESC LIMIT :limit",
        {"state": state, "before": before_id, "limit": limit},
    ).fetchall()
    quiet = {silence.key: silence.until for silence in silences(connection)}
    views = [_view(row) for row in rows]
    for view in views:
        view.silenced_until = quiet.get(view.key)
    return views


def one(connection: sqlite3.Connection, alert_id: int) -> StoredAlert | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM alerts WHERE id = ?", (alert_id,)).fetchone()
    return None if row is None else StoredAlert(_view(row), row[10])


def silences(connection: sqlite3.Connection, *, now: float = 0.0) -> list[Silence]:
    """Silences that last beyond ``now``."""
    rows = connection.execute(
        "SELECT key, created_at, until, reason FROM silences WHERE until > ? ORDER BY key", (now,)
    )
    return [Silence(*row) for row in rows]


def save_silence(silence: Silence) -> Statement:
    return ("INSERT OR REPLACE INTO silences (key, created_at, until, reason) VALUES (?, ?, ?, ?)", tuple(silence))


def delete_silence(key: str) -> Statement:
    return ("DELETE FROM silences WHERE key = ?", (key,))


def _view(row: tuple[Any, ...]) -> AlertView:
    alert_id, key, name, severity, state, message, provider, opened, updated, resolved, _, count, data = row
    return AlertView(
        id=alert_id, key=key, name=name, severity=severity, state=state, message=message, opened_at=opened,
        updated_at=updated, count=count, provider=provider, resolved_at=resolved, data=msgspec.json.decode(data),
    )  # fmt: skip
