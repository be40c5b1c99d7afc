"""The book of alerts: which are open, and what changes. A state machine of plain values; no clock, no I/O.

::

                 condition                      two quiet checks, or resolve()
    (nothing) ───────────────► open ─────────────────────────────────────────► resolved
        ▲                       │  ▲                                              │
        │                acknowledge  worse severity             same condition within ten minutes:
        │                       ▼  │                             the same alert opens again, count + 1
        │                  acknowledged                                           │
        └───────────────────────── later: a new alert ◄───────────────────────────┘

A silenced key goes through the same states unseen: its alerts show as ``silenced`` and are told to nobody until the
time is over; if it still holds then, it is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from msgspec import Struct

from hybridd.contracts.views import AlertView
from hybridd.monitor.conditions import MANAGED, Condition, Severity

What = Literal["opened", "reopened", "worse", "changed", "acknowledged", "silenced", "unsilenced", "resolved"]
QUIET_CHECKS = 2
REOPEN_SECONDS = 600.0
# A message whose figures move at every check is rewritten at most this often.
REWRITE_SECONDS = 300.0
_RANK: dict[str, int] = {"info": 0, "warning": 1, "critical": 2}


@dataclass(slots=True)
class Alert:
    """One alert. ``acknowledged_at`` is None until somebody has seen it; ``quiet`` counts checks without it."""

    id: int
    key: str
    name: str
    severity: Severity
    message: str
    provider: str | None
    opened_at: float
    updated_at: float
    count: int = 1
    resolved_at: float | None = None
    acknowledged_at: float | None = None
    data: dict[str, Any] = field(default_factory=dict)
    quiet: int = 0
    told_at: float = 0.0


class Change(Struct, frozen=True):
    """What happened to an alert. ``loud``: worth telling (false below a silence)."""

    what: What
    alert: AlertView
    acknowledged_at: float | None
    loud: bool


class Book:
    """Every alert that is not resolved, those resolved within the last ten minutes, and the silences."""

    def __init__(
        self, *, next_id: int = 1, alerts: Iterable[Alert] = (), silences: dict[str, float] | None = None
    ) -> None:
        self._next_id = next_id
        self._live: dict[str, Alert] = {}
        self._recent: dict[str, Alert] = {}
        self._silences = dict(silences or {})
        for alert in alerts:
            (self._live if alert.resolved_at is None else self._recent)[alert.key] = alert

    @property
    def open_keys(self) -> frozenset[str]:
        return frozenset(self._live)

    def __contains__(self, key: str) -> bool:
        return key in self._live

    def live(self, now: float) -> list[AlertView]:
        """Every alert that is not resolved, newest first."""
        return [self._view(alert, now) for alert in sorted(self._live.values(), key=lambda a: -a.id)]

    def find(self, alert_id: int) -> Alert | None:
        """An unresolved or recently resolved alert."""
        for alert in (*self._live.values(), *self._recent.values()):
            if alert.id == alert_id:
                return alert
        return None

    def view(self, alert: Alert, now: float) -> AlertView:
        return self._view(alert, now)

    # Changes.

    def check(self, conditions: Iterable[Condition], now: float, *, counts: bool = True) -> list[Change]:
        """One check's conditions, all of them. ``counts`` False: an extra look within the same check, which opens
        alerts but brings none nearer to its end."""
        changes: list[Change] = []
        seen: set[str] = set()
        for condition in conditions:
            if condition.key not in seen:
                seen.add(condition.key)
                changes += self._hold(condition, now)
        if counts:
            for key, alert in list(self._live.items()):
                if key not in seen and alert.name in MANAGED:
                    alert.quiet += 1
                    if alert.quiet >= QUIET_CHECKS:
                        changes += self.resolve(key, now)
        changes += self._end_silences(now)
        self._recent = {
            key: alert
            for key, alert in self._recent.items()
            if alert.resolved_at is not None and now - alert.resolved_at < REOPEN_SECONDS
        }
        return changes

    def raise_(self, condition: Condition, now: float) -> list[Change]:
        """Open an alert by hand (a job that failed), or count one more of the same."""
        alert = self._live.get(condition.key)
        if alert is None:
            return self._hold(condition, now)
        alert.count += 1
        return self._hold(condition, now, again=True)

    def open_now(self, condition: Condition, now: float) -> list[Change]:
        """Open at once if it is not open; nothing otherwise (the next check keeps it up to date)."""
        return [] if condition.key in self._live else self._hold(condition, now)

    def resolve(self, key: str, now: float) -> list[Change]:
        alert = self._live.pop(key, None)
        if alert is None:
            return []
        alert.resolved_at = alert.updated_at = now
        alert.quiet = 0
        self._recent[key] = alert
        return [self._change("resolved", alert, now)]

    def acknowledge(self, alert_id: int, now: float) -> list[Change]:
        """Somebody has seen it. A second time, or after the end, changes nothing."""
        alert = self.find(alert_id)
        if alert is None or alert.resolved_at is not None or alert.acknowledged_at is not None:
            return []
        alert.acknowledged_at = alert.updated_at = now
        return [self._change("acknowledged", alert, now)]

    def silence(self, key: str, until: float, now: float) -> list[Change]:
        """Tell nothing of this key before ``until`` (UTC seconds); a past moment ends the silence."""
        if until <= now:
            was = self._silences.pop(key, None)
            alert = self._live.get(key)
            return [self._change("unsilenced", alert, now)] if was is not None and alert is not None else []
        self._silences[key] = until
        alert = self._live.get(key)
        if alert is None:
            return []
        alert.updated_at = now
        return [self._change("silenced", alert, now, loud=True)]

    def silenced_until(self, key: str) -> float | None:
        return self._silences.get(key)

    # Inside.

    def _hold(self, condition: Condition, now: float, *, again: bool = False) -> list[Change]:
        alert = self._live.get(condition.key)
        if alert is None:
            return [self._open(condition, now)]
        alert.quiet = 0
        worse = _RANK[condition.severity] > _RANK[alert.severity]
        changed = worse or condition.severity != alert.severity or condition.message != alert.message
        alert.severity, alert.message, alert.data = condition.severity, condition.message, condition.data
        if worse:
            alert.acknowledged_at = None
        if not again and not (changed and (worse or now - alert.told_at >= REWRITE_SECONDS)):
            return []
        alert.updated_at = alert.told_at = now
        return [self._change("worse" if worse else "changed", alert, now)]

    def _open(self, condition: Condition, now: float) -> Change:
        again = self._recent.pop(condition.key, None)
        if again is not None and again.resolved_at is not None and now - again.resolved_at < REOPEN_SECONDS:
            alert = replace(
                again, resolved_at=None, acknowledged_at=None, count=again.count + 1, quiet=0,
                severity=condition.severity, message=condition.message, data=condition.data,
            )  # fmt: skip
        else:
            again = None
            alert = Alert(
                self._next_id, condition.key, condition.name, condition.severity, condition.message,
                condition.provider, opened_at=now, updated_at=now, data=condition.data,
            )  # fmt: skip
            self._next_id += 1
        alert.updated_at = alert.told_at = now
        self._live[condition.key] = alert
        return self._change("opened" if again is None else "reopened", alert, now)

    def _end_silences(self, now: float) -> Iterator[Change]:
        for key, until in list(self._silences.items()):
            if until <= now:
                del self._silences[key]
                alert = self._live.get(key)
                if alert is not None:
                    alert.updated_at = now
                    yield self._change("unsilenced", alert, now)

    def _change(self, what: What, alert: Alert, now: float, *, loud: bool | None = None) -> Change:
        quiet = self._silences.get(alert.key, 0.0) > now
        return Change(what, self._view(alert, now), alert.acknowledged_at, not quiet if loud is None else loud)

    def _view(self, alert: Alert, now: float) -> AlertView:
        until = self._silences.get(alert.key)
        silenced = until is not None and until > now
        state: Literal["open", "acknowledged", "silenced", "resolved"]
        if alert.resolved_at is not None:
            state = "resolved"
        elif silenced:
            state = "silenced"
        else:
            state = "open" if alert.acknowledged_at is None else "acknowledged"
        return AlertView(
            id=alert.id, key=alert.key, name=alert.name, severity=alert.severity, state=state, message=alert.message,
            opened_at=alert.opened_at, updated_at=alert.updated_at, count=alert.count, provider=alert.provider,
            resolved_at=alert.resolved_at, silenced_until=until if silenced else None, data=alert.data,
        )  # fmt: skip
