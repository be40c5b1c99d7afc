"""Servers for the tests of the HTTP client: each connection is a conversation written out byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """``opened`` and ``closed``: connections so far."""

    def __init__(self, talk: Talk) -> None:
        self.opened = 0
        self.closed = 0
        self.port = 0
        self._talk = talk
        self._changed = asyncio.Condition()
        self._writers: set[asyncio.StreamWriter] = set()

    def url(self, scheme: str = "http", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.port}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        self._writers.add(writer)
        try:
            await self._talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # hung up on, which is what some tests are about
        finally:
            writer.close()
            self._writers.discard(writer)
            async with self._changed:
                self.closed += 1
                self._changed.notify_all()

    async def all_closed(self, count: int) -> None:
        """Waits until ``count`` connections have ended."""
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: self.closed >= count)

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def serving(talk: Talk, context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(talk)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        server.hang_up()
        await server.all_closed(server.opened)


async def request_of(reader: asyncio.StreamReader) -> bytes:
    """One whole request, or b"" when the client has hung up instead."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    length = next((line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b"0")
    return head + await reader.readexactly(int(length))


def answering(*answers: bytes, hang_up: bool = False) -> Talk:
    """Each request on a connection gets the next answer; the last one again and again."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        while await request_of(reader):
            writer.write(answers[min(number, len(answers) - 1)])
            await writer.drain()
            number += 1
            if hang_up:
                return

    return talk


def plain(body: bytes, *lines: str) -> bytes:
    """A 200 with its length told."""
    told = "".join(f"{line}\r\n" for line in (*lines, f"content-length: {len(body)}"))
    return f"HTTP/1.1 200 OK\r\n{told}\r\n".encode() + body


def chunked(*chunks: bytes, lines: str = "", trailers: bytes = b"") -> bytes:
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    head = f"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n{lines}\r\n".encode()
    return head + framed + b"0\r\n" + trailers + b"\r\n"


def certificate(directory: Path, names: str = "DNS:localhost,IP:127.0.0.1") -> tuple[ssl.SSLContext, Path]:
    """A server's context with a fresh self-signed certificate, and the file that would make it trusted."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("no openssl program")
    key, cert = directory / "key.pem", directory / "cert.pem"
    subprocess.run(
        [program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=test", "-addext", f"subjectAltName={names}", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context, cert
