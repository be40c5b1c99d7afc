"""The HTTP client's exchanges: every answer however it is cut, and everything that is no answer."""

from __future__ import annotations

import asyncio
import gc
import gzip
import os
import socket
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.openai_compatible import http1
from plugins.openai_compatible.http1 import Connection
from plugins.openai_compatible.inflate import PIECE_BYTES, CannotInflate, Inflater
from plugins.openai_compatible.response import HttpError, Response
from plugins.openai_compatible.upstream import Connections, Upstream
from tests.plugins.lines import chunked, plain

HTTP = "HTTP/1.1 200 OK\r\n"
BODY = b'{"choices":[]}'
PACKED = gzip.compress(BODY, mtime=0)


class Keeper:
    """The pool's part: what was given back, what was lost."""

    def __init__(self) -> None:
        self.given: list[Connection] = []

    def give(self, connection: Connection) -> None:
        self.given.append(connection)

    def lost(self, connection: Connection) -> None:
        """Nothing is kept."""


class Wire(asyncio.Transport):
    """A transport on one end of a socket pair that nobody reads; its own flow is only noted."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = socket.socketpair()
        self.aborted = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.ends[0] if name == "socket" else default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Goes nowhere."""

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        """The test feeds as it likes."""

    def resume_reading(self) -> None:
        """The test feeds as it likes."""


def outcome(loop: asyncio.AbstractEventLoop, pieces: list[bytes], *, eof: bool) -> tuple[Any, ...]:
    """What an exchange comes to when its answer arrives in these pieces: all that a caller can see of it."""
    keeper, wire = Keeper(), Wire()
    connection = Connection(loop, keeper)
    connection.connection_made(wire)
    response = connection.start(b"POST / HTTP/1.1\r\n\r\n", b"")
    for piece in pieces:
        if not wire.aborted:
            connection.data_received(piece)
    if eof and not wire.aborted:
        connection.eof_received()
    connection.connection_lost(None)
    body, error = loop.run_until_complete(collected(response))
    for end in wire.ends:
        end.close()
    return response.status, response.headers, body, error, len(keeper.given)


async def collected(response: Response) -> tuple[bytes, str]:
    body = b""
    try:
        await response.head
        while part := await response.readany():
            body += part
    except HttpError as error:
        return body, type(error).__name__
    return body, ""


ANSWERS: dict[str, tuple[bytes, tuple[Any, ...]]] = {
    "length": (plain(BODY, "X-A: 1"), (200, BODY, "", 1)),
    "empty": (plain(b""), (200, b"", "", 1)),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"", "", 1)),
    "304": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", (304, b"", "", 1)),
    "close": (plain(BODY, "Connection: close"), (200, BODY, "", 0)),
    "chunked": (chunked(b"ab", b"c" * 300, b"\r\n\r\n"), (200, b"ab" + b"c" * 300 + b"\r\n\r\n", "", 1)),
    "trailers": (chunked(b"ab", trailers=b"content-type: x\r\nx-t: 1\r\n"), (200, b"ab", "", 1)),
    "framing trailers": (chunked(b"ab", trailers=b"content-length: 7\r\n"), (200, b"ab", "InvalidResponse", 0)),
    "extensions": (
        f"{HTTP}transfer-encoding: Chunked\r\n\r\n2;a=b\r\nab\r\n000;x\r\n\r\n".encode(), (200, b"ab", "", 1),
    ),
    "continue": (b"HTTP/1.1 100 Continue\r\n\r\n" + plain(BODY), (200, BODY, "", 1)),
    "hints": (b"HTTP/1.1 103 Early\r\nlink: a\r\n\r\n" * 2 + plain(BODY), (200, BODY, "", 1)),
    "101": (
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n\x00\x01", (101, b"", "", 0),
    ),
    "1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nab", (200, b"ab", "", 0)),
    "1.0 kept": (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nab", (200, b"ab", "", 1)),
    "until the end": (f"{HTTP}content-type: a/b\r\n\r\n".encode() + BODY, (200, BODY, "", 0)),
    "coded until the end": (f"{HTTP}transfer-encoding: identity\r\n\r\n".encode() + BODY, (200, BODY, "", 0)),
    "packed": (plain(PACKED, "Content-Encoding: GZIP"), (200, BODY, "", 1)),
    "packed chunks": (chunked(PACKED[:9], PACKED[9:], lines="content-encoding: gzip\r\n"), (200, BODY, "", 1)),
    "packed, cut": (plain(PACKED[:-9], "content-encoding: gzip"), (200, BODY, "InvalidResponse", 1)),
    "packed otherwise": (plain(PACKED, "content-encoding: br"), (200, b"", "InvalidResponse", 1)),
    "odd bytes": (plain(b"a", "x-e: \xff\x07"), (200, b"a", "", 1)),
    "cut length": (plain(BODY)[:-3], (200, BODY[:-3], "Disconnected", 0)),
    "cut chunks": (chunked(b"abc", b"def")[:-9], (200, b"abcd", "Disconnected", 0)),
    "cut end": (chunked(b"abc")[:-2], (200, b"abc", "Disconnected", 0)),
    "cut head": (plain(BODY)[:20], (0, b"", "Disconnected", 0)),
    "cut after 100": (b"HTTP/1.1 100 Continue\r\n\r\n", (0, b"", "Disconnected", 0)),
    "nothing": (b"", (0, b"", "Disconnected", 0)),
    "second answer": (plain(b"a") + plain(b"b"), (200, b"a", "", 0)),
    "garbage behind": (chunked(b"a") + b"garbage", (200, b"a", "", 0)),
    "half an answer behind": (plain(b"a") + b"HTTP/1.", (200, b"a", "", 0)),
    "not http": (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", (0, b"", "InvalidResponse", 0)),
    "tls": (b"\x15\x03\x01\x00\x02\x02\x46", (0, b"", "InvalidResponse", 0)),
    "both lengths": (
        f"{HTTP}content-length: 2\r\ntransfer-encoding: chunked\r\n\r\nab".encode(), (0, b"", "InvalidResponse", 0),
    ),
    "two lengths": (
        f"{HTTP}content-length: 2\r\ncontent-length: 3\r\n\r\nabc".encode(), (0, b"", "InvalidResponse", 0),
    ),
    "negative length": (f"{HTTP}content-length: -1\r\n\r\n".encode(), (0, b"", "InvalidResponse", 0)),
    "huge length": (f"{HTTP}content-length: {'9' * 30}\r\n\r\n".encode(), (0, b"", "InvalidResponse", 0)),
    "bad chunk": (f"{HTTP}transfer-encoding: chunked\r\n\r\nzz\r\n".encode(), (200, b"", "InvalidResponse", 0)),
    "long chunk": (
        f"{HTTP}transfer-encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n".encode(), (200, b"ab", "InvalidResponse", 0),
    ),
}  # fmt: skip


@pytest.fixture
def loop() -> Any:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.mark.parametrize("name", ANSWERS)
def test_every_cut_in_two(loop: asyncio.AbstractEventLoop, name: str) -> None:
    """Wherever a read ends, an answer comes to the same; what lies behind it may be seen or not."""
    answer, (status, body, error, kept) = ANSWERS[name]
    whole = outcome(loop, [answer], eof=True)
    assert (whole[0], whole[2], whole[3], whole[4]) == (status, body, error, kept)
    behind = name in {"second answer", "garbage behind", "half an answer behind"}
    for cut in range(1, len(answer)):
        parts = outcome(loop, [answer[:cut], answer[cut:]], eof=True)
        assert parts[:4] == whole[:4], cut
        assert parts[4] == kept or behind, cut


pieces = st.lists(st.integers(1, 40), min_size=1, max_size=60)


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, dict[str, str], bytes]:
    """An answer, its headers and its body; framed in every way there is."""
    body = draw(st.binary(max_size=200))
    names = st.text("abcXYZ-", min_size=1, max_size=8).map(lambda name: f"x{name}")
    values = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
    told = draw(st.dictionaries(names, values, max_size=5))
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    packing = draw(st.sampled_from(["", "gzip", "deflate", "bare"]))
    sent = body
    if packing:
        engine = zlib.compressobj(wbits={"gzip": 31, "deflate": 15, "bare": -15}[packing])
        sent = engine.compress(body) + engine.flush()
        lines += f"content-encoding: {'gzip' if packing == 'gzip' else 'deflate'}\r\n"
    framing = draw(st.sampled_from(["length", "chunked", "end"]))
    if framing == "length":
        answer = plain(sent).replace(b"OK\r\n", b"OK\r\n" + lines.encode(), 1)
    elif framing == "chunked":
        sizes = draw(st.lists(st.integers(1, 60), max_size=6))
        chunks, rest = list[bytes](), sent
        for size in sizes:
            chunks, rest = [*chunks, rest[:size]], rest[size:]
        answer = chunked(*(chunk for chunk in [*chunks, rest] if chunk), lines=lines)
    else:
        answer = f"{HTTP}{lines}\r\n".encode() + sent
    interim = draw(st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 102 P\r\nxa: no\r\n\r\n"]))
    return interim + answer, {name.lower(): value for name, value in told.items()}, body


@settings(max_examples=300, deadline=None)
@given(answers(), pieces)
def test_any_answer_in_any_pieces(told: tuple[bytes, dict[str, str], bytes], sizes: list[int]) -> None:
    """Status, headers and body of any answer are what was sent, in whatever pieces it arrives."""
    answer, headers, body = told
    parts, rest = list[bytes](), answer
    for size in sizes:
        parts, rest = [*parts, rest[:size]], rest[size:]
    loop = asyncio.new_event_loop()
    status, found, got, error, _ = outcome(loop, [part for part in [*parts, rest] if part], eof=True)
    loop.close()
    assert (status, got, error) == (200, body, "")
    assert {name: found[name] for name in headers} == headers


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(ANSWERS)), st.binary(min_size=1, max_size=4), st.integers(0, 400), pieces)
def test_noise(name: str, noise: bytes, where: int, sizes: list[int]) -> None:
    """Bytes that turn up in the middle of an answer give an answer or a failure of ours, never anything else."""
    answer = ANSWERS[name][0]
    where = min(where, len(answer))
    answer = answer[:where] + noise + answer[where:]
    loop = asyncio.new_event_loop()
    cuts = [answer[sum(sizes[:at]) : sum(sizes[: at + 1])] for at in range(len(sizes))] + [answer[sum(sizes) :]]
    error = outcome(loop, [cut for cut in cuts if cut], eof=True)[3]
    loop.close()
    assert error in {"", "InvalidResponse", "Disconnected"}


@pytest.mark.parametrize(
    ("start", "more"),
    [
        ("HTTP/1.1 200 ", "O"),
        (HTTP, "x"),
        (f"{HTTP}x: ", "y"),
        (HTTP, "x: y\r\n"),
        ("", "HTTP/1.1 100 Continue\r\n\r\n"),
        (f"{HTTP}transfer-encoding: chunked\r\n\r\n", "0"),
        (f"{HTTP}transfer-encoding: chunked\r\n\r\n1;", "e"),
        (f"{HTTP}transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: ", "y"),
        (f"{HTTP}transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n", "x: y\r\n"),
    ],
)
@pytest.mark.parametrize("size", [1000, 200_000])
def test_endless_heads(loop: asyncio.AbstractEventLoop, start: str, more: str, size: int) -> None:
    """Whatever part of an answer never ends, a little over 64 KiB of it are enough, in reads of any size."""
    connection, wire = Connection(loop, Keeper()), Wire()
    connection.connection_made(wire)
    response = connection.start(b"", b"")
    connection.data_received(start.encode())
    fed, piece = 0, (more * (size // len(more))).encode()
    while not wire.aborted:
        assert fed <= 3 * http1.MAX_HEADER_BYTES
        connection.data_received(piece)
        fed += len(piece)
    _, error = loop.run_until_complete(collected(response))
    assert error == "InvalidResponse"
    for end in wire.ends:
        end.close()


def test_large_head_in_one_read(loop: asyncio.AbstractEventLoop) -> None:
    """More than 64 KiB of headers are refused although they are complete; small ones before a large body are not."""
    large = plain(BODY, *(f"x-{number}: {'y' * 1000}" for number in range(70)))
    assert outcome(loop, [large], eof=True)[3] == "InvalidResponse"
    body = os.urandom(200_000)
    assert outcome(loop, [plain(body)], eof=True)[2:4] == (body, "")


def test_trailers_are_no_headers(loop: asyncio.AbstractEventLoop) -> None:
    """What follows a body changes nothing that was said before it."""
    answer = chunked(b"ab", lines="content-type: a/b\r\n", trailers=b"content-type: x\r\nx-t: 1\r\n")
    found = outcome(loop, [answer], eof=True)[1]
    assert found == {"transfer-encoding": "chunked", "content-type": "a/b"}


def test_heads_do_not_add_up(loop: asyncio.AbstractEventLoop) -> None:
    """The limit on headers is one answer's, not a connection's: the hundredth answer is as good as the first."""
    connection, wire = Connection(loop, Keeper()), Wire()
    connection.connection_made(wire)
    for answer in (plain(b"", f"x: {'y' * 1000}"), plain(BODY, f"x: {'y' * 1000}")) * 100:
        response = connection.start(b"", b"")
        connection.data_received(answer)
        assert loop.run_until_complete(collected(response))[1] == ""
    for end in wire.ends:
        end.close()


def test_a_failure_that_nobody_waits_for(loop: asyncio.AbstractEventLoop) -> None:
    """A call cancelled in the very moment in which its connection breaks leaves no complaint of the loop behind."""
    complaints: list[Any] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    connection, wire = Connection(loop, Keeper()), Wire()
    connection.connection_made(wire)
    response = connection.start(b"", b"")
    connection.connection_lost(None)
    assert response.head.done()
    response.close()
    del response
    gc.collect()
    assert complaints == []
    for end in wire.ends:
        end.close()


def test_reset_within_a_body_without_length(loop: asyncio.AbstractEventLoop) -> None:
    """A body until the end of the connection is whole after an orderly end only."""
    connection, wire = Connection(loop, Keeper()), Wire()
    connection.connection_made(wire)
    response = connection.start(b"", b"")
    connection.data_received(f"{HTTP}\r\n".encode() + BODY)
    connection.connection_lost(ConnectionResetError(104, "Connection reset by peer"))
    assert loop.run_until_complete(collected(response)) == (BODY, "Disconnected")
    for end in wire.ends:
        end.close()


@given(st.binary(max_size=2000), st.lists(st.integers(1, 50), max_size=20), st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_inflater(data: bytes, sizes: list[int], members: int) -> None:
    """Packed data comes out as it went in, in whatever pieces, however many members it has and with padding behind."""
    packed = gzip.compress(data) * members + b"\0\0\0"
    inflater, out = Inflater("gzip"), b""
    for size in [*sizes, len(packed)]:
        if packed[:size]:
            inflater.feed(packed[:size])
            packed = packed[size:]
        while piece := inflater.take():
            assert len(piece) <= PIECE_BYTES
            out += piece
    inflater.close()
    assert out == data * members


def test_inflater_keeps_nothing_back() -> None:
    """All that can be unpacked of what has come is given before more is asked for, wherever it was cut."""
    packed = gzip.compress(bytes(2 * PIECE_BYTES + 77), mtime=0)
    for cut in range(100, len(packed)):
        inflater, got = Inflater("gzip"), 0
        inflater.feed(packed[:cut])
        while piece := inflater.take():
            got += len(piece)
        assert got == len(zlib.decompressobj(31).decompress(packed[:cut])), cut


def test_inflater_refuses() -> None:
    """A bomb comes out in bounded pieces; broken, cut and unknown packings are said to be so."""
    inflater = Inflater("gzip")
    inflater.feed(gzip.compress(bytes(10_000_000)))
    sizes = []
    while piece := inflater.take():
        sizes.append(len(piece))
    assert sum(sizes) == 10_000_000
    assert max(sizes) == PIECE_BYTES
    inflater.close()
    for encoding, data in (("gzip", b"no gzip at all"), ("deflate", b"\xff\xff"), ("br", b"x"), ("gzip, gzip", b"x")):
        broken = Inflater(encoding)
        broken.feed(data)
        with pytest.raises(CannotInflate):
            broken.take()
    cut = Inflater("gzip")
    cut.feed(PACKED[:-1])
    cut.take()
    with pytest.raises(CannotInflate):
        cut.close()


BAD = ["a\r\nx: y", "a\nb", "a\rb", "a\0b", "a\x1bb", "a\x7fb", "\ud800", "a\n"]


@pytest.mark.parametrize("bad", BAD)
def test_no_header_can_be_smuggled_in(bad: str) -> None:
    """No value, name, path or query can end its line; what was refused is not repeated, for it may be a key."""
    connections = Connections()
    with pytest.raises(ValueError, match="cannot be sent") as refused:
        Upstream("http://h/v1", {"Authorization": f"secret{bad}"}, connect_seconds=1, connections=connections)
    assert "secret" not in str(refused.value)
    with pytest.raises(ValueError, match="not a header name"):
        Upstream("http://h/v1", {f"x{bad}": "1"}, connect_seconds=1, connections=connections)
    upstream = Upstream("http://h/v1", {}, connect_seconds=1, connections=connections)
    for make in (upstream.url, lambda path: upstream.address(f"http://h/{path}?q={bad}")):
        heads = b""
        try:
            address = make(f"/a{bad}")
            heads = address.post + address.get + address.stream
        except ValueError:
            continue
        assert heads.count(b"\n") == heads.count(b"\r\n") == 3 * 5 + 1
        assert not set(heads) & {0, 0x1B, 0x7F}
    with pytest.raises(ValueError):
        upstream.address(f"http://h{bad}/v1")


@pytest.mark.parametrize("target", ["", "/a b", "/a\r\n", "/é", "/a\x7f"])
def test_targets_that_cannot_be_sent(target: str) -> None:
    """A target that is not plain printable ASCII never becomes a head, wherever it comes from."""
    with pytest.raises(ValueError, match="address"):
        http1.head("GET", target, {})


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "Upgrade", "EXPECT", "", "a b", "a:b", "é"])
def test_headers_that_cannot_be_configured(name: str) -> None:
    """Headers that decide where a request ends are the client's alone."""
    with pytest.raises(ValueError, match="header"):
        Upstream("http://h/v1", {name: "1"}, connect_seconds=1, connections=Connections())


def test_targets() -> None:
    """Paths and queries are sent as written, what cannot stand there percent-encoded; names become ASCII."""
    upstream = Upstream("https://h/a%20b/v1?x=1", {}, connect_seconds=1, connections=Connections())
    cases = {
        "http://h": (b"GET / HTTP/1.1", b"Host: h"),
        "http://h:80/v1": (b"GET /v1 HTTP/1.1", b"Host: h"),
        "https://h:80/a b/é?q=a b&r=%20#frag": (b"GET /a%20b/%C3%A9?q=a%20b&r=%20 HTTP/1.1", b"Host: h:80"),
        "http://[::1]:8080/v1": (b"GET /v1 HTTP/1.1", b"Host: [::1]:8080"),
        "http://bücher.example/": (b"GET / HTTP/1.1", b"Host: xn--bcher-kva.example"),
    }
    for url, lines in cases.items():
        assert tuple(upstream.address(url).get.split(b"\r\n")[:2]) == lines
    assert upstream.url("/chat").get.startswith(b"GET /a%20b/v1/chat?x=1 HTTP/1.1\r\nHost: h\r\n")
    for url in ("ftp://h/", "http:///v1", "http://h:port/", "h/v1", "http://h:99999/"):
        with pytest.raises(ValueError):
            upstream.address(url)
