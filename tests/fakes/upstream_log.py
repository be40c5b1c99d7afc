"""What arrived at the fake upstream: a columnar log in memory, a line per arrival on disk, exact window counts.

Columns instead of objects, because a benchmark leaves some 600,000 arrivals behind and neither the memory nor the
garbage collector of the opponent may colour the result (about 60 bytes an arrival, and the newest 32 MiB of bodies).
"""

from __future__ import annotations

import os
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from time import monotonic_ns, time
from typing import Any

import msgspec

BODY_BYTES_KEPT = 32 * 1024 * 1024
BODY_OVERHEAD = 150
OUTCOMES = (None, "complete", "cut", "client_gone")
COMPLETE, CUT, CLIENT_GONE = 1, 2, 3


class Arrival(msgspec.Struct, kw_only=True):
    """One request as the provider saw it; `at` and `end_at` are CLOCK_MONOTONIC ns, comparable between processes.

    `at` is when the first byte of its headers was seen, `end_at` when the last byte of the answer was handed to the
    connection or the connection ended, None while running. `outcome` is `complete`, `cut` (the server broke it),
    `client_gone` or None. `status` is None when no byte was answered.
    """

    n: int
    at: int
    at_wall: float
    end_at: int | None
    method: str
    path: str
    model: str | None
    authorization: str | None
    status: int | None
    outcome: str | None
    body: Any = None


class LoggedArrival(msgspec.Struct, kw_only=True):
    """One line of the `--log` file; `complete` is False when the connection broke before the request was whole."""

    n: int
    at: int
    at_wall: float
    method: str
    path: str
    model: str | None
    authorization: str | None
    complete: bool = True


def window_ns(seconds: float | str) -> int:
    """Nanoseconds of a window given in seconds, without binary rounding ("0.1" is exactly 100,000,000)."""
    return int(Decimal(str(seconds)) * 1_000_000_000)


def max_in_window(times_ns: Iterable[int], window: int) -> int:
    """The most of `times_ns` that fall into any half-open window [t, t + window), both in nanoseconds; exact.

    Some window that starts at an arrival reaches the maximum, so only those are tried.
    """
    times = sorted(times_ns)
    best = first = 0
    for last, at in enumerate(times):
        while at - times[first] >= window:
            first += 1
        best = max(best, last - first + 1)
    return best


def read_log(path: str | Path) -> list[LoggedArrival]:
    """The arrivals of a `--log` file; a torn line (the machine died while writing) is an error, not a smaller count."""
    return [msgspec.json.decode(line, type=LoggedArrival) for line in Path(path).read_bytes().splitlines()]


class FileLog:
    """Appends one JSON line per arrival with a single write(2): nothing is buffered that a kill -9 could lose."""

    def __init__(self, path: str | Path) -> None:
        self._fd = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)

    def append(self, arrival: LoggedArrival) -> None:
        line = msgspec.json.encode(arrival) + b"\n"
        if os.write(self._fd, line) != len(line):
            raise OSError("the arrival log could not be written in one piece")

    def close(self) -> None:
        os.close(self._fd)


class ArrivalLog:
    """All arrivals since the last clear. Rows are numbered from 0; `n` of row i is `first_n + i`."""

    def __init__(self, first_n: int = 1) -> None:
        self.first_n = first_n
        self.finished = 0
        self._at = array("q")
        self._wall = array("d")
        self._end = array("q")
        self._status = array("h")
        self._outcome = array("b")
        self._method: list[str] = []
        self._path: list[str] = []
        self._model: list[str | None] = []
        self._authorization: list[str | None] = []
        self._names: dict[str, str] = {}
        self._bodies: deque[tuple[int, bytes]] = deque()
        self._body_bytes = 0

    def __len__(self) -> int:
        return len(self._at)

    def arrive(self, at: int, method: str, path: str, authorization: str | None) -> int:
        """Records that a request's headers are here; returns its row."""
        row = len(self._at)
        self._at.append(at)
        self._wall.append(time())
        self._end.append(0)
        self._status.append(0)
        self._outcome.append(0)
        self._method.append(method)
        self._path.append(path)
        self._model.append(None)
        self._authorization.append(authorization)
        return row

    def complete(self, row: int, model: str | None, body: bytes) -> None:
        """Records what is known only once the body is whole."""
        if model is not None:
            self._model[row] = self._names.setdefault(model, model)
        if body:
            self._bodies.append((row, body))
            self._body_bytes += len(body) + BODY_OVERHEAD
            while self._body_bytes > BODY_BYTES_KEPT:
                self._body_bytes -= len(self._bodies.popleft()[1]) + BODY_OVERHEAD

    def finish(self, row: int, status: int | None, outcome: int) -> None:
        self._end[row] = monotonic_ns()
        self._status[row] = status or 0
        self._outcome[row] = outcome
        self.finished += 1

    def line(self, row: int, *, complete: bool = True) -> LoggedArrival:
        return LoggedArrival(
            n=self.first_n + row,
            at=self._at[row],
            at_wall=self._wall[row],
            method=self._method[row],
            path=self._path[row],
            model=self._model[row],
            authorization=self._authorization[row],
            complete=complete,
        )

    def rows(self, *, bodies: bool = False, after: int = 0, limit: int | None = None) -> Iterator[Arrival]:
        """Arrivals in the order of their numbers, those above `after`. Bodies as JSON where they are, else as text."""
        kept = dict(self._bodies) if bodies else {}
        start = max(0, after - self.first_n + 1)
        stop = len(self) if limit is None else min(len(self), start + limit)
        for row in range(start, stop):
            yield Arrival(
                n=self.first_n + row,
                at=self._at[row],
                at_wall=self._wall[row],
                end_at=self._end[row] or None,
                method=self._method[row],
                path=self._path[row],
                model=self._model[row],
                authorization=self._authorization[row],
                status=self._status[row] or None,
                outcome=OUTCOMES[self._outcome[row]],
                body=_readable(kept.get(row)),
            )

    def times(self, *, model: str | None = None, path: str | None = None, method: str | None = None) -> list[int]:
        """Arrival times (ns) of the requests that match every given field, in order of arrival number."""
        if model is None and path is None and method is None:
            return list(self._at)
        return [
            at
            for row, at in enumerate(self._at)
            if (model is None or self._model[row] == model)
            and (path is None or self._path[row] == path)
            and (method is None or self._method[row] == method)
        ]


def _readable(body: bytes | None) -> Any:
    if not body:
        return None
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body.decode("utf-8", "replace")
