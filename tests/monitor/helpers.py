"""Small real objects for the monitor's seams: a hub that is a dictionary, and builders of views."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from hybridd.config.resolved import ProviderSpec, Resolved, TaskSpec
from hybridd.config.settings import Settings
from hybridd.contracts.protocol import ProbeResult
from hybridd.contracts.quotas import ModelRef, Quota, Window
from hybridd.contracts.views import Forecast, LimitView, PluginView, ProviderView
from hybridd.local.gpus import GpuReport
from hybridd.monitor.host import HostSample

NOW = 1_790_000_000.0  # 2026-09-21 14:13:20 UTC


def limit(remaining: float = 100, **changes: Any) -> LimitView:
    """A quota of 1,000 requests a day of provider groq, a tenth of it left."""
    values: dict[str, Any] = {
        "key": "groq/requests/day",
        "provider": "groq",
        "account": "groq",
        "unit": "requests",
        "window": "day",
        "limit": 1000.0,
        "buffer": 0.0,
        "reserved": 0.0,
        "reset": None,
        "source": "config",
        "remaining": float(remaining),
    }
    values.update(changes)
    values.setdefault("used", values["limit"] - values["buffer"] - values["remaining"])
    return LimitView(**values)


def forecast(at: float | None) -> Forecast:
    return Forecast(exhausted_at=at, earliest=at, latest=at, per_second=0.5)


def provider(name: str = "groq", state: Any = "ready", reason: str = "", **changes: Any) -> ProviderView:
    values = {"plugin": "openai_compatible", "models": [], "account": name, "since": NOW - 60, **changes}
    return ProviderView(name=name, state=state, reason=reason, **values)


def plugin(name: str = "openai_compatible", state: str = "ready", **changes: Any) -> PluginView:
    values: dict[str, Any] = {"pid": 1, "restarts": 0, "providers": ["groq"], "since": NOW - 60, **changes}
    return PluginView(name=name, state=state, **values)


def quota(limit: int = 10, *, seconds: int = 86_400, **changes: Any) -> Quota:
    values: dict[str, Any] = {"account": "lab", "unit": "requests", "provider": "lab", **changes}
    return Quota(limit=limit, window=Window(seconds=seconds), **values)


def resolved(
    *,
    providers: dict[str, ProviderSpec] | None = None,
    tasks: dict[str, list[str]] | None = None,
    **sections: Any,
) -> Resolved:
    specs = {
        name: TaskSpec(name, tuple(ModelRef(*ref.split(":", 1)) for ref in refs))
        for name, refs in (tasks or {}).items()
    }
    return Resolved(providers=providers or {}, tasks=specs, settings=Settings.model_validate(sections))


def spec(name: str, plugin: str = "openai_compatible", **changes: Any) -> ProviderSpec:
    return msgspec.structs.replace(ProviderSpec(name=name, plugin=plugin, account=name), **changes)


class SmallHub:
    """Providers, plugins and probe answers, as told."""

    def __init__(self) -> None:
        self.providers: list[ProviderView] = []
        self.plugins: list[PluginView] = []
        self.probes: dict[str, Callable[[], Awaitable[ProbeResult]]] = {}
        self.probed: list[str] = []

    def provider_views(self) -> list[ProviderView]:
        return list(self.providers)

    def plugin_views(self) -> list[PluginView]:
        return list(self.plugins)

    async def probe(self, provider: str, timeout: float) -> ProbeResult:
        self.probed.append(provider)
        answer = self.probes.get(provider)
        return await asyncio.wait_for(answer(), timeout) if answer is not None else ProbeResult()


HOST = HostSample(
    cpu_percent=10.0, cpu_count=2, load=(0.5, 0.4, 0.3), memory_total=8_000_000_000, memory_available=4_000_000_000,
    swap_used=0, disk_total=100_000_000_000, disk_free=50_000_000_000, daemon_rss=60_000_000, daemon_cpu_seconds=1.0,
    daemon_threads=5, daemon_open_files=20,
)  # fmt: skip
NO_GPU = GpuReport(reason="no NVIDIA driver")
