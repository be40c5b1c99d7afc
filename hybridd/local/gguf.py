"""What a GGUF model file says about itself, read without trust: nothing is believed before it is checked.

Only the header is read, never a tensor, and arrays stay where they are: memory and time do not depend on a number that
the file declares. Every rejection is a :class:`BadGguf` that names the field and the byte. What llama.cpp refuses is
refused here, so that a plan is not made for a file that cannot be loaded.

::

    model = open_model(Path("qwen-00001-of-00003.gguf"))     # the parts of a split model are joined
    model.metadata["qwen2.block_count"], model.tensors[0].shape
    tokens = model.array("tokenizer.ggml.tokens")            # read on demand

Format: ggml's ``docs/gguf.md``; limits of names and dimensions: llama.cpp's ``ggml.h`` and ``gguf.cpp``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import msgspec

from hybridd.local import gguf_header, gguf_split
from hybridd.local.gguf_cursor import WINDOW_BYTES, BadGguf, Cursor
from hybridd.local.gguf_header import ArrayRef, Value
from hybridd.local.gguf_tensors import Tensor
from hybridd.local.sources import FileSource, Source

__all__ = ["ArrayRef", "BadGguf", "Gguf", "Tensor", "Value", "open_model", "read", "read_parts"]

Item = int | float | bool | str


class Gguf(msgspec.Struct, frozen=True):
    """One model, of one file or several.

    ``metadata``: of the first part; numeric arrays of up to 1024 items as lists, others as :class:`ArrayRef`.
    ``tensors``: of all parts, in the order of the files. ``files``: the parts' names. ``file_bytes``: all of them
    together. ``offsets``: the byte of each key in the first part; ``tensors_offset``: of its table of tensors.
    """

    version: int
    architecture: str
    metadata: Mapping[str, Value]
    tensors: Sequence[Tensor]
    files: tuple[str, ...]
    file_bytes: int
    source: Source
    offsets: Mapping[str, int] = {}
    tensors_offset: int = 0

    def bad(self, key: str, problem: str) -> BadGguf:
        """The rejection of a key's value; of a key that is missing, where the keys end."""
        return BadGguf(self.source.name, key, self.offsets.get(key, self.tensors_offset), problem)

    def array(self, key: str) -> Iterator[Item]:
        """The items of an array, read from the source as they are asked for; bytes that are no UTF-8 are replaced.

        Raises:
            KeyError: there is no such key.
            TypeError: it holds no array.
            SourceError: the file cannot be read any more.
        """
        value = self.metadata[key]
        if isinstance(value, list):
            return iter(value)
        if not isinstance(value, ArrayRef):
            raise TypeError(f"{key} is no array")
        return _items(self.source, key, value)

    def head(self, key: str, count: int) -> list[Item]:
        """The first ``count`` items of an array; raises as :meth:`array` does."""
        return list(islice(self.array(key), count))


def read(source: Source) -> Gguf:
    """The model in one source, which may be one part of several.

    Raises:
        BadGguf: it is no model that llama.cpp could load.
        SourceError: it cannot be read.
    """
    header = gguf_header.read(source)
    return _model(source, header, list(header.tensors), (source.name,), source.size)


def open_model(path: Path) -> Gguf:
    """The model at ``path``; with any part of a split one, all of it.

    Raises:
        BadGguf: a file is no model that llama.cpp could load, or a part is missing or belongs to another model.
        NotFound: there is no such file.
        SourceError: it cannot be read.
    """
    FileSource(path)  # a typing mistake is "there is no file", not a missing part
    return read_parts(path.name, lambda name: FileSource(path.with_name(name)))


def read_parts(name: str, source: Callable[[str], Source]) -> Gguf:
    """The whole model that the file called ``name`` belongs to.

    Args:
        name: of the file, without a folder.
        source: opens a file by such a name.

    Raises:
        BadGguf, SourceError: as :func:`open_model`.
    """
    first, header, rest = gguf_split.read(name, source)
    tensors = list(header.tensors)
    for _, part in rest:
        tensors += part.tensors
    sources = [first, *(one for one, _ in rest)]
    return _model(first, header, tensors, tuple(one.name for one in sources), sum(one.size for one in sources))


def _model(
    source: Source, header: gguf_header.Header, tensors: list[Tensor], files: tuple[str, ...], size: int
) -> Gguf:
    key = "general.architecture"
    architecture = header.metadata.get(key, "")
    if key not in header.metadata and not gguf_split.is_later_part(header):
        raise BadGguf(source.name, key, header.tensors_offset, "it is missing")
    if not isinstance(architecture, str) or not architecture.isprintable():
        raise BadGguf(source.name, key, header.offsets[key], "it is no text, or none that can be printed")
    return Gguf(
        version=header.version,
        architecture=architecture,
        metadata=header.metadata,
        tensors=tensors,
        files=files,
        file_bytes=size,
        source=source,
        offsets=header.offsets,
        tensors_offset=header.tensors_offset,
    )


def _items(source: Source, key: str, array: ArrayRef) -> Iterator[Item]:
    cursor = Cursor(source, array.offset)
    if array.item_type == "string":
        for index in range(array.count):
            cursor.field = f"{key}[{index}]"
            yield cursor.take(cursor.length(gguf_header.MAX_TEXT_BYTES)).decode("utf-8", "replace")
        return
    form = gguf_header.SCALARS_BY_NAME[array.item_type]
    cursor.field, left = key, array.count
    while left:
        some = min(left, WINDOW_BYTES // form.size)
        for (item,) in form.iter_unpack(cursor.take(some * form.size)):
            yield item
        left -= some
