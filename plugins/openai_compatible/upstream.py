"""The HTTP side of one host: a session on the process's shared connector, and what each failure proves.

aiohttp carries the data path: on this class of machine it moves 9.5k requests/s at 32 concurrent calls, httpx 0.56k.
One call is at most one request: a POST is never retried, redirects are answers like any other, cookies are dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import urllib.request
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from hybridd.plugin import CallFailure
from plugins.openai_compatible import text

MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
ERROR_BODY_SECONDS = 2.0
MAX_HEADER_BYTES = 64 * 1024
KEEPALIVE_SECONDS = 30.0
READ_BUFFER_BYTES = 256 * 1024
_STREAM_HEADERS = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}


class Connections:
    """The one connector of the process, shared by all its hosts and closed with the last of them.

    The ledger decides how many calls run at once, not the connector.
    """

    def __init__(self) -> None:
        self._connector: aiohttp.TCPConnector | None = None
        self._users = 0

    def join(self) -> aiohttp.TCPConnector:
        if self._connector is None:
            self._connector = aiohttp.TCPConnector(
                limit=0, limit_per_host=0, keepalive_timeout=KEEPALIVE_SECONDS, ttl_dns_cache=60
            )
        self._users += 1
        return self._connector

    async def leave(self) -> None:
        self._users -= 1
        if self._users == 0 and self._connector is not None:
            connector, self._connector = self._connector, None
            await connector.close()


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
    return base_url.rstrip("/")


def proxy_for(url: str) -> str | None:
    """The proxy that the environment names for this address (``HTTPS_PROXY``, ``NO_PROXY``, …), asked once.

    Not aiohttp's ``trust_env``: that looks the environment up for every request and reads keys from ``.netrc``.
    """
    parts = urlsplit(url)
    proxies = urllib.request.getproxies_environment()
    proxy = proxies.get(parts.scheme, proxies.get("all"))
    if not proxy or urllib.request.proxy_bypass_environment(parts.netloc, proxies):  # type: ignore[attr-defined]  # not in typeshed
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


class Upstream:
    """One host. ``headers`` go with every request; ``connect_seconds`` bounds name lookup, connection and TLS."""

    def __init__(
        self, base_url: str, headers: dict[str, str], *, connect_seconds: float, connections: Connections
    ) -> None:
        self.base_url = base_url
        self.name = urlsplit(base_url).netloc
        self._connections = connections
        self._connect_seconds = connect_seconds
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_seconds, sock_connect=connect_seconds)
        proxy = proxy_for(base_url)
        self._session = aiohttp.ClientSession(
            connector=connections.join(),
            connector_owner=False,
            headers={"Content-Type": "application/json", "Accept": "application/json", **headers},
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=proxy,
            read_bufsize=READ_BUFFER_BYTES,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )

    def url(self, path: str) -> URL:
        """``path`` below the base URL; a query of the base URL (``?api-version=…``) stays where it is."""
        base, question, query = self.base_url.partition("?")
        return URL(f"{base.rstrip('/')}{path}{question}{query}", encoded=True)

    async def post(self, url: URL, body: bytes, seconds: float, *, stream: bool = False) -> aiohttp.ClientResponse:
        """Sends one request and returns the answer once its headers are there, whatever its status."""
        return await self._session.post(
            url,
            data=body,
            headers=_STREAM_HEADERS if stream else None,
            allow_redirects=False,
            timeout=self._timeout_within(seconds),
        )

    async def get(self, url: URL, seconds: float) -> aiohttp.ClientResponse:
        return await self._session.get(url, allow_redirects=False, timeout=self._timeout_within(seconds))

    async def close(self) -> None:
        await self._session.close()
        await self._connections.leave()

    def _timeout_within(self, seconds: float) -> aiohttp.ClientTimeout:
        """With less time than a connection may take, the connecting ends first: then nothing was sent, provably."""
        if seconds > self._connect_seconds:
            return self._timeout
        return aiohttp.ClientTimeout(total=None, connect=seconds * 0.9, sock_connect=seconds * 0.9)

    def lost(self, error: BaseException, *, answered: bool, seconds: float) -> CallFailure:
        """The failure that a broken exchange means. ``answered``: an HTTP status had been read.

        ``sent`` is "no" only where no byte of the request can have left: the connection was not opened.
        """
        if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
            return CallFailure("unavailable", f"{self.name} cannot be reached: {_why(error)}", sent="no")
        if isinstance(error, (aiohttp.InvalidURL, aiohttp.ClientProxyConnectionError)):
            return CallFailure("unavailable", f"{self.name} cannot be reached: {_why(error)}", sent="no")
        sent: Any = "yes" if answered else "maybe"
        if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ServerTimeoutError):
            what = "no complete answer" if answered else "no answer"
            return CallFailure("timeout", f"{what} from {self.name} within {seconds:g} s", sent=sent)
        if isinstance(error, aiohttp.ServerTimeoutError):
            return CallFailure("timeout", f"{self.name} fell silent: {_why(error)}", sent=sent)
        if answered:
            return CallFailure("bad_response", f"the answer of {self.name} broke off: {_why(error)}", sent=sent)
        if isinstance(error, aiohttp.ClientResponseError):
            return CallFailure("bad_response", f"{self.name} does not speak HTTP: {_why(error)}", sent=sent)
        return CallFailure("unavailable", f"{self.name} closed the connection without an answer", sent=sent)


def _why(error: BaseException) -> str:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "the connection did not open in time"
    if isinstance(error, aiohttp.ClientConnectorError):
        return text.clean(str(error.os_error), limit=200)
    if isinstance(error, aiohttp.ClientResponseError):
        return text.clean(error.message, limit=200)
    return text.clean(str(error) or type(error).__name__, limit=200)


async def read_body(response: aiohttp.ClientResponse, limit: int = MAX_BODY_BYTES) -> bytes:
    """The whole body.

    Raises:
        CallFailure: it is larger than ``limit`` bytes, told by its length or found out on the way (``bad_response``).
    """
    length = response.content_length
    if length is not None and length > limit:
        raise _too_big(limit)
    if length is not None and "content-encoding" not in response.headers:
        return await response.read()
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > limit:
            raise _too_big(limit)
        parts.append(part)
    return b"".join(parts)


def _too_big(limit: int) -> CallFailure:
    return CallFailure("bad_response", f"the answer is larger than {limit} bytes", sent="yes")


async def read_error_body(response: aiohttp.ClientResponse) -> bytes:
    """What can be had of an error's body: at most 64 KiB in 2 s. The status is known; the body only explains it."""
    parts, size = [], 0
    with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with asyncio.timeout(ERROR_BODY_SECONDS):
            async for part in response.content.iter_any():
                parts.append(part)
                size += len(part)
                if size >= MAX_ERROR_BYTES:
                    break
    return b"".join(parts)[:MAX_ERROR_BYTES]
