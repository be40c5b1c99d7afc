"""One streamed call, read in a thread; its pieces reach the event loop at most twenty times a second."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hybridd.client import streams, wire
from hybridd.client.stdlib import Api, Response
from hybridd.client.types import CallResult
from hybridd.client.wire import Call
from hybridd.errors import HybriddError, NoFeasibleProvider
from hybridd.i18n import _
from tui.session import Turn
from tui.text import age

INTERVAL = 0.05
SILENT_SECONDS = 600.0
CLIENT = "playground"
"""What such requests are recorded as."""


def call_for(turn: Turn) -> Call:
    """The call that answers this turn.

    Raises:
        InvalidRequest: it breaks a rule of the daemon.
    """
    sent = wire.chat(turn.messages, model=turn.model, stream=True)
    return sent._replace(headers={**sent.headers, "x-hybridd-client": CLIENT})


def thought_of(chunk: Mapping[str, Any]) -> str:
    """What a reasoning model thinks before it answers: ``reasoning_content`` (llama.cpp, DeepSeek, vLLM) or
    ``reasoning`` (Groq, Hugging Face's router) of a streamed delta."""
    delta = (chunk.get("choices") or [{}])[0].get("delta") or {}
    said = delta.get("reasoning_content") or delta.get("reasoning")
    return said if isinstance(said, str) else ""


class Answer:
    """``changed`` is called on the loop that :meth:`start` is called on, whenever the turn has changed, and a last time
    when it has ended. Only that loop touches the turn."""

    def __init__(self, socket: Path, turn: Turn, changed: Callable[[Answer], None]) -> None:
        self.turn = turn
        self._api = Api(socket, timeout=SILENT_SECONDS)
        self._changed = changed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._pieces: list[str] = []
        self._thoughts: list[str] = []
        self._headers: dict[str, str] = {}
        self._first_ms: float | None = None
        self._last_ms: float | None = None
        self._end: CallResult | HybriddError | None = None
        self._scheduled = False
        self._hang_up: Callable[[], None] | None = None
        self._stopped = False
        self.ended = False
        self._thread = threading.Thread(target=self._run, name="answer", daemon=True)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """Ends the call: the daemon sees that nobody listens any more, and cancels it."""
        with self._lock:
            self._stopped = True
            hang_up = self._hang_up
        if hang_up is not None:
            hang_up()

    # ---- in the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        began = time.monotonic()
        end: CallResult | HybriddError | None
        try:
            response = self._api.open(call_for(self.turn), began=self._reach)
            with self._lock:
                self._headers = {name.lower(): value for name, value in response.headers.items()}
            end = self._read(response, began)
        except HybriddError as error:
            end = error
        with self._lock:
            self._end = end
        self._tell()

    def _read(self, response: Response, began: float) -> CallResult:
        reader = streams.StreamReader()
        with response:
            for data in response.chunks():
                for chunk in reader.feed(data):
                    self._take(wire.delta_of(chunk), thought_of(chunk), began)
        return reader.finish()

    def _take(self, text: str, thought: str, began: float) -> None:
        if not text and not thought:
            return
        with self._lock:
            self._last_ms = (time.monotonic() - began) * 1000
            if self._first_ms is None:
                self._first_ms = self._last_ms
            self._pieces.append(text)
            self._thoughts.append(thought)
        self._tell()

    def _reach(self, hang_up: Callable[[], None]) -> None:
        with self._lock:
            self._hang_up = hang_up
            stopped = self._stopped
        if stopped:
            hang_up()

    def _tell(self) -> None:
        with self._lock:
            if self._scheduled:
                return
            self._scheduled = True
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._schedule)

    # ---- on the loop ---------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        asyncio.get_running_loop().call_later(INTERVAL, self._flush)

    def _flush(self) -> None:
        with self._lock:
            pieces, self._pieces = self._pieces, []
            thoughts, self._thoughts = self._thoughts, []
            headers, end, stopped = self._headers, self._end, self._stopped
            first, last = self._first_ms, self._last_ms
            self._scheduled = False
        turn = self.turn
        turn.text += "".join(pieces)
        turn.thoughts += "".join(thoughts)
        turn.first_ms, turn.last_ms = first, last
        if turn.state == "waiting" and pieces:
            turn.state = "answering"
        turn.request_id = headers.get("x-hybridd-request-id", turn.request_id)
        if "x-hybridd-provider" in headers:
            turn.answered = f"{headers['x-hybridd-provider']}:{headers.get('x-hybridd-model', '')}"
        if end is not None:
            self.ended = True
            finish(turn, end, stopped=stopped)
        self._changed(self)


def finish(turn: Turn, end: CallResult | HybriddError, *, stopped: bool) -> None:
    """What is known of the call at its end."""
    if isinstance(end, HybriddError):
        turn.state = "stopped" if stopped else "failed"
        turn.error = "" if stopped else reason_of(end)
        return
    choice, usage = end["model_choice"], end["usage"]
    turn.state = "done"
    turn.request_id = end["request_id"]
    turn.answered = choice["chosen_model"] or turn.answered
    turn.reason = choice["reason"]
    turn.passed_over = len(choice["rejected"])
    turn.input_tokens, turn.output_tokens = usage["input_tokens"], usage["output_tokens"]
    turn.cost_usd, turn.latency_ms, turn.cache = end["cost_usd"], end["latency_ms"], end["cache"]


def reason_of(error: HybriddError) -> str:
    if isinstance(error, NoFeasibleProvider) and error.retry_after is not None:
        return f"{error.message} {_('Possible again in {span}.').format(span=age(error.retry_after))}"
    return error.message
