"""The table of tensors of one GGUF file: names, shapes, types, and where each tensor lies."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec

from hybridd.local.ggml_types import REMOVED, TYPES
from hybridd.local.gguf_cursor import INT64_MAX, Cursor

MAX_TENSORS = 65_536
MAX_NAME_BYTES = 63  # GGML_MAX_NAME, with its final zero
MAX_DIMENSIONS = 4  # GGML_MAX_DIMS
MIN_BYTES = 8 + 1 + 4 + 4 + 8  # of the shortest row

_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


class Tensor(msgspec.Struct, frozen=True):
    """``shape``: ggml's order, ne[0] first; ``type``: ggml's name; ``offset``: absolute in file number ``part``."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    nbytes: int
    part: int = 0


def read(cursor: Cursor, count: int, alignment: int, part: int) -> tuple[list[Tensor], int]:
    """The tensors, and the byte at which their data begins.

    Raises:
        BadGguf: a row is wrong, or its data is not where llama.cpp looks for it, or not in the file.
    """
    described = [_described(cursor, index) for index in range(count)]
    data_offset = _pad(cursor.position, alignment)
    return _placed(cursor, described, data_offset, alignment, part), data_offset


def _pad(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


class _Described(msgspec.Struct, frozen=True):
    """A row of the table of tensors. ``relative``: offset in the data; ``at``, ``relative_at``: bytes of the fields."""

    name: str
    shape: tuple[int, ...]
    type: str
    nbytes: int
    at: int
    relative: int
    relative_at: int


def _described(cursor: Cursor, index: int) -> _Described:
    cursor.field, began = f"tensor {index}", cursor.position
    name = cursor.text(MAX_NAME_BYTES, "name")
    if not name.isprintable() or not name:
        raise cursor.bad("its name is empty or has characters that cannot be printed", began)
    cursor.field, at = f"tensor {name}", cursor.position
    dimensions = cursor.number(_U32)
    if dimensions > MAX_DIMENSIONS:
        raise cursor.bad(f"{dimensions:,} dimensions; the most is {MAX_DIMENSIONS}", at)
    # llama.cpp reads a tensor without dimensions as one of a single element.
    shape = tuple(_dimension(cursor) for _ in range(dimensions)) or (1,)
    elements = 1
    for size in shape:
        elements *= size
    if elements > INT64_MAX:
        raise cursor.bad(f"its dimensions {list(shape)} have a product above 2^63 - 1", at)
    nbytes, kind = _bytes(cursor, elements, shape[0])
    relative_at = cursor.position
    return _Described(name, shape, kind, nbytes, began, cursor.number(_U64), relative_at)


def _dimension(cursor: Cursor) -> int:
    began = cursor.position
    size = int(cursor.number(_U64))
    if not 0 < size <= INT64_MAX:
        raise cursor.bad(f"a dimension of {size:,}; it is 1 or more and below 2^63", began)
    return size


def _bytes(cursor: Cursor, elements: int, row: int) -> tuple[int, str]:
    began = cursor.position
    number = cursor.number(_U32)
    kind = TYPES.get(number)
    if kind is None:
        gone = REMOVED.get(number)
        raise cursor.bad(f"type {gone} was removed from llama.cpp" if gone else f"type {number} is not known", began)
    if row % kind.block:
        raise cursor.bad(f"rows of {row:,} elements do not fill blocks of {kind.block} ({kind.name})", began)
    nbytes = elements // kind.block * kind.size
    if nbytes > INT64_MAX:
        raise cursor.bad(f"{elements:,} elements of {kind.name} take more than 2^63 - 1 bytes", began)
    return nbytes, kind.name


def _placed(
    cursor: Cursor, described: Sequence[_Described], data_offset: int, alignment: int, part: int
) -> list[Tensor]:
    """The tensors at their absolute offsets. llama.cpp wants them one after the other, each padded to the alignment."""
    tensors = []
    names: dict[str, int] = {}
    expected = 0
    for one in described:
        cursor.field = f"tensor {one.name}"
        if one.name in names:
            raise cursor.bad(f"the name is there twice, first at byte {names[one.name]}", one.at)
        names[one.name] = one.at
        if one.relative != expected:
            raise cursor.bad(_misplaced(one.relative, expected, alignment), one.relative_at)
        begin = data_offset + one.relative
        if begin + one.nbytes > cursor.size:
            raise cursor.bad(
                f"its data ends at byte {begin + one.nbytes:,}, and the file ends at {cursor.size:,}: it is cut short",
                one.relative_at,
            )
        expected = _pad(one.relative + one.nbytes, alignment)
        tensors.append(Tensor(one.name, one.shape, one.type, begin, one.nbytes, part))
    return tensors


def _misplaced(offset: int, expected: int, alignment: int) -> str:
    if offset % alignment:
        return f"its offset {offset:,} is no multiple of the alignment {alignment}"
    if offset < expected:
        return f"its offset {offset:,} overlaps the tensor before it, which ends at {expected:,}"
    return f"its offset {offset:,} leaves a gap; the tensor before it ends at {expected:,}"
