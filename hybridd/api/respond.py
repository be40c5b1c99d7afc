"""Answers as raw ASGI messages: JSON, OpenAI-shaped errors, and reading a body under a cap."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from hybridd._version import __version__
from hybridd.errors import HybriddError, MethodNotAllowed, RequestTimeout, TooLarge

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

encode = msgspec.json.Encoder().encode
# Half a request and then silence must not hold a connection for ever.
BODY_SILENCE_SECONDS = 30.0
JSON_TYPE = (b"content-type", b"application/json")
API_VERSION = (b"x-hybridd-version", __version__.encode())


async def send_bytes(send: Send, status: int, body: bytes, headers: Headers) -> None:
    """One complete answer."""
    headers.append((b"content-length", b"%d" % len(body)))
    headers.append(API_VERSION)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_json(send: Send, value: Any, *, status: int = 200) -> None:
    await send_bytes(send, status, encode(value), [JSON_TYPE])


async def send_error(send: Send, error: HybriddError) -> None:
    """The OpenAI error shape, ``Retry-After`` when waiting helps, and the request id when there is one."""
    await send_bytes(send, error.status, encode(error.to_body()), error_headers(error))


def error_headers(error: HybriddError) -> Headers:
    headers = [JSON_TYPE]
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allowed).encode()))
    if isinstance(error, RequestTimeout):
        headers.append((b"connection", b"close"))  # whatever comes now would still be the body
    if error.request_id is not None:
        headers.append((b"x-hybridd-request-id", error.request_id.encode()))
    return headers


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole request body.

    Raises:
        TooLarge: more than ``limit`` bytes; refused from ``Content-Length`` alone when it is given.
        RequestTimeout: nothing arrived for ``BODY_SILENCE_SECONDS`` although the body is not whole.
        ClientGone: the client closed the connection before the end.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise _too_large(limit)
    connection = scope["state"].get("connection")
    body = connection.whole_body(scope) if connection is not None else None
    if body is not None:  # as a rule: no timer and no event for those (6 µs each)
        if len(body) > limit:
            raise _too_large(limit)
        return bytes(body)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await _next_part(receive)
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return b"".join((*parts, part)) if parts else part
        parts.append(part)


async def _next_part(receive: Receive) -> Message:
    try:
        async with asyncio.timeout(BODY_SILENCE_SECONDS):
            message = await receive()
    except TimeoutError:
        raise RequestTimeout(
            f"The request is not complete and nothing more came for {BODY_SILENCE_SECONDS:g} s."
        ) from None
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message


class ClientGone(Exception):
    """The client left before its request was complete; there is nobody to answer."""


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is larger than {limit / 1_048_576:g} MiB (server.max_body_mb).")
