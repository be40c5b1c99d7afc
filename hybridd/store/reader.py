"""Reading without ever waiting for the writer: one worker thread with a read-only connection."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import inf
from pathlib import Path
from time import monotonic
from types import GeneratorType
from typing import Concatenate, Final, ParamSpec, TypeVar, cast

from hybridd.errors import StorageError
from hybridd.store.connection import connect, storage_reason
from hybridd.store.writer import Writer

P = ParamSpec("P")
T = TypeVar("T")

QUERY_SECONDS: Final = 30.0
_CHECK_EVERY = 20_000  # virtual machine steps between two looks at the clock


class Reader:
    """``await reader.run(query, …)``: each call sees one snapshot of the database, its own earlier writes included."""

    def __init__(self, path: Path, writer: Writer | None) -> None:
        self._path = path
        self._writer = writer
        self._connection: sqlite3.Connection | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="hybridd-reader")

    async def run(
        self, function: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """``function(connection, *args)`` on the worker thread, after what was queued for writing is committed.

        ``function`` must return plain values, not a cursor; what a generator function yields comes as a list.

        Raises:
            StorageError: the database cannot be read, or the query took longer than QUERY_SECONDS.
            Exception: whatever ``function`` raises.
        """
        return await self._submit(QUERY_SECONDS, lambda connection: function(connection, *args, **kwargs))

    async def run_to_the_end(
        self, function: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The same, however long it takes: for what a start cannot do without. Only :meth:`close` interrupts it."""
        return await self._submit(inf, lambda connection: function(connection, *args, **kwargs))

    async def _submit(self, seconds: float, function: Callable[[sqlite3.Connection], T]) -> T:
        writer = self._writer
        if writer is not None and writer.pending and writer.failed is None:
            # Refused meanwhile: what is on the disk can still be read.
            with suppress(StorageError):
                await writer.barrier()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._run, seconds, function)

    def run_now(
        self, function: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The same, blocking: for start-up and for programs without an event loop."""
        work = self._pool.submit(self._run, QUERY_SECONDS, lambda connection: function(connection, *args, **kwargs))
        return work.result()

    def close(self) -> None:
        """Stop the thread, interrupting a query that still runs."""
        connection = self._connection
        if connection is not None:
            connection.interrupt()
        self._pool.submit(self._disconnect)
        self._pool.shutdown()

    def _run(self, seconds: float, function: Callable[[sqlite3.Connection], T]) -> T:
        deadline = monotonic() + seconds
        try:
            connection = self._connection
            if connection is None:
                connection = self._connection = connect(self._path, readonly=True)
            connection.set_progress_handler(lambda: monotonic() > deadline, _CHECK_EVERY)
            connection.execute("BEGIN")
            try:
                value = function(connection)
                # A generator would be read on another thread, after its snapshot has ended.
                return cast(T, list(value)) if isinstance(value, GeneratorType) else value
            finally:
                connection.rollback()
        except sqlite3.Error as error:
            if error.sqlite_errorname == "SQLITE_INTERRUPT":
                why = f"took longer than {seconds:.0f} s" if monotonic() > deadline else "was interrupted by the stop"
                raise StorageError(f"a query {why} and was given up") from error
            reason = storage_reason(error)
            if reason is None:
                raise
            self._disconnect()
            raise StorageError(f"the database cannot be read: {reason} ({self._path}: {error})") from error

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
