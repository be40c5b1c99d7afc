"""GGUF files byte by byte: good ones, and one for each way in which a header can lie.

By hand: ``python -m tests.fakes.hostile_gguf FOLDER`` writes the whole corpus.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q", I64: "q", F64: "d"}
F16_TYPE, Q4_K_TYPE = 1, 12


def text(value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def value(kind: int, what: Any) -> bytes:
    return text(what) if kind == STRING else struct.pack("<" + FORMS[kind], what)


def key(name: bytes | str, kind: int, what: Any) -> bytes:
    return text(name) + struct.pack("<I", kind) + value(kind, what)


def array(name: str, kind: int, items: list[Any], *, count: int | None = None) -> bytes:
    head = struct.pack("<IIQ", ARRAY, kind, len(items) if count is None else count)
    return text(name) + head + b"".join(value(kind, item) for item in items)


def tensor(
    name: bytes | str, shape: tuple[int, ...], offset: int, *, kind: int = 0, dimensions: int | None = None
) -> bytes:
    counted = len(shape) if dimensions is None else dimensions
    sizes = b"".join(struct.pack("<Q", size) for size in shape)
    return text(name) + struct.pack("<I", counted) + sizes + struct.pack("<IQ", kind, offset)


class Built(NamedTuple):
    """``keys`` and ``tensors``: the bytes at which each of them begins, and a last one where they end."""

    data: bytes
    keys: tuple[int, ...]
    tensors: tuple[int, ...]


def build(
    keys: list[bytes] | None = None,
    tensors: list[bytes] | None = None,
    *,
    data: int = 0,
    magic: bytes = b"GGUF",
    version: bytes = struct.pack("<I", 3),
    tensor_count: int | None = None,
    key_count: int | None = None,
    alignment: int = 32,
) -> Built:
    """A file of the given parts, with ``data`` zero bytes for the tensors behind the padding."""
    keys = [ARCHITECTURE] if keys is None else keys
    tensors = [] if tensors is None else tensors
    counts = (len(tensors) if tensor_count is None else tensor_count, len(keys) if key_count is None else key_count)
    out = magic + version + struct.pack("<QQ", *counts)
    places: list[list[int]] = []
    for rows in (keys, tensors):
        found = [len(out)]
        for row in rows:
            out += row
            found.append(len(out))
        places.append(found)
    if data:
        out += bytes(-len(out) % alignment) + bytes(data)
    return Built(out, tuple(places[0]), tuple(places[1]))


ARCHITECTURE = key("general.architecture", STRING, "llama")


def good(version: int = 3) -> Built:
    """A small sound file that has every kind of value."""
    return build(
        [
            ARCHITECTURE,
            *(key(f"x.{kind}", kind, 1) for kind in FORMS),
            key("general.name", STRING, "naïve"),
            array("x.list", I32, [1, -2, 3]),
            array("x.flags", BOOL, [0, 1]),
            array("x.long", F32, [0.5] * 2000),
            array("tokenizer.ggml.tokens", STRING, ["<s>", "", "é", b"\xff", "word" * 20]),
            key("general.alignment", U32, 64),
            key("tokenizer.chat_template", STRING, "{{ messages }}"),
        ],
        [
            tensor("a.weight", (8, 4), 0),
            tensor("b.weight", (256, 2), 128, kind=Q4_K_TYPE),
            tensor("c.weight", (3, 1, 2, 1), 448, kind=F16_TYPE),
            tensor("d.scale", (), 512),
        ],
        data=516,
        version=struct.pack("<I", version),
        alignment=64,
    )


class Hostile(NamedTuple):
    """``field``, ``offset`` and ``says``: what the rejection must name."""

    name: str
    data: bytes
    field: str
    offset: int
    says: str


def corpus() -> Iterator[Hostile]:
    """Every lie, one to a file."""
    yield from _starts()
    yield from _counts()
    yield from _keys()
    yield from _values()
    yield from _arrays()
    yield from _tensors()
    yield from _places()


def _starts() -> Iterator[Hostile]:
    yield Hostile("empty", b"", "the magic number", 0, "ends here")
    yield Hostile("cut in the magic number", b"GG", "the magic number", 0, "ends here")
    yield Hostile("another format", b"PK\x03\x04" + bytes(60), "the magic number", 0, "begins with b'GGUF'")
    yield Hostile("the old format", b"lmgg" + bytes(60), "the magic number", 0, "b'lmgg'")
    yield Hostile("cut in the version", b"GGUF\x03\x00", "the version", 4, "ends here")
    for version in (0, 1, 4, 2**32 - 1):
        data = build(version=struct.pack("<I", version)).data
        yield Hostile(f"version {version}", data, "the version", 4, f"{version} is not known")
    data = build(version=struct.pack(">I", 3)).data
    yield Hostile("big-endian", data, "the version", 4, "big-endian")
    yield Hostile("nothing but a head", build([], key_count=0).data, "general.architecture", 24, "missing")


def _counts() -> Iterator[Hostile]:
    for count in (2**40, 2**63, 2**64 - 1, 70_000):
        data = build(tensor_count=count).data
        yield Hostile(f"{count} tensors", data, "the number of tensors", 8, "the most is")
        yield Hostile(f"{count} keys", build(key_count=count).data, "the number of keys", 16, "the most is")
    data = build(tensor_count=60_000).data
    yield Hostile("tensors that do not fit", data, "the number of tensors", 8, "do not fit")
    yield Hostile("keys that do not fit", build(key_count=16_000).data, "the number of keys", 16, "do not fit")
    built = build([ARCHITECTURE, key("x", U32, 0)], key_count=3)
    padded = built.data + bytes(20)
    yield Hostile("one key too many", padded, "key 2", built.keys[2], "is empty")
    yield Hostile("cut in the counts", b"GGUF\x03\0\0\0" + bytes(10), "the number of keys", 16, "ends here")


def _keys() -> Iterator[Hostile]:
    at = build().keys[1]

    def after(extra: bytes) -> bytes:
        return build([ARCHITECTURE, extra]).data

    yield Hostile("an empty key", after(key("", U32, 1)), "key 1", at, "is empty")
    yield Hostile("a key with a zero byte", after(key("a\0b", U32, 1)), "key 1", at, "cannot be printed")
    yield Hostile("a key that steers a terminal", after(key("\x1b[2J", U32, 1)), "key 1", at, "cannot be printed")
    yield Hostile("a key twice", after(ARCHITECTURE), "general.architecture", at, "twice, first at byte 24")
    yield Hostile("a key of 70,000 bytes", after(key("k" * 70_000, U32, 1)), "key 1", at, "the most is 65,535")
    for length in (2**40, 2**63, 2**64 - 1, 2**64 - 8):
        data = after(struct.pack("<Q", length) + bytes(40))
        yield Hostile(f"a key of {length} bytes", data, "key 1", at, "the file ends after 40")
    bad = key(b"ab\xffcd", U32, 1)
    yield Hostile("a key that is no UTF-8", after(bad), "key 1", at + 10, "not UTF-8")
    for kind in (13, 255, 2**32 - 1):
        data = after(text("x") + struct.pack("<I", kind) + bytes(40))
        yield Hostile(f"value type {kind}", data, "x", at + 9, f"value type {kind}")


def _values() -> Iterator[Hostile]:
    at = build().keys[1]

    def after(*extra: bytes) -> bytes:
        return build([ARCHITECTURE, *extra]).data

    value_at = at + 8 + 1 + 4
    yield Hostile("a bool of 2", after(key("x", BOOL, 2)), "x", value_at, "a bool of 2")
    yield Hostile("text that is no UTF-8", after(key("x", STRING, b"\xc3(")), "x", value_at + 8, "not UTF-8")
    for length in (41, 2**40, 2**63, 2**64 - 1):
        data = after(text("x") + struct.pack("<IQ", STRING, length) + bytes(40))
        yield Hostile(f"text of {length} bytes", data, "x", value_at, "the file ends after 40")
    cut = build([ARCHITECTURE, key("x", U64, 1)]).data[:-3]
    yield Hostile("cut in a number", cut, "x", value_at, "3 bytes too early")
    many = [key(f"k{index:02}", STRING, "x" * 1_000_000) for index in range(9)]
    built = build([ARCHITECTURE, *many])
    yield Hostile("nine megabytes of text", built.data, "k08", built.keys[9] + 15, "more than 8,388,608")
    wrong = build([key("general.architecture", U32, 7)])
    yield Hostile("an architecture that is a number", wrong.data, "general.architecture", 24, "no text")
    for what, kind in ((0, U32), (3, U32), (48, U64), (2**63 + 1, U64), (-32, I64)):
        data = after(key("general.alignment", kind, what))
        yield Hostile(f"alignment {what}", data, "general.alignment", at, "a power of two")
    data = after(key("general.alignment", STRING, "32"))
    yield Hostile("an alignment that is text", data, "general.alignment", at, "a power of two")


def _arrays() -> Iterator[Hostile]:
    at = build().keys[1]
    kind_at, count_at, items_at = at + 8 + 1 + 4, at + 8 + 1 + 8, at + 8 + 1 + 16

    def after(extra: bytes) -> bytes:
        return build([ARCHITECTURE, extra]).data

    for count in (2**40, 2**61, 2**62 + 1, 2**63, 2**64 - 1, 5000):
        for kind in (U8, I32, F64, STRING):
            data = after(array("x", kind, [], count=count) + bytes(40))
            says = f"an array of {count:,} items"
            yield Hostile(f"{count} items of type {kind}", data, "x", count_at, says)
    data = after(array("x", I32, [], count=11) + bytes(40))
    yield Hostile("a short list past the end", data, "x", count_at, "ends after 40")
    nested = struct.pack("<IQ", ARRAY, 1) * 100_000
    data = after(text("x") + struct.pack("<I", ARRAY) + nested + struct.pack("<IQ", U8, 0))
    yield Hostile("arrays nested 100,000 deep", data, "x", kind_at, "array of arrays")
    data = after(array("x", 77, [], count=0))
    yield Hostile("item type 77", data, "x", kind_at, "item type 77")
    for length in (100, 2**40, 2**63, 2**64 - 8, 2**64 - 1):
        items = text("ab") + text("c") + struct.pack("<Q", length) + bytes(30)
        data = after(text("x") + struct.pack("<IIQ", ARRAY, STRING, 4) + items)
        place = items_at + 10 + 9
        yield Hostile(f"an item of {length} bytes", data, "x[2]", place, f"a text of {length:,} bytes")
    items = text("ab") * 3
    data = after(text("x") + struct.pack("<IIQ", ARRAY, STRING, 3) + items)[:-1]
    yield Hostile("the last item cut", data, "x[2]", items_at + 20, "ends after 1")
    data = after(text("x") + struct.pack("<IIQ", ARRAY, STRING, 4) + items + b"\1\0")
    yield Hostile("an item's length cut", data, "x[3]", items_at + 30, "6 bytes too early")


def _tensors() -> Iterator[Hostile]:
    at = build().keys[1]
    dimensions_at = at + 8 + 1
    sizes_at = dimensions_at + 4
    data_bytes = 4096

    def with_row(row: bytes) -> bytes:
        return build(tensors=[row], data=data_bytes).data

    yield Hostile("a nameless tensor", with_row(tensor("", (4,), 0)), "tensor 0", at, "is empty")
    yield Hostile("a tensor's name of 64 bytes", with_row(tensor("n" * 64, (4,), 0)), "tensor 0", at, "the most is 63")
    row = struct.pack("<Q", 2**64 - 1) + bytes(40)
    yield Hostile("a name past the end", with_row(row), "tensor 0", at, "the file ends after")
    row = tensor(b"\xf0\x28", (4,), 0)
    yield Hostile("a name that is no UTF-8", with_row(row), "tensor 0", at + 8, "not UTF-8")
    row = tensor("a\0", (4,), 0)
    yield Hostile("a name with a zero byte", with_row(row), "tensor 0", at, "cannot be printed")
    for count in (5, 2**31, 2**32 - 1):
        row = tensor("t", (1, 1, 1, 1, 1), 0, dimensions=count)
        yield Hostile(f"{count} dimensions", with_row(row), "tensor t", dimensions_at, "the most is 4")
    yield Hostile("a dimension of 0", with_row(tensor("t", (4, 0), 0)), "tensor t", sizes_at + 8, "a dimension of 0")
    for size in (2**63, 2**64 - 1):
        row = tensor("t", (size,), 0)
        yield Hostile(f"a dimension of {size}", with_row(row), "tensor t", sizes_at, "below 2^63")
    for shape in ((2**32, 2**32), (2**32, 2**31), (2**62, 3), (2**31, 2**31, 2**31, 2**31), (2**33, 2**33, 1, 1)):
        says = "product above"
        yield Hostile(f"dimensions {shape}", with_row(tensor("t", shape, 0)), "tensor t", dimensions_at, says)
    row = tensor("t", (2**62,), 0)
    yield Hostile("bytes that wrap", with_row(row), "tensor t", sizes_at + 8, "more than 2^63 - 1 bytes")
    for kind in (43, 255, 2**31, 2**32 - 1):
        row = tensor("t", (256,), 0, kind=kind)
        yield Hostile(f"tensor type {kind}", with_row(row), "tensor t", sizes_at + 8, f"type {kind} is not known")
    row = tensor("t", (256,), 0, kind=31)
    yield Hostile("a removed type", with_row(row), "tensor t", sizes_at + 8, "q4_0_4_4 was removed")
    row = tensor("t", (255,), 0, kind=Q4_K_TYPE)
    yield Hostile("rows of no whole blocks", with_row(row), "tensor t", sizes_at + 8, "do not fill blocks of 256")
    row = tensor("t", (128, 2), 0, kind=Q4_K_TYPE)
    yield Hostile("blocks over two rows", with_row(row), "tensor t", sizes_at + 16, "do not fill blocks of 256")
    cut = build(tensors=[tensor("t", (4, 4), 0)]).data[:-2]
    yield Hostile("cut in the table", cut, "tensor t", len(cut) - 6, "2 bytes too early")


def _places() -> Iterator[Hostile]:
    first = tensor("a", (16,), 0)  # 64 bytes

    def two(offset: int, data: int = 4096) -> tuple[bytes, int]:
        built = build(tensors=[first, tensor("b", (16,), offset)], data=data)
        return built.data, built.tensors[2] - 8

    for offset, says in (
        (63, "no multiple of the alignment 32"),
        (65, "no multiple of the alignment 32"),
        (0, "overlaps"),
        (32, "overlaps"),
        (96, "leaves a gap"),
        (2**63, "leaves a gap"),
        (2**64 - 32, "leaves a gap"),
        (2**64 - 1, "no multiple"),
    ):
        data, at = two(offset)
        yield Hostile(f"a tensor at {offset}", data, "tensor b", at, says)
    data, at = two(64, data=127)
    yield Hostile("the last byte missing", data, "tensor b", at, "cut short")
    built = build(tensors=[first])
    yield Hostile("no data at all", built.data, "tensor a", built.tensors[1] - 8, "cut short")
    built = build(tensors=[tensor("a", (2**40,), 0)], data=4096)
    yield Hostile("a tensor of 4 TiB", built.data, "tensor a", built.tensors[1] - 8, "cut short")
    built = build(tensors=[first, tensor("a", (16,), 64)], data=128)
    yield Hostile("a tensor twice", built.data, "tensor a", built.tensors[1], "twice")
    built = build([ARCHITECTURE, key("general.alignment", U32, 2**31)], [first], data=64)
    yield Hostile("an alignment past the end", built.data, "tensor a", built.tensors[1] - 8, "cut short")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(corpus()):
        file = folder / f"{number:03}.gguf"
        file.write_bytes(case.data)
        print(f"{file.name}  {case.name}: {case.field} at byte {case.offset}")
