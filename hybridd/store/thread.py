"""The writer's thread: what it writes when, and what it does when the disk refuses. See :mod:`hybridd.store.writer`."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, Final, TypeVar

from hybridd.errors import StorageError
from hybridd.store.rows import RequestRow, SettleRow
from hybridd.store.statements import BATCH
from hybridd.store.writing import Condemned, Control, Outcome, Session, Task, Waiting

R = TypeVar("R")

LINGER_SECONDS: Final = 0.010
IDLE_SECONDS: Final = 1.0
RETRY_SECONDS: Final = (0.1, 2.0)

# What the thread is doing, as far as a producer must know: whether to wake it, and for what.
BUSY, LINGERING, IDLE = 0, 1, 2

_log = logging.getLogger("hybridd.store")


class WriterThread:
    """Queues filled by the event loop, and the thread that empties them."""

    def __init__(self, path: Path, *, linger_seconds: float = LINGER_SECONDS) -> None:
        self.failed: str | None = None
        self.on_state: Callable[[str | None], None] | None = None
        self.dropped = 0
        self._session = Session(path)
        self._linger = linger_seconds
        self._urgent: deque[Waiting] = deque()
        self._settles: deque[SettleRow] = deque()
        self._requests: deque[RequestRow] = deque()
        self._control: deque[Control] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        # A bare lock as a binary semaphore. Round trips loop → thread → loop: 14 µs, a Condition 16, SimpleQueue 20. An
        # eventfd takes 7, but its write gives up the interpreter lock while the loop still queues: batches get smaller
        # and nothing was gained in the whole.
        self._wake = threading.Lock()
        self._wake.acquire()
        self._state = BUSY
        self._waking = False
        self._stopping = False
        self._condemned: str | None = None
        self._thread = threading.Thread(target=self._run, name="hybridd-writer", daemon=True)

    def start(self) -> None:
        """Open the connection and start the thread.

        Raises:
            sqlite3.Error: the database cannot be opened for writing.
        """
        self._session.open()
        self._thread.start()

    def close(self, timeout: float = 10.0) -> None:
        """Write what is queued, checkpoint, stop the thread. Blocks; called after the event loop's work is done."""
        if self._thread.ident is None:
            self._session.close()
            return
        self._stopping = True
        self._notify()
        self._thread.join(timeout)
        if self._thread.is_alive():
            _log.error("the database writer did not stop within %.0f s", timeout)

    @property
    def running(self) -> bool:
        """Whether the thread lives (it does until :meth:`close` has returned)."""
        return self._thread.is_alive()

    def _notify(self) -> None:
        self._state = BUSY
        try:
            self._wake.release()
        except RuntimeError:
            return  # already woken and not yet awake

    def _run(self) -> None:
        due: float | None = None  # when the lingering bookkeeping must be written
        while True:
            try:
                if self._condemned is not None:
                    raise Condemned(self._condemned)
                if self._urgent:
                    self._session.dispatch(self._urgent, self)
                if due is not None and (self._stopping or due <= monotonic() or self._full()):
                    due = None
                    self._write_queued()
                elif due is None and (self._settles or self._requests or self._control):
                    due = monotonic() + self._linger
                    continue
                self._session.checkpoint_if_large()
            except Exception as error:  # noqa: BLE001  # a writer that dies would leave every caller waiting for ever
                if not isinstance(error, sqlite3.Error):
                    _log.exception("the database writer met an unexpected error")
                if not self._survive(error):
                    return
                due = None
                continue
            if self._urgent:
                continue
            if self._stopping and due is None and not (self._settles or self._requests or self._control):
                break
            self._sleep(due)
        self._finish()

    def _full(self) -> bool:
        """Enough to write now, or something somebody waits for."""
        return (
            len(self._settles) >= BATCH
            or len(self._requests) >= BATCH
            or any(isinstance(item, Task) for item in tuple(self._control))
        )

    def _write_queued(self) -> None:
        # Control first taken, last executed: whatever was queued before it is then written before it.
        control = len(self._control)
        self._drain(self._settles, self._session.settle)
        self._drain(self._requests, self._session.request)
        if control:
            self._session.control(self._control, control, self)

    def _drain(self, queue: deque[R], write: Callable[[deque[R]], int]) -> None:
        """What is in the queue now, batch by batch; a dispatch that comes meanwhile goes first."""
        left = len(queue)
        while left > 0:
            left -= write(queue)
            if self._urgent:
                self._session.dispatch(self._urgent, self)

    def _sleep(self, due: float | None) -> None:
        """Wait until woken, until ``due``, or until an idle moment is right for a checkpoint."""
        if due is not None:
            timeout = due - monotonic()
            if timeout <= 0:
                return
            self._state = LINGERING
        else:
            timeout = IDLE_SECONDS if self._session.unsynced else -1.0
            self._state = IDLE
        # Looked at after the state was published: a producer either sees the state or is seen here.
        if self._urgent or self._stopping or (due is None and (self._settles or self._requests or self._control)):
            self._state = BUSY
            return
        if due is not None and self._full():
            self._state = BUSY
            return
        woken = self._wake.acquire(timeout=timeout)
        self._state = BUSY
        if not woken and due is None:
            self._session.idle = True

    def resolve(self, outcomes: list[Outcome]) -> None:
        """Answer several callers with one wake-up of the loop."""
        self._on_loop(_answer, outcomes)

    def acknowledge(self, batch: list[Waiting]) -> None:
        self._on_loop(_acknowledge, batch)

    def _on_loop(self, function: Callable[[Any], None], argument: Any) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            return  # nobody is left to be told
        try:
            loop.call_soon_threadsafe(function, argument)
        except RuntimeError:
            _log.warning("the event loop was closed before the outcome of a write could be told")

    def _survive(self, error: Exception) -> bool:
        """The disk refused: fail what waits, keep the rest, return True once writes reach the disk again."""
        reason = self._session.describe(error)
        _log.error("%s; nothing is dispatched until it can be written again", reason)
        self._announce(reason)
        delay, longest = RETRY_SECONDS
        while True:
            self._fail_waiting(reason)
            if self._stopping:
                self._report_lost()
                self._session.close()
                return False
            self._wake.acquire(timeout=delay)
            delay = min(longest, delay * 2)
            self._fail_waiting(reason)
            if self._condemned is not None:
                continue
            try:
                self._session.reopen()
                # What was kept goes first: a disk with room for the probe only is still a full disk.
                self._write_queued()
            except Exception as again:  # noqa: BLE001  # as above: this thread must not die
                newest = self._session.describe(again)
                if newest != reason:
                    reason = newest
                    self._announce(reason)
                continue
            break
        if self.dropped:
            _log.error("%d records of refused requests were not kept while the disk refused", self.dropped)
        _log.warning("the database can be written again")
        self._announce(None)
        return True

    def _fail_waiting(self, reason: str) -> None:
        """Everything somebody waits for fails; what nobody waits for stays queued."""
        lost: list[asyncio.Future[Any]] = []
        while self._urgent:
            lost.append(self._urgent.popleft()[1])
        for _ in range(len(self._control)):
            item = self._control.popleft()
            if isinstance(item, Task):
                lost.append(item.future)
            else:
                self._control.append(item)
        if lost:
            message = f"the database cannot be written: {reason}"
            self.resolve([(future, None, StorageError(message, retry_after=5.0)) for future in lost])

    def _announce(self, reason: str | None) -> None:
        self.failed = reason
        if self.on_state is None:
            return
        if self._loop is None or self._loop.is_closed():
            self.on_state(reason)
        else:
            self._on_loop(self.on_state, reason)

    def _report_lost(self) -> None:
        if self._settles or self._requests or self._control:
            _log.error(
                "stopped while the database could not be written: %d settlements, %d requests and %d small writes are"
                " lost; the calls concerned count in full from the next start",
                len(self._settles), len(self._requests), len(self._control),
            )  # fmt: skip

    def _finish(self) -> None:
        try:
            self._session.checkpoint(truncate=True)
        except sqlite3.Error as error:
            _log.error("the last checkpoint failed: %s", self._session.describe(error))
        self._session.close()


def _acknowledge(batch: list[Waiting]) -> None:
    for _, future in batch:
        if not future.done():  # else the caller went away
            future.set_result(None)


def _answer(outcomes: list[Outcome]) -> None:
    for future, value, error in outcomes:
        if future.done():
            continue
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
