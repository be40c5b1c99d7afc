"""Bytes of tokens to text: whole characters, nothing of a stop string, however it is cut."""

from __future__ import annotations

import time
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from plugins.llama_cpp.pieces import Pieces, overlap


def run(stops: list[str], *reads: bytes) -> tuple[list[str], bool]:
    pieces = Pieces(stops)
    said = [pieces.feed(read) for read in reads]
    return [*said, pieces.flush()], pieces.stopped


def test_characters_are_whole() -> None:
    """A character cut between tokens is shown once it is whole; one cut by the end becomes a replacement."""
    assert run([], b"ol\xc3", b"\xa1", b"\xf0\x9f") == (["ol", "á", "", "\ufffd"], False)
    assert run([], b"\xff\xfea") == (["\ufffd\ufffda", ""], False)


def test_stop_strings() -> None:
    """Text stops before the first stop string, also one that comes in pieces; what only began like one is shown."""
    assert run(["END"], b"a E", b"N", b"D b") == (["a ", "", "", ""], True)
    assert run(["END"], b"a EN", b"X") == (["a ", "ENX", ""], False)
    assert run(["END"], b"a EN") == (["a ", "EN"], False)
    assert run(["b", "ab"], b"xab") == (["x", ""], True)
    assert run([""], b"abc") == (["abc", ""], False)
    assert run(["aab"], b"a", b"a", b"a", b"b", b"c") == (["", "", "a", "", "", ""], True)
    assert run(["é"], b"x\xc3", b"\xa9y") == (["x", "", ""], True)


def cut(raw: bytes, cuts: list[int]) -> list[bytes]:
    return [raw[a:b] for a, b in pairwise([0, *sorted(cuts), len(raw)])]


TEXTS = st.text(alphabet="abAB é🦊", max_size=30)
STOPS = st.lists(st.text(alphabet="abAB é", min_size=1, max_size=4), max_size=3)


@given(TEXTS, STOPS, st.data())
def test_any_cut_gives_the_same_text(text: str, stops: list[str], data: st.DataObject) -> None:
    """However the bytes are cut into tokens, what is shown is a beginning without any stop string, and all of the text
    when there is none in it."""
    raw = text.encode()
    said, stopped = run(stops, *cut(raw, data.draw(st.lists(st.integers(0, len(raw)), max_size=8))))
    shown = "".join(said)
    assert text.startswith(shown)
    assert not any(stop in shown for stop in stops)
    assert stopped == any(stop in text for stop in stops)
    if not stopped:
        assert shown == text


@given(st.binary(max_size=40), st.data())
def test_any_bytes(raw: bytes, data: st.DataObject) -> None:
    """Bytes that are no text become replacements, the same ones however they are cut."""
    said, _ = run([], *cut(raw, data.draw(st.lists(st.integers(0, len(raw)), max_size=8))))
    assert "".join(said) == "".join(run([], raw)[0])
    if _is_text(raw):
        assert "".join(said) == raw.decode()


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(TEXTS, STOPS, st.data())
def test_places(text: str, stops: list[str], data: st.DataObject) -> None:
    """``shown`` counts what was returned and never runs ahead of what was decoded."""
    raw = text.encode()
    pieces, shown = Pieces(stops), 0
    for part in cut(raw, data.draw(st.lists(st.integers(0, len(raw)), max_size=8))):
        shown += len(pieces.feed(part))
        assert pieces.shown == shown <= pieces.decoded
    assert pieces.shown == shown <= pieces.decoded <= len(text)
    assert shown + len(pieces.flush()) == pieces.shown


def test_the_worst_stop_strings_are_quick() -> None:
    """Text that is for ever about to become one of many long stop strings costs little per token."""
    pieces = Pieces(["a" * 255 + chr(98 + n) for n in range(16)])
    began = time.process_time()
    for _ in range(500):
        pieces.feed(b"aaaa")
    assert time.process_time() - began < 1


def test_overlap() -> None:
    """The longest end of a text that begins a mark."""
    assert overlap("say <tool", ("<tool_call>", "<x>")) == 5
    assert overlap("say", ("<x>",)) == 0
    assert overlap("<x><x", ("<x>",)) == 2
