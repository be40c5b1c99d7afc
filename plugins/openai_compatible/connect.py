"""Opening a connection: names, addresses, proxies, TLS. What fails here fails before a byte of a request has left."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from plugins.openai_compatible.http1 import MAX_HEADER_BYTES, Connection, head
from plugins.openai_compatible.response import ConnectFailed

NEXT_ADDRESS_SECONDS = 0.25
NAME_SECONDS = 60.0

_Address = tuple[int, int, int, str, Any]


class Proxy(NamedTuple):
    """A proxy of the environment; ``authorization`` is the value of its header, or ""."""

    host: str
    port: int
    tls: bool
    authorization: str

    @classmethod
    def of(cls, url: str) -> Proxy:
        """From ``http://[user:password@]host[:port]``.

        Raises:
            ValueError: no proxy that speaks HTTP; the sentence never repeats a password.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"the environment's proxy is no http:// or https:// address (its scheme: {parts.scheme})")
        login = ""
        if parts.username is not None:
            words = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            login = "Basic " + base64.b64encode(words.encode()).decode()
        tls = parts.scheme == "https"
        return cls(parts.hostname, parts.port or (443 if tls else 80), tls, login)


class Route(NamedTuple):
    """Where the connections of one host go."""

    host: str
    port: int
    tls: bool
    proxy: Proxy | None = None


def verified() -> ssl.SSLContext:
    """Certificates and names are checked against the system's store, or ``SSL_CERT_FILE``."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class Dialer:
    """Opens the connections of one route. Names are looked up once a minute, by one lookup at a time."""

    def __init__(self, route: Route, context: ssl.SSLContext | None) -> None:
        self._route = route
        self._context = context
        self._lookup: asyncio.Task[list[_Address]] | None = None
        self._looked_at = 0.0

    async def open(self, connection: Connection, seconds: float) -> None:
        """Connects ``connection`` within ``seconds``, TLS and proxy included.

        Raises:
            ConnectFailed: with the reason.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._open(connection)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            if self._lookup is not None and self._lookup.done():
                self._lookup = None  # the host may have moved
            late = "the connection did not open in time"
            raise ConnectFailed(
                late if isinstance(error, TimeoutError) else str(error) or type(error).__name__
            ) from None

    async def _open(self, connection: Connection) -> None:
        host, port, tls, proxy = self._route
        if proxy is not None and tls:
            await self._tunnel(proxy, connection)
        elif proxy is not None:
            await self._transport(proxy, connection)
        else:
            await self._transport(Proxy(host, port, tls, ""), connection)

    async def _transport(self, to: Proxy, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        """TCP, and TLS where it is wanted, to the host or to the proxy before it."""
        line = await _first(await self._addresses(to.host, to.port))
        # From here on the socket is the loop's: it closes it when this fails. Closing it here too would, a moment
        # later, close whatever was given the same number.
        transport, _ = await asyncio.get_running_loop().create_connection(
            lambda: protocol,
            sock=line,
            ssl=self._context if to.tls else None,
            server_hostname=to.host if to.tls else None,
        )
        return transport

    async def _tunnel(self, proxy: Proxy, connection: Connection) -> None:
        """``CONNECT`` (RFC 9110 §9.3.6), then TLS with the host itself."""
        reader = asyncio.StreamReader(limit=MAX_HEADER_BYTES)
        transport = await self._transport(proxy, asyncio.StreamReaderProtocol(reader))
        try:
            host, port = self._route.host, self._route.port
            target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            login = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
            transport.write(head("CONNECT", target, {"Host": target, **login}) + b"\r\n")
            answer = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0].decode("latin-1")
            if not answer.partition(" ")[2].startswith("2"):
                raise OSError(f"the proxy refused to connect: {answer[:100]}")
            assert self._context is not None
            secured = await asyncio.get_running_loop().start_tls(
                transport, connection, self._context, server_hostname=host
            )
            if secured is None:
                raise OSError("the proxy closed the connection")
        except BaseException:
            transport.abort()
            raise
        connection.connection_made(secured)

    async def _addresses(self, host: str, port: int) -> list[_Address]:
        loop = asyncio.get_running_loop()
        task = self._lookup
        if task is None or (task.done() and (task.cancelled() or task.exception() or self._aged(loop))):
            task = self._lookup = loop.create_task(_look_up(loop, host, port))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, should nobody wait for it
            self._looked_at = loop.time()
        return await asyncio.shield(task)  # others may be waiting for the same lookup

    def _aged(self, loop: asyncio.AbstractEventLoop) -> bool:
        return loop.time() - self._looked_at > NAME_SECONDS


async def _look_up(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[_Address]:
    """The addresses in the order to try them: the system's, with the two families in turn."""
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    first = [one for one in found if one[0] == found[0][0]]
    other = [one for one in found if one[0] != found[0][0]]
    return [one for one in chain.from_iterable(zip_longest(first, other)) if one is not None]


async def _first(addresses: Sequence[_Address]) -> socket.socket:
    """A socket connected to whichever answers; the next is tried when one fails or keeps silent (RFC 8305).

    Raises:
        OSError: none can be reached; the first one's reason.
    """
    if len(addresses) == 1:
        return await _connect(addresses[0])
    loop = asyncio.get_running_loop()
    waiting, tried = list(addresses), set[asyncio.Task[socket.socket]]()
    failure: BaseException | None = None
    try:
        while waiting or tried:
            if waiting:
                tried.add(loop.create_task(_connect(waiting.pop(0))))
            done, tried = await asyncio.wait(
                tried, timeout=NEXT_ADDRESS_SECONDS if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            failure = failure or next((task.exception() for task in done if task.exception()), None)
            open_now = [task.result() for task in done if not task.exception()]
            for line in open_now[1:]:
                line.close()
            if open_now:
                return open_now[0]
    finally:
        for task in tried:
            task.add_done_callback(_discard)
            task.cancel()
    raise failure or OSError("the name has no address")


async def _connect(address: _Address) -> socket.socket:
    family, kind, protocol, _, where = address
    line = socket.socket(family, kind, protocol)
    try:
        line.setblocking(False)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(line, where)
    except BaseException:
        line.close()
        raise
    return line


def _discard(task: asyncio.Task[socket.socket]) -> None:
    """Another address was faster."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()
