"""From the bytes of tokens to text that may be shown. Pure.

A token may end inside a character, and a stop string may come in several tokens: both are held back until it is clear.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class Pieces:
    """``stopped`` is True once a stop string was seen; what stands before it was returned, nothing after it is."""

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self.stopped = False
        self._stops = [stop for stop in stops if stop]
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def feed(self, data: bytes) -> str:
        """The text that can be shown now that ``data`` has come."""
        return self._release(self._decoder.decode(data))

    def flush(self) -> str:
        """The rest, at the end of the answer. A cut character becomes U+FFFD."""
        text = self._release(self._decoder.decode(b"", final=True))
        held, self._held = self._held, ""
        return text if self.stopped else text + held

    def _release(self, text: str) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that begins ``stop``."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
