"""The plugin protocol: JSON-RPC 2.0 over WebSocket (or NDJSON behind the bridge).

Field names are camelCase on the wire. Unknown fields are ignored by both sides. Every method names its parameter
and result type in :data:`METHODS`; JSON Schemas are generated from these definitions
(``hybridd plugin schema``).

Plugin → daemon: ``initialize`` (request), ``provider/register`` (request), ``stream/chunk``, ``limits/observed``,
``log``, ``progress`` (notifications).
Daemon → plugin: ``generate``, ``embed``, ``predict``, ``probe``, ``shutdown``, ``ping`` (requests),
``cancel``, ``stream/credit`` (notifications).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from hybridd.contracts.quotas import QuotaSource, Unit

PROTOCOL_VERSIONS = ("1",)
INITIALIZE_SECONDS = 5.0
HEARTBEAT_SECONDS = 5.0
MAX_MESSAGE_BYTES = 40 * 1024 * 1024
DEFAULT_CREDIT_BYTES = 256 * 1024
TOKEN_VARIABLE = "HYBRIDD_PLUGIN_TOKEN"  # noqa: S105  # the name of an environment variable, not a secret
HELD_VARIABLE = "HYBRIDD_PLUGIN_HELD"
"""Set for a process that is started before its turn: it connects once a byte comes on its standard input."""

Sent = Literal["no", "maybe", "yes"]
# What went wrong, from the router's point of view. `rate_limited`, `unavailable`, `timeout`, `overloaded` may work
# elsewhere or later; `auth`, `payment`, `forbidden` park the provider; `gone` is a tombstone; `bad_request`,
# `too_large`, `not_found` are the caller's or the model's; `cancelled` answers a cancel.
ErrorKind = Literal[
    "bad_request", "auth", "payment", "forbidden", "not_found", "timeout", "conflict", "gone", "too_large",
    "rate_limited", "unavailable", "overloaded", "bad_response", "unsupported", "cancelled", "internal",
]  # fmt: skip

# JSON-RPC error codes: the standard ones, and ours.
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
UNSUPPORTED_VERSION = -32001
NOT_INITIALIZED = -32002
NAME_TAKEN = -32003
BAD_TOKEN = -32004
CALL_FAILED = -32010

# Beyond these a figure is no figure: integers that every JSON reader takes exactly, tokens and dollars of one call.
Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Tokens = Annotated[int, Meta(ge=0, le=1_000_000_000)]


class Message(Struct, rename="camel", omit_defaults=True):
    """Base of every wire type."""


class RpcError(Message):
    code: int
    message: str
    data: Raw | UnsetType = UNSET


class Envelope(Struct, omit_defaults=True):
    """Any JSON-RPC message; which one it is follows from the members present."""

    jsonrpc: str = ""
    id: int | str | None = None
    method: str | None = None
    params: Raw = Raw(b"")
    result: Raw = Raw(b"")
    error: RpcError | None = None


class PluginInfo(Message):
    name: str
    version: str = "0"


class Initialize(Message):
    protocol_versions: list[str]
    plugin: PluginInfo
    instance_id: Annotated[str, Meta(min_length=1, max_length=128)]
    token: str | None = None
    capabilities: dict[str, Any] = {}


class InitializeResult(Message):
    """``providers``: settings of each provider this plugin serves, by name; key *references* only, never keys."""

    protocol_version: str
    heartbeat_ms: int
    providers: dict[str, dict[str, Any]] = {}
    daemon: str = ""


class PriceInfo(Message):
    """US dollars, as published."""

    input_per_million_usd: float = 0.0
    output_per_million_usd: float = 0.0
    per_request_usd: float = 0.0
    cached_input_per_million_usd: float | None = None
    as_of: str | None = None


class ModelInfo(Message):
    """``context``: tokens, prompt and answer together. ``shutdown_date``: YYYY-MM-DD when the host announced one."""

    id: Annotated[str, Meta(min_length=1, max_length=512)]
    context: Count | None = None
    max_output: Count | None = None
    tasks: list[str] = []
    modalities: list[str] = field(default_factory=lambda: ["text"])
    methods: list[str] = field(default_factory=lambda: ["generate"])
    price: PriceInfo | None = None
    shutdown_date: str | None = None
    details: dict[str, Any] = {}


class QuotaInfo(Message):
    """A limit the plugin knows. ``limit`` in the unit; ``usd`` in dollars. ``window`` as in the configuration."""

    unit: Unit
    limit: float
    window: str | None = None
    buffer: float = 0
    models: list[str] | None = None
    zone: str = "UTC"
    counted: Literal["end", "arrival"] = "end"


class Failure(Message):
    """Why a model could not be loaded: its weights, its KV cache, the runtime, its file, the GPU's driver, or no sign
    of life."""

    cause: Literal["weights", "kv", "runtime", "bad_file", "driver", "hung"]
    message: str


class Register(Message):
    """Idempotent by instance: registering again replaces models and quotas. ``failure``: the provider could not start
    at all and the process is about to end."""

    provider: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    models: list[ModelInfo] = []
    quotas: list[QuotaInfo] = []
    state: Literal["ready", "not_configured", "degraded", "retired"] = "ready"
    reason: str = ""
    failure: Failure | None = None


class Observation(Message):
    """What a provider says about one of its limits. ``window`` empty: unknown. ``call``: the id of the call whose
    answer carried the figure (absent for probes). ``reset_ms``: milliseconds from now until it resets."""

    unit: Unit
    remaining: float | None = None
    limit: float | None = None
    window: str | None = None
    reset_ms: Count | None = None
    models: list[str] | None = None
    source: QuotaSource = "header"


class Observed(Message):
    """``limits/observed``: figures that did not arrive with a call's answer."""

    provider: str
    observations: list[Observation]


class Usage(Message):
    """Absent is not zero: leave the whole object out when the upstream did not say (bytes: leave the figure out)."""

    input_tokens: Tokens
    output_tokens: Tokens
    cached_input_tokens: Tokens = 0
    bytes_down: Count | None = None
    bytes_up: Count | None = None
    usd: Annotated[float, Meta(ge=0, le=1_000_000)] | None = None


class Generate(Message):
    """``body``: the OpenAI request, ``model`` already the provider's own name for it, ``stream`` set as wanted."""

    provider: str
    model: str
    body: Raw
    stream: bool = False
    endpoint: Literal["chat", "completion"] = "chat"
    deadline_ms: int = 60_000
    trace_id: str = ""
    credit: int = DEFAULT_CREDIT_BYTES


class Embed(Message):
    provider: str
    model: str
    body: Raw
    deadline_ms: int = 60_000
    trace_id: str = ""


class Predict(Message):
    provider: str
    model: str
    body: Raw
    deadline_ms: int = 60_000
    trace_id: str = ""


class Probe(Message):
    """Asks for unmetered facts only: never costs the account anything."""

    provider: str
    deadline_ms: int = 5_000


class ProbeResult(Message):
    ok: bool = True
    reason: str = ""
    observations: list[Observation] = []
    models: list[ModelInfo] | None = None
    details: dict[str, Any] = {}


class Shutdown(Message):
    grace_ms: int = 5_000


class Ping(Message):
    pass


class Cancel(Message):
    id: int
    reason: str = "client gone"


class Credit(Message):
    """``stream/credit``: the daemon has passed on that many bytes; the plugin may send as many more."""

    id: int
    bytes: Count


class Chunk(Message):
    """``stream/chunk``: OpenAI chunk objects. The first event of a stream is flushed alone; later frames carry all the
    events of one upstream read."""

    id: int
    seq: Count
    events: list[Raw]


class CallResult(Message):
    """The one final answer of ``generate``, ``embed`` or ``predict``. ``body``: the whole OpenAI answer when not
    streaming (absent after a stream). ``upstream_ms``: time spent waiting for the provider."""

    body: Raw | UnsetType = UNSET
    usage: Usage | None = None
    observations: list[Observation] = []
    upstream_ms: float | None = None
    first_byte_ms: float | None = None
    details: dict[str, Any] = {}


class CallError(Message):
    """``error.data`` of a failed call. ``sent``: did the request reach the provider? ``status``: the upstream's HTTP
    status. ``retry_after_ms``: its hint. ``permanent``: a retirement, never to be tried again."""

    kind: ErrorKind
    sent: Sent = "maybe"
    status: int | None = None
    retry_after_ms: Count | None = None
    permanent: bool = False
    upstream_code: str | None = None
    param: str | None = None
    usage: Usage | None = None
    observations: list[Observation] = []
    upstream_ms: float | None = None


class Log(Message):
    level: Literal["debug", "info", "warning", "error"]
    message: str
    fields: dict[str, Any] = {}


class Progress(Message):
    """A long operation of the plugin: ``fraction`` 0…1 when known."""

    operation: str
    text: str = ""
    fraction: float | None = None
    provider: str | None = None


# method → (sender, parameters, result or None for a notification)
METHODS: dict[str, tuple[Literal["plugin", "daemon"], type[Message], type[Message] | None]] = {
    "initialize": ("plugin", Initialize, InitializeResult),
    "provider/register": ("plugin", Register, Ping),
    "stream/chunk": ("plugin", Chunk, None),
    "limits/observed": ("plugin", Observed, None),
    "log": ("plugin", Log, None),
    "progress": ("plugin", Progress, None),
    "generate": ("daemon", Generate, CallResult),
    "embed": ("daemon", Embed, CallResult),
    "predict": ("daemon", Predict, CallResult),
    "probe": ("daemon", Probe, ProbeResult),
    "shutdown": ("daemon", Shutdown, Ping),
    "ping": ("daemon", Ping, Ping),
    "cancel": ("daemon", Cancel, None),
    "stream/credit": ("daemon", Credit, None),
}

encode = msgspec.json.Encoder().encode
