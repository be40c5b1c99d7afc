"""The asyncio client: the same methods as :class:`~hybridd.client.Client`, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import httpx

from hybridd import locations
from hybridd.client import http, start, streams, wire
from hybridd.client.local_async import AsyncLocalMethods
from hybridd.client.types import (
    CallResult,
    Event,
    History,
    Limit,
    LogPage,
    Message,
    ModelChoice,
    Report,
    RequestPage,
    Status,
)  # fmt: skip
from hybridd.contracts.validation import Tier


class AsyncClient(AsyncLocalMethods):
    """The daemon behind one Unix socket, for asyncio. See :class:`~hybridd.client.Client` for arguments and errors;
    with ``auto_start`` the daemon is started by ``async with`` or by :meth:`start`."""

    def __init__(
        self, socket: str | Path | None = None, *, timeout: float | None = 120.0, auto_start: bool = False
    ) -> None:
        self.socket = Path(socket) if socket is not None else locations.socket_path()
        self._auto_start = auto_start
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(self.socket)),
            base_url=http.BASE_URL,
            timeout=http.timeouts(timeout),
            trust_env=False,  # a proxy of the environment must never see local prompts
        )

    async def start(self) -> None:
        """Start the daemon when nobody listens."""
        await asyncio.to_thread(start.ensure_running, self.socket)

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        if self._auto_start:
            await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _send(self, call: wire.Call, *, seconds: float | None = None) -> Any:
        """``seconds`` without a byte fail the call; absent: the client's timeout."""
        patience = httpx.USE_CLIENT_DEFAULT if seconds is None else http.timeouts(seconds)
        with http.translated(self.socket):
            response = await self._http.request(**http.arguments(call), timeout=patience)
        http.check(response.status_code, response.content, response.headers)
        return wire.decode(response.content)

    # ---- calls -----------------------------------------------------------------------------------------------------

    async def call(
        self,
        prompt: str | Sequence[Message],
        *,
        task: str | None = None,
        model: str | None = None,
        system: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        user: str | None = None,
        tier: Tier | None = None,
        **options: Any,
    ) -> CallResult:
        """A routed call: the answer's text, which model gave it and why, usage and cost.

        Args:
            prompt: a question of at least three characters, or OpenAI chat messages.
            task: a task of the routing table; absent: the daemon classifies.
            model: ``provider:model``, a plain model, or absent for the task's choice.
            options: further members of the OpenAI request (``tools``, ``seed``, ``response_format`` …).

        Raises:
            InvalidRequest: the request breaks a rule; nothing was sent.
            NoFeasibleProvider: nobody may or can answer; ``details`` has each candidate's reason.
            ProviderError: every allowed attempt failed.
        """
        return wire.result_of(
            await self.chat(
                prompt,
                task=task,
                model=model,
                system=system,
                max_tokens=max_tokens,
                temperature=temperature,
                user=user,
                tier=tier,
                **options,
            )
        )

    async def chat(
        self,
        prompt: str | Sequence[Message],
        *,
        task: str | None = None,
        model: str | None = None,
        system: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        user: str | None = None,
        tier: Tier | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """As :meth:`call`, returning the OpenAI answer itself (choices, tool calls), with a member ``hybridd``."""
        sent = wire.chat(
            prompt,
            task=task,
            model=model,
            system=system,
            max_tokens=max_tokens,
            temperature=temperature,
            user=user,
            tier=tier,
            options=options,
        )
        return cast(dict[str, Any], await self._send(sent))

    def stream(
        self,
        prompt: str | Sequence[Message],
        *,
        task: str | None = None,
        model: str | None = None,
        system: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        user: str | None = None,
        tier: Tier | None = None,
        **options: Any,
    ) -> AsyncChatStream:
        """As :meth:`call`, streamed: iterate over the pieces of text, then read ``result``. The call starts with the
        iteration."""
        sent = wire.chat(
            prompt,
            task=task,
            model=model,
            system=system,
            max_tokens=max_tokens,
            temperature=temperature,
            user=user,
            tier=tier,
            stream=True,
            options=options,
        )
        return AsyncChatStream(self, sent)

    async def embeddings(self, inputs: str | Sequence[str], *, model: str, **options: Any) -> dict[str, Any]:
        """OpenAI's embeddings answer."""
        given = inputs if isinstance(inputs, str) else list(inputs)
        return cast(dict[str, Any], await self._send(wire.post("/v1/embeddings", model=model, input=given, **options)))

    async def models(self) -> list[dict[str, Any]]:
        """Every model that can be named, OpenAI-shaped."""
        return cast(list[dict[str, Any]], (await self._send(wire.get("/v1/models")))["data"])

    async def route(
        self,
        task: str | None = None,
        prompt: str | None = None,
        *,
        max_tokens: int | None = None,
        user: str | None = None,
        tier: Tier | None = None,
        model: str | None = None,
    ) -> ModelChoice:
        """Which model would be chosen, and why; calls nothing."""
        sent = wire.route(task, prompt, max_tokens=max_tokens, user=user, tier=tier, model=model)
        return cast(ModelChoice, await self._send(sent))

    # ---- state -----------------------------------------------------------------------------------------------------

    async def limits(self) -> list[Limit]:
        """Every limit of every provider: used, reserved, remaining, reset, forecast, drift."""
        return cast(list[Limit], (await self._send(wire.get("/v1/limits")))["limits"])

    async def status(self) -> Status:
        """The daemon, its providers and its plugins."""
        return cast(Status, await self._send(wire.get("/v1/status")))

    async def plugins(self) -> list[dict[str, Any]]:
        return cast(list[dict[str, Any]], (await self._send(wire.get("/v1/plugins")))["plugins"])

    async def health(self) -> dict[str, Any]:
        """Does the daemon's loop answer?"""
        return cast(dict[str, Any], await self._send(wire.get("/health")))

    async def ready(self) -> dict[str, Any]:
        """Does the daemon take calls? Raises while it does not."""
        return cast(dict[str, Any], await self._send(wire.get("/ready")))

    async def reload(self) -> dict[str, Any]:
        """Read the configuration again. A broken file is refused (ConfigError) and the old settings stay."""
        return cast(dict[str, Any], await self._send(wire.post("/v1/reload")))

    # ---- history ---------------------------------------------------------------------------------------------------

    async def requests(
        self,
        *,
        provider: str | None = None,
        model: str | None = None,
        task: str | None = None,
        status: int | str | None = None,
        since: float | None = None,
        until: float | None = None,
        q: str | None = None,
        sort: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> RequestPage:
        """Recorded requests, newest first, one page; pass ``next`` back as ``cursor`` for the following one.

        Args:
            since, until: UTC seconds since the epoch.
            q: text to find.
            sort: a column, with ``-`` in front for descending.
        """
        sent = wire.get(
            "/v1/requests",
            provider=provider,
            model=model,
            task=task,
            status=status,
            since=since,
            until=until,
            q=q,
            sort=sort,
            limit=limit,
            cursor=cursor,
        )
        return cast(RequestPage, await self._send(sent))

    async def request(self, request_id: str) -> dict[str, Any]:
        """One recorded request with its choice and every attempt. Raises NotFound."""
        return cast(dict[str, Any], await self._send(wire.get(f"/v1/requests/{wire.segment(request_id)}")))

    async def report(
        self,
        *,
        group_by: str | Sequence[str] | None = None,
        since: float | None = None,
        until: float | None = None,
        provider: str | None = None,
        model: str | None = None,
        task: str | None = None,
    ) -> Report:
        """Usage, cost and trend, grouped by any of provider, model, task, day, hour (default: provider and model)."""
        groups = group_by if group_by is None or isinstance(group_by, str) else list(group_by)
        sent = wire.get(
            "/v1/report", group_by=groups, since=since, until=until, provider=provider, model=model, task=task
        )
        return cast(Report, await self._send(sent))

    async def usage(self, *, since: float | None = None, until: float | None = None, **filters: Any) -> dict[str, Any]:
        return cast(dict[str, Any], await self._send(wire.get("/v1/usage", since=since, until=until, **filters)))

    async def history(
        self,
        series: str | None = None,
        *,
        since: float | None = None,
        until: float | None = None,
        step: float | None = None,
    ) -> History:
        """One recorded series of samples; without a name, ``names`` of all series."""
        sent = wire.get("/v1/history", series=series, since=since, until=until, step=step)
        return cast(History, await self._send(sent))

    async def feedback(
        self, request_id: str, score: float, *, subject: str | None = None, comment: str | None = None
    ) -> dict[str, Any]:
        """How good an answer was, from -1 to 1."""
        return cast(dict[str, Any], await self._send(wire.feedback(request_id, score, subject, comment)))

    # ---- alerts and events -----------------------------------------------------------------------------------------

    async def alerts(self, state: str | None = None) -> list[dict[str, Any]]:
        """Alerts, newest first; ``state``: live (not resolved), open, acknowledged, silenced, resolved; None: all."""
        return cast(list[dict[str, Any]], (await self._send(wire.get("/v1/alerts", state=state)))["alerts"])

    async def ack(self, alert_id: int) -> dict[str, Any]:
        return cast(dict[str, Any], await self._send(wire.post(f"/v1/alerts/{wire.segment(alert_id)}/ack")))

    async def silence(self, alert_id: int, seconds: float) -> dict[str, Any]:
        return cast(dict[str, Any], await self._send(wire.silence(alert_id, seconds)))

    async def logs(
        self,
        *,
        level: str | None = None,
        component: str | None = None,
        contains: str | None = None,
        since: float | None = None,
        until: float | None = None,
        before: int | None = None,
        limit: int | None = None,
    ) -> LogPage:
        """What the daemon has logged since it started, newest first, one page.

        Args:
            level: this one and worse.
            component: a logger's name, or its beginning up to a dot.
            before: ``next`` of the page before.
        """
        sent = wire.get(
            "/v1/logs",
            level=level,
            component=component,
            contains=contains,
            since=since,
            until=until,
            before=before,
            limit=limit,
        )
        return cast(LogPage, await self._send(sent))

    async def events(self, kinds: Sequence[str] = ()) -> AsyncIterator[Event]:
        """A snapshot, then everything that happens, until the iterator is closed or the daemon ends it.

        Args:
            kinds: only these (``provider``, ``quota``, ``request``, ``alert`` …); empty: all.
        """
        sent = wire.get("/v1/events", kinds=list(kinds) or None)
        lines = streams.Lines()
        with http.translated(self.socket):
            async with self._http.stream(**http.arguments(sent), timeout=http.timeouts(None)) as response:
                if response.status_code >= 400:
                    http.check(response.status_code, await response.aread(), response.headers)
                async for data in response.aiter_bytes():
                    for line in lines.feed(data):
                        if line.strip():
                            yield wire.decode(line)


class AsyncChatStream:
    """A streamed call. Iterating sends it and yields pieces of text; :meth:`chunks` yields OpenAI's chunks instead.
    Leaving the loop early cancels the call. ``result`` is there once the stream has ended."""

    def __init__(self, client: AsyncClient, sent: wire.Call) -> None:
        self._client = client
        self._sent = sent
        self.result: CallResult | None = None

    async def __aiter__(self) -> AsyncIterator[str]:
        async for chunk in self.chunks():
            text = wire.delta_of(chunk)
            if text:
                yield text

    async def chunks(self) -> AsyncIterator[Mapping[str, Any]]:
        """OpenAI ``chat.completion.chunk`` objects.

        Raises:
            HybriddError: the daemon's error, also one that arrives in the middle of the stream.
        """
        reader = streams.StreamReader()
        client = self._client
        with http.translated(client.socket):
            async with client._http.stream(**http.arguments(self._sent)) as response:
                if response.status_code >= 400:
                    http.check(response.status_code, await response.aread(), response.headers)
                async for data in response.aiter_bytes():
                    for chunk in reader.feed(data):
                        yield chunk
        self.result = reader.finish()
