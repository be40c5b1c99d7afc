"""Sound GGUF files: what is read of them, how much is held, and models in several files."""

from __future__ import annotations

import ctypes
import os
import re
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.errors import NotFound
from hybridd.local import ggml_types, gguf, quantization
from hybridd.local.gguf import ArrayRef, BadGguf
from hybridd.local.sources import FileSource, SourceError
from tests.fakes import hostile_gguf as make
from tests.fakes.tiny_gguf import make_tiny_gguf
from tests.fakes.vocabulary_gguf import MERGES, TOKENS, make_vocabulary_gguf


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_vocabulary_gguf(tmp_path_factory.mktemp("large") / "large.gguf")


@pytest.mark.parametrize("version", [2, 3])
def test_every_kind_of_value_is_read(tmp_path: Path, version: int) -> None:
    """All thirteen kinds come back as Python values; long arrays and texts of arrays stay in the file."""
    path = tmp_path / "good.gguf"
    path.write_bytes(make.good(version).data)
    model = gguf.open_model(path)
    assert (model.version, model.architecture, model.file_bytes) == (version, "llama", path.stat().st_size)
    assert [model.metadata[f"x.{kind}"] for kind in make.FORMS] == [1] * len(make.FORMS)
    assert model.metadata["x.7"] is True
    assert model.metadata["general.name"] == "naïve"
    assert model.metadata["x.list"] == [1, -2, 3]
    assert model.metadata["x.flags"] == [False, True]
    long = model.metadata["x.long"]
    assert isinstance(long, ArrayRef)
    assert (long.item_type, long.count) == ("f32", 2000)
    assert list(model.array("x.long")) == [0.5] * 2000
    assert model.head("tokenizer.ggml.tokens", 4) == ["<s>", "", "é", "�"]
    assert model.head("x.list", 2) == [1, -2]
    with pytest.raises(TypeError):
        model.array("general.name")


def test_tensors_lie_where_the_file_has_them(tmp_path: Path) -> None:
    """Shape, type, bytes and absolute offset of each tensor; one without dimensions has one element."""
    path = tmp_path / "good.gguf"
    built = make.good()
    path.write_bytes(built.data)
    start = len(built.data) - 516
    assert [
        (one.name, one.shape, one.type, one.offset - start, one.nbytes) for one in gguf.open_model(path).tensors
    ] == [
        ("a.weight", (8, 4), "f32", 0, 128),
        ("b.weight", (256, 2), "q4_K", 128, 288),
        ("c.weight", (3, 1, 2, 1), "f16", 448, 12),
        ("d.scale", (1,), "f32", 512, 4),
    ]


def test_the_reader_agrees_with_the_format_s_own(tmp_path: Path) -> None:
    """For a model that llama.cpp loads, every key and every tensor is what the public reader finds."""
    from gguf import GGUFReader

    path = make_tiny_gguf(tmp_path / "tiny.gguf")
    model, theirs = gguf.open_model(path), GGUFReader(path)
    assert [(one.name, one.shape, one.offset, one.nbytes) for one in model.tensors] == [
        (one.name, tuple(map(int, one.shape)), int(one.data_offset), int(one.n_bytes)) for one in theirs.tensors
    ]
    for name, field in theirs.fields.items():
        if name.startswith("GGUF."):
            continue
        value = model.metadata[name]
        ours = list(model.array(name)) if isinstance(value, ArrayRef | list) else value
        expected = field.contents()
        if name == "general.alignment":
            continue
        assert ours == expected or [*map(str, ours)] == expected, name  # type: ignore[arg-type]


def test_a_large_vocabulary_costs_little(large: Path) -> None:
    """The header of a 151k vocabulary with merges is read in 150 ms and 10 MB (best of five; about 20 ms, 1 MB)."""
    times = []
    for _ in range(5):
        began = time.process_time()
        model = gguf.open_model(large)
        times.append(time.process_time() - began)
    assert min(times) < 0.150
    tracemalloc.start()
    gguf.open_model(large)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 10e6
    assert model.metadata["tokenizer.ggml.tokens"] == ArrayRef("string", TOKENS, model.offsets[TOKEN_KEY] + 8 + 21 + 16)
    assert sum(1 for _ in model.array("tokenizer.ggml.merges")) == MERGES


TOKEN_KEY = "tokenizer.ggml.tokens"


def test_a_whole_tokenizer_as_text_stays_in_the_file(tmp_path: Path) -> None:
    """A text of over a megabyte is no error and not held; it can be read as bytes."""
    path = tmp_path / "x.gguf"
    path.write_bytes(
        make.build([make.ARCHITECTURE, make.key("tokenizer.huggingface.json", make.STRING, "{" * 3_000_000)]).data
    )
    model = gguf.open_model(path)
    value = model.metadata["tokenizer.huggingface.json"]
    assert isinstance(value, ArrayRef)
    assert (value.item_type, value.count) == ("u8", 3_000_000)
    assert model.head("tokenizer.huggingface.json", 2) == [ord("{")] * 2


@given(st.lists(st.binary(max_size=700), max_size=60), st.integers(16, 300))
def test_texts_are_walked_whatever_the_windows(items: list[bytes], window: int) -> None:
    """Wherever the borders of the windows fall, the walk ends exactly behind the last text and counts right."""
    from hybridd.local import gguf_cursor

    data = make.build([make.ARCHITECTURE, make.array("x", make.STRING, items), make.key("y", make.U32, 7)]).data

    class Bytes:
        name, size = "memory", len(data)

        def read(self, offset: int, length: int) -> bytes:
            assert 0 <= offset <= offset + length <= self.size
            return data[offset : offset + length]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf_cursor, "WINDOW_BYTES", window)
        model = gguf.read(Bytes())
    assert model.metadata["y"] == 7
    assert list(model.array("x")) == [item.decode("utf-8", "replace") for item in items]


# -- files ---------------------------------------------------------------------------------------------------------


def test_what_is_no_file_is_said_in_words(tmp_path: Path) -> None:
    """A missing file, a folder, a pipe (which would wait for ever) and a name with a zero byte are errors."""
    with pytest.raises(NotFound, match="no file"):
        gguf.open_model(tmp_path / "none.gguf")
    with pytest.raises(SourceError, match="no regular file"):
        gguf.open_model(tmp_path)
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(SourceError, match="no regular file"):
        gguf.open_model(tmp_path / "pipe.gguf")
    with pytest.raises(SourceError, match="null byte"):
        gguf.open_model(tmp_path / "a\0.gguf")


def test_a_file_replaced_under_the_reader_is_noticed(tmp_path: Path) -> None:
    """Arrays read later come from the file that was checked, or not at all."""
    path = make_tiny_gguf(tmp_path / "tiny.gguf")
    model = gguf.open_model(path)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(SourceError, match="was changed"):
        model.head(TOKEN_KEY, 1)


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    """Reading models leaves no open file behind, even when they are bad."""
    good, bad = make_tiny_gguf(tmp_path / "tiny.gguf"), tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF")
    before = len(os.listdir("/proc/self/fd"))
    models = [gguf.open_model(good) for _ in range(5)]
    with pytest.raises(BadGguf):
        gguf.open_model(bad)
    assert len(os.listdir("/proc/self/fd")) == before
    assert models[0].head(TOKEN_KEY, 1) == ["<unk>"]


# -- models in several files ---------------------------------------------------------------------------------------


def _part(number: int, count: int, tensors: list[str], *, total: int | None = None, said: int | None = None) -> bytes:
    keys = [
        make.key("split.no", make.U16, number if said is None else said),
        make.key("split.count", make.U16, count),
        make.key("split.tensors.count", make.I32, 3 if total is None else total),
    ]
    if number == 0:
        keys.insert(0, make.ARCHITECTURE)
    rows = [make.tensor(name, (16,), 64 * index) for index, name in enumerate(tensors)]
    return make.build(keys, rows, data=64 * len(rows)).data


def _write(folder: Path, parts: list[bytes | None]) -> list[Path]:
    paths = [folder / f"m-{number + 1:05}-of-{len(parts):05}.gguf" for number in range(len(parts))]
    for path, data in zip(paths, parts, strict=True):
        if data is not None:
            path.write_bytes(data)
    return paths


def _three() -> list[bytes | None]:
    return [_part(0, 3, ["a"]), _part(1, 3, ["b"]), _part(2, 3, ["c"])]


@pytest.mark.parametrize("opened", [0, 1, 2])
def test_parts_are_joined_whichever_is_opened(tmp_path: Path, opened: int) -> None:
    """Any part leads to the whole model: all tensors with their part, all files, all bytes, the first's metadata."""
    paths = _write(tmp_path, _three())
    model = gguf.open_model(paths[opened])
    assert [(one.name, one.part) for one in model.tensors] == [("a", 0), ("b", 1), ("c", 2)]
    assert model.files == tuple(map(str, paths))
    assert model.file_bytes == sum(path.stat().st_size for path in paths)
    assert model.architecture == "llama"


def test_real_parts_are_joined(tmp_path: Path) -> None:
    """Parts as the format's own writer makes them are read as one model."""
    import numpy as np
    from gguf import GGUFWriter

    writer = GGUFWriter(str(tmp_path / "real.gguf"), "llama", split_max_tensors=2)
    writer.add_block_count(1)
    for index in range(5):
        writer.add_tensor(f"t{index}", np.zeros((4, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = gguf.open_model(tmp_path / "real-00001-of-00003.gguf")
    assert [(one.name, one.shape, one.part) for one in model.tensors] == [
        (f"t{index}", (32, 4), index // 2) for index in range(5)
    ]


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_missing_part_is_named(tmp_path: Path, missing: int) -> None:
    """The part that is not there is named, whichever it is."""
    parts = _three()
    parts[missing] = None
    paths = _write(tmp_path, parts)
    with pytest.raises(BadGguf, match=rf"m-0000{missing + 1}-of-00003.gguf: .*part {missing + 1} of 3 is missing"):
        gguf.open_model(paths[0 if missing else 1])


@pytest.mark.parametrize(
    ("parts", "file", "field", "says"),
    [
        ([_part(0, 2, ["a"], total=2), _part(1, 2, ["a"])], 1, "tensor a", "has it too"),
        ([_part(0, 2, ["a"], total=2), _part(1, 3, ["b"])], 1, "split.count", "3, and the first part says 2"),
        ([_part(0, 2, ["a"], total=2), _part(1, 2, ["b"], said=0)], 1, "split.no", "0, and by its name"),
        ([_part(0, 2, ["a"], total=9), _part(1, 2, ["b"])], 0, "split.tensors.count", "9, and the parts have 2"),
        ([_part(0, 2, ["a"], said=1), _part(1, 2, ["b"])], 0, "split.no", "1, and by its name"),
        ([_part(0, 7, ["a"]), _part(1, 7, ["b"])], 0, "split.count", "7 parts, and the file's name says 2"),
        ([_part(0, 2, ["a"], total=-1), _part(1, 2, ["b"])], 0, "split.tensors.count", "a whole number"),
        ([_part(0, 2, ["a"], total=2), make.good().data], 1, "split.count", "0, and the first part says 2"),
    ],
)
def test_parts_that_do_not_belong_together(
    tmp_path: Path, parts: list[bytes | None], file: int, field: str, says: str
) -> None:
    """A part of another model, a wrong number, a wrong total: refused with the file, the field and its byte."""
    paths = _write(tmp_path, parts)
    with pytest.raises(BadGguf, match=re.escape(says)) as caught:
        gguf.open_model(paths[0])
    data = paths[file].read_bytes()
    where = data.index(field.encode()) - 8 if field.encode() in data else caught.value.offset
    assert (caught.value.file, caught.value.field) == (str(paths[file]), field)
    if not field.startswith("tensor"):
        assert caught.value.offset == where


def test_a_part_under_another_name_says_what_its_name_should_be(tmp_path: Path) -> None:
    """A first part that was renamed cannot find the others, and says so."""
    path = tmp_path / "renamed.gguf"
    path.write_bytes(_part(0, 3, ["a"]))
    with pytest.raises(BadGguf, match=r"NAME-00001-of-00003\.gguf"):
        gguf.open_model(path)


# -- types and quantizations ---------------------------------------------------------------------------------------


def test_types_are_those_of_the_installed_llama_cpp() -> None:
    """Number, name, block and bytes of every type are what the library says, and none of its types is unknown."""
    llama_cpp = pytest.importorskip("llama_cpp")
    library = ctypes.CDLL(str(Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"))
    library.ggml_type_name.restype = ctypes.c_char_p
    library.ggml_type_size.restype = ctypes.c_size_t
    library.ggml_blck_size.restype = ctypes.c_int64
    count = 1 + max(
        value
        for name, value in vars(llama_cpp.llama_cpp).items()
        if name.startswith("GGML_TYPE_") and name != "GGML_TYPE_COUNT"
    )
    theirs = {
        number: (
            library.ggml_type_name(number).decode(),
            library.ggml_blck_size(number),
            library.ggml_type_size(number),
        )
        for number in range(count)
        if library.ggml_blck_size(number)
    }
    assert {number: tuple(kind) for number, kind in ggml_types.TYPES.items()} == theirs
    assert set(range(count)) - set(theirs) == set(ggml_types.REMOVED)


def test_rows_take_whole_blocks() -> None:
    """A row's bytes come from its blocks; part of a block and an unknown type are errors."""
    assert ggml_types.row_bytes("q4_K", 512) == 288
    assert ggml_types.row_bytes("f16", 3) == 6
    for name, elements in (("q4_K", 100), ("q9_9", 32), ("f32", -1)):
        with pytest.raises(ValueError):
            ggml_types.row_bytes(name, elements)


def test_file_types_are_those_of_the_installed_llama_cpp() -> None:
    """Every file type of the library has a name here, the library's own without its prefix."""
    llama_cpp = pytest.importorskip("llama_cpp")
    theirs = {
        value: re.sub(r"^(ALL|MOSTLY)_", "", name.removeprefix("LLAMA_FTYPE_"))
        for name, value in vars(llama_cpp.llama_cpp).items()
        if name.startswith("LLAMA_FTYPE_") and "GUESSED" not in name
    }
    theirs[38] = "MXFP4"
    assert theirs == quantization.FILE_TYPES


@pytest.mark.parametrize(
    ("file_type", "tensors", "name", "expected"),
    [
        (15, [("q4_K", 90), ("q6_K", 30)], "x.gguf", "Q4_K_M"),
        (15 | quantization.GUESSED, [("q4_K", 90)], "x", "Q4_K_M"),
        (None, [("q8_0", 90), ("f32", 3)], "x.gguf", "Q8_0"),
        (None, [("q8_0", 90)], "tiny-Q8_0.gguf", "Q8_0"),
        (0, [("q4_K", 90)], "model-q4_k_s.gguf", "Q4_K_S"),
        (1, [("q5_K", 90)], "model.gguf", "Q5_K"),
        (1, [("f16", 90), ("f32", 1)], "model.gguf", "F16"),
        (9999, [("iq2_xs", 90)], "model.gguf", "IQ2_XS"),
        ("15", [], "model.gguf", "unknown"),
        (True, [], "model-UD-Q4_K_XL-00001-of-00002.gguf", "UD-Q4_K_XL"),
    ],
)
def test_a_quantization_has_the_name_people_use(
    file_type: object, tensors: list[tuple[str, int]], name: str, expected: str
) -> None:
    """The file type names it; where the tensors say otherwise the file's name does, and else the tensors."""
    assert quantization.of_model(file_type, tensors, name) == expected


def test_one_source_can_be_read_without_its_parts(tmp_path: Path) -> None:
    """A later part by itself is sound: its tensors, no architecture."""
    paths = _write(tmp_path, _three())
    model = gguf.read(FileSource(paths[2]))
    assert (model.architecture, [one.name for one in model.tensors]) == ("", ["c"])
