"""Token bytes to text that may be shown: whole characters only, and nothing of a stop string. Pure.

A token may end in the middle of a character, and a stop string may begin in one token and end in another: text that
could still become part of either is held back. This runs once per token of every sequence, so the usual case (a whole
piece that no stop string can begin in) does nothing but decode.
"""

from __future__ import annotations

from codecs import utf_8_decode
from collections.abc import Sequence


class Pieces:
    """``stopped`` is True once a stop string was seen; what stands before it was returned, nothing after it is.

    ``decoded``: characters decoded so far; ``shown``: those returned. Where a token's text stands follows from them.
    """

    __slots__ = ("_cut", "_firsts", "_held", "_stops", "decoded", "shown", "stopped")

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self.stopped = False
        self.decoded = 0
        self.shown = 0
        self._stops = [stop for stop in stops if stop]
        self._firsts = frozenset(stop[0] for stop in self._stops)
        self._cut = b""  # the beginning of a character
        self._held = ""  # the beginning of a stop string

    def feed(self, data: bytes) -> str:
        """The text that can be shown now that ``data`` has come."""
        if self._cut:
            data = self._cut + data
        text, used = utf_8_decode(data, "replace", False)
        self._cut = data[used:]
        self.decoded += len(text)
        if self._stops:
            return self._release(text)
        self.shown += len(text)
        return text

    def flush(self) -> str:
        """The rest, at the end of the answer. A cut character becomes U+FFFD."""
        text = "\ufffd" if self._cut else ""
        self._cut = b""
        self.decoded += len(text)
        text = self._release(text)
        held, self._held = self._held, ""
        if self.stopped:
            return text
        self.shown += len(held)
        return text + held

    def _release(self, text: str) -> str:
        if self.stopped:
            return ""
        if not self._held and self._firsts.isdisjoint(text):
            self.shown += len(text)
            return text
        text = self._held + text
        found = [at for at in map(text.find, self._stops) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            text = text[: min(found)]
        else:
            keep = max(_overlap(text, stop) for stop in self._stops)
            end = len(text) - keep
            self._held, text = text[end:], text[:end]
        self.shown += len(text)
        return text


def overlap(text: str, marks: Sequence[str]) -> int:
    """Length of the longest end of ``text`` that begins one of ``marks`` without being all of it."""
    return max((_overlap(text, mark) for mark in marks), default=0)


def _overlap(text: str, stop: str) -> int:
    at = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while at >= 0:
        if stop.startswith(text[at:]):
            return len(text) - at
        at = text.find(stop[0], at + 1)
    return 0
