"""The HTTP client on real connections: opening, keeping, TLS, proxies, cancelling; on both loops there are."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from hybridd.plugin import CallFailure
from plugins.openai_compatible import connect, http1, pool
from plugins.openai_compatible.connect import Route
from plugins.openai_compatible.http1 import Connection
from plugins.openai_compatible.pool import Pool
from plugins.openai_compatible.provider import HostProvider
from plugins.openai_compatible.response import ConnectFailed, Disconnected, HttpError, InvalidResponse
from plugins.openai_compatible.upstream import MAX_BODY_BYTES, Connections, Upstream, read_body
from tests.plugins.lines import Server, answering, certificate, chunked, plain, request_of, serving
from tests.plugins.support import call, chat, failure_of

BODY = b'{"choices":[]}'
Make = Callable[..., Upstream]

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture")


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> Any:
    return request.param()


@pytest.fixture
def connections() -> Connections:
    return Connections()


@pytest.fixture
async def upstreams(connections: Connections) -> AsyncIterator[Make]:
    """Makes upstreams; everything is closed at the end."""
    made = list[Upstream]()

    def make(url: str, headers: dict[str, str] | None = None, seconds: float = 2.0) -> Upstream:
        upstream = Upstream(url, headers or {}, connect_seconds=seconds, connections=connections)
        made.append(upstream)
        return upstream

    yield make
    for upstream in made:
        await upstream.close()


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    """Whatever a test does, every socket it opened is closed after it."""
    before = sockets()
    yield
    assert sockets() <= before


def sockets() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return {one for one in found if one.startswith("socket:")}


async def asked(upstream: Upstream, body: bytes = b"{}", seconds: float = 5.0) -> bytes:
    async with asyncio.timeout(seconds + 5):
        return await read_body(await upstream.post(upstream.url("/chat"), body, seconds))


def test_which_loop(event_loop_policy: Any) -> None:
    """The tests below really run on both."""
    loop = event_loop_policy.new_event_loop()
    assert isinstance(loop, uvloop.Loop) is isinstance(event_loop_policy, uvloop.EventLoopPolicy)
    loop.close()


async def test_the_request_as_it_leaves(upstreams: Make) -> None:
    """The bytes of a request are exactly these; configured headers replace ours whatever their case."""
    seen: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await request_of(reader):
            seen.append(request)
            writer.write(plain(BODY))

    async with serving(talk) as server:
        upstream = upstreams(server.url(), {"User-Agent": "hybridd", "ACCEPT": "a/b", "X": " 1 "})
        assert await asked(upstream, b'{"a":1}') == BODY
        large = os.urandom(300_000)
        assert await asked(upstream, large) == BODY
        assert await read_body(await upstream.post(upstream.url("/chat"), b"{}", 5, stream=True)) == BODY
        assert await read_body(await upstream.get(upstream.url("/models"), 5)) == BODY
        assert server.opened == 1
    lines = f"Host: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n%b\r\n".encode()
    lines += b"Accept-Encoding: identity\r\nUser-Agent: hybridd\r\nX: 1\r\n"
    post = b"POST /v1/chat HTTP/1.1\r\n" + lines
    assert seen == [
        post % b"ACCEPT: a/b" + b'Content-Length: 7\r\n\r\n{"a":1}',
        post % b"ACCEPT: a/b" + b"Content-Length: 300000\r\n\r\n" + large,
        post % b"Accept: text/event-stream" + b"Content-Length: 2\r\n\r\n{}",
        b"GET /v1/models HTTP/1.1\r\n" + lines % b"ACCEPT: a/b" + b"\r\n",
    ]


@pytest.mark.parametrize(
    ("answer", "opened"),
    [
        (plain(BODY), 1),
        (chunked(BODY), 1),
        (plain(BODY, "connection: close"), 3),
        (plain(BODY).replace(b"1.1", b"1.0"), 3),
        (plain(BODY) + b"HTTP/1.1 200 OK\r\n", 3),
        (plain(gzip.compress(BODY, mtime=0), "content-encoding: gzip"), 1),
    ],
)
async def test_which_connections_are_kept(upstreams: Make, answer: bytes, opened: int) -> None:
    """A connection is used again after a complete answer that allows it and has nothing behind it."""
    async with serving(answering(answer)) as server:
        upstream = upstreams(server.url())
        for _ in range(3):
            assert await asked(upstream) == BODY
        assert server.opened == opened
        if opened > 1:
            await server.all_closed(2)


async def test_one_answer_never_becomes_the_next(upstreams: Make) -> None:
    """What a host sends after its answer, in a read of its own, is nobody's: the connection is closed."""
    more = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(plain(BODY))
        await more.wait()
        writer.write(plain(b"poison"))
        await request_of(reader)

    async with serving(talk) as server:
        upstream = upstreams(server.url())
        assert await asked(upstream) == BODY
        more.set()
        await server.all_closed(1)
        assert await asked(upstream) == BODY
        assert server.opened == 2


@pytest.mark.parametrize("poison", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"])
async def test_stale_connections(upstreams: Make, poison: bytes) -> None:
    """A kept connection that the host closed, or wrote on, while this process was busy is not used for a call."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked_for, gone = threading.Event(), threading.Event()

    def serve() -> None:
        for _ in range(2):
            line, _ = listener.accept()
            with line, contextlib.suppress(ConnectionResetError):
                line.recv(65536)
                line.sendall(plain(BODY))
                if not gone.is_set():
                    asked_for.wait(10)
                    line.sendall(poison)
                    if poison:
                        gone.set()
                        line.recv(65536)
            gone.set()

    thread = threading.Thread(target=serve)
    thread.start()
    upstream = upstreams(f"http://127.0.0.1:{listener.getsockname()[1]}")
    assert await asked(upstream) == BODY
    asked_for.set()
    assert gone.wait(10)  # the loop stands still meanwhile: it has seen nothing of what the host does
    assert await asked(upstream) == BODY
    thread.join(10)
    listener.close()


async def test_idle_connections_age(connections: Connections) -> None:
    """A connection that nobody uses is closed after its time, the one used last after the others."""
    async with serving(answering(plain(BODY))) as server:
        kept = Pool(Route("127.0.0.1", server.port, False), None, keepalive=0.2)
        lines = [await kept.connect(2) for _ in range(3)]
        began = asyncio.get_running_loop().time()
        for line in lines:
            response = line.start(b"GET / HTTP/1.1\r\n\r\n", b"")
            await response.head
            assert await read_body(response) == BODY
        again = kept.take()
        assert again is lines[2]
        kept.give(again)
        await server.all_closed(3)
        assert asyncio.get_running_loop().time() - began >= 0.19
        assert kept.take() is None
        assert kept._all == set()
        kept.close()
    assert 30 <= pool.KEEPALIVE_SECONDS < 60


async def test_hung_up_connections_are_forgotten() -> None:
    """A kept connection that the host closes is let go at once, not when its time is over."""
    async with serving(answering(plain(BODY), hang_up=True)) as server:
        kept = Pool(Route("127.0.0.1", server.port, False), None)
        lines = [await kept.connect(2) for _ in range(3)]
        for line in lines:
            assert await read_body(line.start(b"GET / HTTP/1.1\r\n\r\n", b"")) == BODY
        await server.all_closed(3)
        async with asyncio.timeout(5):
            while kept._idle:
                await asyncio.sleep(0)
        assert kept._all == set()
        kept.close()


async def test_unpacking_leaves_room_for_timers(upstreams: Make) -> None:
    """A small packed body that unpacks to very much does not hold the loop up: the call's time ends when it ends."""
    bomb = gzip.compress(bytes(150_000_000), 1)
    async with serving(answering(plain(bomb, "content-encoding: gzip"))) as server:
        upstream = upstreams(server.url())
        response = await upstream.post(upstream.url("/chat"), b"{}", 5)
        assert await response.readany() == bytes(256 * 1024)

        async def read() -> None:
            while await response.readany():
                pass

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(read(), 0.02)
        response.close()


async def test_closing_closes_everything(connections: Connections) -> None:
    """With the last of its users the idle and the busy connections go; a call under way fails, and none opens later."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await request_of(reader):
            if b"/chat" in request:
                writer.write(plain(BODY))

    async with serving(talk) as server:
        upstream = Upstream(server.url(), {}, connect_seconds=2, connections=connections)
        address = upstream.url("/hang")
        await asyncio.gather(*(asked(upstream) for _ in range(3)))
        hanging = asyncio.create_task(upstream.post(address, b"{}", 5))
        await asyncio.sleep(0)
        await upstream.close()
        await server.all_closed(3)
        with pytest.raises(Disconnected):
            await hanging
        with pytest.raises(ConnectFailed):
            await upstream.post(address, b"{}", 5)


async def test_an_answer_before_the_request_is_out(upstreams: Make) -> None:
    """An answer may come while the request is still being sent; its connection carries no other request."""
    go = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(plain(BODY))
        await go.wait()

    async with serving(talk) as server:
        upstream = upstreams(server.url())
        for _ in range(2):
            assert await asked(upstream, bytes(30_000_000)) == BODY
        assert server.opened == 2
        go.set()


async def test_cancelled_calls_hang_up(upstreams: Make) -> None:
    """A cancelled call closes its connection at once: before the answer, within it, and while it connects."""
    reached = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await request_of(reader)
        if b"/within" in request:
            writer.write(plain(BODY)[:-2])
        reached.set()
        await reader.read()

    async with serving(talk) as server:
        upstream = upstreams(server.url())
        for number, path in enumerate(("/before", "/within"), start=1):
            reached.clear()
            answered = asyncio.create_task(upstream.post(upstream.url(path), b"{}", 5))
            await reached.wait()
            if path == "/before":
                answered.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await answered
            else:
                response = await answered
                reading = asyncio.create_task(read_body(response))
                await asyncio.sleep(0)
                reading.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await reading
                response.close()
            await server.all_closed(number)
    with full_listener() as port:
        connecting = asyncio.create_task(asked(upstreams(f"http://127.0.0.1:{port}")))
        await asyncio.sleep(0.05)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting


@contextlib.contextmanager
def full_listener() -> Iterator[int]:
    """A port where connections hang while they open."""
    with socket.socket() as full, contextlib.ExitStack() as held:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            one = held.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        yield full.getsockname()[1]


@pytest.mark.parametrize("size", [1, 60_000])
async def test_backpressure(upstreams: Make, size: int) -> None:
    """While nobody reads, a host is stopped after little more than the buffer, whatever the size of its chunks."""
    sent = 0
    stopped = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        piece = (b"%x\r\n%b\r\n" % (size, b"x" * size)) * (60_000 // size)
        writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        try:
            for _ in range(500_000_000 // len(piece)):
                writer.write(piece)
                sent += len(piece)
                async with asyncio.timeout(0.3):
                    await writer.drain()
        except TimeoutError:
            stopped.set()
        await reader.read()

    async with serving(talk) as server:
        upstream = upstreams(server.url())
        response = await upstream.post(upstream.url("/chat"), b"{}", 5)
        await asyncio.wait_for(stopped.wait(), 20)
        assert sum(map(len, response._parts)) <= 2 * http1.READ_BUFFER_BYTES
        assert len(response._parts) < 60_000
        assert sent < 12_000_000
        read = 0
        while read < 3 * http1.READ_BUFFER_BYTES // (100 if size == 1 else 1):
            read += len(await response.readany())
        response.close()
        await server.all_closed(1)


async def test_large_answers_arrive_whole(upstreams: Make) -> None:
    """Pausing and resuming loses nothing; a complete answer larger than the buffer leaves a usable connection."""
    large = os.urandom(3_000_000)
    async with serving(answering(plain(large), chunked(large, large), plain(large), plain(BODY))) as server:
        upstream = upstreams(server.url())
        assert await asked(upstream) == large
        assert await asked(upstream) == large + large
        response = await upstream.post(upstream.url("/chat"), b"{}", 5)
        await asyncio.sleep(0.05)
        assert await read_body(response) == large
        assert await asked(upstream) == BODY
        assert server.opened == 1


@pytest.mark.parametrize("told", [True, False])
async def test_too_large_answers(upstreams: Make, told: bool) -> None:
    """An answer over the limit is given up, told by its length or found out; one of exactly the limit is not."""
    body = bytes(1000)
    for answer in (plain(body), chunked(body)) if not told else (plain(body),):
        async with serving(answering(answer)) as server:
            upstream = upstreams(server.url())
            assert await read_body(await upstream.post(upstream.url("/"), b"", 5), 1000) == body
            response = await upstream.post(upstream.url("/"), b"", 5)
            with pytest.raises(CallFailure, match="larger than 999 bytes"):
                await read_body(response, 999)
            response.close()
    bomb = gzip.compress(bytes(MAX_BODY_BYTES + 1))
    async with serving(answering(plain(bomb, "content-encoding: gzip"))) as server:
        with pytest.raises(CallFailure, match="larger than"):
            await asked(upstreams(server.url()))


@pytest.mark.parametrize(
    ("answer", "error", "kind", "sent"),
    [
        (b"", Disconnected, "unavailable", "maybe"),
        (b"HTTP/1.1 200", Disconnected, "unavailable", "maybe"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", Disconnected, "unavailable", "maybe"),
        (b"nonsense\r\n", InvalidResponse, "bad_response", "maybe"),
        (plain(BODY)[:-1], Disconnected, "bad_response", "yes"),
        (chunked(BODY)[:-1], Disconnected, "bad_response", "yes"),
        (plain(gzip.compress(BODY, mtime=0)[:-1], "content-encoding: gzip"), InvalidResponse, "bad_response", "yes"),
    ],
)
async def test_what_a_failure_proves(
    connections: Connections, answer: bytes, error: type[HttpError], kind: str, sent: str
) -> None:
    """Each broken exchange is one request, never two, and says whether it may have been done."""
    async with serving(answering(answer, hang_up=True)) as server:
        provider = HostProvider("x", {"base_url": server.url(), "models": {"m1": {}}}, connections)
        await provider.start()
        failure = await failure_of(call(provider, chat()))
        assert (failure.error.kind, failure.error.sent) == (kind, sent)
        assert server.opened == 1
        upstream = provider._upstream
        assert upstream is not None
        with pytest.raises(error):
            await asked(upstream)
        await provider.stop()


# opening


async def test_the_next_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that refuses is passed over at once, a silent one after a moment; no socket is left behind."""

    def where(port: int) -> Any:
        return (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refused = where(closed.getsockname()[1])
        async with serving(answering(plain(BODY))) as server:
            with full_listener() as silent:
                loop = asyncio.get_running_loop()
                for bad, least in ((refused, 0.0), (where(silent), 0.2)):
                    began = loop.time()
                    line = await connect._first([bad, where(server.port)])
                    assert line.getpeername()[1] == server.port
                    assert least <= loop.time() - began < least + 2
                    line.close()
                with pytest.raises(ConnectionRefusedError):
                    await connect._first([refused, refused])
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.4):
                        await connect._first([where(silent), where(silent)])
                await asyncio.sleep(0.01)
                assert not [task for task in asyncio.all_tasks() if "_connect" in repr(task.get_coro())]


async def test_names(monkeypatch: pytest.MonkeyPatch, upstreams: Make) -> None:
    """A name is looked up once for many connections at a time; a lookup that failed is done again."""
    asked_for: list[str] = []
    look_up = connect._look_up

    async def counted(loop: asyncio.AbstractEventLoop, host: str, port: int) -> Any:
        asked_for.append(host)
        return await look_up(loop, host, port)

    monkeypatch.setattr(connect, "_look_up", counted)
    async with serving(answering(plain(BODY, "connection: close"))) as server:
        upstream = upstreams(server.url(host="localhost"))
        assert await asyncio.gather(*(asked(upstream) for _ in range(20))) == [BODY] * 20
        assert await asked(upstream) == BODY
        assert asked_for == ["localhost"]
    with pytest.raises(ConnectFailed):
        await asked(upstream)  # nobody listens any more: the host may have moved
    async with asyncio.timeout(5):
        with pytest.raises(ConnectFailed):
            await asked(upstream)
    assert asked_for == ["localhost"] * 2
    missing = upstreams("http://no-such-host.invalid")
    for _ in range(2):
        with pytest.raises(ConnectFailed):
            await asked(missing)
    assert asked_for[2:] == ["no-such-host.invalid"] * 2


async def test_a_host_that_hangs_up_at_once(upstreams: Make) -> None:
    """A connection that the host closes when it is opened fails without a hang."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with serving(talk) as server:
        upstream = upstreams(server.url())
        for _ in range(20):
            with pytest.raises((ConnectFailed, Disconnected)):
                await asked(upstream)


# TLS


async def test_tls(upstreams: Make, connections: Connections, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that nobody vouches for is refused before anything is sent; SSL_CERT_FILE vouches for it."""
    context, trusted = certificate(tmp_path)
    async with serving(answering(chunked(BODY)), context) as server:
        with pytest.raises(ConnectFailed, match=r"(?i)certificate.verify.failed"):
            await asked(upstreams(server.url("https")))
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        connections._context = None
        connections._pools.clear()
        for host in ("127.0.0.1", "localhost"):
            upstream = upstreams(server.url("https", host))
            before = server.opened
            for _ in range(3):
                assert await asked(upstream, os.urandom(200_000)) == BODY
            assert server.opened == before + 1


@pytest.mark.parametrize(
    ("name", "hosts"),
    [
        ("DNS:other.example", ["127.0.0.1", "localhost"]),
        ("DNS:localhost", ["127.0.0.1"]),
        ("IP:127.0.0.1", ["localhost"]),
    ],
)
async def test_tls_for_another_name(
    upstreams: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, hosts: list[str]
) -> None:
    """A trusted certificate of another host is refused."""
    context, trusted = certificate(tmp_path, name)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    async with serving(answering(plain(BODY)), context) as server:
        for host in hosts:
            with pytest.raises(ConnectFailed, match=r"(?i)mismatch|not valid for|doesn't match"):
                await asked(upstreams(server.url("https", host)))


async def test_large_tls_answers(upstreams: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pausing works through TLS too, and a cancelled call hangs up at once."""
    context, trusted = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    large = os.urandom(2_000_000)
    async with serving(answering(plain(large), plain(BODY), plain(BODY)[:-1]), context) as server:
        upstream = upstreams(server.url("https"))
        response = await upstream.post(upstream.url("/"), b"{}", 5)
        await asyncio.sleep(0.05)
        assert response._size < 10 * http1.READ_BUFFER_BYTES
        assert await read_body(response) == large
        assert await asked(upstream) == BODY
        response = await upstream.post(upstream.url("/"), b"{}", 5)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(read_body(response), 0.1)
        response.close()
        await server.all_closed(1)
        assert server.opened == 1


async def test_tls_that_never_answers(upstreams: Make) -> None:
    """A handshake that hangs ends within the time for connecting, and provably nothing was sent."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(talk) as server:
        upstream = upstreams(server.url("https"), seconds=0.2)
        with pytest.raises(ConnectFailed, match="in time"):
            await asked(upstream)
        await server.all_closed(1)


# proxies


def forwarding(server: Server, seen: list[bytes], answer: bytes = b"HTTP/1.1 200 Connected\r\n\r\n") -> Any:
    """A proxy: tunnels to ``server`` what asks for a tunnel, answers everything else itself."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await request_of(reader)
        seen.append(request)
        if not request.startswith(b"CONNECT"):
            writer.write(plain(BODY))
            return
        writer.write(answer)
        if b"200" not in answer:
            return
        inner, outer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            await asyncio.gather(pumped(reader, outer), pumped(inner, writer))
        finally:
            outer.close()

    return talk


async def pumped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def test_through_proxies(upstreams: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's proxy is asked for whole addresses, and for a tunnel where TLS is wanted; with its login."""
    context, trusted = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    login = b"Proxy-Authorization: Basic " + base64.b64encode(b"me:p:w") + b"\r\n"
    for outer in (None, context):
        seen: list[bytes] = []
        async with serving(answering(plain(BODY)), context) as server:  # noqa: SIM117  # the second needs the first
            async with serving(forwarding(server, seen), outer) as proxy:
                told = f"{'https' if outer else 'http'}://me:p%3Aw@127.0.0.1:{proxy.port}"
                monkeypatch.setenv("http_proxy", told)
                monkeypatch.setenv("https_proxy", told)
                assert await asked(upstreams("http://h.example/v1", {"Authorization": "key"})) == BODY
                secured = upstreams(server.url("https", "localhost"), {"Authorization": "key"})
                assert await asked(secured) == BODY
                assert await asked(secured) == BODY
                await secured.close()
                secured._connections.join()
        first, second = seen
        assert first.startswith(b"POST http://h.example/v1/chat HTTP/1.1\r\nHost: h.example\r\n")
        assert login in first
        tunnel = b"localhost:%d" % server.port
        assert second == b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (tunnel, tunnel, login)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 407 Login first\r\n\r\n", "refused to connect: HTTP/1.1 407"),
        (b"", "0 bytes read"),
        (b"SSH-2.0\r\n\r\n", "refused to connect: SSH"),
        (b"x" * 100_000, "limit"),
    ],
)
async def test_refused_by_a_proxy(
    connections: Connections, monkeypatch: pytest.MonkeyPatch, answer: bytes, words: str
) -> None:
    """A proxy that gives no tunnel, or does not answer at all, proves that nothing was sent to the host."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with serving(forwarding(Server(answering(b"")), [], answer)) as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        provider = HostProvider("x", {"base_url": "https://h.example/v1", "models": {"m1": {}}}, connections)
        await provider.start()
        failure = await failure_of(call(provider, chat()))
        assert (failure.error.kind, failure.error.sent) == ("unavailable", "no")
        assert words in failure.message
        await provider.stop()
    provider = HostProvider("x", {"base_url": "https://h.example/v1", "models": {"m1": {}}}, connections)
    await provider.start()
    failure = await failure_of(call(provider, chat()))
    assert (failure.error.kind, failure.error.sent) == ("unavailable", "no")
    await provider.stop()


@pytest.mark.parametrize(
    ("settings", "environment", "words"),
    [
        ({"headers": {"X-A": "b\r\nX-C: d"}}, {}, "cannot be sent"),
        ({"headers": {"Content-Length": "7"}}, {}, "cannot be configured"),
        ({"base_url": "http://h:99999"}, {}, "ort"),
        ({"base_url": "http://h/v1\nx"}, {}, "control character"),
        ({}, {"http_proxy": "socks5://me:hunter2@h:1"}, "proxy"),
    ],
)
async def test_not_configured(
    connections: Connections,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    environment: dict[str, str],
    words: str,
) -> None:
    """What can never be sent is said at the start, without what must not be repeated; nothing stays open for it."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    provider = HostProvider("x", {"base_url": "http://h.example/v1", "models": {"m1": {}}, **settings}, connections)
    await provider.start()
    assert provider.state == "not_configured"
    assert words in provider.reason
    assert "hunter2" not in provider.reason
    assert connections._users == 0
    assert (await failure_of(call(provider, chat()))).error.sent == "no"


def test_connection_is_collectable() -> None:
    """A closed connection lets its parser go: the two hold each other."""

    class Owner:
        def give(self, connection: Connection) -> None:
            """Never."""

        def lost(self, connection: Connection) -> None:
            """Once."""

    loop = asyncio.new_event_loop()
    connection = Connection(loop, Owner())
    connection.connection_lost(None)
    assert connection._parser is None
    loop.close()


def test_default_context() -> None:
    """Certificates and host names are checked, and HTTP/1.1 is all that is offered."""
    context = connect.verified()
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
