"""A terminal with nobody in front of it: the dashboard runs in a pseudo-terminal and every byte it paints is timed."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

from scripts.bench_parts.daemon_process import ROOT, StartFailed, die_with_parent

SIZE = (100, 30)
WAIT_S = 30.0
KEPT_BYTES = 1 << 16
FOCUS, BLUR = b"\x1b[I", b"\x1b[O"
_ASKS_SYNC = b"\x1b[?2026$p"
_HAS_SYNC = b"\x1b[?2026;2$y"
_NUMBER = re.compile(rb"lab:m(\d{7})")
"""How `tui_flood` numbers the models of its requests."""


class Terminal:
    """``hybridd tui`` in a terminal of :data:`SIZE`; ``painted`` is told of each piece of output when it came.

    Times are those of `time.time`, the clock of the events' own stamps.
    """

    def __init__(self, env: dict[str, str], arguments: Sequence[str] = ()) -> None:
        self.painted: Callable[[float, bytes], None] = _ignore
        self.text = b""
        """The last output: everything since the start, or since :meth:`forget`, as far as it is kept."""
        self._woken = asyncio.Event()
        self._env = {**env, "TERM": "xterm-256color", "COLORTERM": "truecolor", "PYTHONPATH": str(ROOT)}
        self._command = [sys.executable, "-m", "hybridd.cli.main", "tui", *arguments]
        self._asked = False

    async def __aenter__(self) -> Self:
        self._ours, theirs = pty.openpty()
        columns, rows = SIZE
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.set_blocking(self._ours, False)
        self.began = time.time()
        self._child = subprocess.Popen(  # noqa: ASYNC220  # its blocking is part of what is timed
            self._command, env=self._env, cwd=self._env["HOME"], stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True, preexec_fn=die_with_parent,  # noqa: PLW1509  # one prctl; no threads before it
        )  # fmt: skip
        os.close(theirs)
        asyncio.get_running_loop().add_reader(self._ours, self._read)
        return self

    async def __aexit__(self, *exc: object) -> None:
        asyncio.get_running_loop().remove_reader(self._ours)
        os.close(self._ours)
        self._child.send_signal(signal.SIGHUP)
        try:
            await asyncio.to_thread(self._child.wait, 10.0)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait(10.0)

    @property
    def pid(self) -> int:
        return self._child.pid

    def _read(self) -> None:
        try:
            data = os.read(self._ours, 1 << 16)
        except BlockingIOError:
            return
        except OSError:  # how a terminal says that the last writer has gone
            asyncio.get_running_loop().remove_reader(self._ours)
            data = b""
        at = time.time()
        if not self._asked and _ASKS_SYNC in data:
            self._asked = True
            self.write(_HAS_SYNC)
        self.text = (self.text + data)[-KEPT_BYTES:]
        self.painted(at, data)
        self._woken.set()

    def write(self, keys: bytes) -> float:
        """Types; returns when."""
        at = time.time()
        os.write(self._ours, keys)
        return at

    def forget(self) -> None:
        self.text = b""

    async def shows(self, pattern: bytes) -> float:
        """When something that matches has been painted, since the start or :meth:`forget`.

        Raises:
            StartFailed: it was not within 30 s, or the program ended.
        """
        wanted = re.compile(pattern)
        try:
            async with asyncio.timeout(WAIT_S):
                while not wanted.search(self.text):
                    self._woken.clear()
                    await self._woken.wait()
                    if self._child.poll() is not None:
                        raise StartFailed(f"the dashboard ended with {self._child.returncode}: {self.words()}")
        except TimeoutError:
            raise StartFailed(f"the dashboard did not show {pattern!r}: {self.words()}") from None
        return time.time()

    def words(self) -> str:
        """The end of the output without its control sequences."""
        plain = re.sub(rb"\x1b\[[0-9;?<>=$]*[A-Za-z]|\x1b[^\[]", b" ", self.text)
        return " ".join(plain.decode(errors="replace").split())[-500:]


def _ignore(at: float, data: bytes) -> None:
    """Nobody wants to know."""


@dataclass(slots=True)
class Paints:
    """When which numbered request was first on the screen."""

    seen: list[tuple[float, int]] = field(default_factory=list)
    _rest: bytes = b""

    def __call__(self, at: float, data: bytes) -> None:
        text = self._rest + data
        newest = max((int(found) for found in _NUMBER.findall(text)), default=-1)
        self._rest = text[-32:]
        if newest > (self.seen[-1][1] if self.seen else -1):
            self.seen.append((at, newest))

    def lags(self, sent: Sequence[float], first: int) -> list[float]:
        """Seconds from each event to the paint that showed it or a newer one, in the events' order."""
        lags, number = [], first
        for at, newest in self.seen:
            lags += [at - moment for moment in sent[number : newest + 1]]
            number = max(number, newest + 1)
        return lags
