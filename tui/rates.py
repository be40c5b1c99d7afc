"""Calls per second, latency, cache share and local tokens of the last minutes, in one small ring of seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

SECONDS = 300
KEPT = 32
"""Latencies kept of one second. Beyond that each new one takes the place of an older one: at such rates the median of a
window is made of hundreds anyway."""
LEAST_SECONDS = 0.001


def tokens_per_second(
    tokens: int | None, latency_ms: float, first_ms: float | None, overhead_ms: float | None = None
) -> float | None:
    """How fast an answer was written. Streamed (``first_ms``): from its first token on, which is there by then. Else
    over the whole call without ``overhead_ms``, in which a model may have been loaded.

    None where that tells nothing: a single token, or all of them at once.
    """
    if tokens is None or tokens < 2:
        return None
    counted, before = (tokens, overhead_ms or 0.0) if first_ms is None else (tokens - 1, first_ms)
    seconds = (latency_ms - before) / 1000
    return counted / seconds if seconds >= LEAST_SECONDS else None


@dataclass(slots=True)
class _Second:
    at: int = -1
    calls: int = 0
    hits: int = 0
    tokens: float = 0.0
    latencies: list[float] = field(default_factory=list)


class Rates:
    """``now`` and ``at`` are UTC seconds. A call counts in the second it is reported in; the tokens of a local answer
    in the seconds it was written in."""

    def __init__(self) -> None:
        self._ring = [_Second() for _ in range(SECONDS)]
        self.total = 0
        """Calls ever added, also those too old for the ring."""

    def add(
        self, at: float, latency_ms: float, *, hit: bool = False, local_tokens: int = 0, silent_ms: float = 0.0
    ) -> None:
        """``silent_ms``: of the latency, what was over before the answer began to be written."""
        self.total += 1
        if local_tokens:
            self._write(at, max(0.0, latency_ms - silent_ms) / 1000, local_tokens)
        slot = self._slot(int(at))
        if slot is None:
            return
        if len(slot.latencies) < KEPT:
            slot.latencies.append(latency_ms)
        else:
            slot.latencies[slot.calls % KEPT] = latency_ms
        slot.calls += 1
        slot.hits += hit

    def _slot(self, second: int) -> _Second | None:
        """None: older than what the ring holds in its place."""
        slot = self._ring[second % SECONDS]
        if slot.at > second:
            return None
        if slot.at != second:
            slot.at, slot.calls, slot.hits, slot.tokens = second, 0, 0, 0.0
            slot.latencies.clear()
        return slot

    def _write(self, end: float, seconds: float, tokens: int) -> None:
        """Spreads the tokens over the seconds until ``end``, by how much of each was part of them."""
        seconds = max(LEAST_SECONDS, min(seconds, SECONDS - 1.0))
        begin = end - seconds
        for second in range(int(begin), int(end) + 1):
            part = (min(end, second + 1.0) - max(begin, float(second))) / seconds
            slot = self._slot(second) if part > 0 else None
            if slot is not None:
                slot.tokens += tokens * part

    def _window(self, first: int, last: int) -> list[_Second]:
        slots = (self._ring[second % SECONDS] for second in range(max(first, last - SECONDS + 1), last + 1))
        return [slot for slot in slots if first <= slot.at <= last]

    def _cells(self, now: float, cells: int, seconds: int) -> list[list[_Second]]:
        # The second that is running is not whole yet: it would always look like a fall.
        end = int(now) - 1
        edges = range(end - cells * seconds + 1, end + 1, seconds)
        return [self._window(edge, edge + seconds - 1) for edge in edges]

    def calls(self, now: float, cells: int, seconds: int = 5) -> list[float]:
        """Calls per second in each of the last ``cells`` intervals, oldest first."""
        return [sum(slot.calls for slot in window) / seconds for window in self._cells(now, cells, seconds)]

    def latencies(self, now: float, cells: int, seconds: int = 5) -> list[float | None]:
        """The median latency (ms) in each of the last intervals, None where nothing was called."""
        return [_median(window) for window in self._cells(now, cells, seconds)]

    def per_second(self, now: float, seconds: int = 10) -> float:
        return self.calls(now, 1, seconds)[0]

    def latency(self, now: float, seconds: int = 60) -> float | None:
        """The median latency (ms) of the last minute."""
        return _median(self._window(int(now) - seconds + 1, int(now)))

    def cache_share(self, now: float) -> float | None:
        """Hits by calls in the whole ring; None without calls."""
        window = self._window(int(now) - SECONDS + 1, int(now))
        calls = sum(slot.calls for slot in window)
        return sum(slot.hits for slot in window) / calls if calls else None

    def local_tokens(self, now: float, seconds: int = 10) -> float:
        """Tokens per second that local models answered with."""
        return sum(slot.tokens for window in self._cells(now, 1, seconds) for slot in window) / seconds

    def local_speeds(self, now: float, cells: int, seconds: int = 5) -> list[float]:
        """Tokens per second of local models in each of the last ``cells`` intervals, oldest first."""
        return [sum(slot.tokens for slot in window) / seconds for window in self._cells(now, cells, seconds)]

    def empty(self, now: float) -> bool:
        """Nothing left to show: the figures will not change by time alone."""
        return not self._window(int(now) - SECONDS + 1, int(now))


def _median(window: list[_Second]) -> float | None:
    found = [latency for slot in window for latency in slot.latencies]
    return median(found) if found else None
