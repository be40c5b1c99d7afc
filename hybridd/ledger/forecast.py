"""When a quota runs out at the recent pace: a point and an 80 % interval. Pure arithmetic of plain values.

The amounts used in the sampled intervals are taken as a quasi-Poisson process: rate r, variance phi x r x t over a
time t (phi: variance of the increments over their mean; the size of a call in a unit, and burstiness, are both in it).
The rate itself is known from T seconds, so what will be used in the next t seconds is about
Normal(r t, phi r t (1 + t/T)). A level is crossed where that line, or its 10 % and 90 % quantiles, reach it: the roots
of (level - r t)^2 = z^2 phi r t (1 + t/T), a quadratic in t.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import sqrt

from hybridd.contracts.views import Forecast

Z80 = 1.2815515655446004
"""The 90 % quantile of the normal distribution: 80 % lie between its negative and it."""
FEWEST_USES = 3
"""Below that many intervals with any use there is no pace to speak of."""

Crossing = tuple[float | None, float | None, float | None]


class Pace:
    """Rate (units per second), dispersion and the time it was learned from."""

    __slots__ = ("dispersion", "rate", "seconds")

    def __init__(self, rate: float, dispersion: float, seconds: float) -> None:
        self.rate = rate
        self.dispersion = dispersion
        self.seconds = seconds

    def crossing(self, level: float) -> Crossing:
        """(point, earliest, latest) seconds until ``level`` more units are used; latest may be None (perhaps never)."""
        if level <= 0:
            return 0.0, 0.0, 0.0
        spread = Z80 * Z80 * self.dispersion * self.rate
        a = self.rate * self.rate - spread / self.seconds
        b = 2 * level * self.rate + spread
        root = sqrt(max(0.0, b * b - 4 * a * level * level))
        early = 2 * level * level / (b + root)
        late = (b + root) / (2 * a) if a > 0 else None
        return level / self.rate, early, late


def pace(samples: Sequence[tuple[float, float]]) -> Pace | None:
    """From (seconds, amount used so far), in order of time; None when too little was used to tell."""
    if len(samples) < 2:
        return None
    seconds = samples[-1][0] - samples[0][0]
    used = samples[-1][1] - samples[0][1]
    if seconds <= 0 or used <= 0:
        return None
    rate = used / seconds
    squares = 0.0
    uses = 0
    for (t0, n0), (t1, n1) in pairwise(samples):
        if t1 > t0:
            squares += (n1 - n0 - rate * (t1 - t0)) ** 2 / (rate * (t1 - t0))
            uses += n1 > n0
    if uses < FEWEST_USES:
        return None
    return Pace(rate, max(squares / (len(samples) - 1), 1e-9), seconds)


def forecast(
    now: float,
    remaining: float,
    samples: Sequence[tuple[float, float]],
    *,
    reset_in: float | None = None,
    returns: Iterable[tuple[float, float]] = (),
) -> Forecast | None:
    """When ``remaining`` will be used up, in UTC seconds; each figure is None when not before the reset.

    ``returns``: (seconds from now, amount) that become free by themselves, in order (a rolling window's log). What is
    used from now on returns only after ``reset_in`` (the window's length, or the end of the calendar period), so
    nothing is foretold beyond it. None when there is no pace to speak of.
    """
    speed = pace(samples)
    if speed is None:
        return None
    steps = sorted(returns)
    times: list[float | None] = []
    for which in range(3):
        at = _first_crossing(speed, which, remaining, steps)
        times.append(None if at is None or (reset_in is not None and at > reset_in) else now + at)
    return Forecast(exhausted_at=times[0], earliest=times[1], latest=times[2], per_second=speed.rate)


def _first_crossing(speed: Pace, which: int, remaining: float, steps: Sequence[tuple[float, float]]) -> float | None:
    """The level rises at each step; the crossing counts if it comes before the next one."""
    level = remaining
    begin = 0.0
    for at, amount in steps:
        crossing = speed.crossing(level)[which]
        if crossing is not None and crossing < at:
            return max(begin, crossing)
        level += amount
        begin = at
    crossing = speed.crossing(level)[which]
    return None if crossing is None else max(begin, crossing)
