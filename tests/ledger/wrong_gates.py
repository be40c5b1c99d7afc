"""Admissions that look right and are not: the negative controls of the property checker."""

from __future__ import annotations

from hybridd.clocks import NS
from tests.ledger.provider import Call


class Stateless:
    """Whatever happens to a call after admission does not matter to these."""

    def first_byte(self, ticket: object, at: int) -> None:
        return

    def end(self, ticket: object, now: int, wall: int, call: Call, used: int) -> None:
        return


class TokenBucket(Stateless):
    """A burst of N, refilled at N per window: up to 2N - 1 in one window."""

    def __init__(self, limit: int, window_ns: int) -> None:
        self.limit, self.window = limit, window_ns
        self.level, self.at = float(limit), 0

    def admit(self, now: int, wall: int, tokens: int) -> object | None:
        self.level = min(self.limit, self.level + (now - self.at) * self.limit / self.window)
        self.at = now
        if self.level < 1:
            return None
        self.level -= 1
        return object()


class DebitAtAdmission(Stateless):
    """A sliding log that counts from admission: forgets that a call may arrive late."""

    def __init__(self, limit: int, window_ns: int) -> None:
        self.limit, self.window = limit, window_ns
        self.log: list[int] = []

    def admit(self, now: int, wall: int, tokens: int) -> object | None:
        self.log = [at for at in self.log if now - at <= self.window]
        if len(self.log) >= self.limit:
            return None
        self.log.append(now)
        return object()


class TwoWindows(Stateless):
    """The weighted estimate from this fixed window and the one before."""

    def __init__(self, limit: int, window_ns: int) -> None:
        self.limit, self.window = limit, window_ns
        self.counts: dict[int, int] = {}

    def admit(self, now: int, wall: int, tokens: int) -> object | None:
        index, part = divmod(now, self.window)
        estimate = self.counts.get(index, 0) + self.counts.get(index - 1, 0) * (1 - part / self.window)
        if estimate + 1 > self.limit:
            return None
        self.counts[index] = self.counts.get(index, 0) + 1
        return object()


class CalendarAtAdmission(Stateless):
    """Debits the hour of admission only, and believes that all clocks agree."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.counts: dict[int, int] = {}

    def admit(self, now: int, wall: int, tokens: int) -> object | None:
        hour = wall // (3_600 * NS)
        if self.counts.get(hour, 0) >= self.limit:
            return None
        self.counts[hour] = self.counts.get(hour, 0) + 1
        return object()


class SlotsUntilClosed:
    """``concurrent`` freed when the connection is closed, without the linger."""

    def __init__(self, limit: int) -> None:
        self.limit, self.open = limit, 0

    def admit(self, now: int, wall: int, tokens: int) -> object | None:
        if self.open >= self.limit:
            return None
        self.open += 1
        return object()

    def first_byte(self, ticket: object, at: int) -> None:
        return

    def end(self, ticket: object, now: int, wall: int, call: Call, used: int) -> None:
        self.open -= 1
