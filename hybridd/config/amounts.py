"""Settings' figures as the daemon's integers: micro-dollars, quotas, models; and small facts about addresses."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from hybridd.config.resolved import ModelSpec
from hybridd.config.settings import ModelSettings, PriceSettings, QuotaSettings
from hybridd.contracts.quotas import Price, Quota, Window

LINGER_SECONDS = 5.0
MICRO = 1_000_000

# Every plugin that speaks to hosts may need a proxy or the organisation's certificates.
NETWORK_VARIABLES = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)


def linger_seconds(base_url: str | None) -> float:
    """How long after a lost connection a request may still arrive: not at all when the host is this machine."""
    host = (urlsplit(base_url).hostname or "") if base_url else ""
    if host.rstrip(".").lower() == "localhost":
        return 0.0
    try:
        return 0.0 if ipaddress.ip_address(host).is_loopback else LINGER_SECONDS
    except ValueError:
        return LINGER_SECONDS


def names(*groups: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in groups for name in group))


def micro(usd: float, rounding: Callable[[Decimal], int]) -> int:
    """Dollars to integer micro-dollars, by way of the decimal the user wrote (0.29 is not 0.28999…)."""
    return int(rounding(Decimal(repr(usd)) * MICRO))


def price_of(price: PriceSettings | None) -> Price | None:
    if price is None:
        return None
    cached = price.cached_input_per_million_usd
    return Price(
        input_per_million=micro(price.input_per_million_usd, math.ceil),
        output_per_million=micro(price.output_per_million_usd, math.ceil),
        per_request=micro(price.per_request_usd, math.ceil),
        cached_input_per_million=None if cached is None else micro(cached, math.ceil),
        as_of=price.as_of,
    )


def model_specs(models: dict[str, ModelSettings]) -> dict[str, ModelSpec]:
    return {
        name: ModelSpec(name, model.context, model.max_output, price_of(model.price), tuple(model.tasks))
        for name, model in models.items()
    }


def model_config(models: dict[str, ModelSettings]) -> dict[str, Any]:
    return {name: model.model_dump(exclude_none=True) for name, model in models.items()}


def quota_of(quota: QuotaSettings, account: str, provider: str) -> Quota:
    money = quota.unit == "usd"
    bound = [quota.model] if quota.model is not None else quota.models
    return Quota(
        account=account,
        unit=quota.unit,
        limit=micro(quota.limit, math.floor) if money else int(quota.limit),
        window=Window.parse(quota.window, quota.zone) if quota.window else Window(),
        buffer=micro(quota.buffer, math.ceil) if money else int(quota.buffer),
        models=None if bound is None else frozenset(bound),
        counted=quota.counted,
        source="config",
        provider=provider,
    )
