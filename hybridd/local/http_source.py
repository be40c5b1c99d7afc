"""Ranges of a model file on a web server that is not trusted: bounded in bytes, requests and time."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hybridd.errors import HybriddError, NotFound
from hybridd.local.http_link import Link
from hybridd.local.names import shown_url
from hybridd.local.sources import SourceError

if TYPE_CHECKING:
    import httpx

MAX_HTTP_BYTES = 64 * 1024 * 1024
MAX_REQUESTS = 64
MAX_REDIRECTS = 5
FIRST_BYTES = 256 * 1024
MAX_AHEAD = 4 * 1024 * 1024
SKIPPED_BYTES = 4096
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_EXPIRED = frozenset({400, 401, 403, 404, 410})  # what a signed address answers once it is too old
_CALLERS = frozenset({401, 403, 429})  # refusals that the caller can do something about; they keep their status
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")
_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|::1")


class HttpSource:
    """A file on a web server, read by ranges, bounded in bytes, requests and time.

    Reads ahead, a little at first and then more, up to 4 MiB, so that a header of some megabytes takes few requests,
    over one connection as long as the server keeps it.
    ``token`` goes to the host, port and scheme of ``url`` and to no other, wherever a redirect leads.

    Args:
        url: http or https.
        token: a bearer token.
        max_bytes: of all bodies together.
        max_requests: redirects count.
        timeout: seconds without a byte; those of ``link`` when it is given.
        deadline: seconds for one range, with its redirects and its body.
        link: the connections, when several files of a server are read one after the other.

    Raises:
        NotFound: the server has no such file.
        SourceError: no answer, one that refuses, or one that does not keep to HTTP's rules for ranges.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        max_bytes: int = MAX_HTTP_BYTES,
        max_requests: int = MAX_REQUESTS,
        timeout: float = 15.0,
        deadline: float = 60.0,
        link: Link | None = None,
    ) -> None:
        self._url = _checked_url(url)
        self.name = shown_url(url)
        self._token = token
        if token and self._url.scheme == "http" and not _LOOPBACK.fullmatch(self._url.host):
            raise SourceError(f"{self.name} is http, not https: the token would be readable on the way.")
        if token and not (token.isascii() and token.isprintable()):
            raise SourceError(f"The token for {self.name} has characters that no token has.")
        self._bytes_left, self._requests_left = max_bytes, max_requests
        self._max_bytes, self._max_requests = max_bytes, max_requests
        self._deadline = deadline
        self._link = link or Link(timeout)
        self._location: httpx.URL | None = None
        self._etag: str | None = None
        self._size: int | None = None
        self._ahead = FIRST_BYTES
        self._held, self._held_at = b"", 0
        self.read(0, 0)

    @property
    def size(self) -> int:
        assert self._size is not None
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        begin = offset - self._held_at
        data = self._held[begin : begin + length] if 0 <= begin <= len(self._held) else b""
        if len(data) == length and self._size is not None:
            return data
        at = offset + len(data)
        self._held = self._fetch(at, max(length - len(data), self._ahead))
        self._held_at = at
        self._ahead = min(2 * self._ahead, MAX_AHEAD)
        data += self._held[: length - len(data)]
        if len(data) != length:
            raise SourceError(f"{self.name} has {self.size:,} bytes; byte {offset + length - 1:,} was asked for.")
        return data

    def _fetch(self, offset: int, length: int) -> bytes:
        """The bytes from ``offset`` on, at most ``length`` of them and none past the end of the file."""
        end = offset + length if self._size is None else min(offset + length, self._size)
        if end <= offset:
            return b""
        began_at = self._location or self._url
        answer = self._ask(began_at, offset, end)
        if answer is None and self._location is not None:
            self._location = None
            answer = self._ask(self._url, offset, end)
        if answer is None:
            raise SourceError(f"{self.name} was refused twice.")
        return answer

    def _ask(self, url: httpx.URL, offset: int, end: int) -> bytes | None:
        """Follows redirects; None when the remembered address of an earlier one is no longer good."""
        trusted = _origin(url) == _origin(self._url)
        with self._link.within(self._deadline, self.name):
            for _ in range(MAX_REDIRECTS + 1):
                if self._requests_left <= 0:
                    raise SourceError(f"{self.name} takes more than {self._max_requests} requests to read.")
                self._requests_left -= 1
                headers = {"Range": f"bytes={offset}-{end - 1}"}
                if self._token and trusted:
                    headers["Authorization"] = f"Bearer {self._token}"
                with self._link.get(url, headers) as response:
                    if response.status_code in _REDIRECTS:
                        self._skip(response)
                        url = _redirect(url, response.headers.get("location", ""), self.name)
                        # A host that was left once does not get the token back: who sent us here chose the path.
                        trusted = trusted and _origin(url) == _origin(self._url)
                        continue
                    if self._location is not None and response.status_code in _EXPIRED:
                        return None
                    data = self._body(response, offset, end)
                    self._location = url
                    return data
        raise SourceError(f"{self.name} redirects more than {MAX_REDIRECTS} times.")

    def _skip(self, response: httpx.Response) -> None:
        """Reads a short body to its end, so that the connection can be kept; a long one ends it."""
        declared = response.headers.get("content-length", "")
        if declared.isdigit() and len(declared) < 6 and int(declared) <= SKIPPED_BYTES:
            self._bytes_left -= sum(len(part) for part in response.iter_raw())

    def _body(self, response: httpx.Response, offset: int, end: int) -> bytes:
        if response.status_code != 206:
            raise _refusal(response, self.name)
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in {"", "identity"}:
            raise SourceError(f"{self.name} comes with content-encoding {encoding[:40]!r}; ranges of it mean nothing.")
        expected = self._check_range(response.headers.get("content-range", ""), offset, end)
        etag = response.headers.get("etag", "")
        if self._etag is not None and etag != self._etag:
            raise SourceError(f"{self.name} was changed while it was read: its ETag is another one.")
        self._etag = etag
        if expected > self._bytes_left:
            raise SourceError(f"{self.name} takes more than {self._max_bytes:,} bytes to read.")
        parts, arrived = [], 0
        for part in response.iter_raw():
            parts.append(part)
            arrived += len(part)
            if arrived > expected:
                break
        self._bytes_left -= arrived
        if arrived != expected:
            more = "more" if arrived > expected else f"{arrived:,}"
            raise SourceError(f"{self.name}: the server announced {expected:,} bytes and sent {more}.")
        return b"".join(parts)

    def _check_range(self, header: str, offset: int, end: int) -> int:
        """Bytes in the body, once they are known to be those asked for."""
        found = _CONTENT_RANGE.fullmatch(header.strip())
        if not found:
            raise SourceError(f"{self.name}: the server answers a range with Content-Range {header[:80]!r}.")
        first, last, total = (int(part) for part in found.groups())
        if self._size is not None and total != self._size:
            raise SourceError(f"{self.name} was changed while it was read: {self._size:,} bytes, now {total:,}.")
        if (first, last) != (offset, min(end, total) - 1):
            raise SourceError(
                f"{self.name}: bytes {offset}-{min(end, total) - 1} were asked for, the server gave {first}-{last}."
            )
        self._size = total
        return last - first + 1


def _checked_url(url: str) -> httpx.URL:
    import httpx

    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise SourceError(f"{shown_url(url)} is no URL: {error}.") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.userinfo:
        raise SourceError(f"{shown_url(url)} is no http or https URL without a user in it.")
    return parsed


def _redirect(url: httpx.URL, location: str, name: str) -> httpx.URL:
    import httpx

    try:
        target = url.join(location)
    except (httpx.InvalidURL, ValueError):
        target = None
    if not location or target is None or target.scheme not in {"http", "https"} or not target.host or target.userinfo:
        raise SourceError(f"{name} redirects to {shown_url(location)[:200]!r}, which is no http or https URL.")
    if url.scheme == "https" and target.scheme != "https":
        raise SourceError(
            f"{name} redirects from https to http ({shown_url(str(target))[:200]}); that is not followed."
        )
    return target


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host.lower(), url.port or (443 if url.scheme == "https" else 80)


def _refusal(response: httpx.Response, name: str) -> HybriddError:
    status = response.status_code
    if status == 404:
        return NotFound(f"There is no {name}.")
    wait = response.headers.get("retry-after", "")
    reasons = {
        200: "the server ignores ranges and would send the whole file",
        401: "the server wants a token, or another one",
        403: "the server allows no access with this token; the model may be gated",
        416: "the file is empty",
        429: "the server has had too many requests from here" + (f"; again in {wait} s" if wait.isdigit() else ""),
    }
    return SourceError(
        f"{name}: {reasons.get(status, 'an answer that cannot be used')} (HTTP {status}).",
        retry_after=float(wait) if wait.isdigit() and len(wait) < 7 else None,
        status=status if status in _CALLERS else None,
    )
