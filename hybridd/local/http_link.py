"""Connections to web servers that stay open between requests, with a deadline that a dripping server cannot outlast."""

from __future__ import annotations

import functools
import os
import socket
import ssl
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hybridd._version import __version__
from hybridd.local.sources import SourceError

if TYPE_CHECKING:
    import httpx

IDLE_SECONDS = 30.0
"""A connection that was not used for that long is opened anew: servers close theirs after 5 to 75 s."""


class Link:
    """At most one connection to each server, for one thread at a time; they end with the object or with :meth:`close`.

    Args:
        timeout: seconds without a byte.
    """

    def __init__(self, timeout: float = 15.0) -> None:
        self._timeout = timeout
        self._client: httpx.Client | None = None
        self._sockets: list[socket.socket] = []
        self._opened = False
        """Has the present request opened a connection?"""
        self._late = threading.Event()

    def close(self) -> None:
        client, self._client = self._client, None
        self._sockets.clear()
        if client is not None:
            client.close()

    @contextmanager
    def within(self, deadline: float, name: str) -> Iterator[None]:
        """What is asked inside has to be answered within ``deadline`` seconds: then every connection is cut, since a
        server that drips a byte now and then never times out.

        Raises:
            SourceError: it was not, or HTTP failed; ``name`` is in the sentence.
        """
        import httpx

        late = self._late = threading.Event()

        def cut() -> None:
            late.set()
            for one in list(self._sockets):
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # closed already

        timer = threading.Timer(deadline, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (httpx.HTTPError, OSError, ValueError) as error:
            if late.is_set():
                raise SourceError(f"{name} was not read within {deadline:g} s.") from None
            reason = str(error).rstrip(".") or type(error).__name__
            raise SourceError(f"{name} cannot be read: {reason}.") from None
        finally:
            timer.cancel()

    @contextmanager
    def get(self, url: httpx.URL, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """The answer, its body not read yet. Redirects are not followed.

        Raises:
            httpx.HTTPError: no answer.
        """
        import httpx

        client = self._ready()
        request = client.build_request("GET", url, headers=dict(headers))
        request.extensions.update(trace=self._watch)
        self._opened = False
        try:
            response = client.send(request, stream=True)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            if self._opened or self._late.is_set():
                raise
            # The server has closed the connection that was kept just when this request went out; nothing was answered,
            # and a GET may be sent again.
            response = client.send(request, stream=True)
        try:
            yield response
        finally:
            response.close()

    def _ready(self) -> httpx.Client:
        import httpx

        if self._client is None:
            places = (os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
            limits = httpx.Limits(max_keepalive_connections=4, keepalive_expiry=IDLE_SECONDS)
            headers = {"Accept-Encoding": "identity", "User-Agent": f"hybridd/{__version__}"}
            self._client = httpx.Client(
                verify=_certificates(*places), timeout=self._timeout, limits=limits, headers=headers
            )
            weakref.finalize(self, self._client.close)
        # What one server sets must not be told to it, or to its neighbours, with the next file.
        self._client.cookies.clear()
        return self._client

    def _watch(self, event: str, info: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.started":
            self._opened = True
        elif event in {"connection.connect_tcp.complete", "connection.start_tls.complete"}:
            found = info["return_value"].get_extra_info("socket")
            if isinstance(found, socket.socket):
                self._sockets = [one for one in self._sockets if one.fileno() >= 0]
                self._sockets.append(found)


@functools.cache
def _certificates(_file: str | None, _folder: str | None) -> ssl.SSLContext:
    """The authorities that are trusted, by the environment's word on them; reading them takes 10 to 40 ms."""
    import httpx

    return httpx.create_ssl_context()
