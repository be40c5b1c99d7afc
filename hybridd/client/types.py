"""What the client returns: plain dictionaries with documented members.

Times are UTC seconds since the epoch, money is US dollars, amounts are in the limit's unit.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

Message = dict[str, Any]
"""One OpenAI chat message, ``{"role": …, "content": …}``."""


class Rejected(TypedDict):
    """One candidate that was passed over. ``code`` is stable and meant for programs."""

    candidate: str
    reason: str
    code: NotRequired[str]
    retry_after: NotRequired[float | None]


class ModelChoice(TypedDict):
    """Which model answers, and why. ``chosen_model`` and ``provider`` are None when no candidate can."""

    task: str | None
    chosen_model: str | None
    provider: str | None
    reason: str
    rejected: list[Rejected]
    candidates: NotRequired[list[str]]
    defaults: NotRequired[dict[str, Any]]
    estimate: NotRequired[dict[str, Any]]


class Usage(TypedDict):
    """None: the provider did not say."""

    input_tokens: int | None
    output_tokens: int | None


class CallResult(TypedDict):
    """One routed call. ``cache`` is ``hit``, ``miss`` or ``off``."""

    response: str
    model_choice: ModelChoice
    usage: Usage
    cost_usd: float
    latency_ms: float
    request_id: str
    cache: str


class Limit(TypedDict):
    """One limit. ``remaining`` is what may still be used (the buffer already taken off); ``reset`` is when capacity
    next returns; ``drift`` is how much more the provider has counted than we have."""

    limit: float | None
    used: float | None
    reserved: float | None
    remaining: float | None
    buffer: float | None
    reset: float | None
    source: str | None
    drift: float | None
    key: NotRequired[str]
    provider: NotRequired[str]
    account: NotRequired[str]
    unit: NotRequired[str]
    window: NotRequired[str]
    zone: NotRequired[str]
    models: NotRequired[list[str] | None]
    observed_remaining: NotRequired[float | None]
    observed_at: NotRequired[float | None]
    debt: NotRequired[float]
    forecast: NotRequired[dict[str, Any] | None]


class GithubLimits(TypedDict):
    """The GitHub account's hourly requests, as whole numbers; None when the daemon does not know such a limit."""

    limit: int | None
    used: int | None
    reserved: int | None
    remaining: int | None
    buffer: int | None
    reset: float | None
    source: str | None
    drift: int | None


class Status(TypedDict):
    version: str
    pid: int
    uptime_s: float
    state: str
    socket: str
    database: str
    config: str | None
    storage: str | None
    providers: list[dict[str, Any]]
    plugins: list[dict[str, Any]]
    in_flight: int
    waiting: int
    alerts_open: int
    host: dict[str, Any]


class RequestPage(TypedDict):
    """``next`` is the cursor of the following page, None on the last one."""

    requests: list[dict[str, Any]]
    next: str | None


class Report(TypedDict):
    rows: list[dict[str, Any]]
    total: dict[str, Any]
    trend: dict[str, Any]


class History(TypedDict):
    """``points`` are ``[time, value]`` pairs, oldest first."""

    series: str | None
    points: list[list[float]]
    names: NotRequired[list[str]]


Goal = Literal["quality", "context", "throughput"]


class LocalModel(TypedDict):
    """One model file. ``state``: unloaded, loading, ready, draining or failed, and then ``reason`` says why;
    ``context``: tokens of one request, as loaded or at most; ``keep_alive``: seconds it stays after a call, None: for
    ever."""

    id: str
    path: str
    state: str
    bytes: int
    architecture: str
    quantization: str
    kind: str
    parameters: int
    layers: int
    trained_context: int
    context: int | None
    keep_alive: float | None
    reason: str


class Resident(TypedDict):
    """One loaded (or loading) model. ``memory`` in bytes by side and part, ``measured`` or as planned; ``leaves_in``:
    seconds until it is unloaded, None: it stays, or is busy; ``tokens_per_second``: of all its calls together, None: it
    answers nobody."""

    model: str
    state: str
    pid: int | None
    since: float
    in_flight: int
    plan: dict[str, Any]
    options: dict[str, Any] | None
    memory: dict[str, dict[str, int]]
    measured: bool
    loaded: dict[str, Any]
    load_seconds: float
    idle_seconds: float
    leaves_in: float | None
    fraction: float | None
    tokens_per_second: float | None


class LocalModelDetails(TypedDict):
    """``facts``: what its header says, None when it says nothing; ``plan``: how it would be loaded now, or is."""

    model: LocalModel
    facts: dict[str, Any] | None
    plan: dict[str, Any] | None
    resident: Resident | None


class Job(TypedDict):
    """A download or a measurement. ``state``: running, done, failed or cancelled; ``progress``: its last word about
    itself, of a download ``{state, file, done, total, bytes_per_second}`` in bytes."""

    id: str
    kind: Literal["pull", "bench"]
    request: dict[str, Any]
    state: Literal["running", "done", "failed", "cancelled"]
    started: float
    ended: float | None
    progress: dict[str, Any]
    result: Any
    error: dict[str, Any] | None
    downloaded: int | None
    stderr: list[str]


class LogRecord(TypedDict):
    """One record of the daemon's log. ``id`` grows with each; ``component``: who says it; ``provider``, ``model`` and
    ``request`` where it names them; ``cut``: it was too long, texts of it are shortened."""

    id: int
    at: float
    level: Literal["debug", "info", "warning", "error", "critical"]
    component: str
    message: str
    provider: str | None
    model: str | None
    request: str | None
    fields: dict[str, Any]
    exception: str | None
    cut: bool


class LogPage(TypedDict):
    """``logs``: newest first; ``next``: pass it as ``before`` for the following page. ``level``: less is not written;
    ``kept``: records in memory since the daemon's start, ``lost``: those that had to make room for newer ones."""

    logs: list[LogRecord]
    next: int | None
    level: str
    kept: int
    lost: int
    first: int | None
    oldest: float | None


class Event(TypedDict):
    seq: int
    at: float
    kind: Literal["snapshot", "provider", "quota", "request", "alert", "plugin", "host", "job", "log", "dropped"]
    data: Any
