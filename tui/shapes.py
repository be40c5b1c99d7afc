"""The shapes of single things the dashboard knows, as the daemon's answers have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec


class Status(msgspec.Struct):
    """The daemon itself; the rest of its snapshot stands in the other members of :class:`House`."""

    version: str = ""
    pid: int = 0
    uptime_s: float = 0.0
    state: str = ""
    socket: str = ""
    database: str = ""
    config: str | None = None
    in_flight: int = 0
    waiting: int = 0
    storage: str | None = None


class Request(msgspec.Struct):
    """One finished request. ``fell_back``: why the first candidate did not answer."""

    id: str
    at: float
    requested: str = ""
    status: int = 0
    task: str | None = None
    provider: str | None = None
    model: str | None = None
    error_code: str | None = None
    stream: bool = False
    cache: str = "off"
    attempts: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float = 0.0
    latency_ms: float = 0.0
    first_token_ms: float | None = None
    overhead_ms: float | None = None
    fell_back: str | None = None
    tier: str | None = None
    client: str | None = None

    @property
    def silent_ms(self) -> float:
        """How long it took until the answer began to be written, as far as that was seen: until its first token when
        it was streamed, else hybridd's own share, in which a local model may have been loaded."""
        return (self.first_token_ms if self.stream else self.overhead_ms) or 0.0


class Gpu(msgspec.Struct):
    index: int
    name: str
    memory_total: int
    memory_used: int
    memory_free: int
    utilization: float | None = None
    temperature: float | None = None


class Host(msgspec.Struct):
    """The last sample. Bytes, per cent; None: not sampled (``reason``)."""

    cpu_percent: float | None = None
    cpu_count: int | None = None
    memory_total: int | None = None
    memory_available: int | None = None
    daemon_rss: int | None = None
    reason: str = ""
    gpus: list[Gpu] = []
    gpu_reason: str = ""


class Resident(msgspec.Struct):
    """A loaded (or loading) local model, of ``/v1/local/resident``; ``memory`` and ``plan`` as they come."""

    model: str
    state: str
    since: float = 0.0
    in_flight: int = 0
    pid: int | None = None
    plan: dict[str, Any] | None = None
    options: dict[str, Any] | None = None
    memory: dict[str, Any] = {}
    measured: bool = False
    loaded: dict[str, Any] = {}
    load_seconds: float = 0.0
    idle_seconds: float = 0.0
    leaves_in: float | None = None
    fraction: float | None = None
    tokens_per_second: float | None = None


class LocalFile(msgspec.Struct):
    """A model of ``/v1/local/models``. ``state``: unloaded, loading, ready, draining, failed (``reason``)."""

    id: str
    state: str = "unloaded"
    path: str = ""
    bytes: int = 0
    architecture: str = ""
    quantization: str = ""
    kind: str = ""
    parameters: int = 0
    layers: int = 0
    trained_context: int = 0
    context: int | None = None
    keep_alive: float | None = None
    reason: str = ""


class Job(msgspec.Struct):
    id: str
    kind: str
    state: str
    started: float
    request: dict[str, Any] = {}
    ended: float | None = None
    progress: dict[str, Any] = {}
    result: Any = None
    error: dict[str, Any] | None = None
    downloaded: int | None = None
    stderr: list[str] = []


class Cost(msgspec.Struct):
    """US dollars and calls of one provider (``""``: all) since midnight and since the first of the month."""

    today: float = 0.0
    month: float = 0.0
    requests_today: int = 0
    requests_month: int = 0


@dataclass(slots=True)
class Connection:
    """``since``, ``retry_at``: UTC seconds. ``attempt`` counts failures in a row; ``ever``: it has been live before.

    ``replay``: events come from a recording; ``ended``: and it is over.
    """

    state: Literal["connecting", "live", "lost", "replay", "ended"] = "connecting"
    since: float = 0.0
    attempt: int = 0
    reason: str = ""
    retry_at: float | None = None
    ever: bool = False
