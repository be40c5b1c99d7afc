"""The HTTP side of one host: addresses ready to be asked, and what each failure proves.

One call is at most one request: a POST is never retried, redirects are answers like any other, cookies are dropped.
The client is our own (http1.py, pool.py, connect.py); docs/decisions/ says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from hybridd.plugin import CallFailure
from plugins.openai_compatible import text
from plugins.openai_compatible.connect import Proxy, Route, verified
from plugins.openai_compatible.http1 import head
from plugins.openai_compatible.pool import Pool
from plugins.openai_compatible.response import ConnectFailed, HttpError, InvalidResponse, Response

MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
ERROR_BODY_SECONDS = 2.0
_STREAM_HEADERS = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
# What the client itself decides; a configured one would let an answer or a request end where it does not.
_FRAMING = frozenset({"content-length", "transfer-encoding", "upgrade", "expect"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# Everything that may stand in a path and query as it is; "%" too, for base URLs are written encoded.
_TARGET = "!$%&'()*+,-./:;=?@_~[]"


class Connections:
    """The pools of the process, one for each route, shared by all its hosts and closed with the last of them.

    The ledger decides how many calls run at once, not the pools.
    """

    def __init__(self) -> None:
        self._pools: dict[Route, Pool] = {}
        self._context: ssl.SSLContext | None = None
        self._users = 0

    def join(self) -> None:
        self._users += 1

    def pool(self, route: Route) -> Pool:
        pool = self._pools.get(route)
        if pool is None:
            tls = route.tls or (route.proxy is not None and route.proxy.tls)
            if tls and self._context is None:
                self._context = verified()
            pool = self._pools[route] = Pool(route, self._context if tls else None)
        return pool

    async def leave(self) -> None:
        self._users -= 1
        if self._users == 0:
            pools, self._pools = self._pools, {}
            for pool in pools.values():
                pool.close()


def checked_url(base_url: str | None) -> str:
    """The base URL without a trailing slash.

    Raises:
        ValueError: not an http(s) address, or one that carries a password; the sentence never repeats the password.
    """
    if not base_url:
        raise ValueError("base_url is missing")
    parts = urlsplit(base_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"base_url {text.clean(base_url, limit=100)} is not an http:// or https:// address")
    if parts.username or parts.password:
        raise ValueError("base_url must not carry a user name or password; use api_key")
    if _CONTROL.search(base_url):
        raise ValueError("base_url holds a control character")
    return base_url.rstrip("/")


def proxy_for(url: str) -> str | None:
    """The proxy that the environment names for this address (``HTTPS_PROXY``, ``NO_PROXY``, …), asked once.

    Keys are never read from ``.netrc``.
    """
    parts = urlsplit(url)
    proxies = urllib.request.getproxies_environment()
    proxy = proxies.get(parts.scheme, proxies.get("all"))
    if not proxy or urllib.request.proxy_bypass_environment(parts.netloc, proxies):  # type: ignore[attr-defined]  # not in typeshed
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


class Address:
    """One URL of a host, ready to be asked: where its connections are, and the constant heads of its requests."""

    __slots__ = ("get", "pool", "post", "stream")

    def __init__(self, url: str, headers: Mapping[str, str], connections: Connections) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or _CONTROL.search(url):
            raise ValueError(f"{text.clean(url, limit=100)} is not an http:// or https:// address")
        tls = parts.scheme == "https"
        host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
        port = parts.port or (443 if tls else 80)
        named = f"[{host}]" if ":" in host else host
        authority = named if port == (443 if tls else 80) else f"{named}:{port}"
        target = quote(parts.path or "/", safe=_TARGET) + (
            f"?{quote(parts.query, safe=_TARGET)}" if parts.query else ""
        )
        environment = proxy_for(url)
        proxy = Proxy.of(environment) if environment else None
        sent = _merged({"Host": authority}, headers)
        if proxy is not None and not tls:
            # A proxy is asked for whole addresses (RFC 9112 §3.2.2); through TLS it is asked for a tunnel instead.
            target = f"http://{authority}{target}"
            sent = _merged(sent, {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {})
        self.pool = connections.pool(Route(host, port, tls, proxy))
        self.get = head("GET", target, sent) + b"\r\n"
        self.post = head("POST", target, sent) + b"Content-Length: "
        self.stream = head("POST", target, _merged(sent, _STREAM_HEADERS)) + b"Content-Length: "


def _merged(*headers: Mapping[str, str]) -> dict[str, str]:
    """Later ones replace earlier ones of the same name, in whatever case it is written."""
    merged: dict[str, tuple[str, str]] = {}
    for some in headers:
        for name, value in some.items():
            merged[name.lower()] = (name, value.strip(" \t"))
    return dict(merged.values())


class Upstream:
    """One host. ``headers`` go with every request; ``connect_seconds`` bounds name lookup, connection and TLS.

    Raises:
        ValueError: a header that cannot be sent, or that would change where a request ends.
    """

    def __init__(
        self, base_url: str, headers: dict[str, str], *, connect_seconds: float, connections: Connections
    ) -> None:
        self.base_url = base_url
        self.name = urlsplit(base_url).netloc
        self._connections = connections
        self._connect_seconds = connect_seconds
        base = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
        self._headers = _merged(base, {name: str(value) for name, value in headers.items()})
        refused = sorted(name for name in self._headers if name.lower() in _FRAMING)
        if refused:
            raise ValueError(f"the header {refused[0]} cannot be configured")
        head("GET", "/", self._headers)
        connections.join()

    def url(self, path: str) -> Address:
        """``path`` below the base URL; a query of the base URL (``?api-version=…``) stays where it is."""
        base, question, query = self.base_url.partition("?")
        return self.address(f"{base.rstrip('/')}{path}{question}{query}")

    def address(self, url: str) -> Address:
        """Any address that the host's headers, the key among them, may be sent to.

        Raises:
            ValueError: it is none, or the environment's proxy for it is none.
        """
        return Address(url, self._headers, self._connections)

    async def post(self, url: Address, body: bytes, seconds: float, *, stream: bool = False) -> Response:
        """Sends one request and returns the answer once its headers are there, whatever its status."""
        start = url.stream if stream else url.post
        return await self._ask(url.pool, b"%b%d\r\n\r\n" % (start, len(body)), body, seconds)

    async def get(self, url: Address, seconds: float) -> Response:
        return await self._ask(url.pool, url.get, b"", seconds)

    async def close(self) -> None:
        await self._connections.leave()

    async def _ask(self, pool: Pool, start: bytes, body: bytes, seconds: float) -> Response:
        connection = pool.take()
        if connection is None:
            # With less time than a connection may take, the connecting ends first: then nothing was sent, provably.
            limit = self._connect_seconds
            connection = await pool.connect(limit if seconds > limit else seconds * 0.9)
        response = connection.start(start, body)
        try:
            await response.head
        except BaseException:
            response.close()
            raise
        return response

    def lost(self, error: BaseException, *, answered: bool, seconds: float) -> CallFailure:
        """The failure that a broken exchange means. ``answered``: an HTTP status had been read.

        ``sent`` is "no" only where no byte of the request can have left: the connection was not opened.
        """
        if isinstance(error, ConnectFailed):
            return CallFailure("unavailable", f"{self.name} cannot be reached: {_why(error)}", sent="no")
        sent: Any = "yes" if answered else "maybe"
        if isinstance(error, TimeoutError):
            what = "no complete answer" if answered else "no answer"
            return CallFailure("timeout", f"{what} from {self.name} within {seconds:g} s", sent=sent)
        if answered:
            return CallFailure("bad_response", f"the answer of {self.name} broke off: {_why(error)}", sent=sent)
        if isinstance(error, InvalidResponse):
            return CallFailure("bad_response", f"{self.name} does not speak HTTP: {_why(error)}", sent=sent)
        return CallFailure("unavailable", f"{self.name} closed the connection without an answer", sent=sent)


def _why(error: BaseException) -> str:
    return text.clean(str(error) or type(error).__name__, limit=200)


async def read_body(response: Response, limit: int = MAX_BODY_BYTES) -> bytes:
    """The whole body.

    Raises:
        CallFailure: it is larger than ``limit`` bytes, told by its length or found out on the way (``bad_response``).
        HttpError: it broke off.
    """
    length = response.content_length
    if length is not None and length > limit:
        raise _too_big(limit)
    parts, size = [], 0
    while part := await response.readany():
        parts.append(part)
        size += len(part)
        if size > limit:
            raise _too_big(limit)
    return b"".join(parts)


def _too_big(limit: int) -> CallFailure:
    return CallFailure("bad_response", f"the answer is larger than {limit} bytes", sent="yes")


async def read_error_body(response: Response) -> bytes:
    """What can be had of an error's body: at most 64 KiB in 2 s. The status is known; the body only explains it."""
    parts, size = [], 0
    with contextlib.suppress(HttpError, OSError, TimeoutError):
        async with asyncio.timeout(ERROR_BODY_SECONDS):
            while size < MAX_ERROR_BYTES and (part := await response.readany()):
                parts.append(part)
                size += len(part)
    return b"".join(parts)[:MAX_ERROR_BYTES]
