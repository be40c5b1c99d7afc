"""Counters as the API shows them: units of the outside world (dollars, UTC seconds), and the forecast."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from hybridd.clocks import NS
from hybridd.contracts.views import Forecast, LimitView
from hybridd.ledger.counters import Counter
from hybridd.ledger.forecast import forecast
from hybridd.ledger.prices import MILLION

SAMPLES = 120
RETURN_STEPS = 20


class Track:
    """The recent past of one counter: what was charged in all, sampled at most 120 times in a window."""

    __slots__ = ("samples", "stamp")

    def __init__(self) -> None:
        self.samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES)
        self.stamp: tuple[object, ...] = ()

    def sample(self, counter: Counter, now: int) -> None:
        """Keeps the newest figure; a new point only when the last one is old enough."""
        seconds = counter.quota.window.seconds or 3_600
        at = now / NS
        if len(self.samples) >= 2 and at - self.samples[-2][0] < max(1.0, seconds / SAMPLES):
            self.samples.pop()
        if not self.samples or at > self.samples[-1][0]:
            self.samples.append((at, float(counter.total)))


def stamp(counter: Counter, now: int, wall: int) -> tuple[object, ...]:
    """Changes whenever the view does."""
    room = counter.room(now, wall)  # may be what ends the provider's figure
    return (
        counter.total, counter.held(now, wall), counter.mark(now), counter.cap, room, counter.reported_as_of,
        counter.observed,
    )  # fmt: skip


def limit_view(counter: Counter, track: Track | None, now: int, wall: int) -> LimitView:
    quota = counter.quota
    scale = MILLION if quota.unit == "usd" else 1
    held = counter.held(now, wall)
    reserved = min(held, counter.open_amount(now))
    remaining = counter.room(now, wall)
    reset = counter.reset_wait(now, wall)
    observed = counter.observed
    reported = observed is not None and not observed.assumed
    return LimitView(
        key=quota.key,
        provider=quota.provider or quota.account,
        account=quota.account,
        unit=quota.unit,
        window=str(quota.window),
        limit=counter.limit / scale,
        used=(held - reserved) / scale,
        reserved=reserved / scale,
        remaining=remaining / scale,
        buffer=quota.buffer / scale,
        reset=None if reset is None else (wall + reset) / NS,
        source=quota.source,
        models=None if quota.models is None else sorted(quota.models),
        drift=None if counter.drift is None else counter.drift / scale,
        observed_remaining=observed.remaining / scale if observed is not None and reported else None,
        observed_at=observed.at_wall / NS if observed is not None and observed.at_wall is not None else None,
        debt=max(0, held - counter.cap) / scale,
        forecast=_forecast(counter, track, remaining, scale, now, wall),
        zone=quota.window.zone,
    )


def _forecast(
    counter: Counter, track: Track | None, remaining: int, scale: int, now: int, wall: int
) -> Forecast | None:
    if track is None or counter.quota.unit == "concurrent" or len(track.samples) < 2:
        return None
    seconds = counter.quota.window.seconds
    if seconds is not None:
        reset_in = float(seconds)
    else:
        wait = counter.reset_wait(now, wall)
        reset_in = float("inf") if wait is None else wait / NS
    samples = [(at, used / scale) for at, used in track.samples]
    returns = _coarse(counter.returns(now, wall), scale)
    return forecast(wall / NS, remaining / scale, samples, reset_in=reset_in, returns=returns)


def _coarse(returns: Iterable[tuple[int, int]], scale: int) -> list[tuple[float, float]]:
    """At most RETURN_STEPS steps, each at its latest instant."""
    steps = list(returns)
    size = -(-len(steps) // RETURN_STEPS) or 1
    chunks = [steps[at : at + size] for at in range(0, len(steps), size)]
    return [(chunk[-1][0] / NS, sum(amount for _, amount in chunk) / scale) for chunk in chunks]
