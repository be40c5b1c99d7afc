"""Pure arithmetic of rate caps and restarts; time and randomness are passed in."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable


class RateCap:
    """At most ``per_second`` in any second that starts with a message (a plugin's logs, observations, requests).

    Chunks are not counted here: they are bounded by credit.
    """

    def __init__(self, now: Callable[[], float], per_second: int = 2000) -> None:
        self.per_second = per_second
        self._now = now
        self._since = float("-inf")
        self._count = 0

    def allow(self) -> bool:
        now = self._now()
        if now - self._since >= 1.0:
            self._since, self._count = now, 0
        self._count += 1
        return self._count <= self.per_second


class Backoff:
    """When a failed process may start again.

    Doubles from ``first`` to ``longest`` seconds with up to 50 % jitter; after ``failures`` within ``window`` seconds
    the breaker opens until the oldest of them has left the window.
    """

    def __init__(self, *, first: float, longest: float, failures: int, window: float, rng: random.Random) -> None:
        self._first = first
        self._longest = longest
        self._limit = failures
        self._window = window
        self._rng = rng
        self._times: deque[float] = deque()

    def failed(self, now: float) -> tuple[float, bool]:
        """Records a failure; returns (seconds to wait, whether the breaker is open)."""
        self._forget(now)
        self._times.append(now)
        if len(self._times) >= self._limit:
            return max(0.0, self._times[-self._limit] + self._window - now), True
        delay = self._first * 2.0 ** (len(self._times) - 1) * (1 + 0.5 * self._rng.random())
        return min(self._longest, delay), False

    def open(self, now: float) -> tuple[float, bool]:
        """A failure that trying again cannot cure: the breaker opens for a whole window."""
        self._times.clear()
        self._times.append(now)
        return self._window, True

    def reset(self) -> None:
        self._times.clear()

    def _forget(self, now: float) -> None:
        while self._times and now - self._times[0] >= self._window:
            self._times.popleft()
