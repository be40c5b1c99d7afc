"""Models that are not loaded for now: why, until when, and what ends the pause."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from hybridd.clocks import NS, Clock
from hybridd.contracts.views import PluginView
from hybridd.errors import ProviderError
from hybridd.local import residency_policy as policy
from hybridd.local.residency_models import Known, Stamp
from hybridd.local.types import Cause


class Pause(msgspec.Struct, frozen=True):
    """Why a model is not loaded for now. ``until``: loop time, infinite when only another file helps; ``failures`` in
    a row; ``since``: UTC seconds."""

    cause: Cause
    reason: str
    until: float
    failures: int
    stamp: Stamp
    alert: bool
    since: float

    def view(self, provider: str, model: str) -> PluginView:
        return PluginView(
            name=f"{provider}:{model}", state="failed", pid=None, restarts=self.failures, providers=[provider],
            since=self.since, reason=self.reason,
        )  # fmt: skip


class Pauses:
    """By model. ``on_change`` is called after every new pause."""

    def __init__(self, clock: Clock, on_change: Callable[[], None]) -> None:
        self.all: dict[str, Pause] = {}
        self._clock = clock
        self._on_change = on_change
        self._crashes: dict[str, list[float]] = {}

    def failures(self, model: str) -> int:
        """Failed loads in a row."""
        pause = self.all.get(model)
        return 0 if pause is None else pause.failures

    def add(self, known: Known, cause: Cause, reason: str, delay: float, *, alert: bool) -> None:
        """One more failed load."""
        self._set(known.id, known.stamp, cause, reason, delay, self.failures(known.id) + 1, alert=alert)

    def crashed(self, model: str, stamp: Stamp, cause: Cause, reason: str) -> None:
        """A loaded worker ended by itself: the next call loads it again at once; if this goes on, after a pause."""
        now = asyncio.get_running_loop().time()
        times = [at for at in self._crashes.get(model, ()) if now - at < policy.BREAKER_WINDOW]
        self._crashes[model] = [*times, now]
        count = len(times) + 1
        delay = 0.0 if count == 1 else min(policy.LONGEST_PAUSE, policy.FIRST_PAUSE * 2.0 ** (count - 2))
        self._set(model, stamp, cause, reason, delay, count, alert=count >= policy.BREAKER)

    def loaded(self, model: str) -> None:
        self.all.pop(model, None)

    def forget(self, known: Mapping[str, Known], *, keep: bool) -> None:
        """Drops pauses of models that are gone or another file now; with ``keep`` only those, otherwise (a reload) also
        all that trying again may end."""
        self.all = {
            model: pause
            for model, pause in self.all.items()
            if model in known and pause.stamp == known[model].stamp and (keep or pause.cause == "bad_file")
        }

    def check(self, known: Known) -> None:
        """Raises:
        ProviderError: the model has failed and is not tried again yet.
        """
        pause = self.all.get(known.id)
        if pause is not None and pause.stamp != known.stamp:
            del self.all[known.id]
        if self._lasts(known):
            raise self.refusal(known.id)

    def standing(self, known: Known) -> ProviderError | None:
        """The refusal that a call of this model would get now; None: it would be loaded, as far as is known."""
        if self._lasts(known):
            return self.refusal(known.id)
        return _refused(known.id, "bad_file", known.problem, policy.FOREVER) if known.problem else None

    def _lasts(self, known: Known) -> bool:
        pause = self.all.get(known.id)
        return pause is not None and pause.stamp == known.stamp and pause.until > asyncio.get_running_loop().time()

    def refusal(self, model: str) -> ProviderError:
        """The error for whoever asks while the pause lasts."""
        pause = self.all[model]
        return _refused(model, pause.cause, pause.reason, pause.until - asyncio.get_running_loop().time())

    def _set(
        self, model: str, stamp: Stamp, cause: Cause, reason: str, delay: float, failures: int, *, alert: bool
    ) -> None:
        self.all[model] = Pause(
            cause=cause,
            reason=reason,
            until=asyncio.get_running_loop().time() + delay,
            failures=failures,
            stamp=stamp,
            alert=alert,
            since=self._clock.wall_ns() / NS,
        )
        self._on_change()


def _refused(model: str, cause: Cause, reason: str, left: float) -> ProviderError:
    """``left``: seconds of the pause."""
    then = "tried again when its file changes" if left == policy.FOREVER else f"tried again in {left:.0f} s"
    return ProviderError(
        f"{model} is not loaded for now ({cause}): {reason.rstrip('.')}; {then}",
        code=f"load_{cause}",
        status=503,
        retry_after=None if left == policy.FOREVER else max(0.0, left),
    )
