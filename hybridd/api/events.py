"""``/v1/events``: NDJSON, a snapshot first, then deltas; a reader that falls behind is dropped with a reason."""

from __future__ import annotations

import asyncio

import msgspec

from hybridd import logs
from hybridd.api.endpoints import read_query
from hybridd.api.respond import API_VERSION, Headers, Receive, Scope, Send, encode, send_bytes
from hybridd.api.services import Services
from hybridd.api.snapshot import snapshot
from hybridd.bus import KINDS, Event, Kind, Subscription
from hybridd.errors import InvalidRequest

log = logs.get_logger(__name__)

# A reader may lag this many events; beyond it is cut off rather than held in memory.
_CAPACITY = 4096
# An idle stream still says something now and then, so that a dead peer is noticed and clients can show their age.
_KEEPALIVE_SECONDS = 15.0
# What a dropped reader gets to take the rest and the reason; one that reads nothing at all is cut then.
_FAREWELL_SECONDS = 2.0


class EventsQuery(msgspec.Struct, forbid_unknown_fields=True):
    """``kinds``: only these, separated by commas."""

    kinds: str = ""


async def events(services: Services, scope: Scope, receive: Receive, send: Send) -> None:
    """Until the reader leaves or is dropped. ``?kinds=request,alert`` restricts what is sent.

    Raises:
        InvalidRequest: an unknown kind or parameter.
    """
    kinds = _kinds(read_query(EventsQuery, scope["query_string"]).kinds)
    headers: Headers = [
        (b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-cache"), (b"connection", b"close"),
    ]  # fmt: skip
    if scope["method"] == "HEAD":
        await send_bytes(send, 200, b"", headers)
        return
    wake = asyncio.Event()
    subscription = services.bus.subscribe(wake.set, kinds, _CAPACITY)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await send({"type": "http.response.start", "status": 200, "headers": [*headers, API_VERSION]})
        first = Event(services.bus.seq, services.clock.wall_ns() / 1e9, "snapshot", await snapshot(services))
        delivered = await _deliver(send, _lines([first]), subscription, wake)
        while delivered and not gone.done() and not subscription.dropped:
            if not len(subscription):
                wake.clear()
                waiting = asyncio.ensure_future(wake.wait())
                await asyncio.wait({gone, waiting}, timeout=_KEEPALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
            delivered = await _deliver(send, _lines(subscription.drain()) or b"\n", subscription, wake)
        if delivered:
            await send({"type": "http.response.body", "body": _lines(subscription.drain()), "more_body": False})
        else:
            log.warning("a reader of /v1/events was cut off: it did not read")
            scope["state"]["connection"].transport.abort()
    finally:
        subscription.close()
        gone.cancel()


async def _deliver(send: Send, body: bytes, subscription: Subscription, wake: asyncio.Event) -> bool:
    """Hands ``body`` to the connection; False when the reader was dropped meanwhile and did not take it in time."""
    writing = asyncio.ensure_future(send({"type": "http.response.body", "body": body, "more_body": True}))
    try:
        while not writing.done():
            waiting = asyncio.ensure_future(wake.wait())
            await asyncio.wait({writing, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if subscription.dropped:
                await asyncio.wait({writing}, timeout=_FAREWELL_SECONDS)
                break
            wake.clear()  # more to tell stays in the queue until this is written
        if writing.done():
            writing.result()
        return writing.done()
    finally:
        writing.cancel()


def _kinds(text: str) -> list[Kind]:
    asked = [kind for kind in text.split(",") if kind]
    chosen: list[Kind] = [kind for kind in KINDS if kind in asked]
    unknown = [kind for kind in asked if kind not in KINDS]
    if unknown:
        raise InvalidRequest(f"Unknown event kind '{unknown[0]}'; known: {', '.join(KINDS)}.", param="kinds")
    return chosen or list(KINDS)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _lines(events: list[Event]) -> bytes:
    return b"".join(encode(event) + b"\n" for event in events)
