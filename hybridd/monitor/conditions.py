"""What rules produce: conditions that hold now, as plain values, and the words they are told in. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from msgspec import Struct

from hybridd.config.settings import AlertThresholds
from hybridd.contracts.views import LimitView, PluginView, ProviderView

Severity = Literal["info", "warning", "critical"]

# Alerts that the checks open and resolve by themselves. Anything else was raised by hand and is resolved by hand.
MANAGED = frozenset(
    {
        "QuotaLow", "QuotaForecast", "QuotaDrift", "QuotaDebt", "ProviderRetired", "ProviderParked", "ProviderFailed",
        "PluginFailed", "GithubRequestsLow", "HfDownloadsLow", "HfUploadsLow", "LocalLatencyHigh", "SpendHigh",
        "StorageFailed",
    }
)  # fmt: skip


class Condition(Struct, frozen=True):
    """Something worth an alert, now. ``key`` identifies it over time: one key, one alert.

    ``message`` is a plain English sentence; ``data`` carries the figures in it for programs.
    """

    key: str
    name: str
    severity: Severity
    message: str
    provider: str | None = None
    data: dict[str, Any] = {}


class Facts(Struct, frozen=True):
    """Everything the rules look at. ``tasks`` maps a task to its candidates (``provider:model``) in order;
    ``local_latency_seconds`` is the median of recent local answers, None without any; ``now`` is UTC seconds."""

    now: float
    thresholds: AlertThresholds
    limits: Sequence[LimitView] = ()
    providers: Sequence[ProviderView] = ()
    plugins: Sequence[PluginView] = ()
    tasks: Mapping[str, Sequence[str]] = {}
    storage_failed: str | None = None
    local_latency_seconds: float | None = None
    usd_last_hour: float = 0.0


_UNITS = {
    "requests": "requests",
    "input_tokens": "input tokens",
    "output_tokens": "output tokens",
    "total_tokens": "tokens",
    "bytes_down": "of download",
    "bytes_up": "of upload",
    "usd": "",
    "concurrent": "concurrent calls",
}
_SPANS = {60: "minute", 3600: "hour", 86_400: "day", 604_800: "week"}


def amount(value: float, unit: str) -> str:
    """``1,200 tokens``, ``$4.20``, ``512 MB of upload``."""
    if unit == "usd":
        return f"${value:,.2f}" if value >= 0.01 or value == 0 else f"${value:.6f}"
    if unit in ("bytes_down", "bytes_up"):
        return f"{_bytes(value)} {_UNITS[unit]}"
    return f"{value:,.0f} {_UNITS.get(unit, unit)}"


def figure(value: float, unit: str) -> str:
    """The number alone, for ``12 of 1,000 requests``."""
    if unit == "usd":
        return amount(value, unit)
    return _bytes(value) if unit in ("bytes_down", "bytes_up") else f"{value:,.0f}"


def _bytes(value: float) -> str:
    for name, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:,.0f} {name}" if value >= 10 * size else f"{value / size:,.1f} {name}"
    return f"{value:.0f} bytes"


def span(window: str) -> str:
    """``60s`` is a minute, ``7200s`` is 2 h, ``day`` is day; empty without a window."""
    if window.endswith("s") and window[:-1].isdigit():
        seconds = int(window[:-1])
        return _SPANS.get(seconds) or duration(seconds)
    return "" if window == "none" else window


def limit_name(view: LimitView) -> str:
    """``groq total_tokens/day``, with the models when the quota binds only some."""
    period = span(view.window)
    name = f"{view.provider or view.account} {view.unit}" + (f"/{period}" if period else "")
    return name + (f" ({', '.join(view.models)})" if view.models else "")


def clock_time(at: float, now: float) -> str:
    """``16:40 UTC``, with the date when it is not the same day."""
    moment, today = datetime.fromtimestamp(at, UTC), datetime.fromtimestamp(now, UTC)
    return moment.strftime("%H:%M UTC" if moment.date() == today.date() else "%Y-%m-%d %H:%M UTC")


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``7 h``, ``3 days``."""
    for name, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size or (seconds >= size and name != "days"):
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"
