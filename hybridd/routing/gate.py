"""Admission control: so many routed calls at once, so many waiting, the rest refused with a reason."""

from __future__ import annotations

import asyncio
from collections import deque

from hybridd.errors import Overloaded


class Gate:
    """A first-come-first-served semaphore with a bounded queue and a bounded wait."""

    def __init__(self, capacity: int, waiting: int, wait_seconds: float) -> None:
        self.in_flight = 0
        self._closed = False
        self._queue: deque[asyncio.Future[None]] = deque()
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()
        self.configure(capacity, waiting, wait_seconds)

    def configure(self, capacity: int, waiting: int, wait_seconds: float) -> None:
        """New bounds; places that come free by them are given to those who wait."""
        self._capacity = capacity
        self._max_waiting = waiting
        self._wait_seconds = wait_seconds
        while self._queue and self.in_flight < self._capacity:
            place = self._queue.popleft()
            if not place.done():
                self.in_flight += 1
                place.set_result(None)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def close(self) -> None:
        """The daemon stops: nobody new gets in, and those who wait are told."""
        self._closed = True
        while self._queue:
            place = self._queue.popleft()
            if not place.done():
                place.set_exception(_stopping())

    async def idle(self) -> None:
        """Returns when nothing is in flight."""
        await self._idle.wait()

    def try_enter(self) -> bool:
        """The fast path: a free place, taken without awaiting."""
        if self.in_flight < self._capacity and not self._queue and not self._closed:
            self.in_flight += 1
            if self.in_flight == 1:
                self._idle.clear()
            return True
        return False

    async def enter(self) -> None:
        """Waits for a place.

        Raises:
            Overloaded: the queue is full, or no place came free in time.
        """
        if self.try_enter():
            return
        if self._closed:
            raise _stopping()
        if len(self._queue) >= self._max_waiting:
            raise Overloaded(
                f"{self.in_flight} calls are in flight and {len(self._queue)} are waiting; no more are queued "
                "(server.max_in_flight, server.max_waiting).",
                retry_after=1.0,
            )
        place = asyncio.get_running_loop().create_future()
        self._queue.append(place)
        try:
            async with asyncio.timeout(self._wait_seconds):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.leave()  # the place was given while we were leaving
            elif place in self._queue:
                self._queue.remove(place)
            if isinstance(error, TimeoutError):
                raise Overloaded(
                    f"No place came free within {self._wait_seconds:g} s ({self.in_flight} calls in flight).",
                    retry_after=1.0,
                ) from None
            raise

    def leave(self) -> None:
        while self._queue and self.in_flight <= self._capacity:
            place = self._queue.popleft()
            if not place.done():
                place.set_result(None)  # the place passes on; in_flight stays
                return
        self.in_flight -= 1
        if self.in_flight == 0:
            self._idle.set()


def _stopping() -> Overloaded:
    return Overloaded("hybridd is stopping.", code="stopping", retry_after=5.0)
