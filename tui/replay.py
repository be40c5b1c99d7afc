"""Recordings: the events of a session as NDJSON, written while it is watched and played again later."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import msgspec

from hybridd.errors import InvalidRequest
from hybridd.i18n import _
from tui.deltas import HANDLERS
from tui.events import Event, decode, encode
from tui.house import Connection

BATCH_SECONDS = 0.1
LONGEST_PAUSE = 5.0
"""Seconds that a recording may stand still, however long the pause was."""
LATEST = 253_402_214_400.0
"""UTC seconds of the last day that a calendar can show."""


class Recorder:
    """Appends events to a new file, a whole line at a time. Called from any thread.

    ``failed`` is called once, with a sentence, when nothing more can be written (a full disk).

    Raises:
        InvalidRequest: the file exists already, or cannot be written.
    """

    def __init__(self, path: Path, failed: Callable[[str], None] = lambda sentence: None) -> None:
        self._path = path
        self._failed = failed
        self._lock = threading.Lock()
        self._open = True
        try:
            # What was recorded holds names of models, tasks and clients: for the user alone.
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        except OSError as error:
            said = _("{path} cannot be recorded to: {reason}").format(path=path, reason=error.strerror)
            raise InvalidRequest(said, param="record") from None

    def __call__(self, event: Event) -> None:
        line = memoryview(encode(event))
        with self._lock:
            try:
                while self._open and line:
                    line = line[os.write(self._file, line) :]
            except OSError as error:
                self._end()
                said = _("The recording ends here; {path} cannot be written to any more: {reason}")
                self._failed(said.format(path=self._path, reason=error.strerror))

    def close(self) -> None:
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._open:
            self._open = False
            os.close(self._file)


def read(path: Path) -> Iterator[Event]:
    """The events of a recording. A last line that was cut off is left out.

    Raises:
        InvalidRequest: it cannot be read, or a line is not an event; the message names the line.
    """
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    return
                try:
                    event = decode(line)
                except msgspec.DecodeError as error:
                    said = _("{path}, line {number} is not an event: {reason}")
                    raise _unusable(said.format(path=path, number=number, reason=error)) from None
                if not 0 <= event.at <= LATEST:
                    said = _("{path}, line {number} is of no time: {at}")
                    raise _unusable(said.format(path=path, number=number, at=event.at))
                yield event
    except OSError as error:
        said = _("{path} cannot be read: {reason}")
        raise _unusable(said.format(path=path, reason=error.strerror)) from None


def _unusable(sentence: str) -> InvalidRequest:
    return InvalidRequest(sentence, param="replay")


def check(path: Path) -> Event:
    """The first event, of a file that is a recording.

    Raises:
        InvalidRequest: it is none.
    """
    first = next(read(path), None)
    if first is None:
        raise _unusable(_("{path} holds no events").format(path=path))
    if first.kind not in HANDLERS:
        said = _("{path} is no recording of the dashboard: it begins with an event '{kind}'")
        raise _unusable(said.format(path=path, kind=first.kind))
    return first


def _is_cut(path: Path) -> bool:
    """The last line has no end."""
    with path.open("rb") as lines:
        lines.seek(-1, os.SEEK_END)
        return lines.read(1) != b"\n"


class Player:
    """Plays a recording: ``deliver`` gets batches at the pace they came, ``speed`` times as fast; 0: all at once.

    Raises:
        InvalidRequest: the file is no recording.
    """

    def __init__(self, path: Path, deliver: Callable[[list[Event]], None], *, speed: float = 1.0) -> None:
        self.at = check(path).at
        self._path = path
        self._deliver = deliver
        self._speed = speed

    async def play(self) -> None:
        """Returns at the end of the recording, or where it cannot be read on, after saying so in a last event."""
        self._deliver([_state("replay", self.at)])
        batch: list[Event] = []
        shown = self.at
        reason = ""
        events = read(self._path)
        while True:
            try:
                event = next(events, None)
                if event is None:
                    reason = _("its last line was cut off") if _is_cut(self._path) else ""
                    break
            except InvalidRequest as error:
                reason = error.message
                break
            if event.kind == "connection" and _was_live(event):
                continue  # it was live then; now it is a recording
            wait = (event.at - shown) / self._speed if self._speed else 0.0
            if wait > BATCH_SECONDS and batch:
                self._deliver(batch)
                batch, shown = [], event.at
                await asyncio.sleep(min(LONGEST_PAUSE, wait))
            self.at = max(self.at, event.at)
            batch.append(event)
        self._deliver([*batch, _state("ended", self.at, reason)])


def _was_live(event: Event) -> bool:
    return isinstance(event.data, dict) and event.data.get("state") in {"live", "connecting"}


def _state(state: Literal["replay", "ended"], at: float, reason: str = "") -> Event:
    return Event(0, at, "connection", asdict(Connection(state, at, reason=reason, ever=True)))
