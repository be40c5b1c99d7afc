"""Both ends of the link read any mixture of frames right, wherever the stream is cut."""

from __future__ import annotations

import asyncio
import itertools
import struct
from typing import Any

import pytest
import uvloop
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.utils import accept_key

from hybridd.frames import Boundary, apply_mask
from hybridd.plugin.link import ClientLink
from tests.providers.support import house

# A mask that looks like the head of a plain text frame: what a reader that lost its place would fall for.
TRAP = b"\x81\x82\x81\x82"


def frame(first: int, payload: bytes, *, masked: bool) -> bytes:
    bit = 0x80 if masked else 0
    size = len(payload)
    head = bytes((first, bit | size)) if size < 126 else struct.pack("!BBH", first, bit | 126, size)
    return head + TRAP + apply_mask(payload, TRAP) if masked else head + payload


text = st.text(max_size=200).map(str.encode)
steps = st.one_of(
    st.tuples(st.just("text"), text),
    st.tuples(st.just("ping"), st.binary(max_size=20) | st.just(b"\x81\x01\x81\x01")),
    st.tuples(st.just("fragments"), text),
)


def stream_of(script: list[tuple[str, bytes]], *, masked: bool) -> tuple[bytes, list[bytes]]:
    out, expected = b"", []
    for kind, payload in script:
        if kind == "text":
            out += frame(0x81, payload, masked=masked)
        elif kind == "ping":
            out += frame(0x89, payload, masked=masked)
            continue
        else:
            half = len(payload) // 2
            out += frame(0x01, payload[:half], masked=masked)
            out += frame(0x89, b"in between", masked=masked)
            out += frame(0x80, payload[half:], masked=masked)
        expected.append(payload)
    return out, expected


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    points = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(points) if a < b]


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def loop():
    loop = uvloop.new_event_loop()
    yield loop
    loop.close()


@settings(max_examples=300, deadline=None)
@given(script=st.lists(steps, max_size=6), cuts=st.lists(st.integers(0, 2000), max_size=8))
@example(script=[("text", b"a"), ("ping", b"\x81\x01\x81\x01"), ("text", b"b")], cuts=[5, 5])
def test_client_end(loop, script, cuts):
    """The SDK's end delivers every message once, in order."""
    got: list[bytes] = []
    link = ClientLink(loop, lambda data: got.append(bytes(data)))
    link.connection_made(Transport())
    answer = (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_key(link._conn.key)}\r\n\r\n"
    )
    link.data_received(answer.encode())
    assert link.opened.done()
    stream, expected = stream_of(script, masked=False)
    for piece in pieces(stream, cuts):
        link.data_received(piece)
    assert got == expected
    assert not link.lost.done()


@settings(max_examples=150, deadline=None)
@given(script=st.lists(steps, max_size=6), cuts=st.lists(st.integers(0, 2000), max_size=8))
@example(script=[("text", b"a"), ("ping", b"abc"), ("text", b"b")], cuts=[7, 9])
def test_daemon_end(loop, script, cuts):
    """The daemon's end delivers every message once, in order, also after a frame that was cut inside its head."""
    loop.run_until_complete(daemon_end(script, cuts))


async def daemon_end(script, cuts):
    async with house() as home, home.raw():
        session = home.hub.providers["raw"].session
        assert session is not None
        got: list[bytes] = []
        session.on_message = lambda data: got.append(bytes(data))  # type: ignore[method-assign]  # watched from outside
        protocol = session._link._protocol  # type: ignore[attr-defined]  # the real transport's protocol
        stream, expected = stream_of(script, masked=True)
        for piece in pieces(stream, cuts):
            protocol.data_received(piece)
        assert got == expected
        assert not session.closed


@given(st.lists(st.integers(0, 70_000), max_size=5), st.booleans())
def test_boundary_counts_whole_frames(lengths, masked):
    """Reached exactly when every byte fed belongs to a frame that came out."""
    boundary = Boundary(masked=masked)
    for length in lengths:
        size = len(frame(0x81, b"", masked=masked)) + length + (0 if length < 126 else 2 if length < 65536 else 8)
        states = []
        boundary.fed(size)
        states.append(boundary.reached)
        boundary.frame(length)
        states.append(boundary.reached)
        assert states == [False, True]


def test_boundary_once_lost_stays_lost():
    """A frame that was never fed means the count is wrong for good: the full parser keeps the stream."""
    boundary = Boundary(masked=False)
    boundary.frame(1)
    boundary.fed(3)
    assert not boundary.reached
