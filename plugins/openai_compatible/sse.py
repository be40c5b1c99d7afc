"""Server-sent events from bytes cut anywhere (WHATWG HTML, "Parsing an event stream"). Pure.

Handles LF, CRLF and CR line ends, comments, ``data:`` over several lines, a byte order mark and unknown fields. A line
that is a bare JSON object is an event too: proxies write ``{"error": …}`` like that into a stream that breaks.
"""

from __future__ import annotations

MAX_EVENT_BYTES = 8 * 1024 * 1024
DONE = b"[DONE]"
_BOM = b"\xef\xbb\xbf"


class EventTooLarge(ValueError):
    """The upstream sent more than ``limit`` bytes without ending an event."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"one event of the stream is larger than {limit} bytes")


class Parser:
    """``feed`` returns the payloads of the events that a read completes, in order.

    ``done`` is set by ``[DONE]``; nothing after it is returned.
    """

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.done = False
        self._tail = b""
        self._started = False
        self._skip_newline = False
        self._limit = max_event_bytes

    def feed(self, data: bytes) -> list[bytes]:
        """Payloads (``data:`` contents, stripped) of the events that end in ``data``.

        Raises:
            EventTooLarge: an event has grown past the limit.
        """
        if self.done or not data:
            return []
        data = self._line_ends(data)
        if self._tail:
            data = self._tail + data
        if not self._started:
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._tail = data
                return []
            self._started = True
            data = data.removeprefix(_BOM)
        head, blank, self._tail = data.rpartition(b"\n\n")
        if len(self._tail) > self._limit:
            raise EventTooLarge(self._limit)
        return self._events(head) if blank else []

    def close(self) -> list[bytes]:
        """The last event, when the stream ended without the blank line that should follow it.

        It may be cut: the caller decides whether it is whole JSON.
        """
        rest, self._tail = self._tail, b""
        return [] if self.done else self._events(rest)

    def _line_ends(self, data: bytes) -> bytes:
        """LF alone. A CR ends its line at once; an LF that follows in the next read belongs to it."""
        if self._skip_newline and data.startswith(b"\n"):
            data = data[1:]
        self._skip_newline = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data

    def _events(self, text: bytes) -> list[bytes]:
        events: list[bytes] = []
        for block in text.split(b"\n\n"):
            # Nearly every block of every host is this one line.
            found = [block[6:].strip()] if block.startswith(b"data: ") and b"\n" not in block else _payloads(block)
            for payload in found:
                if payload == DONE:
                    self.done = True
                    return events
                if payload:
                    events.append(payload)
        return events


def _payloads(block: bytes) -> list[bytes]:
    data: list[bytes] = []
    bare: list[bytes] = []
    for line in block.split(b"\n"):
        if line.startswith(b"data:"):
            data.append(line[6:] if line.startswith(b"data: ") else line[5:])
        elif line.startswith(b"{"):
            bare.append(line.strip())
    joined = b"\n".join(data).strip()
    return [joined, *bare] if joined else bare
