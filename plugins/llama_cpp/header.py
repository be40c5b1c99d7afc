"""The few facts of a GGUF header that are needed before a model is loaded: architecture, context length, layers.

The file is not trusted: every length is checked against the file's size before it is used, and reading stops at the
first of: all facts found, :data:`MAX_KEYS` keys, :data:`MAX_STRINGS` strings of arrays.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import msgspec

MAX_KEYS = 4096
MAX_KEY_BYTES = 65_535
MAX_STRINGS = 2_000_000
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
# value type → struct format (GGUF specification, "gguf_metadata_value_type")
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}


class BadGguf(ValueError):
    """The file is no GGUF model that can be read; the message says why."""


class Header(msgspec.Struct, frozen=True):
    """``context``: the length the model was trained for; ``layers``: its blocks."""

    architecture: str
    context: int | None
    layers: int | None


def read(path: Path) -> Header:
    """Reads the facts.

    Raises:
        BadGguf: no GGUF file, an unknown version, or one that is cut or lies about its lengths.
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        return _Reader(file, size).header()


class _Reader:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._strings = 0

    def header(self) -> Header:
        if self._take(4) != b"GGUF":
            raise BadGguf("it does not begin with GGUF")
        version = self._number("<I")
        if version not in _VERSIONS:
            raise BadGguf(f"version {version} of the format is not known")
        self._number("<Q")  # tensors
        keys = self._number("<Q")
        found: dict[str, int | str] = {}
        for _ in range(min(keys, MAX_KEYS)):
            name = self._text(MAX_KEY_BYTES)
            kind = self._number("<I")
            if name == "general.architecture" and kind == _STRING:
                found[name] = self._text(256)
            elif name.endswith((".context_length", ".block_count")) and kind in (4, 5, 10, 11):
                found[name] = self._number(_SCALARS[kind])
            else:
                self._skip(kind)
            architecture = found.get("general.architecture")
            if f"{architecture}.context_length" in found and f"{architecture}.block_count" in found:
                break
        architecture = found.get("general.architecture")
        if not isinstance(architecture, str):
            raise BadGguf("it names no architecture")
        return Header(
            architecture,
            _count(found.get(f"{architecture}.context_length")),
            _count(found.get(f"{architecture}.block_count")),
        )

    def _skip(self, kind: int) -> None:
        if kind in _SCALARS:
            self._seek(struct.calcsize(_SCALARS[kind]))
        elif kind == _STRING:
            self._seek(self._number("<Q"))
        elif kind == _ARRAY:
            element, count = self._number("<I"), self._number("<Q")
            if element in _SCALARS:
                self._seek(count * struct.calcsize(_SCALARS[element]))
            elif element == _STRING:
                self._strings += count
                if self._strings > MAX_STRINGS:
                    raise BadGguf(f"it holds more than {MAX_STRINGS} strings")
                for _ in range(count):
                    self._seek(self._number("<Q"))
            else:
                raise BadGguf(f"an array of type {element} is not known")
        else:
            raise BadGguf(f"value type {kind} is not known")

    def _number(self, form: str) -> int:
        return int(struct.unpack(form, self._take(struct.calcsize(form)))[0])

    def _text(self, limit: int) -> str:
        size = self._number("<Q")
        if size > limit:
            raise BadGguf(f"a name of {size} bytes")
        return self._take(size).decode("utf-8", "replace")

    def _take(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) != size:
            raise BadGguf("it ends in the middle of its header")
        return data

    def _seek(self, size: int) -> None:
        if size > self._size - self._file.tell():
            raise BadGguf("a length in its header is larger than the file")
        self._file.seek(size, 1)


def _count(value: int | str | None) -> int | None:
    return value if isinstance(value, int) and 0 < value < 2**31 else None
