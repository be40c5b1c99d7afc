"""The plain case of WebSocket frames, split without a parser.

Nearly every frame of a plugin link is one whole, unfragmented text message. The generator-based parser of
``websockets`` spends 4 µs on each, on both sides of every routed call. :class:`TextFrames` takes exactly that case off
the front of what was read; everything else (control frames, fragments, anything odd) goes byte for byte to the full
parser, which stays the authority on errors.
"""

from __future__ import annotations

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without the compiled part
    from websockets.utils import apply_mask

__all__ = ["Boundary", "TextFrames", "apply_mask"]

# FIN set, no extension bits, opcode text (RFC 6455 §5.2)
_PLAIN_TEXT = 0x81
_MASKED = 0x80


class TextFrames:
    """Splits the front of a byte stream. ``masked``: frames of a client; ``limit``: the largest message in bytes."""

    def __init__(self, *, masked: bool, limit: int) -> None:
        self._masked = masked
        self._limit = limit
        self._held = bytearray()
        self._needed = 0

    def split(self, data: bytes) -> tuple[list[bytes], bytes]:
        """The messages of the whole plain text frames at the front, and what follows for the full parser.

        An incomplete plain text frame is held until its rest arrives; then nothing follows.
        """
        if self._held:
            self._held += data
            if len(self._held) < self._needed:
                return [], b""
            data = bytes(self._held)
            self._held = bytearray()
        messages: list[bytes] = []
        start, size = 0, len(data)
        while start < size:
            self._needed = 2
            if data[start] != _PLAIN_TEXT:
                return messages, data[start:]
            if size - start < 2:
                break
            length = data[start + 1]
            if (length & _MASKED != 0) is not self._masked:
                return messages, data[start:]
            length &= 0x7F
            head = start + 2
            if length >= 126:
                extended = 2 if length == 126 else 8
                head += extended
                if head > size:
                    self._needed = 2 + extended
                    break
                length = int.from_bytes(data[head - extended : head], "big")
                if length > self._limit:
                    return messages, data[start:]
            if self._masked:
                head += 4
            end = head + length
            if end > size:
                self._needed = end - start
                break
            payload = data[head:end]
            messages.append(apply_mask(payload, data[head - 4 : head]) if self._masked else payload)
            start = end
        if start < size:
            self._held += data[start:]
        return messages, b""


class Boundary:
    """Does the full parser stand between two frames? Only then may plain frames be taken off in front of it.

    Its buffer does not tell: a parser that has consumed a frame's first bytes has an empty one too. So bytes are
    counted: what was fed, less the sizes of the frames that came out. A frame whose length was not written in its
    shortest form leaves a remainder for good, which only costs speed.
    """

    def __init__(self, *, masked: bool) -> None:
        self._mask_size = 4 if masked else 0
        self._open = 0
        self._lost = False

    def fed(self, size: int) -> None:
        self._open += size

    def frame(self, length: int) -> None:
        """One frame with a payload of ``length`` bytes came out."""
        extended = 0 if length < 126 else 2 if length < 65536 else 8
        self._open -= 2 + extended + self._mask_size + length
        if self._open < 0:
            self._lost = True

    @property
    def reached(self) -> bool:
        return self._open == 0 and not self._lost
