"""Streams as they arrive: lines, server-sent events, and one streamed call; standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from hybridd import errors
from hybridd.client import wire
from hybridd.client.types import CallResult


class Lines:
    """Bytes in, whole lines out; a line may arrive in any number of pieces."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        head, newline, rest = data.partition(b"\n")
        if not newline:
            self._pieces.append(data)
            return []
        lines = [b"".join([*self._pieces, head]), *rest.split(b"\n")]
        self._pieces = [lines.pop()]
        return [line.removesuffix(b"\r") for line in lines]


class ServerEvents:
    """Bytes of a ``text/event-stream`` in, ``(event, data)`` out."""

    def __init__(self) -> None:
        self._lines = Lines()
        self._event = ""
        self._data: list[bytes] = []

    def feed(self, data: bytes) -> Iterator[tuple[str, bytes]]:
        for line in self._lines.feed(data):
            if not line:
                if self._data:
                    yield self._event or "message", b"\n".join(self._data)
                self._event, self._data = "", []
            elif line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif line.startswith(b"event:"):
                self._event = line[6:].strip().decode("utf-8", "replace")


class StreamReader:
    """The state of one streamed call: text so far, and the result once the stream has ended."""

    def __init__(self) -> None:
        self._events = ServerEvents()
        self._text: list[str] = []
        self._explained: Any = None
        self.done = False

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """OpenAI chunks.

        Raises:
            HybriddError: the stream carries an error.
        """
        for event, payload in self._events.feed(data):
            if payload.strip() == b"[DONE]":
                self.done = True
                continue
            value = wire.decode(payload)
            if event == "hybridd":
                self._explained = value
            elif isinstance(value, dict) and "error" in value:
                raise wire.error_of(int(value["error"].get("status") or 502), payload)
            elif isinstance(value, dict):
                self._text.append(wire.delta_of(value))
                yield value

    def finish(self) -> CallResult:
        """The result, at the end of the stream.

        Raises:
            ProviderError: the stream ended before it was complete.
        """
        if not self.done:
            raise errors.ProviderError("the stream ended before the answer was complete", code="stream_cut")
        return wire.call_result("".join(self._text), self._explained)


def json_lines(chunks: Iterable[bytes]) -> Iterator[Any]:
    """The values of an NDJSON stream, as they arrive."""
    lines = Lines()
    for chunk in chunks:
        for line in lines.feed(chunk):
            if line.strip():
                yield wire.decode(line)
