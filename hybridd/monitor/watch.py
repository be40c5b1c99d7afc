"""Notices, at the admission itself, that a quota has fallen to its warning line.

The check every thirty seconds is too late for a burst that drains a quota between two of them, and the warning must
come before the first refusal. So each admission compares one integer per quota; only a crossing does more.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from hybridd.contracts.quotas import Quota
from hybridd.monitor.ports import CounterPort, ReservationPort
from hybridd.monitor.rules import warning_line

# Counters come and go with the configuration; this many are remembered at most.
_MOST = 4_096


class _Line:
    __slots__ = ("cap", "clear", "limit", "line", "look_from", "low", "observed", "quota")

    def __init__(self, quota: Quota, limit: int) -> None:
        self.quota = quota
        self.limit = limit
        # The limit in force: the provider may have reported a smaller one than the quota's own.
        self.line = warning_line(quota if limit == quota.limit else replace(quota, limit=limit))
        self.clear = self.line + max(self.line // 4, 1)
        self.low = False
        # Room falls by what is charged, by the provider's word and by a new limit only: while none of these has taken
        # it as far as the line, it need not be computed.
        self.look_from = 0
        self.observed: object = None
        self.cap = 0

    def still_clear(self, counter: CounterPort) -> bool:
        if self.line < 0:
            return True
        return counter.total < self.look_from and counter.observed is self.observed and counter.cap == self.cap

    def looked(self, counter: CounterPort, room: int) -> None:
        self.observed, self.cap = counter.observed, counter.cap
        self.look_from = 0 if self.low else counter.total + room - self.line


class QuotaWatch:
    """``crossed(key)`` is called when a quota's room first falls to its line, and again only after it had been clear of
    it (by a quarter) in between."""

    def __init__(self, crossed: Callable[[str], None]) -> None:
        self._crossed = crossed
        self._lines: dict[CounterPort, _Line] = {}

    def admitted(self, reservation: ReservationPort) -> None:
        """To be called after every admission. A microsecond, as a rule."""
        now, wall = reservation.admitted_boot_ns, reservation.admitted_wall_ns
        for counter in reservation.binding.counters:
            line = self._lines.get(counter)
            if line is not None and line.quota is counter.quota and line.still_clear(counter):
                continue
            if line is None or line.quota is not counter.quota or line.limit != counter.limit:
                line = self._learn(counter)
            room = counter.room(now, wall)
            if room <= line.line:
                if not line.low:
                    line.low = True
                    self._crossed(line.quota.key)
            elif line.low and room > line.clear:
                line.low = False
            line.looked(counter, room)

    def forget(self) -> None:
        """The quotas have changed."""
        self._lines.clear()

    def _learn(self, counter: CounterPort) -> _Line:
        if len(self._lines) >= _MOST:
            self._lines.clear()
        line = self._lines[counter] = _Line(counter.quota, counter.limit)
        return line
