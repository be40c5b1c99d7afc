"""The providers that are always known: the legacy sections ``github_models`` and ``hugging_face``, and the built-in
``specialists`` and ``local``."""

from __future__ import annotations

import importlib.util
import math

from hybridd import locations
from hybridd.config import gguf_files, keys
from hybridd.config.amounts import NETWORK_VARIABLES, linger_seconds, micro, model_config, model_specs, names
from hybridd.config.presets import (
    GITHUB_REQUESTS_PER_HOUR,
    GITHUB_USD_PER_REQUEST,
    HUB_DOWNLOADS,
    HUB_DOWNLOADS_PER_MONTH,
    HUB_UPLOAD_BYTES_PER_MONTH,
    HUB_UPLOADS,
    ROLES,
)
from hybridd.config.resolved import ModelSpec, ProviderSpec
from hybridd.config.settings import ModelSettings, PriceSettings, Settings
from hybridd.contracts.quotas import Quota, Window

_GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "LD_LIBRARY_PATH", "GGML_CUDA_NO_PINNED")


def github_models(settings: Settings) -> ProviderSpec:
    section = settings.github_models
    reference, missing = keys.github(section.api_key)
    buffer = min(section.rate_limit_buffer, GITHUB_REQUESTS_PER_HOUR)
    price = PriceSettings(per_request_usd=GITHUB_USD_PER_REQUEST)
    known = dict.fromkeys([*section.preferred_models.values(), *(role.github for role in ROLES.values())])
    models = {model: ModelSettings(price=price) for model in known}
    return ProviderSpec(
        name="github_models",
        plugin="github_models",
        account="github_models",
        enabled=section.enabled,
        origin="legacy",
        process="github_models",
        models=model_specs(models),
        quotas=(
            Quota(
                account="github_models",
                unit="requests",
                limit=GITHUB_REQUESTS_PER_HOUR,
                window=Window(seconds=3600),
                buffer=buffer,
                source="default",
                provider="github_models",
            ),
        ),
        not_configured=missing,
        linger_seconds=linger_seconds(section.base_url),
        environment=names(keys.environment(reference), NETWORK_VARIABLES),
        plugin_config={
            "base_url": section.base_url,
            "rate_limit_url": section.rate_limit_url,
            "preset": None,
            "dialect": "github_models",
            "api_key": keys.as_config(reference),
            "headers": {},
            "timeout_seconds": 60.0,
            "connect_timeout_seconds": 5.0,
            "models": model_config(models),
            "options": {},
        },
        preferred_models=dict(section.preferred_models),
    )


def hugging_face(settings: Settings) -> ProviderSpec:
    section = settings.hugging_face
    reference, missing = keys.hugging_face(section.api_key)
    return ProviderSpec(
        name="hugging_face",
        plugin="openai_compatible",
        account="hugging_face",
        enabled=section.enabled,
        origin="legacy",
        process="openai_compatible",
        models=model_specs(section.models),
        quotas=_hugging_face_quotas(settings),
        not_configured=missing,
        linger_seconds=linger_seconds(section.base_url),
        environment=names(keys.environment(reference), NETWORK_VARIABLES),
        plugin_config={
            "base_url": section.base_url,
            "preset": "hugging_face",
            "dialect": "hugging_face",
            "api_key": keys.as_config(reference),
            "headers": {"X-HF-Bill-To": section.bill_to} if section.bill_to else {},
            "timeout_seconds": 60.0,
            "connect_timeout_seconds": 5.0,
            "models": model_config(section.models),
            "options": {"cache_dir": str(locations.resolve(section.cache_dir))},
        },
        preferred_models=dict(section.preferred_models),
    )


def _hugging_face_quotas(settings: Settings) -> tuple[Quota, ...]:
    """The Hub's monthly downloads and uploads bind their own pseudo-models; the credit binds the models that have a
    price (without one, a call's cost is not known and cannot be held against a credit)."""
    section = settings.hugging_face
    month = Window(calendar="month")
    quotas = [
        Quota(
            account="hugging_face",
            unit="requests",
            limit=HUB_DOWNLOADS_PER_MONTH,
            window=month,
            buffer=min(section.download_limit_buffer, HUB_DOWNLOADS_PER_MONTH),
            models=frozenset({HUB_DOWNLOADS}),
            source="default",
            provider="hugging_face",
        ),
        Quota(
            account="hugging_face",
            unit="bytes_up",
            limit=HUB_UPLOAD_BYTES_PER_MONTH,
            window=month,
            buffer=min(section.upload_limit_buffer * 1_000_000, HUB_UPLOAD_BYTES_PER_MONTH),
            models=frozenset({HUB_UPLOADS}),
            source="default",
            provider="hugging_face",
        ),
    ]
    priced = frozenset(name for name, model in section.models.items() if model.price is not None)
    if priced:
        quotas.append(
            Quota(
                account="hugging_face",
                unit="usd",
                limit=micro(section.monthly_credit_usd, math.floor),
                window=month,
                models=priced,
                source="default",
                provider="hugging_face",
            )
        )
    return tuple(quotas)


def specialists(settings: Settings) -> ProviderSpec:
    section = settings.specialists
    return ProviderSpec(
        name="specialists",
        plugin="specialists",
        account="specialists",
        enabled=section.enabled,
        origin="builtin",
        process="specialists",
        models={"sentiment": ModelSpec("sentiment", tasks=("sentiment_analysis",))},
        start="on_demand",
        idle_stop_seconds=section.idle_stop_seconds,
        linger_seconds=0.0,
        plugin_config={"cache_dir": str(locations.cache_dir() / "specialists"), "options": {}},
    )


def local(settings: Settings) -> ProviderSpec:
    section = settings.local
    models_dir = locations.resolve(section.models_dir) if section.models_dir else locations.data_dir() / "models"
    cache_dir = locations.resolve(settings.hugging_face.cache_dir)
    default = section.default_model
    default_path = locations.resolve(default) if default and default.lower().endswith(".gguf") else None
    files = gguf_files.find((models_dir, cache_dir), default_path)
    # Whether there is a file is the residency's to say: one that appears later needs no reload.
    missing = None
    if importlib.util.find_spec("llama_cpp") is None:
        missing = "llama-cpp-python is not installed; install the extra: hybridd[local]"
    default_name = gguf_files.model_name(default_path) if default_path else default
    if default_name in files:  # "local:*" tries models in order: the default stands first
        files = {default_name: files[default_name], **files}
    return ProviderSpec(
        name="local",
        plugin="llama_cpp",
        account="local",
        enabled=section.enabled,
        origin="builtin",
        process="local",
        not_configured=missing,
        start="on_demand",
        idle_stop_seconds=section.idle_stop_seconds,
        timeout_seconds=max(settings.optimization.timeout_seconds, 60.0),
        linger_seconds=0.0,
        environment=_GPU_VARIABLES,
        plugin_config={
            "models_dir": str(models_dir),
            "cache_dir": str(cache_dir),
            "default_path": None if default_path is None else str(default_path),
            "files": {stem: str(file) for stem, file in files.items()},
            "default_model": default_name or next(iter(files), None),
            "goal": section.goal,
            "context": section.context,
            "parallel": section.parallel,
            "vram_limit_mb": section.vram_limit_mb,
            "ram_limit_mb": section.ram_limit_mb,
            "max_loaded": section.max_loaded,
            "models": {name: model.model_dump(exclude_none=True) for name, model in section.models.items()},
            "options": {},
        },
    )
