"""The view-models: everything a screen draws, in plain values, kept current by :func:`tui.deltas.apply`.

The shapes are those of the daemon's answers (:mod:`hybridd.contracts.views`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from hybridd.contracts.views import AlertView, LimitView, PluginView, ProviderView
from tui.logbook import Logbook
from tui.rates import Rates
from tui.shapes import Connection, Cost, Gpu, Host, Job, LocalFile, Request, Resident, Status

__all__ = [
    "Change", "Connection", "Cost", "Gpu", "Host", "House", "Job", "LocalFile", "Request", "Resident", "Status",
]  # fmt: skip

REQUESTS_KEPT = 5000
RESOLVED_KEPT = 200
BURN_SECONDS = 60.0
BURN_POINTS = 120
BURN_SERIES = ("quota.", ".remaining")
"""What the daemon calls the series of samples of a quota."""

Change = set[str]
"""The topics that something changed."""


@dataclass(slots=True)
class House:
    """Everything known. ``now``: UTC seconds, the clock's last tick or the newest event; ``seen``: when the daemon last
    said anything; ``as_of``: the moment that is shown when it is not now (time travel), None: live; ``missing``: what
    is not known of that moment, a sentence.

    ``limits`` by key, ``requests`` newest last, ``alerts`` by id (live ones and the last resolved), ``local`` by model,
    ``costs`` by provider with ``""`` for all; ``machine``: the memory that local plans are made for;
    ``local_at``: when these were told; ``library``: local model files by id, None: not asked for yet.
    """

    status: Status = field(default_factory=Status)
    providers: dict[str, ProviderView] = field(default_factory=dict)
    limits: dict[str, LimitView] = field(default_factory=dict)
    requests: deque[Request] = field(default_factory=lambda: deque(maxlen=REQUESTS_KEPT))
    alerts: dict[int, AlertView] = field(default_factory=dict)
    plugins: dict[str, PluginView] = field(default_factory=dict)
    host: Host = field(default_factory=Host)
    local: dict[str, Resident] = field(default_factory=dict)
    local_at: float = 0.0
    machine: dict[str, Any] = field(default_factory=dict)
    folders: dict[str, Any] = field(default_factory=dict)
    library: dict[str, LocalFile] | None = None
    jobs: dict[str, Job] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)
    burn: dict[str, deque[tuple[float, float]]] = field(default_factory=dict)
    logs: Logbook = field(default_factory=Logbook)
    rates: Rates = field(default_factory=Rates)
    connection: Connection = field(default_factory=Connection)
    now: float = 0.0
    seen: float = 0.0
    seq: int = -1
    as_of: float | None = None
    missing: str = ""
    misread: int = 0
    request_ids: set[str] = field(default_factory=set)

    @property
    def stale(self) -> bool:
        """What is shown may no longer be so."""
        return self.connection.state not in {"live", "replay"}

    def live_alerts(self) -> list[AlertView]:
        """Not resolved; the worst first, then the newest."""
        found = [alert for alert in self.alerts.values() if alert.state != "resolved"]
        order = {"open": 0, "acknowledged": 1, "silenced": 2}
        rank = {"critical": 0, "warning": 1, "info": 2}
        return sorted(found, key=lambda one: (order.get(one.state, 3), rank.get(one.severity, 3), -one.opened_at))

    def open_alerts(self) -> int:
        return sum(alert.state == "open" for alert in self.alerts.values())
