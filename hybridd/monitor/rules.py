"""The alert rules: from plain facts to the conditions that hold. Pure; no clock, no I/O.

Each rule has two lines. A condition *appears* when the figure crosses the warning line; while its alert is open
(its key is in ``held``) it *stays* until the figure is clear of the line by a margin. Noise around the line therefore
neither flaps nor hides anything. (The second half of the hysteresis, two quiet checks in a row, is in
:mod:`hybridd.monitor.book`.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from hybridd.config.presets import HUB_DOWNLOADS, HUB_UPLOADS
from hybridd.contracts.quotas import Quota
from hybridd.contracts.views import LimitView, ProviderView
from hybridd.monitor.conditions import Condition, Facts, amount, clock_time, duration, figure, limit_name, span

Held = frozenset[str] | set[str]

# Forecasts of short windows are noise; the warning line is what watches those.
FORECAST_SHORTEST_SECONDS = 3600
FORECAST_MARGIN = 0.02
DRIFT_FRACTION = 0.10
# Below these a provider's rounding and our own calls in flight explain the difference.
_DRIFT_FLOOR = {"requests": 3.0, "usd": 0.01, "bytes_down": 1e6, "bytes_up": 1e6}
_DRIFT_FLOOR_TOKENS = 100.0
_COUNTED_ONE_BY_ONE = frozenset({"requests", "concurrent"})
_DOWN_PLUGIN = frozenset({"failed", "breaker", "broken"})
_UNUSED = frozenset({"disabled", "retired", "not_configured"})


def warning_line(quota: Quota) -> int:
    """How much may still be admitted (``LimitView.remaining``, buffer taken off) when the warning is due: at this or
    below. In the quota's unit; ``usd`` in micro-dollars; −1 means never (``concurrent`` is a pace, not an allowance).

    With a buffer: when twice the buffer is left on the account, that is when one buffer may still be admitted.
    Without: at the larger of 10 % of the limit and 1. Units a single call takes many of (tokens, money, bytes) are
    warned of at 10 % at the latest. Never so high that an untouched quota is warned of, never below zero, so that the
    warning always comes before the first refusal of a call of one unit.
    """
    if quota.unit == "concurrent":
        return -1
    capacity = quota.limit - quota.buffer
    line = quota.buffer
    if line == 0 or quota.unit not in _COUNTED_ONE_BY_ONE:
        line = max(line, quota.limit // 10, 1)
    return max(0, min(line, capacity - 1))


def view_line(view: LimitView) -> float:
    """:func:`warning_line` for a view, in the view's unit (``usd`` in dollars)."""
    scale = 1_000_000 if view.unit == "usd" else 1
    quota = Quota(
        account=view.account,
        unit=view.unit,  # type: ignore[arg-type]  # a view's unit is one of the units; it is text only on the wire
        limit=round(view.limit * scale),
        buffer=round(view.buffer * scale),
    )
    return warning_line(quota) / scale


def quota_low(view: LimitView, now: float, *, held: bool = False) -> Condition | None:
    """The warning before the first refusal, or None."""
    line = view_line(view)
    if line < 0:
        return None
    smallest = 1e-6 if view.unit == "usd" else 1.0
    margin = max(line / 4, smallest) if held else 0.0
    if view.remaining > line + margin:
        return None
    period = span(view.window)
    of = f"{figure(view.remaining, view.unit)} of {amount(view.limit, view.unit)}" + (f"/{period}" if period else "")
    models = f" for {', '.join(view.models)}" if view.models else ""
    provider = view.provider or view.account
    returns = f"; capacity returns at {clock_time(view.reset, now)}" if view.reset is not None else ""
    if view.limit <= view.buffer:
        text = f"{provider} can admit nothing: its buffer holds back all of its {amount(view.limit, view.unit)}{models}"
    elif view.remaining <= 0:
        text = f"{provider} has no {view.unit}{'/' + period if period else ''} left{models}: further calls are refused"
        text += returns
    else:
        kept = f", keeping a buffer of {figure(view.buffer, view.unit)}" if view.buffer else ""
        text = f"{provider} may use only {of} more{models}{kept}{returns}"
    data = {
        "limit": view.limit, "remaining": view.remaining, "buffer": view.buffer, "line": line, "unit": view.unit,
        "window": view.window, "reset": view.reset, "quota": view.key,
    }  # fmt: skip
    return Condition(f"quota_low:{view.key}", "QuotaLow", "warning", text + ".", provider, data)


def quota_forecast(view: LimitView, now: float, *, held: bool = False) -> Condition | None:
    """The quota runs out before it resets, at the recent pace."""
    forecast = view.forecast
    if forecast is None or forecast.exhausted_at is None or view.unit == "concurrent":
        return None
    seconds = view.window[:-1]
    if view.window.endswith("s") and seconds.isdigit() and int(seconds) < FORECAST_SHORTEST_SECONDS:
        return None
    at = max(forecast.exhausted_at, now)
    before = ""
    if view.reset is not None:
        ahead = view.reset - at
        if ahead <= (0 if held else FORECAST_MARGIN * max(0.0, view.reset - now)):
            return None
        before = f", {duration(ahead)} before its reset"
    text = f"{limit_name(view)} runs out at {clock_time(at, now)}{before}, at the recent pace."
    data = {
        "exhausted_at": at, "earliest": forecast.earliest, "latest": forecast.latest, "reset": view.reset,
        "per_second": forecast.per_second, "remaining": view.remaining, "quota": view.key,
    }  # fmt: skip
    return Condition(f"quota_forecast:{view.key}", "QuotaForecast", "warning", text, view.provider, data)


def quota_drift(view: LimitView, now: float, *, held: bool = False) -> Condition | None:
    """Something else spends this account: the provider counts clearly more than we do."""
    del now
    if view.drift is None or view.unit == "concurrent":
        return None
    line = max(DRIFT_FRACTION * view.limit, _DRIFT_FLOOR.get(view.unit, _DRIFT_FLOOR_TOKENS))
    if view.drift < line * (0.75 if held else 1.0):
        return None
    text = (
        f"{limit_name(view)}: the provider counts {amount(view.drift, view.unit)} more than hybridd used; "
        "something else spends this account."
    )
    data = {"drift": view.drift, "line": line, "observed_remaining": view.observed_remaining, "quota": view.key}
    return Condition(f"quota_drift:{view.key}", "QuotaDrift", "warning", text, view.provider, data)


def quota_debt(view: LimitView, now: float, *, held: bool = False) -> Condition | None:
    """Calls used more than they had reserved; the excess blocks until it drains."""
    del held
    if view.debt <= 0:
        return None
    returns = f" (capacity returns at {clock_time(view.reset, now)})" if view.reset is not None else ""
    text = (
        f"{limit_name(view)} is {amount(view.debt, view.unit)} in debt: calls used more than they had reserved, "
        f"and new ones wait until it has drained{returns}."
    )
    data = {"debt": view.debt, "limit": view.limit, "reset": view.reset, "quota": view.key}
    return Condition(f"quota_debt:{view.key}", "QuotaDebt", "warning", text, view.provider, data)


_QUOTA_RULES: tuple[tuple[str, Callable[..., Condition | None]], ...] = (
    ("quota_low", quota_low),
    ("quota_forecast", quota_forecast),
    ("quota_drift", quota_drift),
    ("quota_debt", quota_debt),
)


def quotas(facts: Facts, held: Held) -> Iterator[Condition]:
    """The four quota rules, over every quota of a provider that is in use."""
    unused = {view.name for view in facts.providers if view.state in _UNUSED}
    for view in facts.limits:
        if view.provider in unused and not _is_hub(view):
            continue
        for prefix, rule in _QUOTA_RULES:
            condition = rule(view, facts.now, held=f"{prefix}:{view.key}" in held)
            if condition is not None:
                yield condition


def _is_hub(view: LimitView) -> bool:
    """Downloads and uploads count whether or not the account's inference has a key."""
    return view.models in ([HUB_DOWNLOADS], [HUB_UPLOADS])


def thresholds(facts: Facts, held: Held) -> Iterator[Condition]:
    """The figures of ``alert_thresholds`` that are about what is left: GitHub requests, Hub downloads and uploads."""
    limits = facts.thresholds
    disabled = {view.name for view in facts.providers if view.state in ("disabled", "retired")}
    for view in facts.limits:
        if view.provider in disabled:
            continue
        if view.provider == "github_models" and view.unit == "requests" and view.models is None:
            name, label, scale, line = "GithubRequestsLow", "GitHub requests", 1.0, float(limits.github_requests)
        elif view.provider == "hugging_face" and view.unit == "requests" and view.models == [HUB_DOWNLOADS]:
            name, label, scale, line = "HfDownloadsLow", "Hugging Face downloads", 1.0, float(limits.hf_downloads)
        elif view.provider == "hugging_face" and view.unit == "bytes_up":
            name, label, scale, line = "HfUploadsLow", "MB of Hugging Face uploads", 1e6, limits.hf_uploads_mb
        else:
            continue
        left = view.limit - view.used - view.reserved
        if view.observed_remaining is not None:
            left = min(left, view.observed_remaining)
        left = max(0.0, left) / scale
        key = f"threshold:{name}:{view.key}"
        if left < line * (1.1 if key in held else 1.0):
            returns = f"; capacity returns at {clock_time(view.reset, facts.now)}" if view.reset is not None else ""
            text = f"{left:,.0f} {label} are left, fewer than the {line:,.0f} you asked to be warned at{returns}."
            data = {"left": left, "threshold": line, "reset": view.reset, "quota": view.key}
            yield Condition(key, name, "warning", text, view.provider, data)


def providers(facts: Facts, held: Held) -> Iterator[Condition]:
    """Providers that died, were parked or failed, and plugins that gave up."""
    del held
    failed_by_plugin: set[str] = set()
    for plugin in facts.plugins:
        if plugin.state in _DOWN_PLUGIN:
            failed_by_plugin.update(plugin.providers)
            served = f" ({', '.join(plugin.providers)})" if plugin.providers else ""
            why = f": {plugin.reason}" if plugin.reason else ""
            text = f"The plugin {plugin.name}{served} has failed and is not restarted for now{why}."
            data = {"plugin": plugin.name, "restarts": plugin.restarts, "providers": plugin.providers}
            first = plugin.providers[0] if len(plugin.providers) == 1 else None
            yield Condition(f"plugin_failed:{plugin.name}", "PluginFailed", "critical", _sentence(text), first, data)
    for view in facts.providers:
        why = f": {view.reason}" if view.reason else ""
        data = {"reason": view.reason, "since": view.since}
        if view.state == "retired":
            yield _retired(view, facts)
        elif view.state == "parked":
            text = f"{view.name} is parked until you act (key or payment){why}."
            yield Condition(
                f"provider_parked:{view.name}", "ProviderParked", "warning", _sentence(text), view.name, data
            )
        elif view.state == "failed" and view.name not in failed_by_plugin:
            text = f"{view.name} has failed{why}."
            yield Condition(
                f"provider_failed:{view.name}", "ProviderFailed", "critical", _sentence(text), view.name, data
            )


def _retired(view: ProviderView, facts: Facts) -> Condition:
    gone = {other.name for other in facts.providers if other.state in _UNUSED}
    lost: dict[str, str | None] = {}
    for task, candidates in facts.tasks.items():
        if candidates and candidates[0].partition(":")[0] == view.name:
            lost[task] = next((candidate for candidate in candidates if candidate.partition(":")[0] not in gone), None)
    why = f" ({view.reason})" if view.reason else ""
    text = f"{view.name} was retired by its host and is not tried again{why}."
    if lost:
        falls = (f"{task} (now {after})" if after else f"{task} (nothing is left)" for task, after in lost.items())
        text += f" Tasks that lost their first choice: {', '.join(falls)}."
    data = {"reason": view.reason, "since": view.since, "tasks": lost}
    return Condition(f"provider_retired:{view.name}", "ProviderRetired", "critical", text, view.name, data)


def machine(facts: Facts, held: Held) -> Iterator[Condition]:
    """Local latency, money per hour, and the disk."""
    limits = facts.thresholds
    latency = facts.local_latency_seconds
    if latency is not None:
        key = "local_latency"
        if latency > limits.local_latency_seconds * (0.9 if key in held else 1.0):
            text = (
                f"Local models take {duration(latency)} for an answer (median of the recent ones), "
                f"longer than {duration(limits.local_latency_seconds)}."
            )
            data = {"median_seconds": latency, "threshold": limits.local_latency_seconds}
            yield Condition(key, "LocalLatencyHigh", "warning", text, "local", data)
    key = "spend"
    if facts.usd_last_hour > limits.paid_usd_per_hour * (0.9 if key in held else 1.0):
        text = (
            f"{amount(facts.usd_last_hour, 'usd')} were spent within an hour, "
            f"more than {amount(limits.paid_usd_per_hour, 'usd')}."
        )
        data = {"usd_last_hour": facts.usd_last_hour, "threshold": limits.paid_usd_per_hour}
        yield Condition(key, "SpendHigh", "warning", text, None, data)
    if facts.storage_failed is not None:
        yield storage_failed(facts.storage_failed)


def storage_failed(reason: str) -> Condition:
    """Nothing is dispatched: the one alert that must not wait for a check."""
    text = f"The disk refuses writes, so no call is sent to any provider: {reason}."
    return Condition("storage", "StorageFailed", "critical", _sentence(text), None, {"reason": reason})


RULES: tuple[Callable[[Facts, Held], Iterable[Condition]], ...] = (quotas, thresholds, providers, machine)


def evaluate(facts: Facts, held: Held = frozenset()) -> list[Condition]:
    """Every condition that holds. ``held`` are the keys of the alerts open at present."""
    return [condition for rule in RULES for condition in rule(facts, held)]


def _sentence(text: str) -> str:
    """One full stop at the end, whatever a reason ended with."""
    return text.rstrip(". ") + "."
