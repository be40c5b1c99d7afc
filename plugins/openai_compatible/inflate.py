"""``gzip`` and ``deflate`` bodies, unpacked as they arrive and never more than a piece at a time. Pure.

They are not asked for (``accept-encoding: identity``), but some gateways pack whatever passes them.
"""

from __future__ import annotations

import zlib

PIECE_BYTES = 256 * 1024
_MEMBER = b"\x1f\x8b"
_GZIP, _ZLIB, _RAW = 31, zlib.MAX_WBITS, -zlib.MAX_WBITS


class CannotInflate(ValueError):
    """The body is not what its header says, or ends too early."""


class Inflater:
    """``feed`` what has come, then ``take`` pieces until there is none. ``pending``: a piece may be there."""

    def __init__(self, encoding: str) -> None:
        self.pending = False
        self._encoding = encoding
        self._input = b""
        self._engine: zlib._Decompress | None = None

    @classmethod
    def of(cls, encoding: str) -> Inflater | None:
        """For a ``content-encoding``; None where there is nothing to unpack."""
        encoding = encoding.strip().lower()
        return None if encoding in {"", "identity"} else cls(encoding)

    def feed(self, data: bytes) -> None:
        self._input += data
        self.pending = True

    def take(self) -> bytes:
        """The next at most 256 KiB, or b"" when more input is needed.

        Raises:
            CannotInflate: broken input, or an encoding that is neither gzip nor deflate.
        """
        while self.pending:
            if self._engine is None or self._engine.eof:
                if self._engine is not None and not self._input.startswith(_MEMBER):
                    self.pending = False
                    if self._input != _MEMBER[:1]:
                        self._input = b""  # padding behind the end
                    break
                self._engine = zlib.decompressobj(self._window())  # of gzip, one member may follow another
            try:
                out = self._engine.decompress(self._input, PIECE_BYTES)
            except zlib.error as error:
                raise CannotInflate(f"it cannot be unpacked: {error}") from None
            self._input = self._engine.unused_data if self._engine.eof else self._engine.unconsumed_tail
            # Output may be left in the engine without any input left.
            self.pending = bool(self._input) or (len(out) == PIECE_BYTES and not self._engine.eof)
            if out:
                return out
        return b""

    def close(self) -> None:
        """The body is over.

        Raises:
            CannotInflate: it ended within a packed stream.
        """
        if self._engine is not None and not self._engine.eof:
            raise CannotInflate("its packed content is cut")

    def _window(self) -> int:
        if self._encoding in {"gzip", "x-gzip"}:
            return _GZIP
        if self._encoding != "deflate":
            raise CannotInflate(f"it is packed as {self._encoding[:40]}, which was not asked for")
        # "deflate" means zlib's format (RFC 9110 §8.4.1.2), but some send the bare stream.
        return _ZLIB if self._input[0] & 0x0F == 8 else _RAW
