"""The native routes: what hybridd knows, as JSON. Handlers translate; the work is in the services."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from hybridd._version import __version__
from hybridd.api import local, local_removal, logbook
from hybridd.api.endpoints import Call, Endpoint, Table
from hybridd.api.snapshot import Status, status
from hybridd.contracts import ids
from hybridd.contracts.validation import check_max_tokens, check_question, check_tier
from hybridd.contracts.views import AlertView, LimitView, ModelChoice, PluginView, RequestView
from hybridd.contracts.when import parse_when
from hybridd.errors import HybriddError, InvalidRequest, NotFound
from hybridd.routing.request import parse
from hybridd.store.queries import feedback as feedback_queries
from hybridd.store.queries import report as report_queries
from hybridd.store.queries import requests as request_queries
from hybridd.store.queries import samples as sample_queries


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    """Parameters and bodies: unknown fields are refused."""


# -- operations -------------------------------------------------------------------------------------------------------


class Health(msgspec.Struct):
    status: str
    version: str


async def health(call: Call) -> Health:
    return Health("ok", __version__)


async def ready(call: Call) -> Health:
    is_ready, state = call.services.ready()
    if not is_ready:
        raise HybriddError(f"hybridd is {state}.", code="not_ready", status=503, retry_after=1.0)
    failed = call.services.database.writer.failed
    if failed is not None:
        raise HybriddError(f"The disk refuses writes: {failed}.", code="storage_failed", status=503, retry_after=5.0)
    return Health(state, __version__)


async def get_status(call: Call) -> Status:
    return await status(call.services)


# -- limits and decisions ---------------------------------------------------------------------------------------------


class LimitsQuery(Strict):
    """``provider`` keeps one provider's limits."""

    provider: str | None = None


class Limits(msgspec.Struct):
    limits: list[LimitView]


async def limits(call: Call) -> Limits:
    provider = call.query.provider
    if provider is not None and provider not in call.services.router.resolved.providers:
        raise NotFound(f"There is no provider '{provider}'.", param="provider", code="provider_not_found")
    return Limits([view for view in call.services.ledger.limits() if provider in (None, view.provider)])


class RouteQuery(Strict):
    """What would be asked. ``prompt`` (at least 3 characters when given) is only measured and classified."""

    task: str | None = None
    model: str | None = None
    prompt: str | None = None
    max_tokens: int | None = None
    user: str | None = None
    tier: str | None = None


class EstimateView(msgspec.Struct):
    """What the chosen call would reserve; money in US dollars."""

    input_tokens: int
    output_tokens: int
    cost_usd: float


class Route(ModelChoice):
    estimate: EstimateView | None = None


async def route(call: Call) -> Route:
    asked: RouteQuery = call.query or call.body
    if asked.prompt is not None:
        check_question(asked.prompt)
    if asked.max_tokens is not None:
        check_max_tokens(asked.max_tokens)
    if asked.tier is not None:
        check_tier(asked.tier)
    if asked.model is not None and asked.task is not None and asked.model != "auto":
        raise InvalidRequest("'model' and 'task' exclude each other.", param="model")
    body: dict[str, Any] = {
        "model": f"task:{asked.task}" if asked.task else asked.model or "auto",
        "messages": [{"role": "user", "content": asked.prompt or ""}],
    }
    if asked.max_tokens is not None:
        body["max_tokens"] = asked.max_tokens
    request = parse("chat", body, {b"x-hybridd-user": asked.user, b"x-hybridd-tier": asked.tier}.get)
    await call.services.router.candidates(request)  # as a call would: with a look for a file that was just put there
    choice, chosen = call.services.router.explain(request)
    estimate = None
    if chosen is not None:
        amounts = chosen.estimate.amounts
        estimate = EstimateView(amounts.input_tokens, amounts.output_tokens, amounts.usd_micro / 1e6)
    return Route(**msgspec.structs.asdict(choice), estimate=estimate)


# -- records ----------------------------------------------------------------------------------------------------------


class RequestsQuery(Strict):
    """Times: ``7d`` (ago), UTC seconds or ISO. ``status``: a number, ``4xx``, ``5xx``, ``ok`` or ``failed``.
    ``sort``: a field, ``-`` in front for descending. ``cursor``: ``next`` of the page before."""

    provider: str | None = None
    model: str | None = None
    task: str | None = None
    status: str | None = None
    since: str | None = None
    until: str | None = None
    q: str | None = None
    sort: str = "-id"
    limit: int = 50
    cursor: str | None = None


async def requests(call: Call) -> request_queries.RequestPage:
    given = msgspec.structs.asdict(call.query)
    given["since"], given["until"] = _period(call)
    return await call.services.database.reader.run(request_queries.page, request_queries.RequestFilter(**given))


async def request(call: Call) -> RequestView:
    view = await call.services.database.reader.run(request_queries.one, _request_id(call.id, "id"))
    if view is None:
        raise NotFound(f"There is no request '{call.id}'.", param="id", code="request_not_found")
    return view


class HistoryQuery(Strict):
    """Without ``series`` the names of all series are listed. ``step`` is seconds."""

    series: str | None = None
    since: str | None = None
    until: str | None = None
    step: float | None = None


class History(msgspec.Struct):
    """``points``: ``[UTC seconds, mean]``, one for each step that has data."""

    series: str | None = None
    since: float | None = None
    until: float | None = None
    step: float | None = None
    points: list[list[float]] = []
    names: list[str] = []


async def history(call: Call) -> History:
    reader = call.services.database.reader
    if call.query.series is None:
        return History(names=await reader.run(sample_queries.names))
    since, until = _period(call)
    now = _now(call)
    return History(
        **await reader.run(sample_queries.history, call.query.series, since, until, call.query.step, now=now)
    )


class ReportParameters(Strict):
    """``group_by``: any of provider, model, task, client, day, hour, separated by commas."""

    group_by: str = "provider,model"
    since: str | None = None
    until: str | None = None
    provider: str | None = None
    model: str | None = None
    task: str | None = None


class UsageParameters(Strict):
    since: str | None = None
    until: str | None = None
    provider: str | None = None
    model: str | None = None
    task: str | None = None


async def report(call: Call) -> dict[str, Any]:
    groups = tuple(filter(None, call.query.group_by.split(",")))
    return await call.services.database.reader.run(report_queries.report, _report_query(call, groups), _now(call))


async def usage(call: Call) -> dict[str, Any]:
    return await call.services.database.reader.run(report_queries.usage, _report_query(call, ()), _now(call))


def _report_query(call: Call, groups: tuple[Any, ...]) -> report_queries.ReportQuery:
    since, until = _period(call)
    query = call.query
    return report_queries.ReportQuery(
        group_by=groups, since=since, until=until, provider=query.provider, model=query.model, task=query.task
    )


# -- alerts -----------------------------------------------------------------------------------------------------------


class AlertsQuery(Strict):
    """``state``: live (not resolved), open, acknowledged, silenced, resolved; absent: all. Newest first."""

    state: str | None = None
    limit: int = 100
    before: int | None = None


class AlertsAnswer(msgspec.Struct):
    alerts: list[AlertView]


class Silence(Strict):
    """``seconds`` from now; 0 ends the silence."""

    seconds: float
    reason: str = ""


class Nothing(Strict):
    """No fields."""


async def alerts(call: Call) -> AlertsAnswer:
    query = call.query
    if query.before is not None and not 1 <= query.before < 2**63:
        raise InvalidRequest(f"'before' is the number of an alert, not {query.before}.", param="before")
    return AlertsAnswer(
        await call.services.monitor.list_alerts(state=query.state, limit=query.limit, before_id=query.before)
    )


async def acknowledge(call: Call) -> AlertView:
    return await call.services.monitor.ack(_alert_id(call))


async def silence(call: Call) -> AlertView:
    seconds = call.body.seconds
    if not 0 <= seconds <= 366 * 86_400:
        raise InvalidRequest("'seconds' must be between 0 and a year.", param="seconds")
    return await call.services.monitor.silence(_alert_id(call), _now(call) + seconds, reason=call.body.reason)


# -- plugins, feedback, reload ----------------------------------------------------------------------------------------


class Plugins(msgspec.Struct):
    plugins: list[PluginView]


async def plugins(call: Call) -> Plugins:
    return Plugins(call.services.hub.plugin_views())


class Feedback(Strict):
    """``score`` from -1 (wrong) to 1 (perfect)."""

    request_id: str
    score: float
    subject: str | None = None
    comment: str | None = None


class FeedbackStored(msgspec.Struct):
    id: int
    request_id: str


async def feedback(call: Call) -> FeedbackStored:
    given: Feedback = call.body
    if not -1 <= given.score <= 1:
        raise InvalidRequest(f"'score' must be between -1 and 1, not {given.score:g}.", param="score")
    for name in ("subject", "comment"):
        if len(getattr(given, name) or "") > 10_000:
            raise InvalidRequest(f"'{name}' must not be longer than 10,000 characters.", param=name)
    request_id = _request_id(given.request_id, "request_id")
    database = call.services.database
    if await database.reader.run(request_queries.one, request_id) is None:
        raise NotFound(f"There is no request '{given.request_id}'.", param="request_id", code="request_not_found")
    at = _now(call)

    def store(connection: sqlite3.Connection) -> int:
        return feedback_queries.add(
            connection,
            at=at,
            score=given.score,
            request_id=request_id,
            subject=given.subject,
            comment=given.comment,
        )

    return FeedbackStored(await database.writer.call(store), given.request_id)


async def reload(call: Call) -> dict[str, Any]:
    return dict(await call.services.reload())


# -- helpers ----------------------------------------------------------------------------------------------------------


def _now(call: Call) -> float:
    return call.services.clock.wall_ns() / 1e9


def _period(call: Call) -> tuple[float | None, float | None]:
    found: list[float | None] = []
    for name in ("since", "until"):
        text = getattr(call.query, name)
        try:
            found.append(parse_when(text, _now(call)) if text is not None else None)
        except (ValueError, OverflowError) as error:
            raise InvalidRequest(f"'{name}': {error}.", param=name) from None
    return found[0], found[1]


def _request_id(text: str, param: str) -> int:
    try:
        return ids.decode(text)
    except ValueError as error:
        raise InvalidRequest(f"{error}.", param=param) from None


def _alert_id(call: Call) -> int:
    if not call.id.isascii() or not call.id.isdigit() or len(call.id) > 18:
        raise InvalidRequest(f"'{call.id}' is not the number of an alert.", param="id")
    return int(call.id)


TABLE = Table(
    [
        Endpoint("GET", "/health", "The process answers", health, Health),
        Endpoint("GET", "/ready", "Calls are taken; 503 while starting, stopping or on disk errors", ready, Health),
        Endpoint("GET", "/v1/status", "Everything at a glance", get_status, Status),
        Endpoint("GET", "/v1/limits", "Every quota now, with its forecast", limits, Limits, query=LimitsQuery),
        Endpoint("GET", "/v1/route", "Who would answer, and why; calls nothing", route, Route, query=RouteQuery),
        Endpoint("POST", "/v1/route", "The same, for long prompts", route, Route, body=RouteQuery),
        Endpoint(
            "GET",
            "/v1/requests",
            "Recorded requests, paged, filtered, sorted",
            requests,
            request_queries.RequestPage,
            query=RequestsQuery,
        ),
        Endpoint("GET", "/v1/requests/{id}", "One request with its decision and its calls", request, RequestView),
        Endpoint("GET", "/v1/history", "A series of samples", history, History, query=HistoryQuery),
        Endpoint("GET", "/v1/usage", "Totals of a period", usage, dict[str, Any], query=UsageParameters),
        Endpoint("GET", "/v1/report", "Usage, cost and trend", report, dict[str, Any], query=ReportParameters),
        Endpoint("GET", "/v1/alerts", "Alerts, newest first", alerts, AlertsAnswer, query=AlertsQuery),
        Endpoint("POST", "/v1/alerts/{id}/ack", "Acknowledge an alert", acknowledge, AlertView, body=Nothing),
        Endpoint("POST", "/v1/alerts/{id}/silence", "Silence an alert for a time", silence, AlertView, body=Silence),
        Endpoint("GET", "/v1/plugins", "Plugin processes and connections", plugins, Plugins),
        Endpoint("POST", "/v1/feedback", "Score an answer", feedback, FeedbackStored, body=Feedback),
        Endpoint("POST", "/v1/reload", "Read the configuration again", reload, dict[str, Any], body=Nothing),
        *logbook.ENDPOINTS,
        *local.ENDPOINTS,
        *local_removal.ENDPOINTS,
    ]
)
