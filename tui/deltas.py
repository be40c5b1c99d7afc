"""The events of the stream and of recordings, taken in by the house: :func:`apply`.

Every delta holds the whole state of one thing, so applying one twice, or one that a snapshot already contained, changes
nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from hybridd.contracts.views import AlertView, LimitView, LogView, PluginView, ProviderView
from hybridd.i18n import _
from tui import topics
from tui.answers import ANSWERS
from tui.events import Event
from tui.house import BURN_POINTS, BURN_SECONDS, RESOLVED_KEPT, Change, House
from tui.shapes import Connection, Cost, Host, Job, Request, Status


def apply(house: House, event: Event) -> Change:
    """Takes one event in; returns the topics that changed.

    An event of a kind or a shape that this version does not know changes nothing and is counted in ``misread``.
    """
    handler = HANDLERS.get(event.kind)
    if handler is None:
        house.misread += 1
        return set()
    if event.kind in DELTAS:
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
    house.logs.begin()
    house.seq = event.seq
    for view in limits:
        _burn(house, view, event.at)
    return {
        topics.STATUS, topics.PROVIDERS, topics.PLUGINS, topics.LIMITS, topics.ALERTS, topics.HOST, topics.LOGS,
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
    hit = request.cache == "hit"
    house.rates.add(event.at, request.latency_ms, hit=hit, local_tokens=local, silent_ms=request.silent_ms)
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


def _log(house: House, event: Event) -> Change:
    if "left_out" in event.data:
        house.logs.gap(int(event.data["last"]), int(event.data["left_out"]))
    else:
        house.logs.take(msgspec.convert(event.data, LogView))
    return {topics.LOGS}


def _dropped(house: House, event: Event) -> Change:
    house.connection.reason = str(event.data.get("reason") or _("the daemon ended the stream"))
    return {topics.CONNECTION}


def _connection(house: House, event: Event) -> Change:
    house.connection = msgspec.convert(event.data, Connection)
    return {topics.CONNECTION}


def _answer(house: House, event: Event) -> Change:
    handler = ANSWERS.get(event.data["name"])
    return handler(house, event.data["body"]) if handler is not None else set()


HANDLERS: dict[str, Callable[[House, Event], Change]] = {
    "snapshot": _snapshot,
    "provider": _provider,
    "quota": _quota,
    "request": _request,
    "alert": _alert,
    "plugin": _plugin,
    "host": _host,
    "job": _job,
    "log": _log,
    "dropped": _dropped,
    "connection": _connection,
    "answer": _answer,
}
DELTAS = frozenset({"provider", "quota", "request", "alert", "plugin", "host", "job", "log"})
