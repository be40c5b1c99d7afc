"""Reading forwards through bytes that nobody has checked: every read is bounded by the file and knows its field."""

from __future__ import annotations

import struct
from typing import Any

from hybridd.errors import HybriddError
from hybridd.local.sources import Source

WINDOW_BYTES = 256 * 1024
INT64_MAX = 2**63 - 1
_LENGTH = struct.Struct("<Q")


class BadGguf(HybriddError):
    """A file that is no GGUF model llama.cpp could load; says which field is wrong, and at which byte."""

    code = "bad_model_file"
    http_status = 422
    type = "invalid_request_error"

    def __init__(self, file: str, field: str, offset: int, problem: str) -> None:
        super().__init__(
            f"{file}: {field} at byte {offset}: {problem}.",
            details={"file": file, "field": field, "offset": offset, "problem": problem},
        )
        self.file = file
        self.field = field
        self.offset = offset


class Cursor:
    """A place in ``source``. Holds one window of it, so that memory does not depend on what the file declares.

    ``field``: what is being read, for the rejection.
    """

    def __init__(self, source: Source, position: int = 0) -> None:
        self._source = source
        self.size = source.size
        self.position = position
        self.field = "the file"
        self._window = b""
        self._start = 0

    def bad(self, problem: str, offset: int | None = None, field: str | None = None) -> BadGguf:
        """The rejection of the current field; ``offset`` when it does not begin at the position."""
        return BadGguf(self._source.name, field or self.field, self.position if offset is None else offset, problem)

    def number(self, form: struct.Struct) -> Any:
        """One little-endian value.

        Raises:
            BadGguf: the file ends before it does.
        """
        position = self.position
        place = self._need(form.size)
        self.position = position + form.size
        return form.unpack_from(self._window, place)[0]

    def take(self, length: int) -> bytes:
        """``length`` bytes; the caller has capped them.

        Raises:
            BadGguf: the file ends before they do.
        """
        place = self._need(length)
        self.position += length
        return self._window[place : place + length]

    def text(self, limit: int, what: str = "text") -> str:
        """A length and as many bytes of UTF-8.

        Raises:
            BadGguf: longer than ``limit``, past the end of the file, or no UTF-8.
        """
        return self.decode(self.length(limit, what))

    def length(self, limit: int, what: str = "text") -> int:
        """The length of the bytes that follow, which are in the file.

        Raises:
            BadGguf: they are more than ``limit``, or run past the end of the file.
        """
        began = self.position
        length = int(self.number(_LENGTH))
        self.check_room(length, began, f"a {what} of {length:,} bytes")
        if length > limit:
            raise self.bad(f"a {what} of {length:,} bytes; the most is {limit:,}", began)
        return length

    def decode(self, length: int) -> str:
        """``length`` bytes as text.

        Raises:
            BadGguf: no UTF-8; the byte that spoils it is named.
        """
        data = self.take(length)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise self.bad(f"not UTF-8: {error.reason}", self.position - length + error.start) from None

    def check_room(self, length: int, offset: int, what: str) -> None:
        """Raises:
        BadGguf: ``length`` bytes from the position on do not fit into the file.
        """
        left = self.size - self.position
        if length > left:
            raise self.bad(f"{what}, and the file ends after {left:,} more bytes", offset)

    def skip(self, length: int, offset: int, what: str) -> None:
        """Moves on; the bytes are not read."""
        self.check_room(length, offset, what)
        self.position += length

    def skip_texts(self, count: int) -> None:
        """Walks ``count`` texts without building any: a vocabulary of 151k with its merges takes about 20 ms.

        Raises:
            BadGguf: one of them runs past the end of the file; the field is named with its index.
        """
        field, read, window = self.field, _LENGTH.unpack_from, self._window
        place = self.position - self._start
        first = (place, 0)
        for index in range(count):
            try:
                # A place past the window is an error here, which spares a comparison for each of 300,000 texts.
                place += read(window, place)[0] + 8
            except (struct.error, OverflowError):
                self.position = self._start + place
                self._check_end(field, *first)
                self.field = f"{field}[{index}]"
                place = self._need(8)
                window, first = self._window, (place, index)
                place += read(window, place)[0] + 8
        self.position = self._start + place
        self._check_end(field, *first)
        self.field = field

    def _check_end(self, field: str, place: int, index: int) -> None:
        """Is the position inside the file? If not, names the text that led out of it, of those since ``place``."""
        while self.position > self.size:
            length = _LENGTH.unpack_from(self._window, place)[0]
            if self._start + place + 8 + length > self.size:
                left = self.size - self._start - place - 8
                raise self.bad(
                    f"a text of {length:,} bytes, and the file ends after {left:,} more bytes",
                    self._start + place,
                    f"{field}[{index}]",
                )
            place, index = place + 8 + length, index + 1

    def _need(self, length: int) -> int:
        """Where in the window the position is, once ``length`` bytes from it are there."""
        place = self.position - self._start
        if place < 0 or place + length > len(self._window):
            left = self.size - self.position
            if length > left:
                raise self.bad(f"the file ends here, {length - max(left, 0)} bytes too early")
            self._window = self._source.read(self.position, min(left, max(length, WINDOW_BYTES)))
            self._start = self.position
            place = 0
        return place
