"""What the answer to each of :data:`tui.queries.QUERIES` does to the house."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from hybridd.contracts.views import AlertView, LogPage
from tui import topics
from tui.house import BURN_POINTS, BURN_SERIES, REQUESTS_KEPT, Change, House
from tui.shapes import Cost, Job, LocalFile, Request, Resident


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


def _logs(house: House, body: Any) -> Change:
    house.logs.page(msgspec.convert(body, LogPage))
    return {topics.LOGS}


ANSWERS: dict[str, Callable[[House, Any], Change]] = {
    "requests": _recent,
    "today": _usage("today"),
    "month": _usage("month"),
    "alerts": _live_alerts,
    "resident": _resident,
    "library": _library,
    "jobs": _jobs,
    "burn": _burned,
    "logs": _logs,
}
