"""The view-models: everything a screen draws, in plain values, kept current by :func:`apply`.

The shapes are those of the daemon's answers (:mod:`hybridd.contracts.views`). Every delta holds the whole state of one
thing, so applying one twice, or one that a snapshot already contained, changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from hybridd.contracts.views import AlertView, LimitView, PluginView, ProviderView
from tui import topics
from tui.events import Event
from tui.rates import Rates
from tui.shapes import Connection, Cost, Gpu, Host, Job, LocalFile, Request, Resident, Status

__all__ = [
    "Change", "Connection", "Cost", "Gpu", "Host", "House", "Job", "LocalFile", "Request", "Resident", "Status",
    "apply", "apply_all",
]  # fmt: skip

REQUESTS_KEPT = 5000
RESOLVED_KEPT = 200


@dataclass(slots=True)
class House:
    """Everything known. ``now``: UTC seconds, the clock's last tick or the newest event; ``seen``: when the daemon last
    said anything; ``as_of``: the moment that is shown when it is not now (time travel), None: live; ``missing``: what
    is not known of that moment, a sentence.

    ``limits`` by key, ``requests`` newest last, ``alerts`` by id (live ones and the last resolved), ``local`` by model,
    ``costs`` by provider with ``""`` for all; ``machine``: the memory that local plans are made for;
    ``local_at``: when these were told; ``library``: local model files by id, None: not asked for yet.
    """

    status: Status = field(default_factory=Status)
    providers: dict[str, ProviderView] = field(default_factory=dict)
    limits: dict[str, LimitView] = field(default_factory=dict)
    requests: deque[Request] = field(default_factory=lambda: deque(maxlen=REQUESTS_KEPT))
    alerts: dict[int, AlertView] = field(default_factory=dict)
    plugins: dict[str, PluginView] = field(default_factory=dict)
    host: Host = field(default_factory=Host)
    local: dict[str, Resident] = field(default_factory=dict)
    local_at: float = 0.0
    machine: dict[str, Any] = field(default_factory=dict)
    folders: dict[str, Any] = field(default_factory=dict)
    library: dict[str, LocalFile] | None = None
    jobs: dict[str, Job] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)
    burn: dict[str, deque[tuple[float, float]]] = field(default_factory=dict)
    rates: Rates = field(default_factory=Rates)
    connection: Connection = field(default_factory=Connection)
    now: float = 0.0
    seen: float = 0.0
    seq: int = -1
    as_of: float | None = None
    missing: str = ""
    misread: int = 0
    request_ids: set[str] = field(default_factory=set)

    @property
    def stale(self) -> bool:
        """What is shown may no longer be so."""
        return self.connection.state not in {"live", "replay"}

    def live_alerts(self) -> list[AlertView]:
        """Not resolved; the worst first, then the newest."""
        found = [alert for alert in self.alerts.values() if alert.state != "resolved"]
        order = {"open": 0, "acknowledged": 1, "silenced": 2}
        rank = {"critical": 0, "warning": 1, "info": 2}
        return sorted(found, key=lambda one: (order.get(one.state, 3), rank.get(one.severity, 3), -one.opened_at))

    def open_alerts(self) -> int:
        return sum(alert.state == "open" for alert in self.alerts.values())


Change = set[str]


def apply(house: House, event: Event) -> Change:
    """Takes one event in; returns the topics that changed.

    An event of a kind or a shape that this version does not know changes nothing and is counted in ``misread``.
    """
    handler = _HANDLERS.get(event.kind)
    if handler is None:
        house.misread += 1
        return set()
    if event.kind in _DELTAS:
        if event.seq <= house.seq:
            return set()  # already in the snapshot, or told twice
        house.seq = event.seq
    house.now = max(house.now, event.at)
    try:
        changed = handler(house, event)
    except (msgspec.ValidationError, KeyError, TypeError, AttributeError, ValueError, OverflowError):
        house.misread += 1
        return set()
    if event.kind != "connection":
        house.seen = max(house.seen, event.at)
    return changed


def apply_all(house: House, events: Iterable[Event]) -> Change:
    changed: Change = set()
    for event in events:
        changed |= apply(house, event)
    return changed


# ---- the stream ----------------------------------------------------------------------------------------------------


def _snapshot(house: House, event: Event) -> Change:
    """Everything it holds replaces what was known; what it does not hold (requests, jobs, costs) stays."""
    data = event.data
    status = data["status"]
    providers = msgspec.convert(status["providers"], list[ProviderView])
    plugins = msgspec.convert(status["plugins"], list[PluginView])
    limits = msgspec.convert(data["limits"], list[LimitView])
    alerts = msgspec.convert(data["alerts"], list[AlertView])
    host = msgspec.convert(status.get("host") or {}, Host)
    house.status = msgspec.convert(status, Status)
    house.providers = {view.name: view for view in providers}
    house.plugins = {view.name: view for view in plugins}
    house.limits = {view.key: view for view in limits}
    house.burn = {key: points for key, points in house.burn.items() if key in house.limits}
    house.alerts = {view.id: view for view in alerts}
    house.host = host
    house.seq = event.seq
    for view in limits:
        _burn(house, view, event.at)
    return {
        topics.STATUS, topics.PROVIDERS, topics.PLUGINS, topics.LIMITS, topics.ALERTS, topics.HOST,
    }  # fmt: skip


def _provider(house: House, event: Event) -> Change:
    view = msgspec.convert(event.data["provider"], ProviderView)
    house.providers[view.name] = view
    return {topics.PROVIDERS}


def _quota(house: House, event: Event) -> Change:
    view = msgspec.convert(event.data, LimitView)
    house.limits[view.key] = view
    _burn(house, view, event.at)
    return {topics.LIMITS}


BURN_SECONDS = 60.0
BURN_POINTS = 120
BURN_SERIES = ("quota.", ".remaining")
"""What the daemon calls the series of samples of a quota."""


def _burn(house: House, view: LimitView, at: float) -> None:
    """What remained, a point for each minute at most: the newest minute's point moves until the minute is over."""
    points = house.burn.setdefault(view.key, deque(maxlen=BURN_POINTS))
    minute = at // BURN_SECONDS * BURN_SECONDS
    if points and points[-1][0] >= minute:
        points[-1] = (points[-1][0], view.remaining)
    else:
        points.append((minute, view.remaining))


def _request(house: House, event: Event) -> Change:
    request = msgspec.convert(event.data, Request)
    if request.id in house.request_ids:
        return set()
    _remember(house, request)
    local = request.output_tokens or 0 if request.provider == "local" else 0
    house.rates.add(event.at, request.latency_ms, hit=request.cache == "hit", local_tokens=local)
    changed = {topics.REQUESTS, topics.RATES}
    for name in ("", request.provider):
        if name is None or not house.costs:
            continue
        cost = house.costs.setdefault(name, Cost())
        cost.today += request.cost_usd
        cost.month += request.cost_usd
        cost.requests_today += 1
        cost.requests_month += 1
        changed.add(topics.USAGE)
    return changed


def _remember(house: House, request: Request) -> None:
    if len(house.requests) == house.requests.maxlen:
        house.request_ids.discard(house.requests[0].id)
    house.requests.append(request)
    house.request_ids.add(request.id)


def _alert(house: House, event: Event) -> Change:
    view = msgspec.convert(event.data, AlertView)
    house.alerts[view.id] = view
    resolved = sorted(number for number, one in house.alerts.items() if one.state == "resolved")
    for number in resolved[:-RESOLVED_KEPT]:
        del house.alerts[number]
    return {topics.ALERTS}


def _plugin(house: House, event: Event) -> Change:
    if event.data.get("event") == "progress":
        return _load_progress(house, event.data)
    if event.data.get("event") != "state":
        return set()  # a violation and violations of one plugin: told by its state as well
    view = msgspec.convert(event.data["plugin"], PluginView)
    if view.state == "stopped" and ":" in view.name:
        house.plugins.pop(view.name, None)  # the worker of one local model: it will not come back under this pid
    else:
        house.plugins[view.name] = view
    return {topics.PLUGINS}


def _load_progress(house: House, data: dict[str, Any]) -> Change:
    """How far the load of a local model is; that of one nobody has told of yet comes with the next answer."""
    resident = house.local.get(str(data.get("text")))
    if resident is None or data.get("operation") != "load" or resident.state != "loading":
        return set()
    fraction = msgspec.convert(data.get("fraction"), float | None)
    house.local[resident.model] = msgspec.structs.replace(resident, fraction=fraction)
    return {topics.LOCAL}


def _host(house: House, event: Event) -> Change:
    house.host = msgspec.convert(event.data, Host)
    return {topics.HOST}


def _job(house: House, event: Event) -> Change:
    job = msgspec.convert(event.data, Job)
    house.jobs[job.id] = job
    return {topics.JOBS}


def _dropped(house: House, event: Event) -> Change:
    house.connection.reason = str(event.data.get("reason") or "the daemon ended the stream")
    return {topics.CONNECTION}


def _connection(house: House, event: Event) -> Change:
    house.connection = Connection(**event.data)
    return {topics.CONNECTION}


# ---- answers to queries --------------------------------------------------------------------------------------------


def _answer(house: House, event: Event) -> Change:
    handler = _ANSWERS.get(event.data["name"])
    return handler(house, event.data["body"]) if handler is not None else set()


def _recent(house: House, body: Any) -> Change:
    """Recorded requests, newest first, put in front of and between those that came by themselves."""
    known = [one for one in msgspec.convert(body["requests"], list[Request]) if one.id not in house.request_ids]
    if not known:
        return set()
    merged = sorted([*house.requests, *known], key=lambda one: one.at)[-REQUESTS_KEPT:]
    house.requests.clear()
    house.requests.extend(merged)
    house.request_ids = {one.id for one in merged}
    return {topics.REQUESTS}


def _usage(period: Literal["today", "month"]) -> Callable[[House, Any], Change]:
    def take(house: House, body: Any) -> Change:
        rows = {"": body["total"], **{row["provider"]: row for row in body["providers"]}}
        for name in {*rows, *house.costs}:
            cost = house.costs.setdefault(name, Cost())
            row = rows.get(name) or {}
            setattr(cost, period, float(row.get("cost_usd") or 0.0))
            setattr(cost, f"requests_{period}", int(row.get("requests") or 0))
        return {topics.USAGE}

    return take


def _live_alerts(house: House, body: Any) -> Change:
    found = msgspec.convert(body["alerts"], list[AlertView])
    house.alerts = {number: one for number, one in house.alerts.items() if one.state == "resolved"}
    house.alerts |= {one.id: one for one in found}
    return {topics.ALERTS}


def _resident(house: House, body: Any) -> Change:
    house.local = {one.model: one for one in msgspec.convert(body["models"], list[Resident])}
    house.machine = dict(body.get("machine") or {})
    house.folders = dict(body.get("folders") or {})
    house.local_at = house.now
    return {topics.LOCAL}


def _library(house: House, body: Any) -> Change:
    house.library = {one.id: one for one in msgspec.convert(body["models"], list[LocalFile])}
    return {topics.LOCAL}


def _burned(house: House, body: Any) -> Change:
    """What remained of one quota before the dashboard was there, in front of what it has seen itself."""
    key = str(body["series"]).removeprefix(BURN_SERIES[0]).removesuffix(BURN_SERIES[1])
    if key not in house.limits:
        return set()
    own = house.burn.get(key) or deque()
    first = own[0][0] if own else house.now
    before = [(float(at), float(value)) for at, value in body["points"] if at < first]
    house.burn[key] = deque([*before, *own], maxlen=BURN_POINTS)
    return {topics.LIMITS}


def _jobs(house: House, body: Any) -> Change:
    house.jobs = {one.id: one for one in reversed(msgspec.convert(body["jobs"], list[Job]))}
    return {topics.JOBS}


_HANDLERS: dict[str, Callable[[House, Event], Change]] = {
    "snapshot": _snapshot,
    "provider": _provider,
    "quota": _quota,
    "request": _request,
    "alert": _alert,
    "plugin": _plugin,
    "host": _host,
    "job": _job,
    "dropped": _dropped,
    "connection": _connection,
    "answer": _answer,
}
_DELTAS = frozenset({"provider", "quota", "request", "alert", "plugin", "host", "job"})
_ANSWERS: dict[str, Callable[[House, Any], Change]] = {
    "requests": _recent,
    "today": _usage("today"),
    "month": _usage("month"),
    "alerts": _live_alerts,
    "resident": _resident,
    "library": _library,
    "jobs": _jobs,
    "burn": _burned,
}
