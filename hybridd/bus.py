"""The in-process event bus behind ``/v1/events``.

One publisher side (the event loop), many subscribers, each with a bounded queue. Events are
``{seq, at, kind, data}``; kinds are listed in :data:`KINDS`. A subscriber whose queue is full is dropped, with the
reason as its last event: a slow reader must never hold the daemon's memory or its loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Literal

import msgspec

from hybridd.clocks import Clock

Kind = Literal["snapshot", "provider", "quota", "request", "alert", "plugin", "host", "job", "log", "dropped"]
KINDS: tuple[Kind, ...] = (
    "snapshot", "provider", "quota", "request", "alert", "plugin", "host", "job", "log", "dropped",
)  # fmt: skip


class Event(msgspec.Struct, frozen=True):
    """``at`` is UTC seconds since the epoch; ``seq`` grows by one for each published event."""

    seq: int
    at: float
    kind: Kind
    data: Any


class Subscription:
    """One reader's queue. ``wake`` is called (on the loop) when the queue stops being empty."""

    def __init__(self, bus: EventBus, kinds: frozenset[Kind], capacity: int, wake: Callable[[], None]) -> None:
        self._bus = bus
        self._capacity = capacity
        self._wake = wake
        self._queue: deque[Event] = deque()
        self.kinds = kinds
        self.dropped = False

    def offer(self, event: Event) -> None:
        if self.dropped:
            return
        if len(self._queue) >= self._capacity:
            self.drop(event.seq, event.at, f"reader fell {self._capacity} events behind")
            return
        self._queue.append(event)
        if len(self._queue) == 1:
            self._wake()

    def drop(self, seq: int, at: float, reason: str) -> None:
        """No more events after this one, which says why."""
        self.dropped = True
        self._queue.append(Event(seq, at, "dropped", {"reason": reason}))
        self._bus.unsubscribe(self)
        self._wake()

    def __len__(self) -> int:
        return len(self._queue)

    def drain(self) -> list[Event]:
        """Everything queued, with repeated states of the same thing coalesced to the newest.

        ``provider``, ``quota``, ``plugin`` and ``host`` events carry a ``key`` in their data when a newer one
        replaces an older one; requests and alerts are never coalesced.
        """
        events, self._queue = list(self._queue), deque()
        newest: dict[tuple[str, str], int] = {}
        for index, event in enumerate(events):
            key = event.data.get("key") if isinstance(event.data, dict) else None
            if key is not None and event.kind in {"provider", "quota", "plugin", "host"}:
                newest[event.kind, key] = index
        kept = set(newest.values())
        return [
            event
            for index, event in enumerate(events)
            if index in kept
            or not (
                event.kind in {"provider", "quota", "plugin", "host"}
                and isinstance(event.data, dict)
                and event.data.get("key") is not None
            )
        ]

    def close(self) -> None:
        self._bus.unsubscribe(self)


class EventBus:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seq = 0
        self._subscribers: set[Subscription] = set()

    @property
    def seq(self) -> int:
        return self._seq

    def wanted(self, kind: Kind) -> bool:
        """False when nobody listens: publishers on the hot path skip building the data."""
        return any(kind in subscriber.kinds for subscriber in self._subscribers)

    def publish(self, kind: Kind, data: Any) -> None:
        self._seq += 1
        if not self._subscribers:
            return
        event = Event(self._seq, self._clock.wall_ns() / 1e9, kind, data)
        for subscriber in tuple(self._subscribers):
            if kind in subscriber.kinds:
                subscriber.offer(event)

    def subscribe(self, wake: Callable[[], None], kinds: Iterable[Kind] = KINDS, capacity: int = 4096) -> Subscription:
        subscription = Subscription(self, frozenset(kinds), capacity, wake)
        self._subscribers.add(subscription)
        return subscription

    def close(self, reason: str) -> None:
        """Ends every reader, after what it has not read yet, with ``reason`` as its last event."""
        for subscriber in tuple(self._subscribers):
            subscriber.drop(self._seq, self._clock.wall_ns() / 1e9, reason)

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscribers.discard(subscription)

    def __len__(self) -> int:
        return len(self._subscribers)
