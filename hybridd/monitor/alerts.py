"""The alerts as the rest of the daemon sees them: the book, its rows, its events and its log.

Every change goes to the database (queued; opening an alert never waits for a disk), to the bus as an ``alert`` event
and to ``logs/ml_alerts.log``. What is silenced reaches the database and the bus (a screen shows it as silenced), not
the logs.
"""

from __future__ import annotations

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
from hybridd.store.queries import alerts as rows

STATES = ("live", "open", "acknowledged", "silenced", "resolved")
LONGEST_SILENCE_SECONDS = 366 * 86_400.0


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
        if not until <= now + LONGEST_SILENCE_SECONDS:  # also refuses NaN
            raise InvalidRequest("until must be a moment within the next year, in UTC seconds", param="until")
        key = (await self.get(alert_id)).key
        if until > now:
            self._database.writer.execute(*rows.save_silence(rows.Silence(key, now, until, logs.redact(reason))))
        else:
            self._database.writer.execute(*rows.delete_silence(key))
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
        found = await self._database.reader.run(rows.one, alert_id)
        if found is None:
            raise NotFound(f"there is no alert {alert_id}", param="id")
        return self._book.view(_alert(found), self._now())

    async def list(
        self, *, state: str | None = None, limit: int = 100, before_id: int | None = None
    ) -> list[AlertView]:
        """Alerts, newest first. ``state``: live (not resolved), open, acknowledged, silenced, resolved, or None
        for all; ``before_id`` continues a list.

        Raises:
            InvalidRequest: an unknown state, or a limit that is not between 1 and 1,000.
        """
        if state is not None and state not in STATES:
            raise InvalidRequest(f"state {state!r} is not one of {', '.join(STATES)}", param="state")
        if not 1 <= limit <= rows.MAX_LIMIT:
            raise InvalidRequest(f"limit must be between 1 and {rows.MAX_LIMIT}", param="limit")
        found = {view.id: view for view in self.live() if before_id is None or view.id < before_id}
        if state in (None, "resolved"):
            for view in await self._database.reader.run(_page, state, before_id, limit):
                # Memory is newer than the rows: on a disk that refuses, a change may not be there yet.
                known = self._book.find(view.id)
                found[view.id] = view if known is None else self._book.view(known, self._now())
        views = sorted(found.values(), key=lambda view: -view.id)
        wanted = {None: STATES, "live": STATES[1:4]}.get(state, (state,))
        return [view for view in views if view.state in wanted][:limit]

    # Inside.

    def _now(self) -> float:
        return self._clock.wall_ns() / NS

    def _tell(self, changes: Sequence[Change]) -> Sequence[Change]:
        for change in changes:
            # A reason may quote what an upstream said, and that may quote a key.
            view = msgspec.structs.replace(
                change.alert, message=logs.redact(change.alert.message), data=logs.redact_value(change.alert.data)
            )
            self._database.writer.execute(*rows.save(view, change.acknowledged_at))
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
        if view.provider is not None:
            fields["provider"] = view.provider
        if change.what in ("opened", "reopened", "worse", "unsilenced"):
            getattr(self._log, view.severity)(view.message, **fields)
        elif change.what == "resolved":
            self._log.info("resolved: " + view.message, **fields)


def _page(connection: sqlite3.Connection, state: str | None, before_id: int | None, limit: int) -> Sequence[AlertView]:
    return rows.page(connection, state=state, before_id=before_id, limit=limit)


def _load(connection: sqlite3.Connection, now: float) -> tuple[int, Sequence[Alert], dict[str, float]]:
    """Next id, the live and recently resolved alerts (oldest first, so that the newest of a key wins), silences."""
    kept = [_alert(found) for found in rows.stored(connection, resolved_since=now - REOPEN_SECONDS)]
    silences = {silence.key: silence.until for silence in rows.silences(connection, now=now)}
    return rows.next_id(connection), kept, silences


def _alert(stored: rows.StoredAlert) -> Alert:
    view = stored.view  # its state follows from the rest and from the silences
    return Alert(
        id=view.id, key=view.key, name=view.name, severity=view.severity, message=view.message, provider=view.provider,
        opened_at=view.opened_at, updated_at=view.updated_at, count=view.count, resolved_at=view.resolved_at,
        acknowledged_at=stored.acknowledged_at, data=view.data,
    )  # fmt: skip
