"""The fast splitter agrees with the full parser on every stream, however it is cut."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from hybridd.frames import TextFrames, apply_mask

LIMIT = 1 << 20


def frame(payload: bytes, *, masked: bool, first: int = 0x81) -> bytes:
    mask = b"\x01\x02\x03\x04" if masked else b""
    bit = 0x80 if masked else 0
    size = len(payload)
    if size < 126:
        head = bytes((first, bit | size))
    elif size < 65536:
        head = struct.pack("!BBH", first, bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, bit | 127, size)
    return head + mask + (apply_mask(payload, mask) if masked else payload)


payloads = st.lists(st.binary(max_size=300) | st.just(b"x" * 126) | st.just(b"y" * 70_000), max_size=6)


@given(payloads, st.booleans(), st.data())
def test_any_cut_gives_the_same_messages(texts, masked, data):
    """Whole text frames come out once, in order, wherever the stream was cut between two reads."""
    stream = b"".join(frame(text, masked=masked) for text in texts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    frames = TextFrames(masked=masked, limit=LIMIT)
    found: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        messages, rest = frames.split(stream[start:end])
        assert rest == b""
        found += messages
    assert found == texts


@given(payloads, st.booleans(), st.sampled_from([0x88, 0x89, 0x8A, 0x01, 0x80, 0x82, 0xC1]), st.binary(max_size=20))
def test_anything_else_goes_untouched_to_the_full_parser(texts, masked, first, tail):
    """From the first frame that is not plain text on, every byte is handed over."""
    odd = frame(b"odd", masked=masked, first=first) + tail
    stream = b"".join(frame(text, masked=masked) for text in texts)
    messages, rest = TextFrames(masked=masked, limit=LIMIT).split(stream + odd)
    assert messages == texts
    assert rest == odd


def test_a_wrong_mask_or_an_absurd_length_is_the_parsers_business():
    """The splitter judges nothing: what is wrong is handed over."""
    for masked, wrong in ((True, frame(b"a", masked=False)), (False, frame(b"a", masked=True))):
        assert TextFrames(masked=masked, limit=LIMIT).split(wrong) == ([], wrong)
    huge = struct.pack("!BBQ", 0x81, 127, LIMIT + 1)
    assert TextFrames(masked=False, limit=LIMIT).split(huge) == ([], huge)


def test_the_frames_are_those_of_the_library():
    """The layout is the one that websockets writes."""
    text = b"hello" * 100
    assert Frame(Opcode.TEXT, text).serialize(mask=False) == frame(text, masked=False)
