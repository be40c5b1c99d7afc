"""Runs a call that may hang (a driver, a dead network mount) where it can hurt nobody: in a throwaway thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Hung(Exception):
    """The call has not come back; ``seconds`` is how long it has been gone."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no answer for {seconds:.0f} s")
        self.seconds = seconds


class Offload(Generic[T]):
    """At most one call at a time, each in a daemon thread of its own.

    Not an executor: those are joined at exit, and a thread stuck in a driver would keep the daemon from stopping. A
    call that hangs is not started again before it has come back, so a dead driver costs one thread and not one per
    check.
    """

    def __init__(self, name: str, function: Callable[[], T]) -> None:
        self._name = name
        self._function = function
        self._running: asyncio.Future[T] | None = None
        self._since = 0.0

    @property
    def busy(self) -> bool:
        return self._running is not None

    async def run(self, timeout: float) -> T:
        """The function's result.

        Raises:
            Hung: it did not come back within ``timeout`` seconds, or has not come back from an earlier call.
            Exception: whatever the function raises.
        """
        loop = asyncio.get_running_loop()
        if self._running is not None:
            raise Hung(loop.time() - self._since)
        future: asyncio.Future[T] = loop.create_future()
        self._running, self._since = future, loop.time()
        threading.Thread(target=self._work, args=(loop, future), name=self._name, daemon=True).start()
        try:
            return await asyncio.wait_for(asyncio.shield(future), timeout)
        except TimeoutError:
            # Nobody waits for it any more; its outcome, whenever it comes, is looked at by nobody.
            future.add_done_callback(_outcome_seen)
            raise Hung(loop.time() - self._since) from None
        except asyncio.CancelledError:
            future.add_done_callback(_outcome_seen)
            raise

    def _work(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[T]) -> None:
        finish: Callable[[], None]
        try:
            result = self._function()
        except BaseException as error:  # noqa: BLE001  # carried to the waiting side, whatever it is
            failure = error
            finish = lambda: future.set_exception(failure)  # noqa: E731  # one of two endings
        else:
            finish = lambda: future.set_result(result)  # noqa: E731
        try:
            loop.call_soon_threadsafe(self._finish, future, finish)
        except RuntimeError:
            # The loop has ended meanwhile: the daemon has stopped without waiting for us, as it should.
            return

    def _finish(self, future: asyncio.Future[T], finish: Callable[[], None]) -> None:
        self._running = None
        if not future.done():
            finish()


def _outcome_seen(future: asyncio.Future[T]) -> None:
    if not future.cancelled():
        future.exception()
