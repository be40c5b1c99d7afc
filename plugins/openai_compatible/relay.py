"""Passing one upstream stream on: reads to events to frames, and whether its end was an end."""

from __future__ import annotations

import asyncio
import time

from hybridd.plugin import CallFailure, Stream, Usage
from plugins.openai_compatible import answers, classify, sse, text
from plugins.openai_compatible.response import HttpError, Response

DRAIN_SECONDS = 1.0
DRAIN_BYTES = 64 * 1024


class Relay:
    """One stream. Everything one read gave leaves in one frame; nothing is sent on that is not a JSON object."""

    def __init__(self, stream: Stream, secrets: tuple[str, ...]) -> None:
        self._stream = stream
        self._secrets = secrets
        self._parser = sse.Parser()
        self._state = answers.StreamState()

    @property
    def usage(self) -> Usage | None:
        return self._state.usage

    async def run(self, content: Response) -> None:
        """Until ``[DONE]``, or an end after every choice has given its ``finish_reason``.

        Raises:
            CallFailure: an error event (its kind), an invalid event or any other end (``bad_response``).
        """
        parser, broken = self._parser, None
        while not parser.done:
            try:
                data = await content.readany()
            except HttpError as error:
                broken = text.clean(str(error), limit=120) or type(error).__name__
                break
            if not data:
                await self._pass_on(parser.close())
                break
            try:
                events = parser.feed(data)
            except sse.EventTooLarge as error:
                raise self._bad(str(error)) from None
            if events:
                await self._pass_on(events)
        if not (parser.done or self._state.finished):
            what = (
                "the stream was cut" if self._state.events else "the host answered 200 with a stream without an event"
            )
            raise self._bad(f"{what}: {broken}" if broken else what)

    async def _pass_on(self, events: list[bytes]) -> None:
        """Sends the events on, up to the first that is an error or broken."""
        failure: CallFailure | None = None
        good = 0
        for event in events:
            try:
                self._state.accept(event)
            except answers.InBandError as error:
                failure = classify.in_band(error.error, now=time.time(), secrets=self._secrets)
                failure.error.usage = self.usage
                break
            except CallFailure as error:
                failure = error
                break
            good += 1
        if good:
            await self._stream.send(*(events if good == len(events) else events[:good]))
        if failure is not None:
            raise failure

    def _bad(self, message: str) -> CallFailure:
        return CallFailure("bad_response", message, sent="yes", usage=self.usage)


async def drain(response: Response) -> None:
    """Reads what little follows a complete stream, so that its connection goes back to the pool; within bounds."""
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            size = 0
            while size < DRAIN_BYTES and (data := await response.readany()):
                size += len(data)
    except (HttpError, OSError):
        return  # the answer was complete: all that is lost is a connection
    finally:
        response.close()
