"""The load generator reads answers whole, whatever their framing, and never counts a wrong one as a success."""

import asyncio
import contextlib

import pytest

from scripts.bench_parts.answers import AnswerReader, BadAnswer
from scripts.bench_parts.loadgen import Target, chat_request, run
from scripts.bench_parts.streaming import complete_stream
from tests.fakes.upstream import InProcessUpstream, rule

LENGTH = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 11\r\n\r\nhello world"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"6\r\nhello \r\n5;note=1\r\nwor\r\n\r\n2\r\nld\r\n0\r\nTrailer: yes\r\n\r\n"
)


@pytest.fixture
async def fake():
    async with InProcessUpstream() as upstream:
        yield upstream


def target(fake, model="m1"):
    return Target("direct", model, host=fake.host, port=fake.port)


@contextlib.asynccontextmanager
async def answering(reply):
    """A server on loopback that calls `reply(writer)` for each request it reads."""

    async def serve(reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
                reply(writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield Target("here", "m1", port=server.sockets[0].getsockname()[1])
    finally:
        server.close()


@pytest.mark.parametrize(("wire", "body"), [(LENGTH, b"hello world"), (CHUNKED, b"hello wor\r\nld")])
def test_reader_at_every_cut(wire, body):
    """An answer that arrives in two pieces, cut anywhere, or byte by byte, is whole exactly at its last byte."""
    reader = AnswerReader()
    for cut in range(1, len(wire)):
        reader.reset()
        assert not reader.feed(wire[:cut]), cut
        assert reader.feed(wire[cut:]), cut
        assert (reader.status, reader.body) == (200, body)
    reader.reset()
    whole = [reader.feed(wire[i : i + 1]) for i in range(len(wire))]
    assert whole == [*[False] * (len(wire) - 1), True]


def test_reader_without_body():
    """204 needs no length; a length of 0 ends with the headers."""
    reader = AnswerReader()
    assert reader.feed(b"HTTP/1.1 204 No Content\r\n\r\n")
    reader.reset()
    assert reader.feed(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    assert (reader.status, reader.closing) == (503, True)


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        LENGTH + b"!",
        CHUNKED + b"!",
        CHUNKED.replace(b"5;note=1", b"zz"),
        CHUNKED.replace(b"5;note=1", b"4"),
        b"x" * 70_000,
    ],
)
def test_reader_refuses(wire):
    """What is not an answer in a known framing, or goes on after its end, is refused."""
    with pytest.raises(BadAnswer):
        AnswerReader().feed(wire)


async def test_counts_every_answer(fake):
    """As many answers are counted as were asked for, the upstream saw them and the warm-up, and each took some time."""
    result = await run(
        target(fake), chat_request("m1"), callers=4, calls=40, warm_up=2, check=lambda body: b'"usage"' in body
    )
    assert (result.answered, result.refused, result.errors) == (40, {}, {})
    assert fake.count(60).total == 48
    assert all(0 < first <= whole for first, whole in zip(result.firsts, result.latencies, strict=True))


async def test_streams_are_read_to_the_end(fake):
    """A stream of 100 chunks has 103 events; one that lacks its end is an error."""
    fake.script([rule({"chunks": 100}, times=5), rule({"chunks": 100, "no_done": True})])
    request = chat_request("m1", stream=True)
    result = await run(target(fake), request, calls=6, check=complete_stream(103))
    assert result.answered == 5
    assert result.errors == {"200 with a wrong body": 1}


async def test_the_first_token_is_earlier_than_the_last(fake):
    """Of a stream whose chunks are 10 ms apart the first byte is timed apart from the whole."""
    fake.script([rule({"chunks": 10, "chunk_interval_s": 0.01})])
    result = await run(target(fake), chat_request("m1", stream=True), calls=1)
    assert result.latencies[0] - result.firsts[0] > 0.05


async def test_refusals_carry_their_reason(fake):
    """A 429 or 503 with a code is a refusal; without one, or with another status, it is an error; none is an answer."""
    body = {"error": {"message": "no", "type": "x", "param": None, "code": "quota_exhausted"}}
    fake.script(
        [
            rule({"status": 429, "body": body}, times=2),
            rule({"status": 503, "body": "busy"}, times=1),
            rule({"status": 500, "body": body}, times=1),
        ]
    )
    result = await run(target(fake), chat_request("m1"), calls=5)
    assert result.answered == 1
    assert result.refused == {"429 quota_exhausted": 2}
    assert result.errors == {"503 ?": 1, "500 quota_exhausted": 1}
    assert result.described().startswith("1 × 200, 2 × 429 quota_exhausted, 1 × 50")


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [({"cut_after_bytes": 150}, "connection lost"), ({"chunked_garbage": True}, "not a chunk size")],
)
async def test_broken_answers_are_errors(fake, behaviour, error):
    """A cut answer and broken framing end that caller and are counted; the others go on."""
    fake.script([rule(behaviour, times=1)])
    result = await run(target(fake), chat_request("m1"), callers=2, calls=10)
    assert sum(result.errors.values()) == 1
    assert next(iter(result.errors)).startswith(error)
    assert result.answered == 9


async def test_silence_ends_the_run(fake):
    """An upstream that never answers is waited for as long as said, then each open call is an error."""
    fake.script([rule({"hang": True})])
    result = await run(target(fake), chat_request("m1"), callers=3, calls=3, grace=0.1)
    assert (result.answered, result.errors) == (0, {"no answer in time": 3})


async def test_calls_go_on_after_the_server_closes():
    """A server that closes after each answer is connected to again."""

    def reply(writer):
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    async with answering(reply) as here:
        result = await run(here, chat_request("m1"), callers=3, calls=12)
    assert (result.answered, result.errors) == (12, {})


async def test_no_server_is_an_error(tmp_path):
    """Nothing that listens is told at once, not counted."""
    with pytest.raises(OSError):
        await run(Target("gone", "m1", path=str(tmp_path / "s")), chat_request("m1"), calls=1)
