"""The event parser: the same events however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.openai_compatible.sse import EventTooLarge, Parser


def parse(*reads: bytes) -> tuple[list[bytes], bool]:
    parser = Parser()
    events = [event for read in reads for event in parser.feed(read)]
    return events + parser.close(), parser.done


@pytest.mark.parametrize(
    ("text", "events", "done"),
    [
        (b'data: {"a":1}\n\ndata: [DONE]\n\n', [b'{"a":1}'], True),
        (b'data:{"a":1}\n\ndata:[DONE]\n\n', [b'{"a":1}'], True),
        (b'data: {"a":1}\r\n\r\ndata: [DONE]\r\n\r\n', [b'{"a":1}'], True),
        (b'data: {"a":1}\r\rdata: [DONE]\r\r', [b'{"a":1}'], True),
        (b'\xef\xbb\xbfdata: {"a":1}\n\n', [b'{"a":1}'], False),
        (b': OPENROUTER PROCESSING\n\ndata: {"a":1}\n\n: ping\n\n', [b'{"a":1}'], False),
        (b'event: chunk\nid: 7\nretry: 10\ndata: {"a":1}\n\n', [b'{"a":1}'], False),
        (b'data: {"a":\ndata: 1}\n\n', [b'{"a":\n1}'], False),
        (b'data: {"a":1}\n\n\n\n\ndata: {"a":2}\n\n', [b'{"a":1}', b'{"a":2}'], False),
        (b'data: {"a":\r\ndata: 1}\r\n\r\n', [b'{"a":\n1}'], False),
        (b'data:   {"a":1}   \n\n', [b'{"a":1}'], False),
        (b"data:\n\ndata\n\n", [], False),
        (b'{"error":"model crashed"}\n', [b'{"error":"model crashed"}'], False),
        (b'data: {"a":1}\n\n{"error":"x"}\n\n', [b'{"a":1}', b'{"error":"x"}'], False),
        (b'data: {"a":1}\n\ndata: [DONE]', [b'{"a":1}'], True),
        (b'data: [DONE]\n\ndata: {"late":1}\n\n', [], True),
        (b"", [], False),
    ],
)
def test_forms(text: bytes, events: list[bytes], done: bool) -> None:
    """Line ends, comments, fields, several data lines, a byte order mark and bare errors are read by the standard."""
    assert parse(text) == (events, done)
    assert parse(*(text[at : at + 1] for at in range(len(text)))) == (events, done)


pieces = st.sampled_from(
    [b'data: {"x":"\xc3\xa9"}', b"data:[1]", b": c", b"event: e", b'data: {"long":"' + b"y" * 50 + b'"}', b"", b"id: 1"]
)


@settings(max_examples=150)
@given(st.lists(pieces, max_size=12), st.sampled_from([b"\n", b"\r\n", b"\r"]), st.data())
def test_cut_anywhere(lines: list[bytes], end: bytes, data: st.DataObject) -> None:
    """However the bytes are split into reads, the events are those of one single read."""
    text = end.join([*lines, b"", b"data: [DONE]", b"", b""])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    reads = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert parse(*reads) == parse(*(text[at : at + 1] for at in range(len(text)))) == parse(text)
    assert parse(text)[1]


def test_nothing_is_invented_by_a_cut() -> None:
    """A stream cut at any byte yields a beginning of its events; only whole events are given before the end."""
    whole = b'data: {"a":1}\r\n\r\ndata: {"b":2}\r\n\r\ndata: [DONE]\r\n\r\n'
    for cut in range(len(whole)):
        events = Parser().feed(whole[:cut])
        assert events == [b'{"a":1}', b'{"b":2}'][: len(events)]


def test_an_endless_event_is_refused() -> None:
    """An event that never ends is given up on at the limit instead of filling the memory."""
    parser = Parser(max_event_bytes=1000)
    assert parser.feed(b"data: " + b"x" * 500) == []
    with pytest.raises(EventTooLarge, match="1000"):
        parser.feed(b"x" * 600)
