"""The one writer: a thread that owns the only connection that writes.

::

    event loop                               writer thread
    dispatch(row) ─► urgent ──┐              one INSERT of every waiting row, COMMIT, fsync
                              ├─► wake ───►  then ONE call_soon_threadsafe resolves all their futures
    settle(row)   ─► settles ─┤
    request(row)  ─► requests ┤              written together at most 10 ms later, without an fsync of their own:
    execute(sql)  ─► control ─┤              the next dispatch's covers them; lost in a power failure, their calls are
    call(fn)      ─► control ─┘              found `dispatched` and count in full, which errs on the safe side

A dispatch never waits for bookkeeping that is not already being written. Reservations share a commit because they
gather while the one before is being synced; a lone one is never delayed.

Failing closed: when the disk refuses, waiting dispatches fail with StorageError, ``failed`` says why and every new
dispatch fails at once. What was already accepted (settlements, requests, small writes) is kept and written after the
connection was opened afresh and a probe write reached the disk. The kept settlements are bounded by the calls that
were open, since none can be added; requests and small writes are bounded by ``KEEP`` each, the overflow is counted
in ``dropped`` and logged.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any, Final, TypeVar

from hybridd.errors import StorageError
from hybridd.store.rows import DispatchRow, RequestRow, SettleRow
from hybridd.store.statements import BATCH
from hybridd.store.thread import BUSY, IDLE, WriterThread
from hybridd.store.writing import Execute, Task

T = TypeVar("T")

KEEP: Final = 10_000


class Writer(WriterThread):
    """The event loop's side. Its methods belong to the loop's thread, except :meth:`condemn` and :meth:`close`."""

    def dispatch(self, row: DispatchRow) -> asyncio.Future[None]:
        """Record a call that is about to be sent. Resolved once the row is on the disk; StorageError otherwise."""
        loop = self._loop
        if loop is None or loop.is_closed():
            loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if self.failed is not None:
            future.set_exception(self._refusal())
        else:
            self._urgent.append((row, future))
            if not self._waking:
                # At the end of the tick: woken by the first of 32 rows, the thread took that one alone into its commit,
                # and the others waited for it and for the interpreter.
                self._waking = True
                loop.call_soon(self._wake_for_dispatch)
        return future

    def _wake_for_dispatch(self) -> None:
        self._waking = False
        if self._state:
            self._notify()

    def settle(self, row: SettleRow) -> None:
        """Record how a call ended. Kept until it is written, whatever the disk does meanwhile."""
        self._settles.append(row)
        if self._state == IDLE or len(self._settles) == BATCH:
            self._notify()

    def request(self, row: RequestRow) -> None:
        """Record a finished request."""
        if self.failed is not None and len(self._requests) >= KEEP:
            self.dropped += 1
            return
        self._requests.append(row)
        if self._state == IDLE or len(self._requests) == BATCH:
            self._notify()

    def execute(self, sql: str, params: tuple[Any, ...] = ()) -> None:
        """Queue a small write whose outcome nobody waits for. A statement that is wrong is logged and skipped."""
        if self.failed is not None and len(self._control) >= KEEP:
            self.dropped += 1
            return
        self._control.append(Execute(sql, params))
        if self._state == IDLE:
            self._notify()

    async def call(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``function`` in a transaction of its own; its result, once that is on the disk.

        Raises:
            StorageError: the disk refused, or refuses at present. Nothing of the transaction is kept.
            Exception: whatever ``function`` raises; the transaction is rolled back then.
        """
        value: T = await self._submit(function)
        return value

    async def barrier(self) -> None:
        """Return once everything queued before is committed (and so visible to readers).

        Raises:
            StorageError: the disk refuses at present.
        """
        await self._submit(None)

    @property
    def pending(self) -> bool:
        """Whether anything accepted is not committed yet."""
        return bool(self._settles or self._requests or self._control or self._urgent or self._state == BUSY)

    def condemn(self, reason: str) -> None:
        """Refuse every write until the next start: the file is known to be damaged. May be called from any thread."""
        self._condemned = reason
        self._notify()

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop that futures and ``on_state`` belong to; found by itself at the first use otherwise."""
        self._loop = loop

    async def _submit(self, function: Callable[[sqlite3.Connection], Any] | None) -> Any:
        self._loop = asyncio.get_running_loop()
        if self.failed is not None:
            raise self._refusal()
        future: asyncio.Future[Any] = self._loop.create_future()
        self._control.append(Task(function, future))
        if self._state:
            self._notify()
        return await future

    def _refusal(self) -> StorageError:
        return StorageError(f"the database cannot be written: {self.failed}", retry_after=5.0)
