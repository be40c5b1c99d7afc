"""The streaming side of one call: chunks out, credit in."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from hybridd.plugin.answers import ChunkWriter, encode, identity, text_of_event
from hybridd.plugin.provider import CallFailure, Request

_validate = msgspec.json.Decoder(msgspec.Raw).decode


class Wire(Protocol):
    """What a stream needs of the connection."""

    def send(self, payload: bytes, *, flush: bool = False) -> None: ...

    async def drain(self) -> None: ...


class Stream:
    """Sends the parts of one answer as they come.

    Events are OpenAI chunks (dict, or bytes as the upstream sent them) or text deltas (str). All events of one
    ``send`` travel in one frame, so hand over everything one upstream read gave: that is 2-3 times the streams of one
    frame per event. When the caller does not stream, the text is collected instead and becomes the answer.
    """

    __slots__ = (
        "_bytes",
        "_credit",
        "_finished",
        "_ready",
        "_request",
        "_seq",
        "_text",
        "_wire",
        "_wrapped",
        "_writer",
        "finish_reason",
    )

    def __init__(self, request: Request, wire: Wire, credit: int) -> None:
        self._request = request
        self._wire = wire
        self._credit = credit
        self._seq = 0
        self._bytes = 0
        self._ready: asyncio.Future[None] | None = None
        self._writer: ChunkWriter | None = None
        self._wrapped = False
        self._finished = False
        self._text: list[str] = []
        self.finish_reason: str | None = None

    @property
    def started(self) -> bool:
        """True once something was sent (or collected)."""
        return self._seq > 0 or bool(self._text)

    @property
    def bytes_sent(self) -> int:
        return self._bytes

    @property
    def text(self) -> str:
        """What was collected for a caller that does not stream."""
        return "".join(self._text)

    async def send(self, *events: bytes | Mapping[str, Any] | str) -> None:
        """Sends ``events`` in one frame, waiting while the daemon has given no credit.

        Raises:
            CallFailure: an event is not a JSON object (``bad_response``): nothing of this ``send`` has left then.
        """
        if not events:
            return
        if not self._request.stream:
            self._collect(events)
            return
        encoded = [event if type(event) is bytes else self._encode(event) for event in events]
        for event in encoded:
            self._check(event)
        if self._seq == 0:
            # The first event travels alone and at once: it is the time to the first token.
            await self._send_frame(encoded[:1], flush=True)
            del encoded[0]
        while encoded:
            encoded = await self._send_some(encoded)
        await self._wire.drain()

    def writer(self) -> ChunkWriter:
        if self._writer is None:
            request = self._request
            self._writer = ChunkWriter(
                model=request.model,
                endpoint=request.endpoint,
                answer_id=identity(request.endpoint, request.id, request.trace_id),
            )
        return self._writer

    @property
    def needs_finish(self) -> bool:
        """Text deltas were wrapped and no final chunk was sent yet."""
        return self._wrapped and not self._finished

    async def finish(self, reason: str) -> None:
        self._finished = True
        await self.send(self.writer().finish(reason))

    def grant(self, amount: int) -> None:
        """The daemon has passed ``amount`` bytes on."""
        self._credit += amount
        if self._credit > 0 and self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    def _encode(self, event: bytes | Mapping[str, Any] | str) -> bytes:
        if isinstance(event, str):
            self._wrapped = True
            return self.writer().delta(event)
        return bytes(event) if isinstance(event, bytes | bytearray | memoryview) else encode(event)

    @staticmethod
    def _check(event: bytes) -> None:
        # A broken event would cost the whole plugin its connection; here it costs one call.
        try:
            if event[:1] != b"{":
                raise ValueError("not a JSON object")
            if not event.isascii():
                str(event, "utf-8")
            _validate(event)
        except (ValueError, RecursionError) as error:
            raise CallFailure("bad_response", f"the provider streamed an invalid event: {error}", sent="yes") from None

    def _collect(self, events: tuple[bytes | Mapping[str, Any] | str, ...]) -> None:
        for event in events:
            if isinstance(event, str):
                self._text.append(event)
                continue
            text, finish = text_of_event(event if isinstance(event, bytes) else encode(event))
            self._text.append(text)
            self.finish_reason = finish or self.finish_reason

    async def _send_some(self, events: list[bytes]) -> list[bytes]:
        """Sends what the credit covers; returns the rest. One event alone may overdraw a positive balance."""
        size, count = 0, 0
        if self._credit <= 0:
            await self._wait()
        for event in events:
            if count and size + len(event) > self._credit:
                break
            size += len(event)
            count += 1
        await self._send_frame(events[:count])
        return events[count:]

    async def _send_frame(self, events: list[bytes], *, flush: bool = False) -> None:
        if self._credit <= 0:
            await self._wait()
        body = b",".join(events)
        size = len(body) - len(events) + 1
        self._credit -= size
        self._bytes += size
        self._wire.send(
            b'{"jsonrpc":"2.0","method":"stream/chunk","params":{"id":%d,"seq":%d,"events":[%b]}}'
            % (self._request.id, self._seq, body),
            flush=flush,
        )
        self._seq += 1

    async def _wait(self) -> None:
        while self._credit <= 0:
            self._ready = asyncio.get_running_loop().create_future()
            try:
                await self._ready
            finally:
                self._ready = None
