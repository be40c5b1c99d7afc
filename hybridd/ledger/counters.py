"""Counters: one quota's view of the calls, in memory. Each answers "is there room?" in O(1).

::

    Counter                 what the provider reported, and the sums every kind needs (here)
    ├── RollingCounter      sliding log: an amount counts until e + window + slack (rolling.py)
    │   ├── ArrivalCounter  ... until first byte + window + slack
    │   └── OpenCounter     ``concurrent``: until e
    ├── CalendarCounter     every period touched by [admission - skew, e + skew] (periodic.py)
    └── ReportCounter       no window known: only the provider's reports drive it (kinds.py)

The hot path (:mod:`hybridd.ledger.admission`) calls ``fits`` and adds to ``hold`` and ``total`` itself; ``end`` is
called when the call has ended. Instants are nanoseconds: boot time, except where a name says ``wall``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush

from hybridd.clocks import NS
from hybridd.contracts.quotas import UNITS, Quota
from hybridd.ledger.history import History
from hybridd.ledger.observed import Observed
from hybridd.ledger.reservation import Reservation
from hybridd.ledger.windows import NEVER

UNKNOWN_WINDOW_NS = 60 * NS
"""For how long a figure without window and reset is believed, and how often such a quota starts afresh."""


class Counter:
    """What every kind shares.

    ``hold``: what counts against the limit now (for calendars: of open calls only). ``total`` sums what every call was
    and is charged since the start, ``ended`` the part of calls whose *e* is past; so ``total - ended`` is open, and
    ``total - (ended at some instant)`` is what was open then or admitted later: the amount that a provider's figure
    of that instant cannot include for sure.
    """

    __slots__ = ("cap", "drift", "ended", "hold", "lingering", "observed", "quota", "reported_as_of", "reported_limit",
                 "total", "unit")  # fmt: skip

    def __init__(self, quota: Quota) -> None:
        self.unit = UNITS.index(quota.unit)
        self.hold = 0
        self.total = 0
        self.ended = 0
        self.lingering: list[tuple[int, int]] = []
        self.observed: Observed | None = None
        self.reported_as_of = -NEVER
        self.reported_limit: int | None = None
        self.drift: int | None = None
        self.quota = quota
        self.cap = 0
        self.set_quota(quota)

    # -- the limit ---------------------------------------------------------------------------------------------

    @property
    def limit(self) -> int:
        """The configured limit, or the provider's own figure where that is smaller."""
        reported = self.reported_limit
        return self.quota.limit if reported is None else min(self.quota.limit, reported)

    def set_quota(self, quota: Quota) -> None:
        """A changed limit or buffer; what is counted stays."""
        self.quota = quota
        self.cap = self.limit - quota.buffer

    def set_reported_limit(self, limit: int) -> None:
        self.reported_limit = limit
        self.cap = self.limit - self.quota.buffer

    # -- the hot path ------------------------------------------------------------------------------------------

    def fits(self, need: int, now: int, wall: int) -> bool:
        raise NotImplementedError

    def end(self, need: int, charged: int, end: int, now: int, call: Reservation, end_wall: int) -> None:
        """A call that held ``need`` ended at ``end`` (later than ``now`` when it lingers) and counts ``charged``."""
        raise NotImplementedError

    def first_byte(self, need: int, at: int) -> None:
        """The answer's first byte came; only arrival-counted quotas care."""

    def book(self, need: int, charged: int, end: int, now: int, call_id: int) -> None:
        """Keeps ``total``, ``ended`` and the observation right when a call ends."""
        change = charged - need
        self.total += change
        if end > now:
            heappush(self.lingering, (end, charged))
        else:
            self.ended += charged
        observed = self.observed
        if observed is not None and observed.carrier == call_id:
            observed.base += change

    def mark(self, now: int) -> int:
        """``ended`` as of ``now``."""
        lingering = self.lingering
        while lingering and lingering[0][0] <= now:
            self.ended += heappop(lingering)[1]
        return self.ended

    # -- what the provider said --------------------------------------------------------------------------------

    def theirs(self, now: int) -> int:
        """Room by the provider's figure: its remaining, less what it cannot have counted yet, less the buffer."""
        observed = self.observed
        if observed is not None and now >= observed.until:
            self.observation_over(now)
            observed = self.observed
        if observed is None:
            return NEVER
        return observed.remaining - (self.total - observed.base) - self.quota.buffer

    def observation_over(self, now: int) -> None:
        """Its reset has come: our own count rules alone, and what it differed by then says nothing any more."""
        self.observed = None
        self.drift = None

    # -- for people --------------------------------------------------------------------------------------------

    def open_amount(self, now: int) -> int:
        """Reserved by calls that have not ended."""
        self.mark(now)
        return self.total - self.ended - sum(amount for _, amount in self.lingering)

    def held(self, now: int, wall: int) -> int:
        """What counts now, open calls included."""
        raise NotImplementedError

    def room(self, now: int, wall: int) -> int:
        """What may still be admitted."""
        return max(0, min(self.cap - self.held(now, wall), self.theirs(now)))

    def wait(self, need: int, now: int, wall: int) -> int | None:
        """Nanoseconds until ``need`` may fit if nothing else is admitted: exact, unless only the end of open calls
        can make room (then the earliest instant possible). None: never, ``need`` is more than the whole limit."""
        if need > self.cap:
            return None
        own = self.own_wait(need, now, wall)
        if self.observed is not None and need > self.theirs(now) and self.observed is not None:
            own = max(own, self.observed.until - now)
        return own

    def own_wait(self, need: int, now: int, wall: int) -> int:
        raise NotImplementedError

    def reset_wait(self, now: int, wall: int) -> int | None:
        """Nanoseconds until capacity next returns; None when nothing is held."""
        raise NotImplementedError

    def returns(self, now: int, wall: int) -> Iterable[tuple[int, int]]:
        """(nanoseconds from now, amount): what becomes free by itself."""
        return ()

    # -- history -----------------------------------------------------------------------------------------------

    def rebuild(self, histories: Sequence[History], now: int, wall: int) -> None:
        """Counts what ended before this counter existed. Open calls follow through ``adopt``."""
        unit = self.unit
        for history in histories:
            for end, amounts in history.rolling(now):
                if end > now and amounts[unit]:  # a lingering call: ended for us, maybe not yet for the provider
                    self.total += amounts[unit]
                    heappush(self.lingering, (end, amounts[unit]))

    def adopt(self, need: int, call: Reservation, now: int) -> None:
        """Counts a call that was already open when this counter was made."""
        self.hold += need
        self.total += need

    def ended_since(self, histories: Iterable[History], since: int, now: int) -> int:
        """The amount of calls that ended in [since, now], by the history: never less than the true one."""
        unit = self.unit
        return sum(v[unit] for history in histories for end, v in history.rolling(now) if since <= end <= now)
