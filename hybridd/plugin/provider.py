"""What an author writes (:class:`Provider`), is given (:class:`Request`) and answers (:class:`Result`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from hybridd.contracts.protocol import (
    CallError,
    ErrorKind,
    Failure,
    ModelInfo,
    Observation,
    ProbeResult,
    QuotaInfo,
    Sent,
    Usage,
)
from hybridd.deadlines import Deadlines

if TYPE_CHECKING:
    from hybridd.deadlines import Within
    from hybridd.plugin.stream import Stream

State = Literal["ready", "not_configured", "degraded", "retired"]
LogLevel = Literal["debug", "info", "warning", "error"]
Answer = "Result | str | Mapping[str, Any]"


class CallFailure(Exception):
    """Raise it from ``generate``, ``embed``, ``predict`` or ``probe`` to answer with a typed error.

    Args:
        kind: what the router should make of it; see :data:`hybridd.contracts.protocol.ErrorKind`.
        message: one sentence for people; never a key.
        sent: did the request reach the provider? ``no`` costs the account nothing.
        status: the upstream's HTTP status.
        retry_after: seconds until trying again can help.
        permanent: a retirement: never tried again.
        upstream_code: the provider's own error code.
        param: the request field concerned.
        usage: what the provider says the failed call used, if it says so.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        sent: Sent = "maybe",
        status: int | None = None,
        retry_after: float | None = None,
        permanent: bool = False,
        upstream_code: str | None = None,
        param: str | None = None,
        usage: Usage | None = None,
        observations: Sequence[Observation] = (),
        upstream_ms: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.error = CallError(
            kind=kind,
            sent=sent,
            status=status,
            retry_after_ms=None if retry_after is None else max(0, round(retry_after * 1000)),
            permanent=permanent,
            upstream_code=upstream_code,
            param=param,
            usage=usage,
            observations=list(observations),
            upstream_ms=upstream_ms,
        )


LoadCause = Literal["weights", "kv", "runtime", "bad_file", "driver", "hung"]


class LoadFailed(Exception):
    """Raise it from :meth:`Provider.start` when the model cannot be loaded: the daemon is told why, and the process
    ends.

    Args:
        cause: ``weights`` or ``kv`` (no memory for them), ``bad_file``, ``driver``, ``hung``, or ``runtime``.
        message: one sentence for people.
    """

    def __init__(self, cause: LoadCause, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(cause=cause, message=message)


class Result:
    """The final answer. ``body``: the OpenAI answer (bytes as they came, or a dict); None after a stream.

    ``usage``: None when the provider did not say (absent is not zero).
    """

    __slots__ = ("body", "details", "first_byte_ms", "observations", "upstream_ms", "usage")

    def __init__(
        self,
        body: bytes | Mapping[str, Any] | None = None,
        *,
        usage: Usage | None = None,
        observations: Sequence[Observation] = (),
        upstream_ms: float | None = None,
        first_byte_ms: float | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        self.body = body
        self.usage = usage
        self.observations = observations
        self.upstream_ms = upstream_ms
        self.first_byte_ms = first_byte_ms
        self.details = details


class Request:
    """One call. ``raw`` is the OpenAI request body, ``model`` already the provider's own name in it."""

    __slots__ = (
        "_body",
        "_deadlines",
        "_expires",
        "_loop",
        "endpoint",
        "id",
        "model",
        "provider",
        "raw",
        "stream",
        "trace_id",
    )

    def __init__(
        self,
        *,
        id: int,
        provider: str,
        model: str,
        raw: bytes,
        stream: bool,
        endpoint: str,
        deadline: float,
        trace_id: str,
        loop: asyncio.AbstractEventLoop,
        deadlines: Deadlines | None = None,
    ) -> None:
        self.id = id
        self.provider = provider
        self.model = model
        self.raw = raw
        self.stream = stream
        self.endpoint = endpoint
        self.trace_id = trace_id
        self._body: dict[str, Any] | None = None
        self._loop = loop
        self._deadlines = deadlines or Deadlines(loop)
        self._expires = loop.time() + deadline

    @property
    def deadline(self) -> float:
        """Seconds left until the daemon gives up on this call."""
        return max(0.0, self._expires - self._loop.time())

    def within(self, seconds: float) -> Within:
        """``with request.within(5):`` raises TimeoutError in its body when that takes longer: what
        ``asyncio.timeout`` does, cheaper by 2 µs."""
        return self._deadlines.within(seconds)

    @property
    def body(self) -> dict[str, Any]:
        """``raw`` decoded, once.

        Raises:
            CallFailure: the body is not a JSON object.
        """
        if self._body is None:
            try:
                decoded = msgspec.json.decode(self.raw)
            except msgspec.DecodeError as error:
                raise CallFailure("bad_request", f"the request body is not JSON: {error}", sent="no") from None
            if not isinstance(decoded, dict):
                raise CallFailure("bad_request", "the request body is not a JSON object", sent="no")
            self._body = decoded
        return self._body

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The chat messages; a completion's ``prompt`` as one user message."""
        messages = self.body.get("messages")
        if isinstance(messages, list):
            return [message for message in messages if isinstance(message, dict)]
        prompt = self.body.get("prompt")
        if isinstance(prompt, list):
            prompt = "\n".join(part for part in prompt if isinstance(part, str))
        return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else []

    @property
    def prompt_text(self) -> str:
        """The text of the last user message (its text parts joined), or ``""``."""
        for message in reversed(self.messages):
            if message.get("role") == "user":
                return _text_of(message.get("content"))
        return ""


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(
            part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    return ""


class Host:
    """What a provider may ask of the runtime that serves it."""

    async def changed(self, provider: Provider) -> None:
        raise NotImplementedError

    def notify(self, method: str, params: msgspec.Struct) -> None:
        raise NotImplementedError


class Provider:
    """One provider name. Override what the provider can do; everything left alone answers "unsupported".

    ``state`` other than ``ready`` is told to the daemon with ``reason``: ``not_configured`` (no key), ``degraded``,
    ``retired`` (for good). Call :meth:`changed` after changing state, models or quotas.
    """

    name: str = ""
    state: State = "ready"
    reason: str = ""
    host: Host | None = None

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        self.name = name
        self.settings = settings

    async def start(self) -> None:
        """Runs once before the provider is registered: resolve keys, open clients."""

    async def stop(self) -> None:
        """Runs once, when the plugin shuts down."""

    async def models(self) -> list[ModelInfo]:
        return []

    async def quotas(self) -> list[QuotaInfo]:
        return []

    async def generate(self, request: Request, stream: Stream) -> Result | str | Mapping[str, Any]:
        """A completion: return the whole answer, or ``await stream.send(…)`` its parts and return a Result.

        A plain string becomes an OpenAI answer (chunks when the caller streams). Raise :class:`CallFailure` to fail.
        Cancelled (``asyncio.CancelledError``) when the caller has gone or the deadline has passed: let it through.
        """
        raise CallFailure("unsupported", f"provider {self.name} does not generate", sent="no")

    async def embed(self, request: Request) -> Result | Mapping[str, Any]:
        raise CallFailure("unsupported", f"provider {self.name} does not embed", sent="no")

    async def predict(self, request: Request) -> Result | Mapping[str, Any]:
        raise CallFailure("unsupported", f"provider {self.name} does not predict", sent="no")

    async def probe(self) -> ProbeResult:
        """Unmetered facts only: a probe must never cost the account anything."""
        return ProbeResult()

    async def changed(self) -> None:
        """Registers again: models, quotas or state are not what they were."""
        if self.host is not None:
            await self.host.changed(self)

    def observed(self, observations: Sequence[Observation]) -> None:
        """Reports figures the provider gave outside a call's answer."""
        from hybridd.contracts.protocol import Observed

        if self.host is not None and observations:
            self.host.notify("limits/observed", Observed(provider=self.name, observations=list(observations)))

    def log(self, level: LogLevel, message: str, **fields: Any) -> None:
        """A line in the daemon's log. Never put a key or a prompt in it."""
        from hybridd.contracts.protocol import Log

        if self.host is not None:
            self.host.notify("log", Log(level=level, message=message, fields={"provider": self.name, **fields}))

    def progress(self, operation: str, text: str = "", fraction: float | None = None) -> None:
        """A long operation: loading a model, training. ``fraction`` 0…1 when known."""
        from hybridd.contracts.protocol import Progress

        if self.host is not None:
            self.host.notify(
                "progress", Progress(operation=operation, text=text, fraction=fraction, provider=self.name)
            )


class PluginConfig(msgspec.Struct, frozen=True):
    """What ``initialize`` answered. ``providers``: settings by provider name (key references, never keys)."""

    providers: dict[str, dict[str, Any]]
    protocol_version: str
    heartbeat_seconds: float
    daemon: str = ""


class Plugin:
    """A program that serves providers; ``providers`` makes them from the configuration, sync or async."""

    def __init__(
        self,
        name: str,
        version: str = "0",
        providers: Callable[[PluginConfig], Awaitable[list[Provider]] | list[Provider]] | None = None,
        *,
        capabilities: dict[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self.capabilities = capabilities or {}
        self._providers = providers

    @classmethod
    def of(cls, provider: type[Provider]) -> Plugin:
        """One instance of ``provider`` for each configured name; with none configured, one under its own ``name``."""

        def build(config: PluginConfig) -> list[Provider]:
            named = config.providers or {provider.name or provider.__name__.lower(): {}}
            return [provider(name, settings) for name, settings in named.items()]

        return cls(provider.name or provider.__name__.lower(), getattr(provider, "version", "0"), build)

    async def build(self, config: PluginConfig) -> list[Provider]:
        if self._providers is None:
            return []
        made = self._providers(config)
        return made if isinstance(made, list) else await made
