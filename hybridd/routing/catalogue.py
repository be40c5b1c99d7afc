"""What configuration and plugin together know of a provider's models."""

from __future__ import annotations

from hybridd.config.resolved import Resolved
from hybridd.contracts.protocol import ModelInfo, PriceInfo
from hybridd.contracts.quotas import Price
from hybridd.providers import Hub
from hybridd.routing.candidates import KnownModel

HIGHEST_USD = 1e6
"""For a million tokens, or for one request."""


def catalogue_of(resolved: Resolved, hub: Hub, provider: str) -> dict[str, KnownModel]:
    """Configuration wins over the plugin, member by member."""
    known: dict[str, KnownModel] = {}
    runtime = hub.providers.get(provider)
    for info in (runtime.models if runtime else {}).values():
        known[info.id] = _from_plugin(info)
    spec = resolved.providers.get(provider)
    for model in (spec.models if spec else {}).values():
        listed = known.get(model.id, KnownModel(model.id, methods=("generate", "embed")))
        known[model.id] = KnownModel(
            model.id,
            context=model.context or listed.context,
            max_output=model.max_output or listed.max_output,
            price=model.price or listed.price,
            tasks=model.tasks or listed.tasks,
            methods=listed.methods,
        )
    return known


def _from_plugin(info: ModelInfo) -> KnownModel:
    return KnownModel(
        info.id,
        context=info.context or None,
        max_output=info.max_output or None,
        price=_price_of(info.price),
        tasks=tuple(info.tasks),
        methods=tuple(info.methods),
    )


def _price_of(price: PriceInfo | None) -> Price | None:
    """In micro-dollars. A price nobody can mean is no price: money limits then refuse the model."""
    if price is None:
        return None
    cached = price.cached_input_per_million_usd
    figures = [price.input_per_million_usd, price.output_per_million_usd, price.per_request_usd, cached or 0.0]
    if not all(0 <= figure <= HIGHEST_USD for figure in figures):
        return None
    return Price(
        round(price.input_per_million_usd * 1e6),
        round(price.output_per_million_usd * 1e6),
        round(price.per_request_usd * 1e6),
        None if cached is None else round(cached * 1e6),
        price.as_of,
    )


def price_view(price: Price | None) -> dict[str, float | str | None] | None:
    if price is None:
        return None
    return {
        "input_per_million_usd": price.input_per_million / 1e6,
        "output_per_million_usd": price.output_per_million / 1e6,
        "per_request_usd": price.per_request / 1e6,
        "as_of": price.as_of,
    }
