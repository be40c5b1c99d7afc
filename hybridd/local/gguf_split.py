"""Models in several files: ``NAME-00001-of-0000N.gguf``, each with a header of its own.

The first part holds the metadata; every part says which it is (llama.cpp, ``llama_model_loader``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hybridd.errors import NotFound
from hybridd.local import gguf_header, names
from hybridd.local.gguf_cursor import BadGguf
from hybridd.local.gguf_header import Header
from hybridd.local.sources import Source

COUNT, NUMBER, TENSORS = "split.count", "split.no", "split.tensors.count"


def is_later_part(header: Header) -> bool:
    """Is it a part after the first, which has no metadata of the model?"""
    number = header.metadata.get(NUMBER)
    return isinstance(number, int) and number > 0


def read(name: str, source: Callable[[str], Source]) -> tuple[Source, Header, list[tuple[Source, Header]]]:
    """The first part and the others, checked against each other.

    Args:
        name: of any part, without a folder.
        source: opens a file by such a name.

    Raises:
        BadGguf: a part is missing, is another part than its name says, or belongs to another model.
        SourceError: a part cannot be read.
    """
    parts = names.part_names(name)
    first = _open(source, parts, 0)
    header = gguf_header.read(first)
    count = _number(first, header, COUNT, 1)
    if count != len(parts):
        raise _bad(
            first,
            header,
            COUNT,
            f"{count:,} parts, and the file's name says {len(parts)}; parts are found by names like "
            f"NAME-00001-of-{min(count, 99_999):05d}.gguf",
        )
    _check_number(first, header, 0)
    rest = [_part(source, parts, index, count) for index in range(1, count)]
    _check_tensors(first, header, rest)
    return first, header, rest


def _part(source: Callable[[str], Source], parts: Sequence[str], index: int, count: int) -> tuple[Source, Header]:
    opened = _open(source, parts, index)
    header = gguf_header.read(opened, index)
    said = _number(opened, header, COUNT, 0)
    if said != count:
        raise _bad(opened, header, COUNT, f"{said:,}, and the first part says {count}")
    _check_number(opened, header, index)
    return opened, header


def _open(source: Callable[[str], Source], parts: Sequence[str], index: int) -> Source:
    try:
        return source(parts[index])
    except NotFound:
        if len(parts) == 1:
            raise
        raise BadGguf(parts[index], COUNT, 0, f"part {index + 1} of {len(parts)} is missing") from None


def _check_number(source: Source, header: Header, index: int) -> None:
    said = _number(source, header, NUMBER, 0)
    if said != index:
        raise _bad(source, header, NUMBER, f"{said:,}, and by its name the file is number {index} (counted from 0)")


def _check_tensors(first: Source, header: Header, rest: list[tuple[Source, Header]]) -> None:
    where = {tensor.name: first for tensor in header.tensors}
    for source, part in rest:
        for tensor in part.tensors:
            if tensor.name in where:
                raise BadGguf(
                    source.name, f"tensor {tensor.name}", part.tensors_offset, f"{where[tensor.name].name} has it too"
                )
            where[tensor.name] = source
    said = _number(first, header, TENSORS, len(where))
    if said != len(where):
        raise _bad(first, header, TENSORS, f"{said:,}, and the parts have {len(where):,}")


def _number(source: Source, header: Header, key: str, default: int) -> int:
    value = header.metadata.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _bad(source, header, key, "it is a whole number, 0 or more")
    return value


def _bad(source: Source, header: Header, key: str, problem: str) -> BadGguf:
    return BadGguf(source.name, key, header.offsets.get(key, header.tensors_offset), problem)
