"""Tells systemd: ready, alive, stopping. The protocol of sd_notify(3): a datagram to the socket in NOTIFY_SOCKET.

Outside systemd every method does nothing. The watchdog ping is sent by a timer of the event loop, so it proves that
the loop turns, not only that the process exists.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping

_log = logging.getLogger("hybridd.logs")


class Notifier:
    """``READY=1``, ``WATCHDOG=1``, ``RELOADING=1``, ``STOPPING=1``, and one line of status."""

    def __init__(self, address: str | None, watchdog_seconds: float | None = None) -> None:
        self._address = "\0" + address[1:] if address and address.startswith("@") else address
        self.watchdog_seconds = watchdog_seconds
        self._timer: asyncio.TimerHandle | None = None
        self._complained = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Notifier:
        """Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID (a watchdog meant for another process is not ours)."""
        seconds: float | None = None
        usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
        if usec.isdigit() and int(usec) > 0 and (not pid or pid == str(os.getpid())):
            seconds = int(usec) / 1e6
        return cls(environment.get("NOTIFY_SOCKET") or None, seconds)

    @property
    def active(self) -> bool:
        return bool(self._address)

    def send(self, message: str) -> bool:
        """One datagram; False when nobody listens."""
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as out:
                out.connect(self._address)
                out.send(message.encode())
        except OSError as error:
            if not self._complained:
                self._complained = True
                _log.warning("systemd cannot be notified: %s", error)
            return False
        return True

    def ready(self, status: str = "") -> None:
        self.send("READY=1" + (f"\nSTATUS={status}" if status else ""))

    def status(self, text: str) -> None:
        self.send(f"STATUS={text}")

    def reloading(self, monotonic_usec: int) -> None:
        """``ready()`` ends it. systemd wants the CLOCK_MONOTONIC time the reload began."""
        self.send(f"RELOADING=1\nMONOTONIC_USEC={monotonic_usec}")

    def stopping(self) -> None:
        self.stop_watchdog()
        self.send("STOPPING=1")

    def start_watchdog(self) -> None:
        """Ping at a third of the time allowed, from now on, on the running loop."""
        if self.active and self.watchdog_seconds and self._timer is None:
            self._ping(asyncio.get_running_loop(), self.watchdog_seconds / 3)

    def stop_watchdog(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ping(self, loop: asyncio.AbstractEventLoop, every: float) -> None:
        self.send("WATCHDOG=1")
        self._timer = loop.call_later(every, self._ping, loop, every)
