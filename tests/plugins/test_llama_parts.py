"""The pure parts of the local provider: pieces of text, request parameters, GGUF headers, files."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.plugin import CallFailure
from plugins.llama_cpp import asked, files, header
from plugins.llama_cpp.engine import context_for, gpu_layers_for
from plugins.llama_cpp.pieces import Pieces
from tests.fakes.tiny_gguf import CONTEXT, LAYERS, make_tiny_gguf


def run(stops: list[str], *reads: bytes) -> tuple[list[str], bool]:
    pieces = Pieces(stops)
    said = [pieces.feed(read) for read in reads]
    return [*said, pieces.flush()], pieces.stopped


def test_characters_are_whole() -> None:
    """A character cut between tokens is shown once it is whole; one cut by the end becomes a replacement."""
    assert run([], b"ol\xc3", b"\xa1", b"\xf0\x9f") == (["ol", "á", "", "\ufffd"], False)


def test_stop_strings() -> None:
    """Text stops before the first stop string, also one that comes in pieces; what only began like one is shown."""
    assert run(["END"], b"a E", b"N", b"D b") == (["a ", "", "", ""], True)
    assert run(["END"], b"a EN", b"X") == (["a ", "ENX", ""], False)
    assert run(["END"], b"a EN") == (["a ", "EN"], False)
    assert run(["b", "ab"], b"xab") == (["x", ""], True)
    assert run([""], b"abc") == (["abc", ""], False)


@given(
    st.text(alphabet="abAB é🦊", max_size=30),
    st.lists(st.text(alphabet="abAB é", min_size=1, max_size=3), max_size=3),
    st.data(),
)
def test_pieces_in_any_cut(text: str, stops: list[str], data: st.DataObject) -> None:
    """However the bytes are cut into tokens, the text shown is everything before the first stop string."""
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    said, _ = run(stops, *(raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)))
    shown = "".join(said)
    assert text.startswith(shown)
    assert not any(stop in shown for stop in stops)
    if not any(stop in text for stop in stops):
        assert shown == text


def read(chat: bool = True, **body: Any) -> asked.Asked:
    return asked.read({"messages": [{"role": "user", "content": "x"}], "prompt": "x", **body}, chat=chat)


def test_parameters() -> None:
    """Everything the engine understands is taken; the rest has llama.cpp's defaults."""
    wanted = read(temperature=0, top_p=0.5, seed=-1, stop=["a", ""], max_tokens=5, max_completion_tokens=7)
    assert wanted.sampling == asked.Sampling(temperature=0, top_p=0.5, seed=2**32 - 2)
    assert (wanted.max_tokens, wanted.stops) == (7, ("a",))
    assert read().max_tokens is None
    assert read(stop="x", stream_options={"include_usage": True}).include_usage
    assert read(chat=False, prompt=["one"]).prompt == "one"
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert (read(messages=[{"role": "user", "content": parts}]).messages or [])[0]["content"] == "a\nb"


@pytest.mark.parametrize(
    "body",
    [
        {"temperature": "hot"}, {"temperature": -1}, {"temperature": True}, {"top_p": 2}, {"seed": 1.5}, {"top_k": 0.5},
        {"max_tokens": 0}, {"max_tokens": -5}, {"max_tokens": "9"}, {"max_tokens": True}, {"stop": 3}, {"stop": [1]},
        {"stop": ["x"] * 17}, {"messages": []}, {"messages": "hi"}, {"messages": [3]}, {"messages": [{"content": "x"}]},
        {"messages": [{"role": "user", "content": 3}]},
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
    ],
)  # fmt: skip
def test_wrong_parameters(body: dict[str, Any]) -> None:
    """Wrong types and ranges are the caller's mistake, named, and cost nothing."""
    with pytest.raises(CallFailure) as caught:
        read(**body)
    assert (caught.value.error.kind, caught.value.error.sent) == ("bad_request", "no")
    assert (caught.value.error.param or "").split(".")[0] in body


@pytest.mark.parametrize(
    "body",
    [
        {"n": 2}, {"logprobs": True}, {"response_format": {"type": "json_object"}}, {"tools": [{"type": "function"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
    ],
)  # fmt: skip
def test_unsupported_wishes(body: dict[str, Any]) -> None:
    """What would be ignored is refused instead, so that the router can go elsewhere."""
    with pytest.raises(CallFailure) as caught:
        read(**body)
    assert (caught.value.error.kind, caught.value.error.sent) == ("unsupported", "no")


def test_wishes_that_ask_nothing() -> None:
    """Parameters at their neutral values are fine."""
    assert read(n=1, logprobs=False, tools=[], response_format={"type": "text"}, temperature=None).max_tokens is None


def test_header(tmp_path: Path) -> None:
    """A real file's header gives architecture, trained context and layers."""
    path = make_tiny_gguf(tmp_path / "tiny.gguf")
    assert header.read(path) == header.Header("llama", CONTEXT, LAYERS)


def test_every_cut_of_a_header(tmp_path: Path) -> None:
    """A file cut anywhere in the part that is read is refused with a reason, never a crash."""
    whole = make_tiny_gguf(tmp_path / "tiny.gguf").read_bytes()
    cut_file = tmp_path / "cut.gguf"
    refused = 0
    for cut in range(1000):
        cut_file.write_bytes(whole[:cut])
        try:
            assert header.read(cut_file) == header.Header("llama", CONTEXT, LAYERS)
            break
        except header.BadGguf:
            refused += 1
    assert 150 < refused < 1000


def _kv(name: bytes, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + value


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "ends in the middle"),
        (b"GGML" + bytes(20), "does not begin with GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "version 9"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "names no architecture"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**60), "a name of"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + _kv(b"a", 8, struct.pack("<Q", 2**62)), "larger than the file"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + _kv(b"a", 9, struct.pack("<IQ", 4, 2**62)), "larger than the file"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + _kv(b"a", 9, struct.pack("<IQ", 8, 2**40)), "more than"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + _kv(b"a", 9, struct.pack("<IQ", 9, 1)), "array of type 9"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + _kv(b"a", 77, b""), "value type 77"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63) + _kv(b"a", 4, bytes(4)), "ends in the middle"),
    ],
)
def test_lying_headers(tmp_path: Path, body: bytes, words: str) -> None:
    """Impossible lengths, counts and types are refused at once, whatever they promise."""
    path = tmp_path / "x.gguf"
    path.write_bytes(body)
    with pytest.raises(header.BadGguf, match=words):
        header.read(path)


def test_which_files_are_models(tmp_path: Path) -> None:
    """Stems name models; parts, projectors, broken files and deep nests are left out; the default stands first."""
    whole = make_tiny_gguf(tmp_path / "a.gguf").read_bytes()
    deep = tmp_path / "hub" / "models--o--n" / "snapshots" / "rev"
    deep.mkdir(parents=True)
    (deep / "B.GGUF").write_bytes(whole)
    (deep / "a.gguf").write_bytes(whole + b"later")
    for name in ("big-00001-of-00002", "big-00002-of-00002", "mmproj-x", "broken", "c"):
        (tmp_path / f"{name}.gguf").write_bytes(b"nothing" if name == "broken" else whole)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "dangling.gguf").symlink_to(tmp_path / "nowhere")
    found, problems = files.find([tmp_path, tmp_path / "missing"], {}, "c")
    assert list(found) == ["c", "B", "a", "big-00001-of-00002"]
    assert found["a"].path == tmp_path / "a.gguf"
    assert found["big-00001-of-00002"].size == 2 * len(whole)
    assert [problem.partition(" is")[0] for problem in problems] == [str(tmp_path / "broken.gguf")]
    by_path, _ = files.find([], {}, str(deep / "B.GGUF"))
    assert list(by_path) == ["B"]


def test_sizes() -> None:
    """The context never exceeds what the model was trained for; layers are offloaded as far as the limit goes."""
    pairs = [(None, 131072), (None, 2048), (None, None), (8192, 4096), (1024, 4096)]
    assert [context_for(*pair) for pair in pairs] == [4096, 2048, 4096, 4096, 1024]
    gib = 1024**3
    assert gpu_layers_for(gib, 31, 4096) == 32
    assert gpu_layers_for(8 * gib, 31, 4096) == 12
    assert gpu_layers_for(gib, None, 4096) == 0
    assert gpu_layers_for(100 * gib, 10, 256) == 0
