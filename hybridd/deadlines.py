"""Many deadlines, one timer.

A timer of the event loop's own for each call costs 3 µs on both sides of the plugin link, and nearly every one is
cancelled unused. Here setting and cancelling are dictionary operations; the one timer fires when the earliest deadline
that was ever set is due, looks at what is left, and is set again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Any


class Deadlines:
    """At most one deadline for each key; all on the event loop's clock (``loop.time()``, seconds)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: dict[Hashable, tuple[float, Callable[..., object], tuple[Any, ...]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0

    def set(self, key: Hashable, at: float, callback: Callable[..., object], *arguments: Any) -> None:
        """Calls ``callback(*arguments)`` at ``at``, unless it is cancelled or set again before."""
        self._due[key] = (at, callback, arguments)
        self._arm(at)

    def cancel(self, key: Hashable) -> None:
        """Harmless when there is none."""
        self._due.pop(key, None)

    def close(self) -> None:
        """Forgets every deadline."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            if at >= self._at:
                return  # it looks before then anyway
            self._timer.cancel()
        self._at = at
        self._timer = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        for key, entry in list(self._due.items()):
            # An earlier callback may have cancelled or moved this one.
            if entry[0] <= now and self._due.get(key) is entry:
                del self._due[key]
                entry[1](*entry[2])
        if self._due:
            self._arm(min(entry[0] for entry in self._due.values()))
