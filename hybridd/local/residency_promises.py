"""Calls that were promised a worker and are about to be written to it."""

from __future__ import annotations

from collections import deque


class Promises:
    """Each lasts ``seconds``. Times are loop times."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: deque[float] = deque()

    def give(self, now: float) -> None:
        self._until.append(now + self._seconds)

    def keep(self) -> None:
        """A call has come: the oldest promise was its own."""
        if self._until:
            self._until.popleft()

    def open(self, now: float) -> bool:
        """Is one of them neither kept nor lapsed?"""
        while self._until and self._until[0] <= now:
            self._until.popleft()
        return bool(self._until)
