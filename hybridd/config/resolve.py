"""Settings to the plain values the daemon works with: presets filled in, legacy sections turned into providers,
the default routing table turned into tasks.

Reads no file and no key: it only looks whether the places that keys and models are referred to exist.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from hybridd.config import keys
from hybridd.config.amounts import NETWORK_VARIABLES, linger_seconds, model_config, model_specs, names, quota_of
from hybridd.config.builtin import github_models, hugging_face, local, specialists
from hybridd.config.presets import BUNDLED_PLUGINS, PRESETS
from hybridd.config.resolved import ProviderSpec, Resolved
from hybridd.config.settings import KeyReference, ProviderSettings, Settings
from hybridd.config.tasks import resolve_tasks
from hybridd.contracts.quotas import Quota
from hybridd.errors import ConfigError


def resolve(settings: Settings, path: Path | None = None) -> Resolved:
    """Everything the daemon needs to know.

    Raises:
        ConfigError: two providers of one account state different limits for the same quota.
    """
    providers = {
        "github_models": github_models(settings),
        "hugging_face": hugging_face(settings),
        "specialists": specialists(settings),
        "local": local(settings),
    }
    for name, provider in settings.providers.items():
        providers[name] = _configured(name, provider, settings)
    return Resolved(
        providers=_without_repeated_quotas(providers, path),
        tasks=resolve_tasks(settings),
        settings=settings,
        path=None if path is None else str(path),
    )


def _configured(name: str, provider: ProviderSettings, settings: Settings) -> ProviderSpec:
    preset = PRESETS[provider.preset] if provider.preset else None
    base_url = provider.base_url or (preset.base_url if preset else None)
    reference = provider.api_key
    if reference is None and preset is not None and preset.key_env:
        reference = KeyReference(env=preset.key_env)
    account = provider.account or name
    plugin_config = {
        "base_url": base_url,
        "preset": provider.preset,
        "dialect": preset.dialect if preset else "openai",
        "api_key": keys.as_config(reference),
        "headers": {**(preset.headers if preset else {}), **provider.headers},
        "timeout_seconds": provider.timeout_seconds,
        "connect_timeout_seconds": provider.connect_timeout_seconds,
        "models": model_config(provider.models),
        "options": provider.options,
    }
    return ProviderSpec(
        name=name,
        plugin=provider.plugin,
        account=account,
        enabled=provider.enabled,
        command=tuple(provider.command) if provider.command else None,
        process=_process(name, provider, settings),
        models=model_specs(provider.models),
        quotas=tuple(quota_of(quota, account, name) for quota in provider.quotas),
        not_configured=keys.missing(reference),
        start=provider.start,
        idle_stop_seconds=provider.idle_stop_seconds,
        timeout_seconds=provider.timeout_seconds,
        linger_seconds=linger_seconds(base_url),
        environment=names(keys.environment(reference), provider.env, NETWORK_VARIABLES),
        plugin_config=plugin_config,
    )


def _process(name: str, provider: ProviderSettings, settings: Settings) -> str:
    """All OpenAI-shaped hosts share one process, and so do the providers of one command of the user's own. Empty: no
    process of ours, the plugin connects by itself."""
    if provider.command is None:
        if provider.plugin not in BUNDLED_PLUGINS:
            return ""
        return "openai_compatible" if provider.plugin == "openai_compatible" else name
    same_name = [other for other in settings.providers.values() if other.command and other.plugin == provider.plugin]
    shared = provider.plugin not in BUNDLED_PLUGINS and all(other.command == provider.command for other in same_name)
    return provider.plugin if shared else name


def _without_repeated_quotas(providers: dict[str, ProviderSpec], path: Path | None) -> dict[str, ProviderSpec]:
    """Providers that share an account may repeat its quotas; each is kept once. Different figures are a mistake."""
    first: dict[str, Quota] = {}
    kept: dict[str, ProviderSpec] = {}
    for name, spec in providers.items():
        mine = []
        for quota in spec.quotas:
            known = first.setdefault(quota.key, quota)
            if known is quota:
                mine.append(quota)
            elif (known.limit, known.buffer, known.counted) != (quota.limit, quota.buffer, quota.counted):
                raise ConfigError(
                    f"{path or 'configuration'}: providers.{name}.quotas: the account {quota.account} already has "
                    f"another limit for {quota.unit} in {quota.window} (providers.{known.provider}); state it once",
                    param=f"providers.{name}.quotas",
                )
        kept[name] = msgspec.structs.replace(spec, quotas=tuple(mine))
    return kept
