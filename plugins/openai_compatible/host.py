"""What a provider of an OpenAI-shaped host is before any call: its settings, key, state and model list.

::

    not_configured ── start without a key or a usable base_url
    ready          ── start; the model list arrives in the background
    degraded       ── the host could not be reached for its model list; tried again until it can
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import msgspec

from hybridd.plugin import (
    CallFailure,
    KeyUnavailable,
    Model,
    ProbeResult,
    Provider,
    resolve_key,
)
from hybridd.plugin.runtime import PluginError
from plugins.openai_compatible import catalogue, classify, headers, text
from plugins.openai_compatible.response import HttpError, Response
from plugins.openai_compatible.upstream import (
    Address,
    Connections,
    Upstream,
    checked_url,
    read_body,
    read_error_body,
)

LIST_SECONDS = 5.0
FIRST_LIST_SECONDS = 1.0
MAX_LIST_BYTES = 8 * 1024 * 1024
BROKEN = (HttpError, OSError, TimeoutError)


class Host(Provider):
    """``settings``: base_url, api_key (a reference), headers, timeout_seconds, connect_timeout_seconds, models,
    dialect, preset, bill_to, options.

    Options: ``list_models`` says whether ``GET /models`` is unmetered and may be asked at start and by probes (default:
    yes for presets, and where no model is configured); ``stream_usage`` false for a host that rejects
    ``stream_options``; ``auth_header`` names another header than ``Authorization`` for the key.
    """

    def __init__(self, name: str, settings: dict[str, Any], connections: Connections) -> None:
        super().__init__(name, settings)
        options = settings.get("options") or {}
        self._connections = connections
        self._timeout = float(settings.get("timeout_seconds") or 60.0)
        self.dialect = self.dialect_of()
        self._own = settings.get("models") or {}
        self._listed: list[Model] = []
        self._lists = bool(options.get("list_models", bool(settings.get("preset")) or not self._own))
        self._stream_usage = options.get("stream_usage") is not False
        self._auth_header = str(options.get("auth_header") or "Authorization")
        self._secrets: tuple[str, ...] = ()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._looked = asyncio.Event()
        self._upstream: Upstream | None = None
        self._urls: dict[str, Address] = {}

    # where a subclass speaks another dialect

    def paths(self) -> dict[str, str]:
        """Endpoint name to path below the base URL."""
        return {
            "chat": "/chat/completions",
            "completion": "/completions",
            "embed": "/embeddings",
            "models": "/models",
        }

    def dialect_of(self) -> str:
        """The dialect of limit headers. Groq speaks OpenAI's, but documents the windows of its figures."""
        return "groq" if self.settings.get("preset") == "groq" else str(self.settings.get("dialect") or "openai")

    def extra_headers(self) -> dict[str, str]:
        bill_to = self.settings.get("bill_to")
        return {"X-HF-Bill-To": str(bill_to)} if bill_to else {}

    def refused(self, failure: CallFailure) -> None:
        """Told of every failure that an HTTP status meant, before it is raised."""

    # life

    async def start(self) -> None:
        try:
            base_url = checked_url(self.settings.get("base_url"))
            key = await asyncio.to_thread(resolve_key, self.settings.get("api_key"))
        except (ValueError, KeyUnavailable) as error:
            self.state, self.reason = "not_configured", text.clean(str(error))
            return
        sent = {"User-Agent": "hybridd", **self.extra_headers(), **(self.settings.get("headers") or {})}
        if key is not None:
            self._secrets = (key,)
            sent[self._auth_header] = f"Bearer {key}" if self._auth_header.lower() == "authorization" else key
        upstream: Upstream | None = None
        try:
            upstream = Upstream(
                base_url,
                sent,
                connect_seconds=float(self.settings.get("connect_timeout_seconds") or 5.0),
                connections=self._connections,
            )
            self._urls = {endpoint: upstream.url(path) for endpoint, path in self.paths().items()}
        except (ValueError, OSError) as error:
            self.state, self.reason = "not_configured", text.clean(str(error), self._secrets)
            if upstream is not None:
                await upstream.close()
            return
        self._upstream = upstream
        await self.first_look()

    async def first_look(self) -> None:
        """Lists models in the background; only a host without configured models is waited for, and that shortly."""
        if not self._lists:
            return
        self._spawn(self._look_until_reached())
        if not self._own:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_LIST_SECONDS):
                    await self._looked.wait()

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            await upstream.close()

    async def models(self) -> list[Model]:
        return catalogue.merged(catalogue.configured(self._own), self._listed)

    async def probe(self) -> ProbeResult:
        if self._upstream is None or not self._lists:
            return ProbeResult(ok=self.state == "ready", reason=self.reason, details={"unmetered": False})
        problem = await self._look()
        return ProbeResult(ok=not problem, reason=problem, models=await self.models(), details={"unmetered": True})

    def _ready(self, endpoint: str) -> Upstream:
        if self.state == "retired":
            raise CallFailure("gone", self.reason, sent="no", permanent=True)
        if self._upstream is None or endpoint not in self._urls:
            reason = self.reason or f"provider {self.name} has no endpoint for {endpoint}"
            raise CallFailure("unsupported" if self._upstream else "auth", reason, sent="no")
        return self._upstream

    async def _refusal(self, response: Response, model: str | None) -> CallFailure:
        failure = classify.failure(
            response.status,
            response.headers,
            await read_error_body(response),
            now=time.time(),
            dialect=self.dialect,
            model=model,
            secrets=self._secrets,
        )
        self.refused(failure)
        return failure

    # the model list

    async def _look_until_reached(self) -> None:
        delay = 2.0
        while await self._look() and self.state == "degraded":
            await asyncio.sleep(delay)
            delay = min(delay * 2, 60.0)

    async def _look(self) -> str:
        """Lists the models once and registers what changed; returns the problem, or ""."""
        before = (self.state, self.reason, [model.id for model in self._listed])
        problem = await self._list()
        self._looked.set()
        if before != (self.state, self.reason, [model.id for model in self._listed]):
            await self.register()
        return problem

    async def _list(self) -> str:
        upstream = self._ready("models")
        try:
            status, body = await self.fetch(self._urls["models"], MAX_LIST_BYTES)
            if status == 200:
                self._listed = catalogue.listed(msgspec.json.decode(body))
                problem = ""
            else:
                problem = f"the model list answered {status}"
        except CallFailure as failure:
            if failure.error.sent == "no" and self.state != "retired":
                self.state, self.reason = "degraded", failure.message
                return failure.message
            problem = failure.message
        except (ValueError, RecursionError):
            problem = f"{upstream.name} gave a model list that cannot be read"
        if problem:
            self.log("warning", f"no model list: {problem}")
        if self.state == "degraded":
            self.state, self.reason = "ready", ""
        return problem

    async def fetch(self, url: Address, limit: int, *, own: bool = True) -> tuple[int, bytes]:
        """One unmetered GET. Observations in its headers are reported. ``own``: the address belongs to the provider, so
        that a retirement there is the provider's.

        Raises:
            CallFailure: unreachable, cut, too large; or retired.
        """
        upstream = self._ready("models")
        response: Response | None = None
        try:
            async with asyncio.timeout(LIST_SECONDS):
                response = await upstream.get(url, LIST_SECONDS)
                if response.status != 200:
                    if own and (failure := await self._refusal(response, None)).error.permanent:
                        raise failure
                    return response.status, b""
                self.observed(headers.observe(response.headers, self.dialect, time.time()))
                return response.status, await read_body(response, limit)
        except BROKEN as error:
            raise upstream.lost(error, answered=response is not None, seconds=LIST_SECONDS) from None
        finally:
            if response is not None:
                response.close()

    async def register(self) -> None:
        """Tells the daemon of a change; a lost connection ends the whole plugin anyway."""
        try:
            await self.changed()
        except PluginError as error:
            self.log("debug", f"not registered again: {error}")

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
