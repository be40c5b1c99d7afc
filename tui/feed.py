"""The one subscription to ``/v1/events``: read in a thread, handed to the event loop in batches.

The thread reconnects with backoff; a batch is handed over at once when nothing came lately, and otherwise at most once
in ``interval`` seconds, so that a thousand events a second cost ten updates. Nothing runs while nothing comes.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import msgspec

from hybridd.client import wire
from hybridd.client.stdlib import Api, Response
from hybridd.client.streams import Lines
from hybridd.errors import HybriddError
from hybridd.i18n import _
from tui.events import Event, decode
from tui.house import Connection

FOCUSED_SECONDS = 0.1
UNFOCUSED_SECONDS = 1.0
SILENT_SECONDS = 40.0
"""The daemon says something every 15 seconds: after so long without a byte it is gone."""
FIRST_WAIT = 0.25
LONGEST_WAIT = 10.0
BACKLOG = 20_000
"""Events that may wait for a screen that hangs; beyond that the thread stops reading, and the daemon drops us."""


def backoff(attempt: int, chance: float) -> float:
    """Seconds to wait before the next try: doubled each time, with jitter (``chance`` from 0 to 1)."""
    longest = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempt - 1, 16))
    return longest * (0.5 + 0.5 * chance)


class Feed:
    """``deliver`` is called on the loop that :meth:`start` is called on, with events in the order they came.

    ``record`` is called in the thread with every event, before it is shown.
    """

    def __init__(
        self,
        socket: Path,
        deliver: Callable[[list[Event]], None],
        *,
        record: Callable[[Event], None] | None = None,
        wall: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.interval = FOCUSED_SECONDS
        self._api = Api(socket, timeout=SILENT_SECONDS)
        self._deliver = deliver
        self._record = record
        self._wall = wall
        self._chance = chance
        self._lock = threading.Condition()
        self._pending: list[Event] = []
        self._scheduled = False
        self._stop = threading.Event()
        self._again = threading.Event()
        self._response: Response | None = None
        self._connection = Connection()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._delivered = 0.0
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; nothing is delivered any more."""
        with self._lock:
            self._stop.set()
            response = self._response
            self._lock.notify_all()
        self._again.set()
        if response is not None:
            response.hang_up()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def retry(self) -> None:
        """Try to connect now instead of waiting."""
        self._again.set()

    def put(self, event: Event) -> None:
        """An event from elsewhere (an answer), in its place in the stream. From any thread."""
        if self._record is not None:
            self._record(event)
        with self._lock:
            while len(self._pending) >= BACKLOG and not self._stop.is_set():
                self._lock.wait()
            if self._stop.is_set():
                return
            self._pending.append(event)
            if self._scheduled:
                return
            self._scheduled = True
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._schedule)

    # ---- on the loop ---------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        wait = self._delivered + self.interval - loop.time()
        if wait <= 0:
            self._flush()
        else:
            loop.call_later(wait, self._flush)

    def _flush(self) -> None:
        with self._lock:
            events, self._pending = self._pending, []
            self._scheduled = False
            self._lock.notify_all()
            if self._stop.is_set():
                return
        self._delivered = asyncio.get_running_loop().time()
        self._deliver(events)

    # ---- in the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        attempt = 0
        while not self._stop.is_set():
            self._again.clear()
            began = self._connection.since
            try:
                self._follow()
                reason = _("the daemon ended the stream")
            except HybriddError as error:
                reason = error.message
            except msgspec.DecodeError as error:
                reason = _("the stream is not hybridd's: {reason}").format(reason=error)
            if self._stop.is_set():
                return
            attempt = 1 if self._connection.state == "live" else attempt + 1
            now = self._wall()
            wait = backoff(attempt, self._chance())
            lost_since = now if self._connection.state == "live" or not began else began
            self._tell(Connection("lost", lost_since, attempt, reason, now + wait, self._connection.ever))
            self._again.wait(wait)

    def _follow(self) -> None:
        response = self._api.open(wire.get("/v1/events"))
        with self._lock:
            self._response = response
        try:
            with response:
                lines = Lines()
                for chunk in response.chunks():
                    for line in lines.feed(chunk):
                        if line:
                            self._take(decode(line))
                    if self._stop.is_set():
                        return
        finally:
            with self._lock:
                self._response = None

    def _take(self, event: Event) -> None:
        if event.kind == "snapshot":
            self._tell(Connection("live", self._wall(), ever=True))
        self.put(event)

    def _tell(self, connection: Connection) -> None:
        self._connection = connection
        self.put(Event(0, self._wall(), "connection", asdict(connection)))
