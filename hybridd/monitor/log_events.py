"""What is logged, as events of the kind ``log``: bounded, so that a storm of records does not flood whoever listens.

A record is told at once when nothing was told lately, and otherwise with the others of the same quarter of a second, of
which only the newest are told; before those stands how many were left out. These are still to be had from ``/v1/logs``,
as long as they are kept.
"""

from __future__ import annotations

import asyncio

import msgspec

from hybridd.bus import EventBus
from hybridd.logs.ring import Kept, Ring

EVERY_SECONDS = 0.25
MOST_AT_ONCE = 50
BYTES_AT_ONCE = 64 * 1024


class LogEvents:
    """Between the ring, which any thread may write to, and the bus, which belongs to the loop. While nobody listens,
    nothing is read from the ring."""

    def __init__(self, ring: Ring, bus: EventBus) -> None:
        self._ring = ring
        self._bus = bus
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = 0
        self._last = float("-inf")
        self._woken = False

    def start(self) -> None:
        """On the loop; records from before are not told."""
        self._loop = asyncio.get_running_loop()
        self._told = self._ring.newest
        self._ring.on_kept = self._kept

    def stop(self) -> None:
        """On the loop; what has been logged until now is told."""
        if self._loop is not None:
            self._ring.on_kept = None
            self.flush()

    def _kept(self) -> None:
        if self._woken or self._loop is None:
            return
        self._woken = True
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            self._ring.on_kept = None  # the loop is closed: there is nobody left to tell

    def _wake(self) -> None:
        assert self._loop is not None
        wait = self._last + EVERY_SECONDS - self._loop.time()
        if wait <= 0:
            self.flush()
        else:
            self._loop.call_later(wait, self.flush)

    def flush(self) -> None:
        """Tells what is new."""
        assert self._loop is not None
        self._woken = False  # first: what is logged from here on wakes us again
        self._last = self._loop.time()
        if not self._bus.wanted("log"):
            self._told = self._ring.newest
            return
        shown = _newest(self._ring.after(self._told))
        if not shown:
            return
        first = shown[0].id
        if first > self._told + 1:
            missing = {"left_out": first - self._told - 1, "first": self._told + 1, "last": first - 1}
            self._bus.publish("log", missing)
        for one in shown:
            self._bus.publish("log", msgspec.Raw(one.payload))
        self._told = shown[-1].id


def _newest(records: list[Kept]) -> list[Kept]:
    """As many as may be told at once, oldest first."""
    room = BYTES_AT_ONCE
    found: list[Kept] = []
    for one in reversed(records[-MOST_AT_ONCE:]):
        room -= len(one.payload)
        if found and room < 0:
            break
        found.append(one)
    return found[::-1]
