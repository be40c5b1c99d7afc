"""The newest records of the log in memory, for ``/v1/logs``: after the redactor, bounded in number and in bytes.

A record is kept as the JSON it is sent as: its size is known exactly, the garbage collector need not look at it, and
reading decodes no more than what is asked for. Keeping one costs a few microseconds in the thread that logs it; a call
that logs nothing costs nothing.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from hybridd.contracts.views import LEVELS, LogView

MOST_RECORDS = 2000
MOST_BYTES = 2 * 1024 * 1024
RECORD_BYTES = 16 * 1024
"""A longer record is shortened, and says so (``cut``)."""
_LENGTHS = (4000, 1000, 200)  # characters of each text of a record that is too long, tried in this order
_FIELDS = 20
_OWN = frozenset({"at", "level", "event", "logger", "exception", "stack", "provider", "model", "request", "request_id"})
_REQUEST = re.compile(r"\breq_[0-9a-f]{8,16}\b")
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(LogView)


class Kept(NamedTuple):
    """One record: what it is looked up by, and itself as JSON."""

    id: int
    at: float
    level: int
    component: str
    payload: bytes

    @property
    def view(self) -> LogView:
        return _decoder.decode(self.payload)


class Ring:
    """``on_kept`` is called, in the thread that logs, after each record; it must not log itself. ``first_id``: the id
    of the first record, from the clock by default, so that ids grow over restarts too."""

    def __init__(
        self, most_records: int = MOST_RECORDS, most_bytes: int = MOST_BYTES, first_id: int | None = None
    ) -> None:
        self.most_records = most_records
        self.most_bytes = most_bytes
        self.on_kept: Callable[[], None] | None = None
        self.bytes = 0
        """Of all payloads."""
        self.lost = 0
        """Records that were here and had to make room for newer ones."""
        self._records: deque[Kept] = deque()
        self._lock = threading.Lock()
        self._next = time.time_ns() // 1000 if first_id is None else first_id

    def keep(self, event: Mapping[str, Any]) -> None:
        """One record as structlog has it, already redacted: ``at``, ``level``, ``event``, ``logger``, and fields."""
        view = _view(event)
        with self._lock:
            view.id = self._next
            payload = _payload(view)
            self._records.append(Kept(view.id, view.at, LEVELS[view.level], view.component, payload))
            self._next += 1
            self.bytes += len(payload)
            while len(self._records) > self.most_records or self.bytes > self.most_bytes:
                self.bytes -= len(self._records.popleft().payload)
                self.lost += 1
        told = self.on_kept  # once: the loop may take it away between a look and a call
        if told is not None:
            told()

    def clear(self) -> None:
        with self._lock:
            self._records.clear()
            self.bytes = self.lost = 0

    def all(self) -> list[Kept]:
        """Oldest first."""
        with self._lock:
            return list(self._records)

    def after(self, record_id: int) -> list[Kept]:
        """The records with a higher id, oldest first."""
        with self._lock:
            found: list[Kept] = []
            for one in reversed(self._records):
                if one.id <= record_id:
                    break
                found.append(one)
        return found[::-1]

    @property
    def newest(self) -> int:
        """The id of the last record; below that of any to come."""
        return self._next - 1

    def __len__(self) -> int:
        return len(self._records)


def _view(event: Mapping[str, Any]) -> LogView:
    trace = "\n".join(str(event[name]) for name in ("stack", "exception") if event.get(name))
    fields = {name: value for name, value in event.items() if name not in _OWN}
    message = event.get("event", "")
    view = LogView(
        id=0,
        at=_moment(event.get("at")),
        level=event["level"] if event.get("level") in LEVELS else "info",
        component=str(event.get("logger") or "?"),
        message=message if isinstance(message, str) else str(message),
        provider=_name(event.get("provider")),
        model=_name(event.get("model")),
        request=_name(event.get("request") or event.get("request_id")),
        fields=fields,
        exception=trace or None,
    )
    if view.request is None and (found := _REQUEST.search(view.message)) is not None:
        view.request = found[0]
    return view


def _name(value: Any) -> str | None:
    return None if value is None else str(value)


def _moment(text: Any) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError):
        return time.time()


def _payload(view: LogView) -> bytes:
    """The record as JSON of at most :data:`RECORD_BYTES`; what cannot be written as JSON goes as its ``repr``."""
    try:
        payload = _encoder.encode(view)
    except (TypeError, ValueError, OverflowError, RecursionError):
        view = _shortened(view, _LENGTHS[0])
        payload = _encoder.encode(view)
    for length in _LENGTHS:
        if len(payload) <= RECORD_BYTES:
            return payload
        view = _shortened(view, length)
        view.cut = True
        payload = _encoder.encode(view)
    if len(payload) > RECORD_BYTES:  # the fields alone are so much
        view.fields = {"…": f"{len(view.fields)} left out"}
        payload = _encoder.encode(view)
    return payload


def _shortened(view: LogView, length: int) -> LogView:
    """No text of it longer than that; of a trace the end stays, which names the error."""
    fields = {_cut(name, 100): _plain(value, length) for name, value in list(view.fields.items())[:_FIELDS]}
    if len(view.fields) > _FIELDS:
        fields["…"] = f"{len(view.fields) - _FIELDS} more"
    trace = _safe(view.exception) if view.exception is not None else None
    if trace is not None and len(trace) > length:
        trace = f"({len(trace) - length} characters before) …{trace[-length:]}"
    return msgspec.structs.replace(
        view,
        component=_cut(view.component, 100),
        message=_cut(view.message, length),
        provider=_cut(view.provider, 100) if view.provider is not None else None,
        model=_cut(view.model, 200) if view.model is not None else None,
        request=_cut(view.request, 100) if view.request is not None else None,
        fields=fields,
        exception=trace,
    )


def _plain(value: Any, length: int) -> Any:
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    return _cut(value if isinstance(value, str) else repr(value), length)


def _cut(text: str, length: int) -> str:
    text = _safe(text)
    return text if len(text) <= length else f"{text[:length]}… ({len(text) - length} more characters)"


def _safe(text: str) -> str:
    """Without halves of surrogate pairs, which no JSON can hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


# ---- reading ---------------------------------------------------------------------------------------------------------


class Wanted:
    """A filter. ``level``: this one and worse. ``component``: the whole name, or its beginning up to a dot.
    ``contains``: a text anywhere in the record, in any case. ``since``, ``until``: UTC seconds, half open. ``before``:
    only lower ids."""

    def __init__(
        self,
        level: str | None = None,
        component: str | None = None,
        contains: str | None = None,
        since: float | None = None,
        until: float | None = None,
        before: int | None = None,
    ) -> None:
        self._least = LEVELS[level] if level is not None else 0
        self._of = f"{component}." if component else ""
        self._text = contains.lower() if contains else ""
        self._since = since if since is not None else float("-inf")
        self._until = until if until is not None else float("inf")
        self._before = before if before is not None else float("inf")

    def fits(self, view: LogView) -> bool:
        return self._placed(view.id, view.at, LEVELS[view.level], view.component) and self._says(view)

    def newest_first(self, records: list[Kept]) -> Iterator[LogView]:
        """What of them fits; no more of them is decoded than is asked for."""
        for one in reversed(records):
            if self._placed(one.id, one.at, one.level, one.component):
                view = one.view
                if self._says(view):
                    yield view

    def _placed(self, record_id: int, at: float, level: int, component: str) -> bool:
        if level < self._least or record_id >= self._before or not self._since <= at < self._until:
            return False
        return f"{component}.".startswith(self._of)

    def _says(self, view: LogView) -> bool:
        if not self._text:
            return True
        fields = " ".join(f"{name}={value}" for name, value in view.fields.items())
        named = f"{view.provider or ''} {view.model or ''} {view.request or ''}"
        said = f"{view.level} {view.component} {view.message} {named} {fields} {view.exception or ''}"
        return self._text in said.lower()
