"""Who is resting, and until when. Pure state, no timers: time is asked from the clock that was passed in.

States of a target (a provider, or one model of it)::

    ready ──failure──► cooling(until) ──time──► half-open ──success──► ready
      │                     ▲                       │
      │                     └──────failure──────────┘   (backoff doubles, a later failure never shortens a deadline)
      ├──401/402/403──► parked(until) ──time or reload──► half-open
      └──gone──► retired (for ever, until the configuration changes)
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal

import msgspec

from hybridd.clocks import NS, Clock

RestState = Literal["ready", "cooling", "half_open", "parked", "retired"]

FIRST_BACKOFF_SECONDS = 2.0
# One failure alone benches nobody; a second one within this time, without a success between, does.
STRIKE_SECONDS = 60.0
# Without a hint nobody is benched for long: a recovered provider blacked out for hours is worse than one wasted probe.
LONGEST_BACKOFF_SECONDS = 300.0
PARK_SECONDS = 3600.0
LONGEST_HINT_SECONDS = 31 * 86400.0


class Rest(msgspec.Struct):
    """Why and until when (UTC nanoseconds; None: for ever) a target rests. ``trial_open``: a half-open probe is out.
    ``limited``: the provider itself asked for the rest (429)."""

    state: RestState
    reason: str
    until_wall_ns: int | None
    since_wall_ns: int
    failures: int = 0
    trial_open: bool = False
    changed_wall_ns: int = 0
    limited: bool = False


Target = tuple[str, str | None]


class Cooldowns:
    """All resting targets. ``(provider, None)`` is the whole provider, ``(provider, model)`` one model of it.

    ``on_change(target, rest | None)`` is called when a target starts or stops resting, for persistence and events.
    """

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        on_change: Callable[[Target, Rest | None], None] | None = None,
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._resting: dict[Target, Rest] = {}
        self._strikes: dict[Target, int] = {}
        self._on_change = on_change

    def load(self, target: Target, rest: Rest) -> None:
        """Puts back what was remembered from an earlier run."""
        self._resting[target] = rest

    def all(self) -> dict[Target, Rest]:
        return dict(self._resting)

    def blocking(self, provider: str, model: str | None) -> Rest | None:
        """The rest that forbids a call now, or None. A half-open target lets exactly one trial through."""
        if not self._resting:
            return None
        for target in ((provider, None), (provider, model)):
            rest = self._resting.get(target)
            if rest is None:
                continue
            if rest.until_wall_ns is None or self._clock.wall_ns() < rest.until_wall_ns or rest.trial_open:
                return rest
        return None

    def retry_after(self, rest: Rest) -> float | None:
        """Seconds until a trial is allowed; None when never."""
        if rest.until_wall_ns is None:
            return None
        return max(0.0, (rest.until_wall_ns - self._clock.wall_ns()) / NS)

    def begin(self, provider: str, model: str | None) -> None:
        """A call goes out: on a half-open target it is the one trial."""
        if not self._resting:
            return
        for target in ((provider, None), (provider, model)):
            rest = self._resting.get(target)
            if rest is not None:
                rest.trial_open = True
                rest.state = "half_open"

    def abandon(self, provider: str, model: str | None) -> None:
        """The trial ended without a verdict (client gone, refused by us): the next call may try."""
        for target in ((provider, None), (provider, model)):
            rest = self._resting.get(target)
            if rest is not None:
                rest.trial_open = False

    def succeeded(self, provider: str, model: str | None) -> None:
        if self._strikes:
            self._strikes.pop((provider, None), None)
            self._strikes.pop((provider, model), None)
        if not self._resting:
            return
        for target in ((provider, None), (provider, model)):
            rest = self._resting.get(target)
            if rest is not None and rest.state != "retired":
                del self._resting[target]
                self._changed(target, None)

    def cool(
        self,
        target: Target,
        reason: str,
        *,
        hint_seconds: float | None,
        began_wall_ns: int,
        limited: bool = False,
    ) -> None:
        """A failure that may pass. A hint parks until then; without one repeated failures double the backoff, with
        ±25 % jitter. ``limited``: the provider asked for it, so the first time is enough.

        Calls that began before the target was last benched belong to the same episode: a burst of 32 failing calls is
        one failure, not 32 doublings.
        """
        previous = self._resting.get(target)
        if previous is None and hint_seconds is None and not limited and self._first_strike(target, began_wall_ns):
            return
        failures = previous.failures if previous else 0
        if previous is None or began_wall_ns > previous.changed_wall_ns:
            failures += 1
        if hint_seconds is None:
            base = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 16))
            seconds = base * self._rng.uniform(0.75, 1.25)
        else:
            seconds = min(max(hint_seconds, 0.0), LONGEST_HINT_SECONDS)
        self._rest(target, "cooling", reason, seconds, failures, limited=limited)

    def park(self, target: Target, reason: str) -> None:
        """401, 402, 403: someone must act; one trial an hour, or at once after a reload."""
        previous = self._resting.get(target)
        self._rest(target, "parked", reason, PARK_SECONDS, (previous.failures if previous else 0) + 1)

    def retire(self, provider: str, reason: str) -> None:
        """A tombstone."""
        self._rest((provider, None), "retired", reason, None, 1)

    def unpark(self, provider: str | None = None) -> None:
        """After a reload: parked targets may be tried again at once. Tombstones and hints stay."""
        for target, rest in list(self._resting.items()):
            if rest.state == "parked" and provider in (None, target[0]):
                del self._resting[target]
                self._changed(target, None)

    def forget(self, provider: str) -> None:
        """The provider's configuration changed: what was learned about the old one does not hold."""
        for target in [target for target in self._resting if target[0] == provider]:
            del self._resting[target]
            self._changed(target, None)

    def _first_strike(self, target: Target, began_wall_ns: int) -> bool:
        now = self._clock.wall_ns()
        before = self._strikes.get(target)
        if before is not None and before <= began_wall_ns and now - before <= STRIKE_SECONDS * NS:
            del self._strikes[target]
            return False
        if before is None or began_wall_ns >= before:
            self._strikes[target] = now
        return True

    def _rest(
        self,
        target: Target,
        state: RestState,
        reason: str,
        seconds: float | None,
        failures: int,
        *,
        limited: bool = False,
    ) -> None:
        now = self._clock.wall_ns()
        until = None if seconds is None else now + round(seconds * NS)
        previous = self._resting.get(target)
        if previous is not None:
            if previous.state == "retired":
                return
            if until is not None and previous.until_wall_ns is not None and previous.until_wall_ns > until:
                until, state, reason = previous.until_wall_ns, previous.state, previous.reason
                state = "cooling" if state == "half_open" else state
        since = previous.since_wall_ns if previous is not None else now
        rest = Rest(
            state=state,
            reason=reason,
            until_wall_ns=until,
            since_wall_ns=since,
            failures=failures,
            changed_wall_ns=now,
            limited=limited,
        )
        self._resting[target] = rest
        self._changed(target, rest)

    def _changed(self, target: Target, rest: Rest | None) -> None:
        if self._on_change is not None:
            self._on_change(target, rest)
