"""The server on that socket: who is let in, what broken input gets, how it stops."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hybridd.api.bind import bind
from hybridd.api.peer import PeerProtocol
from hybridd.api.plugin_link import Wire, plugin_endpoint
from hybridd.api.server import build_server
from hybridd.errors import StateError
from hybridd.plugin.link import ClientLink, ConnectRefused
from hybridd.providers.link import Timing
from tests.providers.support import house


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await plugin_endpoint(scope, receive, send)
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(0.3)
    if scope["path"] == "/stuck":
        await asyncio.sleep(60)
    peer = scope["state"]["peer"]
    body = json.dumps({"pid": peer.pid, "uid": peer.uid, "extra": scope["state"]["extra"]}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def serving(path=None, graceful=1.0, hub=None):
    directory = Path(tempfile.mkdtemp(prefix="hs"))
    bound = bind(directory / "s", environ={})
    server = build_server(app, hub=hub, state={"extra": 7}, graceful_seconds=graceful)
    task = asyncio.create_task(server.serve([bound.socket]))
    await server.listening.wait()
    try:
        yield bound.path, server
    finally:
        server.stop()
        await task
        bound.close()
        shutil.rmtree(directory)


async def exchange(path, request: bytes) -> tuple[bytes, bytes]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(request)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


async def test_peer_travels_in_the_scope():
    """A request knows the pid and uid behind it; no server or date header is sent."""
    async with serving() as (path, _):
        head, body = await exchange(path, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert json.loads(body) == {"pid": os.getpid(), "uid": os.getuid(), "extra": 7}
        assert head == b"HTTP/1.1 200 OK\r\ncontent-length: " + str(len(body)).encode() + b"\r\nconnection: close"


@pytest.mark.parametrize(
    "request_bytes",
    [b"hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\na b: c\r\n\r\n"],
)
async def test_invalid_http_gets_an_openai_error(request_bytes):
    """Bytes that are not HTTP get a 400 in the OpenAI shape."""
    async with serving() as (path, _):
        head, body = await exchange(path, request_bytes)
        assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"application/json" in head
        error = json.loads(body)["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_http")


async def test_endless_head_is_refused():
    """A request whose head does not end is refused once it is larger than the cap, in the OpenAI shape."""
    async with serving() as (path, _):
        head, body = await exchange(path, b"GET / HTTP/1.1\r\n" + b"a: bbbbbbbbbb\r\n" * 20_000)
        assert head.startswith(b"HTTP/1.1 431 ")
        assert json.loads(body)["error"]["code"] == "head_too_large"


async def test_many_requests_on_one_connection():
    """Heads are counted one by one: a long-lived connection is never refused for its sum."""
    async with serving() as (path, _):
        request = b"GET / HTTP/1.1\r\nx: " + b"y" * 8000 + b"\r\n\r\n"
        last = b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n"
        reader, writer = await asyncio.open_unix_connection(str(path))
        for _ in range(20):
            writer.write(request)
            await reader.readuntil(b"}")
        writer.write(last)
        assert b"200 OK" in await asyncio.wait_for(reader.read(), 5)
        writer.close()


async def one_answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return await reader.readexactly(length)


async def test_an_idle_connection_is_closed_but_a_slow_answer_is_not():
    """A connection waits for its next request as long as the keep-alive says; an answer may take longer than that."""
    async with serving() as (path, server):
        server.config.timeout_keep_alive = 0.1
        reader, writer = await asyncio.open_unix_connection(str(path))
        for target in (b"/", b"/slow", b"/"):  # /slow takes 0.3 s
            writer.write(b"GET " + target + b" HTTP/1.1\r\nhost: x\r\n\r\n")
            async with asyncio.timeout(5):
                assert json.loads(await one_answer(reader))["extra"] == 7
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


async def test_a_plugin_link_outlives_the_keep_alive_of_the_request_before_it():
    """A connection that asked something before it became a plugin link is not closed by the idle timer of that."""
    async with house(Timing()) as home, serving(hub=home.hub) as (path, server):
        server.config.timeout_keep_alive = 0.05
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        async with asyncio.timeout(5):
            await one_answer(reader)
            writer.write(
                b"GET /v1/plugins/connect HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
                b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await reader.read(1)
        writer.close()


async def test_half_a_request_harms_nobody():
    """A client that leaves in the middle of a request leaves the server as it was."""
    async with serving() as (path, server):
        _, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"POST / HTTP/1.1\r\ncontent-length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.close()
        head, _ = await exchange(path, b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        async with asyncio.timeout(5):
            while server.server_state.connections:
                await asyncio.sleep(0.01)


FOREIGN = """
import os, socket, sys
os.setuid(65534)
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
client.sendall(b"GET / HTTP/1.1\\r\\nconnection: close\\r\\n\\r\\n")
data = b""
while part := client.recv(65536):
    data += part
print(data.decode())
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
async def test_another_user_is_refused_with_the_reason_logged(caplog):
    """Another uid gets a 403 before its request is read, and the log says who it was."""
    async with serving() as (path, _):
        path.parent.chmod(0o755)
        path.chmod(0o666)
        command = [sys.executable, "-c", FOREIGN, str(path)]
        said = (await asyncio.to_thread(subprocess.run, command, stdout=subprocess.PIPE)).stdout
        assert said.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "permission_denied"
        assert "has uid 65534" in caplog.text


async def test_root_and_own_uid_only(monkeypatch):
    """The gate compares uids: with another owner only root passes."""
    monkeypatch.setattr(PeerProtocol, "own_uid", 4242)
    async with serving() as (path, _):
        head, _ = await exchange(path, b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n")
        expected = b"200" if os.getuid() == 0 else b"403"
        assert head.split()[1] == expected


async def test_stop_finishes_requests_in_flight():
    """A stop waits for a request in flight and answers it; a stuck one is cut at the deadline."""
    async with serving() as (path, server):
        slow = asyncio.create_task(exchange(path, b"GET /slow HTTP/1.1\r\n\r\n"))
        stuck = asyncio.create_task(exchange(path, b"GET /stuck HTTP/1.1\r\n\r\n"))
        async with asyncio.timeout(5):
            while len(server.server_state.tasks) < 2:
                await asyncio.sleep(0.01)
        server.stop()
        assert (await slow)[0].startswith(b"HTTP/1.1 200")
        head, _ = await stuck
        assert not head.startswith(b"HTTP/1.1 200")


async def test_signals_stay_with_the_daemon():
    """The server installs no signal handlers: the daemon's own stay."""
    import signal

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with serving():
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_another_loop_is_refused():
    """On asyncio's own loop the server refuses to run: half the throughput in silence would be worse."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner, pytest.raises(StateError, match="uvloop"):
        runner.run(build_server(app).serve([]))


async def test_fast_parts_are_in_use():
    """httptools parses HTTP and websockets' sans-I/O protocol serves the links, without compression or pings."""
    async with serving() as (_, server):
        config = server.config
        assert config.http_protocol_class is PeerProtocol
        assert config.ws_protocol_class.__mro__[1].__name__ == "WebSocketsSansIOProtocol"
        assert (config.ws_per_message_deflate, config.ws_ping_interval) == (False, None)


async def test_plugin_links_survive_the_server_and_end_with_the_hub():
    """A stop of the server leaves plugin links to the hub, which still needs them for calls in flight."""
    async with house() as home, home.raw() as plugin:
        call = home.generate("raw")
        request = await plugin.next("generate")
        wire = next(iter(home.hub._sessions))._link
        assert isinstance(wire, Wire)
        wire._protocol.shutdown()
        plugin.send({"id": request["id"], "result": {"body": {}}})
        await call.result()


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/elsewhere", b"", b"404"),
        ("/v1/plugins/connect", b"origin: http://evil\r\n", b"403"),
    ],
)
async def test_websocket_refusals(path, headers, status):
    """A WebSocket elsewhere, or from a browser, is refused with a JSON error."""
    async with house() as home:
        request = (
            f"GET {path} HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-version: 13\r\n"
        ).encode()
        head, body = await exchange(home.socket, request + headers + b"\r\n")
        assert head.split()[1] == status
        assert json.loads(body)["error"]["code"] in ("not_found", "permission_denied")


async def test_client_learns_why_it_was_refused():
    """The SDK's link reports the status and body of a refused handshake."""
    async with serving() as (path, _):
        with pytest.raises(ConnectRefused):
            await ClientLink.connect(str(path), print, 2)
