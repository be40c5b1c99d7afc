"""The calls of one OpenAI-shaped host: whole answers, streams, embeddings."""

from __future__ import annotations

import time

from hybridd.plugin import Request, Result, Stream, Usage
from plugins.openai_compatible import answers, classify, headers
from plugins.openai_compatible.host import BROKEN, Host
from plugins.openai_compatible.relay import Relay, drain
from plugins.openai_compatible.response import Response
from plugins.openai_compatible.upstream import read_body


class HostProvider(Host):
    """One call is one POST whose answer's bytes pass through untouched."""

    async def generate(self, request: Request, stream: Stream) -> Result:
        if request.stream:
            return await self._streamed(request, stream)
        return await self._whole(request, request.endpoint, "choices")

    async def embed(self, request: Request) -> Result:
        return await self._whole(request, "embed", "data")

    async def _whole(self, request: Request, endpoint: str, member: str) -> Result:
        upstream, url, seconds = self._ready(endpoint), self._urls[endpoint], self._seconds(request)
        began = time.perf_counter()
        response: Response | None = None
        try:
            with request.within(seconds):
                response = await upstream.post(url, request.raw, seconds)
                first = time.perf_counter()
                if not 200 <= response.status < 300:
                    raise await self._refusal(response, request.model)
                body = await read_body(response)
        except BROKEN as error:
            raise upstream.lost(error, answered=response is not None, seconds=seconds) from None
        finally:
            if response is not None:
                response.close()
        return self._finished(response, body, member, began, first)

    async def _streamed(self, request: Request, stream: Stream) -> Result:
        upstream, url, seconds = self._ready(request.endpoint), self._urls[request.endpoint], self._seconds(request)
        body = answers.asking_for_usage(request.raw) if self._stream_usage else request.raw
        began = time.perf_counter()
        response: Response | None = None
        complete = False
        try:
            with request.within(seconds):
                response = await upstream.post(url, body, seconds, stream=True)
                first = time.perf_counter()
                if not 200 <= response.status < 300:
                    raise await self._refusal(response, request.model)
                if response.content_type in {"application/json", "text/html"}:
                    # The host does not stream, or has an error to tell under a 200.
                    return self._finished(response, await read_body(response), "choices", began, first)
                relay = Relay(stream, self._secrets)
                await relay.run(response)
                complete = True
        except BROKEN as error:
            raise upstream.lost(error, answered=response is not None, seconds=seconds) from None
        finally:
            if response is not None and complete and not response.at_eof():
                # Only the terminating chunk is missing: once read, the connection can be used again.
                self._spawn(drain(response))
            elif response is not None:
                response.close()
        return self._result(response, None, relay.usage, began, first)

    def _finished(self, response: Response, body: bytes, member: str, began: float, first: float) -> Result:
        try:
            body, used = answers.whole(body, member)
        except answers.InBandError as error:
            raise classify.in_band(error.error, now=time.time(), secrets=self._secrets) from None
        return self._result(response, body, used, began, first)

    def _result(self, response: Response, body: bytes | None, used: Usage | None, began: float, first: float) -> Result:
        return Result(
            body,
            usage=used,
            observations=headers.observe(response.headers, self.dialect, time.time()),
            upstream_ms=(time.perf_counter() - began) * 1000,
            first_byte_ms=(first - began) * 1000,
        )

    def _seconds(self, request: Request) -> float:
        """A little less than the daemon gives: our own timeout knows whether a status had been read, the SDK's not."""
        return max(0.001, min(self._timeout, request.deadline - 0.02))
