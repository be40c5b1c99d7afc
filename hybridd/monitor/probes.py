"""Asks connected providers for unmetered facts, all at the same time, each with a short deadline.

A probe never starts a plugin, never costs the account anything, and never delays anything but itself. One that fails
is asked less and less often.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable

from msgspec import Struct

from hybridd.clocks import NS, Clock
from hybridd.contracts.views import ProviderView
from hybridd.errors import HybriddError
from hybridd.monitor.ports import HubPort, LedgerPort

CONNECTED = frozenset({"ready", "cooling"})
LONGEST_PAUSE_SECONDS = 600.0


class ProbeStatus(Struct):
    """The last probe of one provider. ``at``: UTC seconds; ``failures`` in a row."""

    ok: bool
    reason: str
    at: float
    ms: float
    failures: int = 0


class Probes:
    def __init__(self, hub: HubPort, ledger: LedgerPort, clock: Clock) -> None:
        self._hub = hub
        self._ledger = ledger
        self._clock = clock
        self._not_before: dict[str, float] = {}
        self.status: dict[str, ProbeStatus] = {}

    async def round(
        self, views: Iterable[ProviderView], *, timeout: float, interval: float, skip: Collection[str] = ()
    ) -> bool:
        """Probe every connected provider but those in ``skip``. True when figures came in."""
        now = self._clock.boot_ns() / NS
        views = list(views)
        known = {view.name for view in views}
        self.status = {name: status for name, status in self.status.items() if name in known}
        due = [
            view
            for view in views
            if view.state in CONNECTED and view.name not in skip and self._not_before.get(view.name, 0.0) <= now
        ]
        answers = await asyncio.gather(*(self._one(view, timeout, interval) for view in due))
        return any(answers)

    async def _one(self, view: ProviderView, timeout: float, interval: float) -> bool:
        sent = self._clock.boot_ns()
        observed, failure = False, ""
        try:
            # The hub has its own deadline; ours holds even when a hub does not keep its word.
            result = await asyncio.wait_for(self._hub.probe(view.name, timeout), timeout + 0.5)
        except (HybriddError, TimeoutError, OSError) as error:
            failure = str(error) or "no answer in time"
        else:
            failure = "" if result.ok else result.reason or "not ok"
            if result.observations:
                self._ledger.observe(view.name, view.account, None, result.observations, as_of=None, as_of_boot_ns=sent)
                observed = True
        ended = self._clock.boot_ns()
        before = self.status.get(view.name)
        failures = 0 if not failure else 1 + (before.failures if before is not None else 0)
        self.status[view.name] = ProbeStatus(
            ok=not failure, reason=failure, at=self._clock.wall_ns() / NS, ms=(ended - sent) / 1e6, failures=failures
        )
        pause = min(LONGEST_PAUSE_SECONDS, interval * 2 ** min(failures, 10)) if failures else 0.0
        self._not_before[view.name] = ended / NS + pause
        return observed
