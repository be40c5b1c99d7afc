"""What the hub asks of a connection, and who is at its other end. The transport is elsewhere (``hybridd.api``)."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Peer(msgspec.Struct, frozen=True):
    """SO_PEERCRED of a connection: the process that connected, as the kernel saw it then."""

    pid: int
    uid: int
    gid: int


class Link(Protocol):
    """One WebSocket. Sending never blocks; ``buffered`` says how many bytes the peer has not taken yet."""

    def send(self, text: bytes) -> None: ...

    def close(self, code: int, reason: str) -> None: ...

    @property
    def buffered(self) -> int: ...


class Timing(msgspec.Struct, frozen=True):
    """Every delay of the plugin side, in seconds. Tests shorten them."""

    initialize: float = 5.0
    """From the connection to ``initialize``."""
    start: float = 30.0
    """From the start of a process to its first registration."""
    heartbeat: float = 5.0
    """Between two pings; an unanswered one is a miss."""
    misses_degrade: int = 2
    misses_drop: int = 3
    deadline_grace: float = 0.25
    """How long after a call's deadline the plugin's own timeout answer is awaited."""
    cancel: float = 2.0
    """How long a cancelled call waits for its final answer before it is ended here."""
    abandon: float = 30.0
    """How long a call ended here may stay unanswered before the plugin is dropped for it."""
    backoff_first: float = 1.0
    backoff_max: float = 60.0
    breaker_failures: int = 5
    breaker_window: float = 600.0
    drain: float = 60.0
    """How long a replaced process may finish its calls."""
    stop: float = 5.0
    """From ``shutdown`` to SIGTERM; as long again to SIGKILL."""
