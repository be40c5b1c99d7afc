"""All quotas in force: the configuration's, then those that plugins registered and the configuration does not name."""

from __future__ import annotations

from hybridd.config.resolved import ProviderSpec, Resolved
from hybridd.contracts.protocol import QuotaInfo
from hybridd.contracts.quotas import Quota, Window
from hybridd.providers import Hub


def all_quotas(resolved: Resolved, hub: Hub) -> list[Quota]:
    """One quota for each key; the configuration wins, since the user knows the account's plan."""
    quotas: dict[str, Quota] = {}
    for spec in resolved.providers.values():
        if spec.enabled:
            for quota in spec.quotas:
                quotas.setdefault(quota.key, quota)
    for name, spec in resolved.providers.items():
        runtime = hub.providers.get(name)
        if runtime is None or not spec.enabled:
            continue
        for info in runtime.quotas:
            quota = from_plugin(info, spec)
            quotas.setdefault(quota.key, quota)
    return list(quotas.values())


def from_plugin(info: QuotaInfo, spec: ProviderSpec) -> Quota:
    """A plugin's quota in base units (``usd`` in micro-dollars)."""
    scale = 1_000_000 if info.unit == "usd" else 1
    return Quota(
        account=spec.account,
        unit=info.unit,
        limit=int(info.limit * scale),
        window=Window.parse(info.window, info.zone) if info.window else Window(),
        buffer=round(info.buffer * scale),
        models=frozenset(info.models) if info.models is not None else None,
        counted=info.counted,
        source="plugin",
        provider=spec.name,
    )
