"""The OpenAI-compatible routes: the hot path. Plain ASGI, no framework, no copies of what only passes through."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from msgspec import Raw

from hybridd.api.respond import (
    API_VERSION,
    JSON_TYPE,
    ClientGone,
    Headers,
    Receive,
    Scope,
    Send,
    encode,
    read_body,
    send_bytes,
    send_error,
    send_json,
)
from hybridd.api.services import Services
from hybridd.contracts.ids import encode as encode_id
from hybridd.errors import HybriddError, NotFound
from hybridd.routing.outcome import Outcome
from hybridd.routing.request import Kind, RoutedRequest, parse, parse_body

_WHOLE_HEAD = b"".join([b"%b: %b\r\n" % header for header in (JSON_TYPE, API_VERSION)])
# What the client of a failed stream gets to take its last event.
_FAREWELL_SECONDS = 5.0
_SSE_HEADERS: Headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


async def routed(
    services: Services, kind: Kind, headers: Mapping[bytes, bytes], scope: Scope, receive: Receive, send: Send
) -> None:
    """``/v1/chat/completions``, ``/v1/completions`` and ``/v1/embeddings``. ``headers``: the scope's, by name."""

    def header(name: bytes) -> str | None:
        value = headers.get(name)
        return value.decode("latin-1") if value else None

    sink: _EventStream | None = None
    connection = scope["state"].get("connection")
    # With the loop: without it asyncio asks the kernel for the pid first.
    task = asyncio.current_task(connection.loop if connection is not None else None)
    try:
        body = await read_body(scope, receive, services.max_body_bytes)
        request = parse(kind, parse_body(body), header)
        if request.stream:
            sink = _EventStream(send, request)
        if connection is not None and task is not None:
            connection.on_lost = task.cancel
        try:
            outcome = await services.router.run(request, sink)
        finally:
            if connection is not None:
                connection.on_lost = None
        if sink is not None:
            await sink.finish(outcome)
        else:
            await _send_whole(scope, send, request, outcome)
    except ClientGone:
        return
    except HybriddError as error:
        if sink is not None and sink.started:
            await _fail(sink, error, connection)
        else:
            await send_error(send, error)
    except asyncio.CancelledError:
        # Our own cancel because the client left ends here; a stopping server's cancel goes on.
        if connection is None or not connection.lost:
            raise


async def _fail(sink: _EventStream, error: HybriddError, connection: Any) -> None:
    """The stream's last event; a client that does not take it loses its connection."""
    try:
        async with asyncio.timeout(_FAREWELL_SECONDS):
            await sink.fail(error)
    except TimeoutError:
        if connection is not None:
            connection.transport.abort()


async def _send_whole(scope: Scope, send: Send, request: RoutedRequest, outcome: Outcome) -> None:
    body = outcome.body
    if request.explain:
        body = body.rstrip()[:-1] + b',"hybridd":' + encode(explanation(outcome)) + b"}"
    headers = _routed_headers(outcome)
    headers.append((b"x-hybridd-latency-ms", b"%.3f" % outcome.latency_ms))
    headers.append((b"x-hybridd-cost-usd", b"%.6f" % (outcome.usd_micro / 1e6)))
    connection = scope["state"].get("connection")
    if connection is not None:
        head = b"\r\n".join([*map(b": ".join, headers), b""])
        if connection.answer_whole(scope, 200, _WHOLE_HEAD + head, body):
            return
    await send_bytes(send, 200, body, [JSON_TYPE, *headers])


def _routed_headers(outcome: Outcome) -> Headers:
    headers: Headers = [
        (b"x-hybridd-request-id", encode_id(outcome.request_id).encode()),
        (b"x-hybridd-cache", outcome.cache.encode()),
    ]
    chosen, overhead = outcome.chosen, outcome.overhead_ms
    if chosen is not None:
        headers.append((b"x-hybridd-provider", chosen.ref.provider.encode()))
        headers.append((b"x-hybridd-model", _header_value(chosen.ref.model)))
    if overhead is not None:
        headers.append((b"x-hybridd-overhead-ms", b"%.3f" % overhead))
    if outcome.max_tokens_sent is not None:
        headers.append((b"x-hybridd-max-tokens", b"%d" % outcome.max_tokens_sent))
    return headers


def _header_value(text: str) -> bytes:
    """Model names are free text: what cannot stand in a header is replaced."""
    if text.isascii() and text.isprintable():
        return text.encode("ascii")
    return "".join(char if " " <= char <= "~" else "?" for char in text).encode("ascii")


def explanation(outcome: Outcome) -> dict[str, Any]:
    """What the native clients show beside an answer."""
    usage = outcome.usage
    return {
        "model_choice": outcome.choice,
        "usage": {
            "input_tokens": usage.input_tokens if usage else None,
            "output_tokens": usage.output_tokens if usage else None,
        },
        "cost_usd": outcome.usd_micro / 1e6,
        "latency_ms": round(outcome.latency_ms, 3),
        "request_id": encode_id(outcome.request_id),
        "cache": outcome.cache,
        "details": outcome.details,
    }


class _EventStream:
    """Server-sent events to one client. Nothing is sent before the first event, so that a fallback stays possible."""

    def __init__(self, send: Send, request: RoutedRequest) -> None:
        self._send = send
        self._request = request
        self.started = False

    async def events(self, outcome: Outcome, events: list[Raw]) -> int:
        """Writes the events; returns their size in bytes once the connection took them."""
        taken = sum(map(len, events))
        shown = events if self._request.include_usage else [event for event in events if not _only_usage(event)]
        if shown:
            await self._write(outcome, b"data: " + b"\n\ndata: ".join(map(_one_line, shown)) + b"\n\n")
        return taken

    async def finish(self, outcome: Outcome) -> None:
        tail = b"data: [DONE]\n\n"
        if self._request.explain:
            tail = b"event: hybridd\ndata: " + encode(explanation(outcome)) + b"\n\n" + tail
        await self._write(outcome, tail, more=False)

    async def fail(self, error: HybriddError) -> None:
        """The status is long sent: the error is the stream's last event, and there is no [DONE]."""
        await self._send(
            {"type": "http.response.body", "body": b"data: " + encode(error.to_body()) + b"\n\n", "more_body": False}
        )

    async def _write(self, outcome: Outcome, data: bytes, *, more: bool = True) -> None:
        if not self.started:
            self.started = True
            headers = [*_SSE_HEADERS, API_VERSION, *_routed_headers(outcome)]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": data, "more_body": more})


def _one_line(event: Raw) -> bytes:
    """A line break would end the event; JSON has them between its tokens only."""
    data = bytes(event)
    return data if b"\n" not in data and b"\r" not in data else data.translate(None, b"\r\n")


def _only_usage(event: Raw) -> bool:
    """The extra last chunk that ``include_usage`` brings: no choices. The caller did not ask for it; we did."""
    data = bytes(event)
    return b'"choices":[]' in data or b'"choices": []' in data


async def models(services: Services, scope: Scope, send: Send) -> None:
    """``/v1/models`` and ``/v1/models/{id}``: every ``provider:model``, and each task as ``task:NAME``."""
    entries = _model_entries(services)
    wanted = scope["path"][len("/v1/models") :].lstrip("/")
    if wanted and wanted not in entries and await services.residency.look_again(wanted.removeprefix("local:")):
        entries = _model_entries(services)
    if not wanted:
        await send_json(send, {"object": "list", "data": list(entries.values())})
    elif wanted in entries:
        await send_json(send, entries[wanted])
    else:
        await send_error(send, NotFound(f"There is no model '{wanted}'.", param="model", code="model_not_found"))


def _model_entries(services: Services) -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}
    for view in services.router.provider_views():
        if view.state in ("disabled", "not_configured", "retired"):
            continue
        for model in view.models:
            name = f"{view.name}:{model.id}"
            entries[name] = {
                "id": name,
                "object": "model",
                "created": int(view.since),
                "owned_by": view.name,
                "context": model.context,
                "tasks": model.tasks,
                "price": model.price,
                "shutdown_date": model.shutdown_date,
            }
    for task in services.router.resolved.tasks:
        name = f"task:{task}"
        entries[name] = {"id": name, "object": "model", "created": 0, "owned_by": "hybridd"}
    return entries
