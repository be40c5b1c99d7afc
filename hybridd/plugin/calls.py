"""The calls a plugin is answering: one task each, exactly one final answer each."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

import msgspec

from hybridd.contracts import protocol as wire
from hybridd.deadlines import Deadlines
from hybridd.plugin import answers
from hybridd.plugin.link import ClientLink
from hybridd.plugin.provider import CallFailure, Provider, Request, Result
from hybridd.plugin.stream import Stream

_generate = msgspec.json.Decoder(wire.Generate).decode
_embed = msgspec.json.Decoder(wire.Embed).decode
_predict = msgspec.json.Decoder(wire.Predict).decode
_probe = msgspec.json.Decoder(wire.Probe).decode
_cancel = msgspec.json.Decoder(wire.Cancel).decode
_credit = msgspec.json.Decoder(wire.Credit).decode
_raw = msgspec.json.Decoder(msgspec.Raw).decode


class _Call:
    """``why``: set when the call was cancelled on purpose, with the error kind to answer.

    A task cancelled before its first step never runs its own code, and the cancel often arrives in the same read as
    the request; so a task is only cancelled once it runs.
    """

    __slots__ = ("running", "stream", "task", "why")

    def __init__(self, stream: Stream | None) -> None:
        self.stream = stream
        self.running = False
        self.task: asyncio.Task[None] | None = None
        self.why: tuple[wire.ErrorKind, str] | None = None

    def cancel(self, kind: wire.ErrorKind, message: str) -> None:
        if self.why is None and self.task is not None:
            self.why = (kind, message)
            if self.running:
                self.task.cancel()


class Calls:
    def __init__(self, loop: asyncio.AbstractEventLoop, link: ClientLink, providers: Mapping[str, Provider]) -> None:
        self._loop = loop
        self._deadlines = Deadlines(loop)
        self._link = link
        self._providers = providers
        self._calls: dict[int, _Call] = {}
        self._idle: asyncio.Future[None] | None = None
        self.draining = False

    def dispatch(self, message: wire.Envelope) -> None:
        """A request or notification of the daemon; every request gets exactly one answer."""
        method, number = message.method, message.id
        try:
            if method == "stream/credit":
                credit = _credit(message.params)
                call = self._calls.get(credit.id)
                if call is not None and call.stream is not None:
                    call.stream.grant(credit.bytes)
            elif method == "cancel":
                cancel = _cancel(message.params)
                call = self._calls.get(cancel.id)
                if call is not None:
                    call.cancel("cancelled", f"cancelled: {cancel.reason}")
            elif not isinstance(number, int):
                return  # an unknown notification is ignored, as unknown fields are
            elif method == "generate":
                self._start_generate(number, _generate(message.params))
            elif method == "embed":
                self._start_plain(number, _embed(message.params), "embed")
            elif method == "predict":
                self._start_plain(number, _predict(message.params), "predict")
            elif method == "probe":
                self._start_probe(number, _probe(message.params))
            else:
                self.refuse(number, wire.METHOD_NOT_FOUND, f"unknown method {method}")
        except msgspec.MsgspecError as error:
            if isinstance(number, int):
                self.refuse(number, wire.INVALID_PARAMS, f"{method}: {error}")

    async def drain(self, grace: float) -> None:
        """Waits up to ``grace`` seconds for the calls in flight; new ones are refused meanwhile."""
        self.draining = True
        if self._calls and grace > 0:
            self._idle = self._loop.create_future()
            await asyncio.wait({self._idle}, timeout=grace)

    async def cancel_all(self) -> None:
        tasks = [call.task for call in self._calls.values() if call.task is not None]
        for call in list(self._calls.values()):
            call.cancel("unavailable", "the plugin is shutting down")
        if tasks:
            await asyncio.wait(tasks, timeout=2.0)

    # starting

    def _start_generate(self, number: int, params: wire.Generate) -> None:
        request = Request(
            id=number,
            provider=params.provider,
            model=params.model,
            raw=bytes(params.body),
            stream=params.stream,
            endpoint=params.endpoint,
            deadline=params.deadline_ms / 1000,
            trace_id=params.trace_id,
            loop=self._loop,
            deadlines=self._deadlines,
        )
        provider = self._provider(number, params.provider)
        if provider is None:
            return
        stream = Stream(request, self._link, params.credit)
        call = _Call(stream)
        self._launch(number, call, params.deadline_ms, self._generate(provider, request, stream))

    def _start_plain(self, number: int, params: wire.Embed | wire.Predict, method: str) -> None:
        provider = self._provider(number, params.provider)
        if provider is None:
            return
        request = Request(
            id=number,
            provider=params.provider,
            model=params.model,
            raw=bytes(params.body),
            stream=False,
            endpoint=method,
            deadline=params.deadline_ms / 1000,
            trace_id=params.trace_id,
            loop=self._loop,
            deadlines=self._deadlines,
        )
        work = provider.embed if method == "embed" else provider.predict
        self._launch(number, _Call(None), params.deadline_ms, self._plain(work, request))

    def _start_probe(self, number: int, params: wire.Probe) -> None:
        provider = self._provider(number, params.provider)
        if provider is not None:
            self._launch(number, _Call(None), params.deadline_ms, self._probe(provider))

    def _provider(self, number: int, name: str) -> Provider | None:
        provider = self._providers.get(name)
        if provider is None:
            self.refuse(number, wire.INVALID_PARAMS, f"no provider {name} here", ("unavailable", "no"))
        elif self.draining:
            self.refuse(number, wire.CALL_FAILED, "the plugin is shutting down", ("unavailable", "no"))
        else:
            return provider
        return None

    def _launch(self, number: int, call: _Call, deadline_ms: int, work: Coroutine[Any, Any, bytes]) -> None:
        self._calls[number] = call
        at = self._loop.time() + max(0, deadline_ms) / 1000
        self._deadlines.set(number, at, call.cancel, "timeout", f"no answer within {deadline_ms} ms")
        call.task = self._loop.create_task(self._serve(number, call, work))

    # working

    async def _serve(self, number: int, call: _Call, work: Coroutine[Any, Any, bytes]) -> None:
        call.running = True
        try:
            if call.why is not None:
                work.close()
                raise asyncio.CancelledError
            self._link.send(b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (number, await work))
        except CallFailure as failure:
            self._fail(number, wire.CALL_FAILED, failure.message, failure.error)
        except asyncio.CancelledError:
            kind, message = call.why or ("unavailable", "the plugin is shutting down")
            self._fail(number, wire.CALL_FAILED, message, wire.CallError(kind=kind, sent="maybe"))
        except Exception as error:  # noqa: BLE001  # a bug in a provider fails its call, never the process
            traceback.print_exc(file=sys.stderr)
            self._fail(
                number,
                wire.INTERNAL_ERROR,
                f"{type(error).__name__}: {error}",
                wire.CallError(kind="internal", sent="maybe"),
            )
        finally:
            self._deadlines.cancel(number)
            self._calls.pop(number, None)
            if self._idle is not None and not self._calls and not self._idle.done():
                self._idle.set_result(None)

    async def _generate(self, provider: Provider, request: Request, stream: Stream) -> bytes:
        answer = await provider.generate(request, stream)
        if isinstance(answer, Result) and type(answer.body) is bytes and not request.stream:
            return _encode(answer, answer.body)  # the hot path: upstream bytes pass through
        result = _as_result(answer)
        if request.stream:
            await _finish_stream(request, stream, answer, result)
            return _encode(result, None)
        text = answer if isinstance(answer, str) else stream.text if result.body is None else None
        if text is None:
            return _encode(result, result.body)
        body = answers.whole(
            text,
            model=request.model,
            endpoint=request.endpoint,
            answer_id=answers.identity(request.endpoint, request.id, request.trace_id),
            usage=result.usage,
            finish_reason=stream.finish_reason or "stop",
        )
        return _encode(result, body)

    async def _plain(self, work: Callable[[Request], Awaitable[Any]], request: Request) -> bytes:
        result = _as_result(await work(request))
        return _encode(result, result.body)

    async def _probe(self, provider: Provider) -> bytes:
        return wire.encode(await provider.probe())

    # answering

    def _fail(self, number: int, code: int, message: str, error: wire.CallError) -> None:
        self._link.send(
            b'{"jsonrpc":"2.0","id":%d,"error":{"code":%d,"message":%b,"data":%b}}'
            % (number, code, wire.encode(message[:2000]), wire.encode(error))
        )

    def refuse(
        self, number: int, code: int, message: str, kind: tuple[wire.ErrorKind, wire.Sent] | None = None
    ) -> None:
        """Answers a request that was not started with an error."""
        name, sent = kind or ("unsupported" if code == wire.METHOD_NOT_FOUND else "bad_request", "no")
        self._fail(number, code, message, wire.CallError(kind=name, sent=sent))


def _as_result(answer: Result | str | Mapping[str, Any] | None) -> Result:
    if isinstance(answer, Result):
        if answer.usage is None and isinstance(answer.body, Mapping):
            answer.usage = answers.usage_from(answer.body)
        return answer
    if answer is None or isinstance(answer, str):
        return Result()
    if isinstance(answer, Mapping):
        return Result(answer, usage=answers.usage_from(answer))
    raise TypeError(f"a provider answers with Result, str or dict, not {type(answer).__name__}")


async def _finish_stream(request: Request, stream: Stream, answer: Any, result: Result) -> None:
    """A streaming caller gets chunks whatever the provider returned."""
    if isinstance(answer, str):
        if answer:
            await stream.send(answer)
        elif not stream.started:
            await stream.send("")
    elif result.body is not None and not stream.started:
        body = result.body if isinstance(result.body, Mapping) else msgspec.json.decode(result.body)
        if result.usage is None:
            result.usage = answers.usage_from(body)
        await stream.send(*answers.chunks_of(body, stream.writer()))
    if not stream.needs_finish:
        return
    await stream.finish("stop")
    if result.usage is not None:
        options = request.body.get("stream_options")
        if isinstance(options, dict) and options.get("include_usage"):
            await stream.send(stream.writer().usage(result.usage))


def _encode(result: Result, body: bytes | Mapping[str, Any] | None) -> bytes:
    """The ``result`` of the final answer. Upstream bytes are checked to be JSON: a broken body costs one call."""
    if body is None:
        raw: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    elif isinstance(body, bytes):
        try:
            if not body.isascii():
                str(body, "utf-8")
            _raw(body)
        except (ValueError, RecursionError) as error:
            raise CallFailure("bad_response", f"the provider's answer is not JSON: {error}", sent="yes") from None
        raw = msgspec.Raw(body)
    else:
        raw = msgspec.Raw(wire.encode(body))
    return wire.encode(
        wire.CallResult(
            body=raw,
            usage=result.usage,
            observations=list(result.observations),
            upstream_ms=result.upstream_ms,
            first_byte_ms=result.first_byte_ms,
            details=result.details or {},
        )
    )
