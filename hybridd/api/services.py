"""What the routes need, handed to them by the composition root."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from hybridd.bus import EventBus
from hybridd.clocks import Clock
from hybridd.ledger import Ledger
from hybridd.local.jobs import Jobs
from hybridd.local.pulls import Pulls
from hybridd.local.residency import Residency
from hybridd.monitor import Monitor
from hybridd.providers import Hub
from hybridd.routing.router import Router
from hybridd.store.database import Database


@dataclass(slots=True)
class Services:
    """One daemon's parts. ``ready`` answers ``/ready``; ``reload`` re-reads the configuration."""

    router: Router
    hub: Hub
    ledger: Ledger
    database: Database
    monitor: Monitor
    residency: Residency
    jobs: Jobs
    pulls: Pulls
    bus: EventBus
    clock: Clock
    socket: Path
    started_boot_ns: int
    ready: Callable[[], tuple[bool, str]]
    reload: Callable[[], Awaitable[dict[str, object]]]

    @property
    def max_body_bytes(self) -> int:
        return round(self.router.resolved.settings.server.max_body_mb * 1_048_576)
