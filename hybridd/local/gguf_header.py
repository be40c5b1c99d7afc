"""The header of one GGUF file: counts and metadata. Nothing in it is believed unchecked."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import msgspec

from hybridd.local import gguf_tensors
from hybridd.local.gguf_cursor import INT64_MAX, Cursor
from hybridd.local.gguf_tensors import Tensor
from hybridd.local.sources import Source

VERSIONS = (2, 3)
MAX_KEYS = 16_384
MAX_KEY_BYTES = 65_535  # gguf.md: a key has at most 2^16 - 1 bytes
MAX_TEXT_BYTES = 1024 * 1024  # a longer text (a whole tokenizer.json) stays in the file
MAX_LIST = 1024  # items of a numeric array that become a list
MAX_TEXTS = 8_000_000  # in all arrays together; the largest vocabulary with its merges is below a million
MAX_KEPT_BYTES = 8 * 1024 * 1024  # of keys, texts and lists together
MIN_KEY_BYTES = 8 + 1 + 4 + 1  # the shortest key with its value
DEFAULT_ALIGNMENT = 32

_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_BOOL, _STRING, _ARRAY = 7, 8, 9
_LIST_ITEM_BYTES = 32  # of a Python number in a list
# gguf.md, `gguf_metadata_value_type`
_NAMES = {
    0: "u8", 1: "i8", 2: "u16", 3: "i16", 4: "u32", 5: "i32", 6: "f32", 7: "bool", 10: "u64", 11: "i64", 12: "f64",
}  # fmt: skip
_FORMS = {"u8": "B", "i8": "b", "u16": "H", "i16": "h", "u32": "I", "i32": "i", "f32": "f", "bool": "?", "u64": "Q",
          "i64": "q", "f64": "d"}  # fmt: skip
SCALARS_BY_NAME = {name: struct.Struct("<" + form) for name, form in _FORMS.items()}
_SCALARS = {kind: SCALARS_BY_NAME[name] for kind, name in _NAMES.items()}


class ArrayRef(msgspec.Struct, frozen=True):
    """An array left in the file. ``item_type``: ``string``, ``u8`` … ``f64``; ``offset``: byte of its first item."""

    item_type: str
    count: int
    offset: int


Value = int | float | bool | str | ArrayRef | list[int] | list[float] | list[bool]


class Header(msgspec.Struct, frozen=True):
    """``offsets``: byte of each key; ``tensors_offset``: of the table of tensors; ``data_offset``: of the tensors."""

    version: int
    metadata: Mapping[str, Value]
    offsets: Mapping[str, int]
    tensors: Sequence[Tensor]
    tensors_offset: int
    data_offset: int


def read(source: Source, part: int = 0) -> Header:
    """Reads and checks the header.

    Args:
        source: one file.
        part: its index in a split model, given to its tensors.

    Raises:
        BadGguf: a field is wrong.
        SourceError: the source cannot be read.
    """
    cursor = Cursor(source)
    version = _version(cursor)
    tensor_count = _count(cursor, "the number of tensors", gguf_tensors.MAX_TENSORS, gguf_tensors.MIN_BYTES)
    key_count = _count(cursor, "the number of keys", MAX_KEYS, MIN_KEY_BYTES)
    metadata, offsets = _Metadata(cursor).read(key_count)
    alignment = _alignment(cursor, metadata, offsets)
    tensors_offset = cursor.position
    tensors, data_offset = gguf_tensors.read(cursor, tensor_count, alignment, part)
    return Header(version, metadata, offsets, tensors, tensors_offset, data_offset)


def _version(cursor: Cursor) -> int:
    cursor.field = "the magic number"
    magic = cursor.take(4)
    if magic != b"GGUF":
        raise cursor.bad(f"it is {magic!r}; a GGUF file begins with b'GGUF'", 0)
    cursor.field = "the version"
    version = int(cursor.number(_U32))
    if version in VERSIONS:
        return version
    if int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS:
        raise cursor.bad("the file is big-endian; only little-endian models can be loaded", 4)
    raise cursor.bad(f"{version} is not known; 2 and 3 are", 4)


def _count(cursor: Cursor, field: str, most: int, least_bytes: int) -> int:
    cursor.field, began = field, cursor.position
    count = int(cursor.number(_U64))
    if count > most:
        raise cursor.bad(f"{count:,}; the most is {most:,}", began)
    if count * least_bytes > cursor.size - cursor.position:
        raise cursor.bad(f"{count:,} do not fit into the {cursor.size - cursor.position:,} bytes that follow", began)
    return count


class _Metadata:
    """Reads keys and values; what is kept of all of them together is bounded."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._kept = 0
        self._texts = 0

    def read(self, count: int) -> tuple[dict[str, Value], dict[str, int]]:
        values: dict[str, Value] = {}
        offsets: dict[str, int] = {}
        cursor = self._cursor
        for index in range(count):
            cursor.field, began = f"key {index}", cursor.position
            key = cursor.text(MAX_KEY_BYTES, "key")
            if not key.isprintable() or not key:
                raise cursor.bad("it is empty or has characters that cannot be printed", began)
            cursor.field = key
            if key in values:
                raise cursor.bad(f"the key is there twice, first at byte {offsets[key]}", began)
            self._keep(len(key), began)
            offsets[key] = began
            values[key] = self._value(key)
        return values, offsets

    def _value(self, key: str) -> Value:
        cursor = self._cursor
        began = cursor.position
        kind = cursor.number(_U32)
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array()
        if kind not in _SCALARS:
            raise cursor.bad(f"value type {kind} is not known", began)
        return self._bool() if kind == _BOOL else cursor.number(_SCALARS[kind])

    def _bool(self) -> bool:
        began = self._cursor.position
        value = self._cursor.take(1)[0]
        if value > 1:
            raise self._cursor.bad(f"a bool of {value}; it is 0 or 1", began)
        return value == 1

    def _string(self) -> str | ArrayRef:
        cursor = self._cursor
        began = cursor.position
        length = cursor.length(INT64_MAX)
        if length > MAX_TEXT_BYTES:
            cursor.skip(length, began, "a text")
            return ArrayRef("u8", length, began + 8)
        self._keep(length, began)
        return cursor.decode(length)

    def _array(self) -> ArrayRef | list[int]:
        cursor = self._cursor
        began = cursor.position
        kind, count = cursor.number(_U32), cursor.number(_U64)
        offset = cursor.position
        if kind == _ARRAY:
            raise cursor.bad("an array of arrays; llama.cpp reads none", began)
        if kind != _STRING and kind not in _SCALARS:
            raise cursor.bad(f"item type {kind} is not known", began)
        what = f"an array of {count:,} items"
        if kind == _STRING:
            self._texts += count
            # The declared count is held against the file first: 2^40 texts need eight bytes each.
            cursor.check_room(8 * count, began + 4, what)
            if self._texts > MAX_TEXTS:
                raise cursor.bad(f"{what}; all arrays together have at most {MAX_TEXTS:,} texts", began + 4)
            cursor.skip_texts(count)
            return ArrayRef("string", count, offset)
        form = _SCALARS[kind]
        if count > MAX_LIST:
            cursor.skip(form.size * count, began + 4, what)
            return ArrayRef(_NAMES[kind], count, offset)
        cursor.check_room(form.size * count, began + 4, what)
        self._keep(_LIST_ITEM_BYTES * count, began)
        return [item for (item,) in form.iter_unpack(cursor.take(form.size * count))]

    def _keep(self, length: int, offset: int) -> None:
        self._kept += length
        if self._kept > MAX_KEPT_BYTES:
            raise self._cursor.bad(f"keys and texts of more than {MAX_KEPT_BYTES:,} bytes", offset)


def _alignment(cursor: Cursor, metadata: Mapping[str, Value], offsets: Mapping[str, int]) -> int:
    key = "general.alignment"
    value = metadata.get(key, DEFAULT_ALIGNMENT)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or value & (value - 1):
        said = f"{value:,}" if isinstance(value, int) else "no number"
        raise cursor.bad(f"{said}; it is a power of two", offsets[key], key)
    return value
