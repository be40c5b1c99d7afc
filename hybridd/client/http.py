"""The small part of httpx that both clients share: transport, timeouts and the translation of failures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from hybridd.client import wire
from hybridd.errors import DaemonUnreachable, DeadlineExceeded

BASE_URL = "http://hybridd"


def timeouts(seconds: float | None) -> httpx.Timeout:
    """``seconds`` without a byte fail a request; connecting to a local socket gets five."""
    return httpx.Timeout(seconds, connect=5.0)


@contextmanager
def translated(socket: Path) -> Iterator[None]:
    """httpx's failures as hybridd's."""
    try:
        yield
    except httpx.ConnectError as error:
        raise wire.unreachable(socket, error.__context__) from error
    except httpx.TimeoutException as error:
        raise DeadlineExceeded(f"the daemon at {socket} did not answer in time") from error
    except httpx.TransportError as error:
        raise DaemonUnreachable(f"the daemon at {socket} went away in the middle of its answer") from error


def arguments(call: wire.Call) -> dict[str, Any]:
    """httpx's arguments for a call."""
    headers = dict(call.headers)
    content = call.encoded()
    if content is not None:
        headers["content-type"] = "application/json"
    return {"method": call.method, "url": call.path, "content": content, "headers": headers}


def check(status: int, payload: bytes, headers: httpx.Headers) -> None:
    """Raise the error of an error answer."""
    if status >= 400:
        raise wire.error_of(status, payload, headers.get("retry-after"))
