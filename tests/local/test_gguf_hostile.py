"""Files that lie: each is refused by a sentence that names the field and the byte, at once and without memory."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import random
import struct
import time
import tracemalloc
from pathlib import Path

import pytest

from hybridd.errors import HybriddError
from hybridd.local import gguf, gguf_cursor
from hybridd.local.facts import facts_of
from tests.fakes import hostile_gguf as make
from tests.fakes.hostile_gguf import Hostile, corpus
from tests.fakes.tiny_gguf import make_tiny_gguf
from tests.local import fuzz_gguf

CASES = list(corpus())


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_lie_is_refused_by_field_and_byte(tmp_path: Path, case: Hostile) -> None:
    """Every file of the corpus is refused; the message has the file, the field, the byte and what is wrong there."""
    path = tmp_path / "model.gguf"
    path.write_bytes(case.data)
    with pytest.raises(gguf.BadGguf) as caught:
        gguf.open_model(path)
    error = caught.value
    assert (error.field, error.offset) == (case.field, case.offset), error.message
    assert case.says in error.message
    assert error.message.startswith(f"{path}: {case.field} at byte {case.offset}: ")
    assert error.details["field"] == case.field


def test_no_lie_costs_time_or_memory(tmp_path: Path) -> None:
    """The whole corpus is refused in three seconds of processor time and never holds more than 32 MB (of which nine
    are real text)."""
    path = tmp_path / "model.gguf"
    began, most = time.process_time(), 0
    for case in CASES:
        path.write_bytes(case.data)
        tracemalloc.start()
        with pytest.raises(HybriddError):
            gguf.open_model(path)
        most = max(most, tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert time.process_time() - began < 3
    assert most < 32e6


def test_more_texts_than_any_vocabulary_has_are_not_walked(tmp_path: Path) -> None:
    """A sparse file may hold a billion empty texts: they are refused by their number, at once."""
    path = tmp_path / "sparse.gguf"
    built = make.build([make.ARCHITECTURE, make.array("x", make.STRING, [], count=10**9)])
    path.write_bytes(built.data)
    os.truncate(path, len(built.data) + 8 * 10**9)
    began = time.process_time()
    with pytest.raises(gguf.BadGguf, match="at most 8,000,000 texts") as caught:
        gguf.open_model(path)
    assert (caught.value.field, caught.value.offset) == ("x", len(built.data) - 8)
    assert time.process_time() - began < 0.5


def test_names_in_the_corpus_are_unique() -> None:
    """No case hides another: each lie of the corpus is there under its own name."""
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)


def test_mutated_headers_are_read_or_refused() -> None:
    """Thousands of mutations of sound and lying headers: a model or BadGguf, inside the bounds of time and memory."""
    tried, broken = fuzz_gguf.run(20_261_120, count=4000)
    assert [(one.seed, one.why) for one in broken] == []
    assert tried == 4000


def test_the_fuzzer_can_find_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its negative control: with one check of the reader taken out, it finds files that get through."""
    monkeypatch.setattr(gguf_cursor.Cursor, "check_room", lambda *_: None)
    _, broken = fuzz_gguf.run(1, count=2000)
    assert broken


def test_the_header_s_facts_are_fuzzed_too(tmp_path: Path) -> None:
    """What a mutated header that passes leads to is facts or BadGguf as well, never another error."""
    start = make_tiny_gguf(tmp_path / "tiny.gguf").read_bytes()
    header, rng = start[:8192], random.Random(7)
    for _ in range(300):
        data = bytearray(header)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(24, 1200)
            data[at : at + 4] = struct.pack("<I", rng.choice(fuzz_gguf.NUMBERS) % 2**32)
        source = fuzz_gguf.Bytes(bytes(data) + start[8192:])
        with contextlib.suppress(gguf.BadGguf):
            facts_of(gguf.read(source), "tiny", "tiny.gguf")


def test_what_is_accepted_llama_cpp_accepts(tmp_path: Path) -> None:
    """Of slightly changed sound headers, llama.cpp's own reader takes every one that this one takes."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        pytest.skip("llama.cpp is not installed")
    library = ctypes.CDLL(str(Path(spec.origin).parent / "lib" / "libggml-base.so"))

    class Parameters(ctypes.Structure):
        _fields_ = (("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p))

    library.gguf_init_from_file.restype = ctypes.c_void_p
    library.gguf_init_from_file.argtypes = [ctypes.c_char_p, Parameters]
    library.gguf_free.argtypes = [ctypes.c_void_p]
    path, accepted = tmp_path / "x.gguf", 0
    for seed in range(1500):
        rng = random.Random(seed)
        data = bytearray(make.good(rng.choice((2, 3))).data)
        at = rng.randrange(len(data) - 520)
        data[at] = rng.choice((0, 1, data[at] ^ (1 << rng.randrange(8))))
        try:
            gguf.read(fuzz_gguf.Bytes(bytes(data)))
        except gguf.BadGguf:
            continue
        path.write_bytes(data)
        opened = library.gguf_init_from_file(str(path).encode(), Parameters(True, None))
        assert opened, f"seed {seed}"
        library.gguf_free(opened)
        accepted += 1
    assert accepted > 300
