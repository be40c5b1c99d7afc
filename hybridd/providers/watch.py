"""Proof of death: a pidfd per connected plugin, taken while it certainly lives."""

from __future__ import annotations

import asyncio
import os


class DeathWatch:
    """Holds a process by file descriptor, so that its number cannot come to mean another process."""

    def __init__(self, pid: int, fd: int | None) -> None:
        self._pid = pid
        self._fd = fd

    def forget(self) -> None:
        """Nobody waits for the proof."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def when_dead(self, also: asyncio.Future[int] | None, gone: asyncio.Future[None]) -> None:
        """Resolves ``gone`` when the process is dead and, for one we started, ``also`` is done (its group was killed).

        A peer in another PID namespace (pid 0) or one we may not watch leaves ``gone`` to ``also``; without that,
        unresolved.
        """
        loop = asyncio.get_running_loop()
        waits: list[asyncio.Future[None]] = []
        if self._fd is not None:
            fd, self._fd = self._fd, None
            dead: asyncio.Future[None] = loop.create_future()
            waits.append(dead)

            def readable() -> None:
                loop.remove_reader(fd)
                os.close(fd)
                if not dead.done():
                    dead.set_result(None)

            loop.add_reader(fd, readable)
        elif self._pid != os.getpid() and also is None:
            return

        def check(_: object = None) -> None:
            if all(wait.done() for wait in waits) and (also is None or also.done()) and not gone.done():
                gone.set_result(None)

        for wait in waits:
            wait.add_done_callback(check)
        if also is not None:
            also.add_done_callback(check)
        check()


def watch_death(pid: int) -> DeathWatch:
    """Watches ``pid`` from now on. Our own process (a plugin inside a test) counts as dead once disconnected."""
    if pid <= 0 or pid == os.getpid():
        return DeathWatch(pid, None)
    try:
        return DeathWatch(pid, os.pidfd_open(pid))
    except OSError:
        # Already gone, or a kernel that hides it: an exited process counts as dead at once.
        return DeathWatch(os.getpid() if not _exists(pid) else pid, None)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
