"""What the end-to-end tests share: waiting for a condition, reading figures, listening to events, raw connections."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import httpx

from tests.house import House

# Every unit a call can use, so that GET /v1/limits shows what was charged.
QUOTAS: list[dict[str, Any]] = [
    {"unit": "requests", "window": "3600s", "limit": 1000},
    {"unit": "total_tokens", "window": "3600s", "limit": 1_000_000},
    {"unit": "usd", "window": "month", "limit": 50},
    {"unit": "concurrent", "limit": 50},
]
PRICED = {"context": 8192, "price": {"input_per_million_usd": 1.0, "output_per_million_usd": 1.0}}


def until(condition: Callable[[], Any], timeout: float = 10.0, what: str = "") -> Any:
    """The first true value of ``condition``, looked at every few milliseconds; AssertionError after ``timeout``."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what or condition}"
        select.select([], [], [], 0.01)


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error object of a refused request, in OpenAI's shape."""
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) >= {"message", "type", "code", "param"}
    assert error["message"]
    return error


def used(house: House, provider: str) -> dict[str, tuple[Any, Any]]:
    """Unit to (used, reserved) of a provider's quotas."""
    limits = house.http.get(f"/v1/limits?provider={provider}").json()["limits"]
    return {limit["unit"]: (limit["used"], limit["reserved"]) for limit in limits}


def provider_of(house: House, name: str) -> dict[str, Any]:
    providers: list[dict[str, Any]] = house.http.get("/v1/status").json()["providers"]
    return next(one for one in providers if one["name"] == name)


def plugin_of(house: House, name: str) -> dict[str, Any]:
    plugins: list[dict[str, Any]] = house.http.get("/v1/plugins").json()["plugins"]
    return next(one for one in plugins if one["name"] == name)


def recorded(house: House, answer: httpx.Response | str) -> dict[str, Any]:
    """The record of a request once it is written and none of its calls is open."""
    request_id = answer if isinstance(answer, str) else answer.headers["x-hybridd-request-id"]

    def found() -> dict[str, Any] | None:
        view = house.http.get(f"/v1/requests/{request_id}")
        if view.status_code == 404:
            return None
        record: dict[str, Any] = view.json()
        return record if all(call["state"] != "dispatched" for call in record["calls"]) else None

    view: dict[str, Any] = until(found, what=f"record of {request_id}")
    return view


def quiet(house: House) -> dict[str, Any]:
    """The status once nothing is in flight, waiting or reserved any more."""

    def still() -> dict[str, Any] | None:
        status: dict[str, Any] = house.http.get("/v1/status").json()
        limits = house.http.get("/v1/limits").json()["limits"]
        busy = status["in_flight"] or status["waiting"] or any(one["in_flight"] for one in status["providers"])
        return None if busy or any(limit["reserved"] for limit in limits) else status

    settled: dict[str, Any] = until(still, what="nothing in flight")
    return settled


class Events:
    """A reader of ``/v1/events``. ``seen`` holds everything read so far; the first is the snapshot."""

    def __init__(self, house: House, kinds: str = "", timeout: float = 15.0) -> None:
        self._connection = http.client.HTTPConnection("hybridd")
        self._connection.sock = socket.socket(socket.AF_UNIX)
        self._connection.sock.settimeout(timeout)
        self._connection.sock.connect(str(house.socket))
        self._connection.request("GET", f"/v1/events?kinds={kinds}" if kinds else "/v1/events")
        self._file = self._connection.getresponse()
        assert self._file.status == 200
        self.seen: list[dict[str, Any]] = [self.next()]

    def next(self) -> dict[str, Any]:
        """The next event; EOFError at the end of the stream."""
        while True:
            line = self._file.readline()
            if not line:
                raise EOFError
            if line.strip():
                event: dict[str, Any] = json.loads(line)
                return event

    def until(self, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Reads on until an event fits."""
        while True:
            event = self.next()
            self.seen.append(event)
            if condition(event):
                return event

    def close(self) -> None:
        self._file.close()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@contextlib.contextmanager
def connected(house: House, timeout: float = 15.0) -> Iterator[socket.socket]:
    """A raw connection to the daemon."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(str(house.socket))
        yield connection


def chat_bytes(model: str, **extra: Any) -> bytes:
    """A whole POST of one chat request, as bytes."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hello there"}], **extra}).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def read_all(connection: socket.socket) -> bytes:
    """Everything until the daemon closes."""
    parts: list[bytes] = []
    while True:
        try:
            part = connection.recv(65536)
        except ConnectionResetError:
            part = b""
        if not part:
            return b"".join(parts)
        parts.append(part)
