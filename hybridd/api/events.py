"""``/v1/events``: NDJSON, a snapshot first, then deltas; a reader that falls behind is dropped with a reason."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs

from hybridd.api.respond import API_VERSION, Receive, Scope, Send, encode
from hybridd.api.services import Services
from hybridd.api.snapshot import snapshot
from hybridd.bus import KINDS, Event
from hybridd.errors import InvalidRequest

# A reader may lag this many events; beyond it is cut off rather than held in memory.
_CAPACITY = 4096
# An idle stream still says something now and then, so that a dead peer is noticed and clients can show their age.
_KEEPALIVE_SECONDS = 15.0


async def events(services: Services, scope: Scope, receive: Receive, send: Send) -> None:
    """``?kinds=request,alert`` restricts what is sent.

    Raises:
        InvalidRequest: an unknown kind.
    """
    kinds = _kinds(scope)
    wake = asyncio.Event()
    subscription = services.bus.subscribe(wake.set, kinds, _CAPACITY)
    gone = asyncio.ensure_future(_disconnected(receive))
    headers = [(b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-cache"), API_VERSION]
    try:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        first = Event(services.bus.seq, services.clock.wall_ns() / 1e9, "snapshot", await snapshot(services))
        await _write(send, [first])
        while not gone.done():
            waiting = asyncio.ensure_future(wake.wait())
            await asyncio.wait({gone, waiting}, timeout=_KEEPALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            wake.clear()
            pending = subscription.drain()
            if pending:
                await _write(send, pending)
            elif not gone.done():
                await send({"type": "http.response.body", "body": b"\n", "more_body": True})
            if subscription.dropped:
                break
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        subscription.close()
        gone.cancel()


def _kinds(scope: Scope) -> list[Any]:
    query = parse_qs(scope["query_string"].decode("latin-1"))
    asked = [kind for text in query.get("kinds", []) for kind in text.split(",") if kind]
    unknown = [kind for kind in asked if kind not in KINDS]
    if unknown:
        raise InvalidRequest(f"Unknown event kind '{unknown[0]}'; known: {', '.join(KINDS)}.", param="kinds")
    return asked or list(KINDS)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _write(send: Send, events: list[Event]) -> None:
    body = b"".join(encode(event) + b"\n" for event in events)
    await send({"type": "http.response.body", "body": body, "more_body": True})
