"""Recordings: the events of a session as NDJSON, written while it is watched and played again later."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import msgspec

from hybridd.errors import InvalidRequest
from tui.events import Event, decode, encode
from tui.house import Connection

BATCH_SECONDS = 0.1
LONGEST_PAUSE = 5.0
"""Seconds that a recording may stand still, however long the pause was."""


class Recorder:
    """Appends events to a new file, a whole line at a time. Called from any thread.

    Raises:
        InvalidRequest: the file exists already, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            # What was recorded holds names of models, tasks and clients: for the user alone.
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        except OSError as error:
            raise InvalidRequest(f"{path} cannot be recorded to: {error.strerror}", param="record") from None

    def __call__(self, event: Event) -> None:
        os.write(self._file, encode(event))

    def close(self) -> None:
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
                    yield decode(line)
                except msgspec.DecodeError as error:
                    raise InvalidRequest(f"{path}, line {number} is not an event: {error}", param="replay") from None
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}", param="replay") from None


class Player:
    """Plays a recording: ``deliver`` gets batches at the pace they came, ``speed`` times as fast; 0: all at once."""

    def __init__(self, path: Path, deliver: Callable[[list[Event]], None], *, speed: float = 1.0) -> None:
        self._events = read(path)
        first = next(self._events, None)
        if first is None:
            raise InvalidRequest(f"{path} holds no events", param="replay")
        self._deliver = deliver
        self._speed = speed
        self._first = first
        self.at = first.at

    async def play(self) -> None:
        """Returns at the end of the recording, after saying so in a last event.

        Raises:
            InvalidRequest: a line is not an event.
        """
        start = self.at
        self._deliver([_state("replay", start)])
        batch: list[Event] = []
        shown = start
        for event in itertools.chain([self._first], self._events):
            if event.kind == "connection" and event.data.get("state") in {"live", "connecting"}:
                continue  # it was live then; now it is a recording
            wait = (event.at - shown) / self._speed if self._speed else 0.0
            if wait > BATCH_SECONDS and batch:
                self._deliver(batch)
                batch, shown = [], event.at
                await asyncio.sleep(min(LONGEST_PAUSE, wait))
            self.at = max(self.at, event.at)
            batch.append(event)
        self._deliver([*batch, _state("ended", self.at)])


def _state(state: str, at: float) -> Event:
    connection = Connection("replay" if state == "replay" else "ended", at, reason="", ever=True)
    return Event(0, at, "connection", asdict(connection))
