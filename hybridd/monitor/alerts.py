"""The alerts as the rest of the daemon sees them: the book, its rows, its events and its log.

Every change goes to the database (queued; opening an alert never waits for a disk), to the bus as an ``alert`` event
and to ``logs/ml_alerts.log``. What is silenced reaches the database and the bus (a screen shows it as silenced), not
the logs.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from hybridd import logs
from hybridd.bus import EventBus
from hybridd.clocks import NS, Clock
from hybridd.contracts.views import AlertView
from hybridd.errors import InvalidRequest, NotFound
from hybridd.monitor.book import REOPEN_SECONDS, Alert, Book, Change
from hybridd.monitor.conditions import Condition
from hybridd.monitor.ports import DatabasePort

_COLUMNS = (
    "id, key, name, severity, state, message, provider, opened_at, updated_at, resolved_at, acknowledged_at, count,"
    " data"
)
_SAVE = (
    f"INSERT INTO alerts ({_COLUMNS}) VALUES ({', '.join('?' * 13)}) ON CONFLICT (id) DO UPDATE SET"
    " severity = excluded.severity, state = excluded.state, message = excluded.message,"
    " updated_at = excluded.updated_at,"
    " resolved_at = excluded.resolved_at, acknowledged_at = excluded.acknowledged_at, count = excluded.count,"
    " data = excluded.data"
)
_SAVE_SILENCE = (
    'INSERT INTO silences (key, created_at, "until", reason) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET'
    ' created_at = excluded.created_at, "until" = excluded."until", reason = excluded.reason'
)
_LEVEL = {"info": "info", "warning": "warning", "critical": "critical"}


class Alerts:
    """One owner of the book. ``load`` first; every method but the reading ones is immediate."""

    def __init__(self, database: DatabasePort, bus: EventBus, clock: Clock) -> None:
        self._database = database
        self._bus = bus
        self._clock = clock
        self._book = Book()
        self._log = logs.get_logger("hybridd.monitor")

    @property
    def open_keys(self) -> frozenset[str]:
        return self._book.open_keys

    def is_open(self, key: str) -> bool:
        return key in self._book

    def live(self) -> list[AlertView]:
        """Every alert that is not resolved, newest first."""
        return self._book.live(self._now())

    async def load(self) -> None:
        """Take up the alerts and silences of the run before."""
        now = self._now()
        next_id, alerts, silences = await self._database.reader.run(_load, now)
        self._book = Book(next_id=next_id, alerts=alerts, silences=silences)

    # What happens.

    def check(self, conditions: Iterable[Condition], *, counts: bool = True) -> Sequence[Change]:
        return self._tell(self._book.check(conditions, self._now(), counts=counts))

    def open_now(self, condition: Condition) -> Sequence[Change]:
        return self._tell(self._book.open_now(condition, self._now()))

    def raise_(self, condition: Condition) -> AlertView:
        """Open an alert by hand, or count one more of the same; it stays until :meth:`resolve`."""
        now = self._now()
        self._tell(self._book.raise_(condition, now))
        return next(view for view in self._book.live(now) if view.key == condition.key)

    def resolve(self, key: str) -> bool:
        """The reason is gone. False when nothing of that key was open."""
        return bool(self._tell(self._book.resolve(key, self._now())))

    async def ack(self, alert_id: int) -> AlertView:
        """Somebody has seen it; doing so twice, or after its end, changes nothing.

        Raises:
            NotFound: there is no such alert.
        """
        self._tell(self._book.acknowledge(alert_id, self._now()))
        return await self.get(alert_id)

    async def silence(self, alert_id: int, until: float, *, reason: str = "") -> AlertView:
        """Tell nothing of this alert, nor of the same opening again, before ``until`` (UTC seconds). A moment that has
        passed ends the silence.

        Raises:
            NotFound: there is no such alert.
            InvalidRequest: ``until`` is not a moment within the next year.
        """
        now = self._now()
        if not until <= now + 366 * 86_400:  # also refuses NaN
            raise InvalidRequest("until must be a moment within the next year, in UTC seconds", param="until")
        key = (await self.get(alert_id)).key
        if until > now:
            self._database.writer.execute(_SAVE_SILENCE, (key, now, until, logs.redact(reason)))
        else:
            self._database.writer.execute("DELETE FROM silences WHERE key = ?", (key,))
        self._tell(self._book.silence(key, until, now))
        return await self.get(alert_id)

    # Looking.

    async def get(self, alert_id: int) -> AlertView:
        """One alert, from memory or from the history.

        Raises:
            NotFound: there is no such alert.
        """
        alert = self._book.find(alert_id)
        if alert is not None:
            return self._book.view(alert, self._now())
        rows = await self._database.reader.run(_select, "WHERE id = ?", (alert_id,))
        if not rows:
            raise NotFound(f"there is no alert {alert_id}", param="id")
        return self._from_row(rows[0])

    async def list(
        self, *, state: str | None = None, limit: int = 100, before_id: int | None = None
    ) -> list[AlertView]:
        """Alerts, newest first. ``state``: live (not resolved), open, acknowledged, silenced, resolved, or None
        for all; ``before_id`` continues a list.

        Raises:
            InvalidRequest: an unknown state.
        """
        states = ("live", "open", "acknowledged", "silenced", "resolved")
        if state is not None and state not in states:
            raise InvalidRequest(f"state {state!r} is not one of {', '.join(states)}", param="state")
        found = {view.id: view for view in self.live() if before_id is None or view.id < before_id}
        if state in (None, "resolved"):
            where, params = ("WHERE id < ?", (before_id,)) if before_id is not None else ("", ())
            if state == "resolved":
                where = f"{where} AND state = 'resolved'" if where else "WHERE state = 'resolved'"
            tail = f"{where} ORDER BY id DESC LIMIT {int(limit) + len(found)}"
            for row in await self._database.reader.run(_select, tail, params):
                # Memory is newer than the rows: a change may still be in the writer's queue.
                known = self._book.find(row[0])
                view = self._from_row(row) if known is None else self._book.view(known, self._now())
                found[view.id] = view
        views = sorted(found.values(), key=lambda view: -view.id)
        wanted = {None: states, "live": states[1:4]}.get(state, (state,))
        return [view for view in views if view.state in wanted][:limit]

    # Inside.

    def _now(self) -> float:
        return self._clock.wall_ns() / NS

    def _tell(self, changes: Sequence[Change]) -> Sequence[Change]:
        for change in changes:
            view = change.alert
            data = json.dumps(logs.redact_value(view.data), default=str)
            self._database.writer.execute(
                _SAVE,
                (
                    view.id, view.key, view.name, view.severity, view.state, logs.redact(view.message), view.provider,
                    view.opened_at, view.updated_at, view.resolved_at, change.acknowledged_at, view.count, data,
                ),
            )  # fmt: skip
            record = msgspec.to_builtins(view)
            self._bus.publish("alert", {"change": change.what, **record})
            if change.loud:
                at = datetime.fromtimestamp(view.updated_at, UTC).isoformat(timespec="milliseconds")
                logs.alert({"at": at.replace("+00:00", "Z"), "change": change.what, **record})
                self._say(change)
        return changes

    def _say(self, change: Change) -> None:
        view = change.alert
        fields: dict[str, Any] = {"alert": view.name, "id": view.id, "key": view.key}
        if change.what in ("opened", "reopened", "worse", "unsilenced"):
            getattr(self._log, _LEVEL[view.severity])(view.message, **fields)
        elif change.what == "resolved":
            self._log.info("resolved: " + view.message, **fields)

    def _from_row(self, row: tuple[Any, ...]) -> AlertView:
        alert = _alert(row)
        return self._book.view(alert, self._now())


def _select(connection: sqlite3.Connection, tail: str, params: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    return connection.execute(f"SELECT {_COLUMNS} FROM alerts {tail}", params).fetchall()


def _load(connection: sqlite3.Connection, now: float) -> tuple[int, list[Alert], dict[str, float]]:
    """Next id, the live and recently resolved alerts (oldest first, so that the newest of a key wins), silences."""
    row = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM alerts").fetchone()
    tail = "WHERE state <> 'resolved' OR id IN (SELECT id FROM alerts ORDER BY id DESC LIMIT 500) ORDER BY id"
    alerts = [_alert(found) for found in _select(connection, tail, ())]
    alerts = [alert for alert in alerts if alert.resolved_at is None or now - alert.resolved_at < REOPEN_SECONDS]
    silences = dict(connection.execute('SELECT key, "until" FROM silences WHERE "until" > ?', (now,)).fetchall())
    return row[0], alerts, silences


def _alert(row: tuple[Any, ...]) -> Alert:
    (id_, key, name, severity, state, message, provider, opened, updated, resolved, acknowledged, count, data) = row
    del state  # follows from the rest and from the silences
    return Alert(
        id=id_, key=key, name=name, severity=severity, message=message, provider=provider, opened_at=opened,
        updated_at=updated, count=count, resolved_at=resolved, acknowledged_at=acknowledged, data=json.loads(data),
    )  # fmt: skip
