"""What configuration and plugin together know of a provider's models."""

from __future__ import annotations

from hybridd.config.resolved import Resolved
from hybridd.contracts.protocol import ModelInfo
from hybridd.contracts.quotas import Price
from hybridd.providers import Hub
from hybridd.routing.candidates import KnownModel


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
    price = info.price
    return KnownModel(
        info.id,
        context=info.context,
        max_output=info.max_output,
        price=Price(
            round(price.input_per_million_usd * 1e6),
            round(price.output_per_million_usd * 1e6),
            round(price.per_request_usd * 1e6),
            None if price.cached_input_per_million_usd is None else round(price.cached_input_per_million_usd * 1e6),
            price.as_of,
        )
        if price is not None
        else None,
        tasks=tuple(info.tasks),
        methods=tuple(info.methods),
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
