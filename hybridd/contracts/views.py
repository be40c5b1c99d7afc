"""The shapes of the native API's answers, shared by the daemon that fills them and the clients that read them.

Times are UTC seconds since the epoch (float); money is US dollars in answers (micro-dollars inside); amounts are in
the quota's unit.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

ProviderStateName = Literal[
    "ready", "starting", "idle", "cooling", "parked", "not_configured", "disabled", "disconnected", "retired", "failed"
]


class LimitView(Struct, omit_defaults=False):
    """One quota now. ``remaining`` is what may still be admitted (never below zero); ``reset`` is when capacity next
    returns; ``drift`` is the provider's figure of used minus ours (positive: something else spends this account)."""

    key: str
    provider: str
    account: str
    unit: str
    window: str
    limit: float
    used: float
    reserved: float
    remaining: float
    buffer: float
    reset: float | None
    source: str
    models: list[str] | None = None
    drift: float | None = None
    observed_remaining: float | None = None
    observed_at: float | None = None
    debt: float = 0.0
    forecast: Forecast | None = None
    zone: str = "UTC"


class Forecast(Struct):
    """When the quota runs out at the recent pace: point and 80 % interval (UTC seconds); None: not before its reset."""

    exhausted_at: float | None
    earliest: float | None
    latest: float | None
    per_second: float


class Rejected(Struct):
    """Why one candidate was passed over. ``code`` is stable: disabled, not_configured, disconnected, retired, cooling,
    parked, rate_limited, quota, context, no_price, unknown_model, unsupported, recovering, storage_failed, failed, or
    the code of the error a call to it ended with."""

    candidate: str
    reason: str
    code: str
    retry_after: float | None = None


class ModelChoice(Struct):
    task: str | None
    chosen_model: str | None
    provider: str | None
    reason: str
    rejected: list[Rejected]
    candidates: list[str]
    defaults: dict[str, Any] = {}


class AttemptView(Struct):
    """One dispatched call of a request."""

    call_id: int
    candidate: str
    state: str
    started: float
    duration_ms: float
    error: str | None = None
    error_code: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float = 0.0


class RequestView(Struct):
    """One recorded request; ``choice``, ``calls`` and ``score`` (the last it was given, -1 to 1) only when one is asked
    for by id. ``fell_back``: in a list, why the last candidate that was passed over did not answer."""

    id: str
    at: float
    task: str | None
    requested: str
    provider: str | None
    model: str | None
    status: int
    error_code: str | None
    stream: bool
    cache: str
    attempts: int
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float
    latency_ms: float
    first_token_ms: float | None
    overhead_ms: float | None
    tier: str | None = None
    client: str | None = None
    choice: ModelChoice | None = None
    calls: list[AttemptView] | None = None
    fell_back: str | None = None
    score: float | None = None


class AlertView(Struct):
    id: int
    key: str
    name: str
    severity: Literal["info", "warning", "critical"]
    state: Literal["open", "acknowledged", "silenced", "resolved"]
    message: str
    opened_at: float
    updated_at: float
    count: int
    provider: str | None = None
    resolved_at: float | None = None
    silenced_until: float | None = None
    data: dict[str, Any] = {}


class ModelView(Struct):
    """``state`` other than ready (cooling): this model rests until ``until`` (UTC seconds), because of ``reason``."""

    id: str
    context: int | None = None
    tasks: list[str] = []
    price: dict[str, Any] | None = None
    shutdown_date: str | None = None
    state: str = "ready"
    reason: str = ""
    until: float | None = None


class ProviderView(Struct):
    name: str
    plugin: str
    state: ProviderStateName
    reason: str
    models: list[ModelView]
    account: str
    since: float
    until: float | None = None
    in_flight: int = 0


class PluginView(Struct):
    name: str
    state: str
    pid: int | None
    restarts: int
    providers: list[str]
    since: float
    version: str | None = None
    reason: str = ""
    stderr: list[str] = []


LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
"""Levels of the log and how bad they are, as numbers of the standard library."""


class LogView(Struct):
    """One record of the daemon's log, without keys. ``id`` grows with each, over restarts too; ``component``: who says
    it (``hybridd.plugin.groq``: what the plugin groq said or wrote to standard error). ``provider``, ``model`` and
    ``request`` (an id of ``/v1/requests``) where the record names them; ``exception``: the trace, without local
    variables; ``cut``: the record was too long, texts of it are shortened."""

    id: int
    at: float
    level: Literal["debug", "info", "warning", "error", "critical"]
    component: str
    message: str
    provider: str | None = None
    model: str | None = None
    request: str | None = None
    fields: dict[str, Any] = {}
    exception: str | None = None
    cut: bool = False


class LogPage(Struct):
    """``logs``: newest first; ``next``: pass it as ``before`` for the following page, None: there is none. ``level``:
    records below it are not written at all. Of the daemon's run ``kept`` records are held, from the one with the id
    ``first``, of ``oldest`` (UTC seconds), on; ``lost`` had to make room for newer ones."""

    logs: list[LogView]
    next: int | None
    level: str
    kept: int
    lost: int
    first: int | None
    oldest: float | None
