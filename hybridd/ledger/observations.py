"""What providers report about their limits: which quota a figure belongs to, and what it means there.

A figure is as of the dispatch of the call that carried it. Calls open at that instant or admitted later may not be in
it, so their amounts are subtracted; the carrying call itself is in it. A figure older than the one already known is
ignored, and at its reset it is forgotten. It can only take room away: our own count goes on beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import floor, isfinite

import msgspec

from hybridd.clocks import NS
from hybridd.contracts.protocol import Observation
from hybridd.contracts.quotas import Quota, Window
from hybridd.ledger.admission import Admission
from hybridd.ledger.counters import UNKNOWN_WINDOW_NS, Counter
from hybridd.ledger.kinds import ReportCounter
from hybridd.ledger.observed import Observed
from hybridd.ledger.periodic import CalendarCounter
from hybridd.ledger.prices import MILLION
from hybridd.ledger.reservation import Reservation
from hybridd.ledger.rolling import OpenCounter
from hybridd.ledger.windows import hold_ns

LONGEST_RESET_NS = 35 * 86_400 * NS
"""A reset further away than any month is a provider's mistake."""
_NOMINAL = {"hour": 3_600, "day": 86_400, "month": 2_629_746}
_LARGEST = float(1 << 60)


class Figure(msgspec.Struct, frozen=True):
    """One observation in a quota's own terms, and when it was true. Boot and wall instants are ns."""

    remaining: int | None
    limit: int | None
    until: int | None
    as_of: int
    as_of_wall: int
    at_wall: int
    carrier: int = 0


def nominal_seconds(window: Window) -> int | None:
    """Length of a window for comparison: a calendar day is 86,400 s, a month the mean one."""
    return window.seconds if window.calendar is None else _NOMINAL[window.calendar]


def in_unit(unit: str, figure: float | None) -> int | None:
    """A reported figure in the quota's unit, rounded down; None for what is no number."""
    if figure is None or not isfinite(figure):
        return None
    return floor(min(max(figure, -_LARGEST), _LARGEST) * (MILLION if unit == "usd" else 1))


def match(counters: Iterable[Counter], observation: Observation) -> Counter | None:
    """The quota that an observation speaks of, among those that bind the call; None: one we do not know.

    A named set of models must be the quota's own. A named window must be as long (a tenth is allowed for months).
    Without a window: the quota with the very limit reported, else the shortest window that can hold the reset told.
    """
    unit = observation.unit
    fitting = [counter for counter in counters if counter.quota.unit == unit]
    if observation.models is not None:
        named = frozenset(observation.models)
        fitting = [counter for counter in fitting if counter.quota.models == named]
    if not fitting:
        return None
    if unit == "concurrent":
        return min(fitting, key=_breadth)
    if observation.window:
        length = _seconds_of(observation.window)
        fitting = [counter for counter in fitting if _alike(nominal_seconds(counter.quota.window), length)]
        return min(fitting, key=_breadth, default=None)
    limit = in_unit(unit, observation.limit)
    if limit is not None:
        same = [counter for counter in fitting if limit in (counter.quota.limit, counter.reported_limit)]
        if same:
            return min(same, key=lambda counter: (not _can_reset(counter, observation), _length(counter)))
    able = [counter for counter in fitting if _can_reset(counter, observation)]
    return min(able, key=_length, default=None)


def learned_quota(provider: str, account: str, observation: Observation) -> Quota | None:
    """The quota that an observation of an unknown limit makes known; None when it tells no usable limit.

    Without a window the provider's own reports drive it. Without models it binds the whole account: wrong only on the
    safe side.
    """
    limit = in_unit(observation.unit, observation.limit)
    if limit is None or limit < 0:
        return None
    window = Window()
    if observation.window and observation.unit != "concurrent":
        try:
            window = Window.parse(observation.window)
        except ValueError:
            window = Window()
    models = None if observation.models is None else frozenset(observation.models)
    return Quota(
        account=account, unit=observation.unit, limit=limit, window=window, models=models,
        source=observation.source, provider=provider,
    )  # fmt: skip


def apply(
    admission: Admission, counter: Counter, figure: Figure, call: Reservation | None, now: int, wall: int
) -> bool:
    """Takes a figure in; False when it is older than what is known."""
    if figure.as_of < counter.reported_as_of:
        return False
    counter.reported_as_of = figure.as_of
    if figure.limit is not None and figure.limit >= 0:
        counter.set_reported_limit(figure.limit)
    if figure.remaining is None or isinstance(counter, OpenCounter):
        return True
    base = _included(admission, counter, figure, call, now)
    if not isinstance(counter, ReportCounter):
        known = counter.limit if figure.limit is None else figure.limit
        counter.drift = (known - figure.remaining) - (counter.held(now, wall) - (counter.total - base))
    counter.observed = Observed(
        figure.remaining, base=base, until=_believed_until(counter, figure, now, wall), as_of=figure.as_of,
        carrier=figure.carrier, at_wall=figure.at_wall,
    )  # fmt: skip
    return True


def _included(admission: Admission, counter: Counter, figure: Figure, call: Reservation | None, now: int) -> int:
    """What the figure includes of the counter's ``total``."""
    own = 0
    if call is not None and call.binding.binds(counter):
        own = (call.vector if call.charged is None else call.charged)[counter.unit]
        if call.marks is not None:
            counters, ended = call.marks
            if counter in counters:
                return ended[counters.index(counter)] + own
    if figure.carrier == 0 and figure.as_of >= now:
        return counter.mark(now)
    # The counter is younger than the call, or the figure was read from disk: the history knows, a little coarser.
    return counter.mark(now) - counter.ended_since(admission.histories_of(counter.quota), figure.as_of, now) + own


def _believed_until(counter: Counter, figure: Figure, now: int, wall: int) -> int:
    """The reset told, but no longer than the window can remember; without a reset, as long as that."""
    seconds = counter.quota.window.seconds
    if isinstance(counter, CalendarCounter):
        longest = now + counter.periods.at(wall)[1] - wall + counter.skew
    elif seconds is not None:
        longest = now + hold_ns(seconds)
    elif figure.until is None:
        longest = now + UNKNOWN_WINDOW_NS
    else:
        longest = now + LONGEST_RESET_NS
    return longest if figure.until is None else min(longest, figure.until)


def _seconds_of(window: str) -> int | None:
    try:
        return nominal_seconds(Window.parse(window))
    except ValueError:
        return None


def _alike(ours: int | None, theirs: int | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return abs(ours - theirs) * 10 <= max(ours, theirs)


def _can_reset(counter: Counter, observation: Observation) -> bool:
    """Whether the reset told lies within the quota's window (a tenth over is rounding)."""
    seconds = nominal_seconds(counter.quota.window)
    return seconds is None or observation.reset_ms is None or observation.reset_ms <= seconds * 1_100


def _length(counter: Counter) -> tuple[int, int]:
    seconds = nominal_seconds(counter.quota.window)
    return (1 << 62 if seconds is None else seconds), _breadth(counter)


def _breadth(counter: Counter) -> int:
    """The narrower quota first: a model's own, then pools, then the account's."""
    models = counter.quota.models
    return 1 << 62 if models is None else len(models)
