"""Money spent within the last hour, from sums per calendar hour. Pure.

The store keeps exact sums per hour of the clock. The last sixty minutes are this hour's sum plus what the hour before
took after the same minute: its final sum less what it showed at that minute, as seen at the time, or in proportion
where nobody looked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

HOUR = 3600


class HourlySpend:
    """Feed it the sums at every look; it answers for the sixty minutes before."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int, float]] = deque()

    def update(self, now: float, sums: Mapping[int, float]) -> float:
        """``sums``: hour (since the epoch) → dollars. Returns dollars spent in (now − 1 h, now]."""
        hour = int(now // HOUR)
        current, before = sums.get(hour, 0.0), sums.get(hour - 1, 0.0)
        while self._looks and self._looks[-1][0] >= now:
            self._looks.pop()  # the clock was set back: what was seen "later" means nothing
        self._looks.append((now, hour, current))
        edge = now - HOUR
        while len(self._looks) > 1 and self._looks[1][0] <= edge:
            self._looks.popleft()
        return current + max(0.0, before - self._by(edge, hour - 1, before))

    def _by(self, edge: float, hour: int, total: float) -> float:
        """How much of the hour's total had been spent by ``edge``, a moment within it."""
        at, seen_hour, seen = self._looks[0]
        if at <= edge and seen_hour == hour:
            at_low, low = at, min(seen, total)
        else:
            at_low, low = float(hour * HOUR), 0.0
        # The first look after the edge bounds it from above; without one, the hour's end does.
        at_high, high = float((hour + 1) * HOUR), total
        for at, seen_hour, seen in self._looks:
            if at > edge:
                if seen_hour == hour:
                    at_high, high = at, min(seen, total)
                break
        if at_high <= at_low:
            return low
        return low + (high - low) * (edge - at_low) / (at_high - at_low)
