"""Where log lines end: files rotated by size and the terminal, written by one thread behind bounded queues.

The event loop only appends to a deque. A disk that hangs or a pipe nobody reads holds the thread, never the loop; what
does not fit the queue meanwhile is counted, and the count is written as soon as there is room again.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

CAPACITY = 8192
# Lines of this many seconds are written together: at 7,000 requests/s one wake-up for 350 lines instead of 7,000.
GATHER_SECONDS = 0.05


class Target(Protocol):
    """Takes whole lines. Raises OSError when it cannot."""

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


class RotatingFile:
    """A private (0600) append-only file: at ``max_bytes`` it becomes ``name.1``, the older ones move up, ``backups``
    of them stay.

    A file that was moved or deleted by someone else is noticed at the next write and made anew. The folder is made
    (0700) when it is missing.
    """

    def __init__(self, path: Path, *, max_bytes: int = 10 * 1024 * 1024, backups: int = 5) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._backups = backups
        self._fd: int | None = None
        self._size = 0
        self._identity: tuple[int, int] | None = None

    def write(self, data: bytes) -> None:
        self._follow()
        if self._fd is None:
            self._open()
        if self._size and self._size + len(data) > self._max_bytes:
            self._rotate()
        assert self._fd is not None
        start, view = self._size, memoryview(data)
        try:
            while view:
                written = os.write(self._fd, view)
                self._size += written
                view = view[written:]
        except OSError:
            # A full disk took a part: without it the next line would be glued to half of this one.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, start)
            raise

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _follow(self) -> None:
        if self._fd is None:
            return
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            self.close()
            return
        if (found.st_dev, found.st_ino) != self._identity:
            self.close()

    def _open(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self.path, flags, 0o600)
        state = os.fstat(self._fd)
        self._size = state.st_size
        self._identity = (state.st_dev, state.st_ino)

    def _rotate(self) -> None:
        self.close()
        for number in range(self._backups - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self.path}.{number}", f"{self.path}.{number + 1}")
        if self._backups:
            os.replace(self.path, f"{self.path}.1")
        else:
            self.path.unlink()
        self._open()


class Stream:
    """The terminal, the journal or whatever standard error is. Never closed: it is not ours."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                # Somebody made the shared terminal non-blocking; this is our own thread, it may wait.
                time.sleep(0.01)

    def close(self) -> None:
        pass


class Sink:
    """One target, its queue and its thread.

    ``render`` and ``guard`` (which sees all the lines of one write) run in the thread: encoding and redacting cost the
    event loop nothing but their share of the interpreter. ``on_trouble`` is told, once for each disturbance, that lines
    were lost, with the reason.
    """

    def __init__(
        self,
        name: str,
        target: Target,
        render: Callable[[Any], bytes],
        *,
        capacity: int = CAPACITY,
        guard: Callable[[list[bytes]], list[bytes]] | None = None,
        notice: Callable[[str, int], Any] | None = None,
        on_trouble: Callable[[str], None] | None = None,
        gather_seconds: float = GATHER_SECONDS,
    ) -> None:
        self.name = name
        self.dropped = 0
        """Lines lost since the start: the queue was full, or the target refused them."""
        self._target = target
        self._render = render
        self._capacity = capacity
        self._guard = guard
        self._notice = notice
        self._on_trouble = on_trouble
        self._gather = gather_seconds
        self._queue: deque[Any] = deque()
        self._unsaid = 0
        self._troubled = False
        self._lock = threading.Lock()
        self._some = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"log-{name}", daemon=True)
        self._thread.start()

    def put(self, item: Any) -> bool:
        """Queue one item; False when the queue is full or closed, and the item is lost (and counted)."""
        if len(self._queue) >= self._capacity or self._stop.is_set():
            with self._lock:
                self.dropped += 1
                self._unsaid += 1
            return False
        self._queue.append(item)
        if not self._some.is_set():
            self._some.set()
        return True

    def close(self, timeout: float = 2.0) -> bool:
        """Write what is queued and stop; False when the target still hangs after ``timeout`` seconds."""
        self._stop.set()
        self._some.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            self._some.wait()
            # Not the event itself: a stop must not wait, new lines should.
            self._stop.wait(self._gather)
            self._some.clear()
            stopping = self._stop.is_set()
            self._write_queued()
            if stopping:
                self._target.close()
                return

    def _write_queued(self) -> None:
        lines: list[bytes] = []
        while True:
            try:
                item = self._queue.popleft()
            except IndexError:
                break
            lines.append(self._rendered(item))
            if len(lines) >= 512:
                self._flush(lines)
                lines = []
        with self._lock:
            unsaid, self._unsaid = self._unsaid, 0
        if unsaid and self._notice is not None:
            lines.append(self._rendered(self._notice(self.name, unsaid)))
        if lines:
            self._flush(lines)

    def _rendered(self, item: Any) -> bytes:
        try:
            return self._render(item)
        except Exception as error:  # noqa: BLE001  # one item that cannot be encoded must not end the log
            return b'{"event":"log_line_lost","reason":"%s"}\n' % type(error).__name__.encode()

    def _flush(self, lines: list[bytes]) -> None:
        try:
            self._target.write(b"".join(self._guard(lines) if self._guard is not None else lines))
        except OSError as error:
            with self._lock:
                self.dropped += len(lines)
                self._unsaid += len(lines)
            self._target.close()
            if not self._troubled and self._on_trouble is not None:
                self._on_trouble(f"{self.name}: {error.strerror or error}")
            self._troubled = True
        else:
            self._troubled = False
