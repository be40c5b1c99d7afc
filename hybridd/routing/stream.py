"""A stream on its way through: events between the hub's callback and the connection that writes them out."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from msgspec import Raw

from hybridd.routing.outcome import Outcome


class Sink(Protocol):
    """Where a stream goes. ``events`` returns once the bytes are handed to a writable connection."""

    async def events(self, outcome: Outcome, events: list[Raw]) -> int: ...


class Pump:
    """Events between the hub's callback and the loop that writes them out. No copy, one wake-up for each batch."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._events: list[Raw] = []
        self._waiter: asyncio.Future[None] | None = None

    def put(self, events: list[Raw]) -> None:
        self._events.extend(events)
        self.wake()

    def wake(self, _: Any = None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def take(self) -> list[Raw]:
        events, self._events = self._events, []
        return events

    async def wait(self) -> None:
        self._waiter = self._loop.create_future()
        await self._waiter
