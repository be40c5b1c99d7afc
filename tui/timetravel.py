"""The house as it was: the same view-models, filled from the daemon's history. Pure functions of plain values.

What the past holds: what remained of each quota, the host's figures, requests, costs, and when alerts opened and ended.
What it does not hold is left out, and :func:`house_at` says so in ``House.missing``.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

import msgspec

from hybridd.client import wire
from hybridd.client.wire import Call
from hybridd.contracts.views import AlertView, LimitView, ProviderStateName, ProviderView
from hybridd.contracts.when import parse_when
from hybridd.i18n import N_, _
from tui.house import BURN_POINTS, BURN_SECONDS, RESOLVED_KEPT, House
from tui.periods import resets
from tui.shapes import Cost, Gpu, Host, Request, Status

STEP_SECONDS = 300.0
GRID_SECONDS = 60.0
"""Moments are whole minutes: a step of the daemon's history ends exactly there, and none reaches beyond it."""
REACH_SECONDS = 6 * 3600.0
"""Series are asked for so much before and after a moment: steps within it need no new ones."""
REQUESTS_ASKED = 500
ALERTS_ASKED = 1000

Point = Sequence[float]
_TIME = re.compile(r"^(\d{1,2}):(\d{2})$")


def on_grid(at: float) -> float:
    return at // GRID_SECONDS * GRID_SECONDS


def when(text: str, now: float) -> float:
    """UTC seconds of ``14:05`` (the last one), ``2h`` (ago), ``2026-11-20 14:05`` (local time).

    Raises:
        ValueError: none of these, or not in the past; the message is a sentence.
    """
    clock = _TIME.match(text.strip())
    if clock is None:
        try:
            at = parse_when(text, now, local=True)
        except ValueError:
            raise ValueError(_no_time(text)) from None
    else:
        hour, minute = int(clock[1]), int(clock[2])
        if hour > 23 or minute > 59:
            raise ValueError(_("'{text}' is no time of day").format(text=text))
        then = datetime.fromtimestamp(now).replace(hour=hour, minute=minute, second=0, microsecond=0)
        at = then.timestamp() if then.timestamp() <= now else (then - timedelta(days=1)).timestamp()
    if not 0 < at <= now:
        raise ValueError(_("'{text}' is not in the past").format(text=text))
    return at


def _no_time(text: str) -> str:
    return _("'{text}' is no time: 14:05, 2h, 3d, 2026-11-20 or 2026-11-20 14:05 are some").format(text=text)


def hold_seconds(age: float) -> float:
    """How long a recorded figure stands: the daemon repeats an unmoved one every 10 minutes, and thins what is older
    than 14 days to one in an hour."""
    return 1300.0 if age < 13.9 * 86_400 else 7300.0


# ---- what to ask ---------------------------------------------------------------------------------------------------


def series_names(house: House) -> list[str]:
    """Every series that a past house is made from."""
    names = ["host.cpu_percent", "host.memory_available_mb", "daemon.rss_mb"]
    for gpu in house.host.gpus:
        parts = ("memory_used_mb", "memory_free_mb", "utilization_percent", "temperature_c")
        names += [f"gpu.{gpu.index}.{part}" for part in parts]
    return names + [f"quota.{limit.key}.remaining" for limit in house.limits.values() if limit.unit != "concurrent"]


def series_call(name: str, since: float, until: float) -> Call:
    return wire.get("/v1/history", series=name, since=since, until=until, step=GRID_SECONDS)


def calls(at: float) -> dict[str, Call]:
    """What is asked for each moment, besides the series. Usage counts whole hours; ``hour`` is the rest, to ``at``."""
    then = datetime.fromtimestamp(at)
    midnight = then.replace(hour=0, minute=0, second=0, microsecond=0)
    hour = at // 3600 * 3600
    asked = {
        "requests": wire.get("/v1/requests", until=at, limit=REQUESTS_ASKED),
        "alerts": wire.get("/v1/alerts", limit=ALERTS_ASKED),
    }
    for name, since in (("today", midnight.timestamp()), ("month", midnight.replace(day=1).timestamp())):
        if since < hour:
            asked[name] = wire.get("/v1/usage", since=since, until=hour)
    if hour < at:
        asked["hour"] = wire.get("/v1/report", group_by="provider,client", since=hour, until=at)
    return asked


@dataclass(slots=True)
class Past:
    """Answers: ``series`` by name for ``since`` … ``until``, the others by the names of :func:`calls`."""

    at: float
    since: float
    until: float
    series: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    answers: Mapping[str, Any] = field(default_factory=dict)

    def value(self, name: str, now: float) -> float | None:
        """What the series held at the moment; None: nothing was recorded."""
        return value_at(self.series.get(name, ()), self.at, hold_seconds(now - self.at))


def value_at(points: Sequence[Point], at: float, hold: float) -> float | None:
    """The newest value before ``at`` that is at most ``hold`` old. Points are in order of time."""
    index = bisect_left(points, at, key=lambda point: point[0]) - 1
    return points[index][1] if index >= 0 and at - points[index][0] <= hold else None


# ---- the house -----------------------------------------------------------------------------------------------------


def house_at(live: House, past: Past) -> House:
    """The house as it was at ``past.at``, as far as that is recorded."""
    at, now = past.at, live.now
    made = House(now=at, as_of=at, connection=live.connection, seen=live.seen, seq=live.seq)
    made.status = Status(version=live.status.version, socket=live.status.socket, database=live.status.database)
    for limit in live.limits.values():
        name = f"quota.{limit.key}.remaining"
        remaining = past.value(name, now)
        if remaining is not None:
            made.limits[limit.key] = limit_at(limit, remaining, at)
            made.burn[limit.key] = _burn(past.series.get(name, ()), at)
    made.host = _host(live.host, past, now)
    made.alerts = {alert.id: alert for alert in alerts_at(_views(past.answers.get("alerts")), at)}
    made.providers = {one.name: _provider(one, made.alerts.values(), at) for one in live.providers.values()}
    _requests(made, past.answers.get("requests"), at)
    made.costs = _costs(past.answers)
    made.missing = _missing(live, made)
    return made


def limit_at(limit: LimitView, remaining: float, at: float) -> LimitView:
    """Its figures then. What remained is recorded (``source`` says so); used and reserved are one figure, and the limit
    is today's."""
    used = max(0.0, limit.limit - limit.buffer - remaining)
    following = resets(limit.window, limit.zone, at, at + 32 * 86_400, most=1000)
    return msgspec.structs.replace(
        limit, source="recorded", used=used, reserved=0.0, remaining=remaining, drift=None, observed_remaining=None,
        reset=following[0] if following else None, observed_at=None, debt=0.0, forecast=None,
    )  # fmt: skip


def alerts_at(alerts: Iterable[AlertView], at: float) -> list[AlertView]:
    """Those opened by then, oldest first: open if they had not ended, and of the ended ones the last."""
    opened = sorted((one for one in alerts if one.opened_at <= at), key=lambda one: one.id)
    live = [one for one in opened if one.resolved_at is None or one.resolved_at > at]
    ended = [one for one in opened if one.resolved_at is not None and one.resolved_at <= at][-RESOLVED_KEPT:]
    then = [
        msgspec.structs.replace(
            one, state="open", resolved_at=None, silenced_until=None, updated_at=min(one.updated_at, at)
        )
        for one in live
    ]
    return sorted([*then, *ended], key=lambda one: one.id)


def _views(body: Any) -> list[AlertView]:
    return msgspec.convert(body["alerts"], list[AlertView]) if body else []


_STATES = {"provider_parked": "parked", "provider_failed": "failed", "provider_retired": "retired"}


def _provider(view: ProviderView, alerts: Iterable[AlertView], at: float) -> ProviderView:
    """States are not recorded; an alert about the provider that was open then tells."""
    for alert in alerts:
        state = _STATES.get(alert.key.partition(":")[0])
        failed = alert.name == "PluginFailed" and view.name in (alert.data.get("providers") or [])
        if alert.state == "open" and (failed or (state is not None and alert.provider == view.name)):
            known = cast("ProviderStateName", state or "failed")
            return msgspec.structs.replace(
                view, state=known, reason=alert.message, until=None, in_flight=0, since=alert.opened_at
            )
    unknown = cast("ProviderStateName", N_("not kept"))
    return msgspec.structs.replace(view, state=unknown, reason="", until=None, in_flight=0, models=[], since=at)


def _host(live: Host, past: Past, now: float) -> Host:
    def mega(name: str) -> int | None:
        value = past.value(name, now)
        return None if value is None else round(value * 1e6)

    gpus = []
    for gpu in live.gpus:
        used, free = mega(f"gpu.{gpu.index}.memory_used_mb"), mega(f"gpu.{gpu.index}.memory_free_mb")
        if used is not None and free is not None:
            share = past.value(f"gpu.{gpu.index}.utilization_percent", now)
            warm = past.value(f"gpu.{gpu.index}.temperature_c", now)
            gpus.append(Gpu(gpu.index, gpu.name, gpu.memory_total, used, free, share, warm))
    return Host(
        cpu_percent=past.value("host.cpu_percent", now), cpu_count=live.cpu_count, memory_total=live.memory_total,
        memory_available=mega("host.memory_available_mb"), daemon_rss=mega("daemon.rss_mb"), gpus=gpus,
        gpu_reason=live.gpu_reason,
    )  # fmt: skip


def _burn(points: Sequence[Point], at: float) -> deque[tuple[float, float]]:
    """What remained in each of the last minutes, as the live house counts it."""
    recent = [point for point in points if at - BURN_POINTS * BURN_SECONDS <= point[0] < at]
    return deque(((point[0], point[1]) for point in recent), maxlen=BURN_POINTS)


def _requests(house: House, body: Any, at: float) -> None:
    """Those that had ended by then, newest last, and the rates they make."""
    found = msgspec.convert(body["requests"], list[Request]) if body else []
    ended = [(one.at + one.latency_ms / 1000, one) for one in found]
    for end, one in sorted((pair for pair in ended if pair[0] <= at), key=lambda pair: pair[0]):
        house.requests.append(one)
        local = one.output_tokens or 0 if one.provider == "local" else 0
        hit = one.cache == "hit"
        house.rates.add(end, one.latency_ms, hit=hit, local_tokens=local, silent_ms=one.silent_ms)
    house.request_ids = {one.id for one in house.requests}


def _costs(answers: Mapping[str, Any]) -> dict[str, Cost]:
    costs: dict[str, Cost] = {"": Cost()}

    def add(name: str, row: Mapping[str, Any], periods: Iterable[str]) -> None:
        for period in periods:
            for key in ("", name) if name else ("",):
                cost = costs.setdefault(key, Cost())
                setattr(cost, period, getattr(cost, period) + float(row["cost_usd"]))
                calls = f"requests_{period}"
                setattr(cost, calls, getattr(cost, calls) + int(row["requests"]))

    for period in ("today", "month"):
        for row in (answers.get(period) or {}).get("providers", ()):
            add(row["provider"] or "", row, (period,))
    for row in (answers.get("hour") or {}).get("rows", ()):
        add(row["provider"] or "", row, ("today", "month"))
    return costs


def _missing(live: House, made: House) -> str:
    """A sentence about what is shown without, or differently."""
    unrecorded, known = sum(limit.key not in made.limits for limit in live.limits.values()), len(live.limits)
    parts = [_("{count} of {all} quotas").format(count=unrecorded, all=known)] if unrecorded else []
    if made.host.cpu_percent is None:
        parts.append(_("the host"))
    parts.append(_("providers' states, held calls, forecasts, loaded models, acknowledgements"))
    return _("Not recorded: {what}. Limits are today's.").format(what=", ".join(parts))
