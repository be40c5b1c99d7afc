"""Model lists of hosts to the protocol's model descriptions. Pure.

Accepts OpenAI's ``{"data": […]}``, a bare array, and ``{"models": […]}``; entries may be names or objects.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hybridd.plugin import Model, PriceInfo

MAX_MODELS = 2000
_LARGEST = 10**9
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_CONTEXT = ("context_length", "context_window", "max_model_len", "max_context_length", "context_size")
_OUTPUT = ("max_completion_tokens", "max_output_tokens")


def configured(models: Mapping[str, Mapping[str, Any]]) -> dict[str, Model]:
    """The models of the settings: ``{name: {context, max_output, price, tasks}}``."""
    return {
        name: Model(
            id=name,
            context=_count(told.get("context")),
            max_output=_count(told.get("max_output")),
            tasks=[str(task) for task in told.get("tasks") or ()],
            price=_price(told.get("price")),
            methods=_methods(name),
        )
        for name, told in models.items()
    }


def listed(body: Any) -> list[Model]:
    """The models of a host's list; entries that name none are left out.

    Raises:
        ValueError: the body is no model list at all.
    """
    entries = body
    if isinstance(body, Mapping):
        entries = next((body[key] for key in ("data", "models") if isinstance(body.get(key), list)), None)
    if not isinstance(entries, list):
        raise ValueError("the answer is not a model list")  # noqa: TRY004  # the input is data, not an argument
    found: dict[str, Model] = {}
    for entry in entries[:MAX_MODELS]:
        model = _entry({"id": entry} if isinstance(entry, str) else entry)
        if model is not None:
            found.setdefault(model.id, model)
    return list(found.values())


def merged(own: Mapping[str, Model], host: list[Model]) -> list[Model]:
    """Configured models first, in their order; what the configuration leaves open is filled in from the host's list."""
    by_id = {model.id: model for model in host}
    result = []
    for name, model in own.items():
        told = by_id.pop(name, None)
        if told is not None:
            model.context = model.context if model.context is not None else told.context
            model.max_output = model.max_output if model.max_output is not None else told.max_output
            model.price = model.price if model.price is not None else told.price
            model.shutdown_date = told.shutdown_date
            model.modalities = told.modalities
        result.append(model)
    return [*result, *by_id.values()]


def _entry(entry: Any) -> Model | None:
    if not isinstance(entry, Mapping):
        return None
    name = entry.get("id") or entry.get("name") or entry.get("model")
    if not isinstance(name, str) or not 0 < len(name) <= 512:
        return None
    name = name.removeprefix("models/")  # Gemini's list carries its resource path
    limits = entry.get("limits") if isinstance(entry.get("limits"), Mapping) else {}
    context = _first(entry, _CONTEXT)
    if context is None and isinstance(limits, Mapping):
        context = _count(limits.get("max_input_tokens"))
    output = _first(entry, _OUTPUT)
    if output is None and isinstance(limits, Mapping):
        output = _count(limits.get("max_output_tokens"))
    shutdown = entry.get("shutdown_date")
    modalities = entry.get("supported_input_modalities")
    return Model(
        id=name,
        context=context,
        max_output=output,
        modalities=[str(one)[:32] for one in modalities[:16]] if isinstance(modalities, list) else ["text"],
        methods=_methods(name),
        price=_listed_price(entry.get("pricing")),
        shutdown_date=shutdown[:10] if isinstance(shutdown, str) and _DATE.match(shutdown) else None,
        details={
            key: entry[key][:100]
            for key in ("publisher", "rate_limit_tier", "owned_by")
            if isinstance(entry.get(key), str)
        },
    )


def _methods(name: str) -> list[str]:
    return ["embed"] if "embed" in name.lower() else ["generate", "embed"]


def _first(entry: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    return next((count for count in (_count(entry.get(key)) for key in keys) if count is not None), None)


def _count(value: Any) -> int | None:
    whole = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < _LARGEST
    return int(value) if whole else None


def _price(told: Any) -> PriceInfo | None:
    if not isinstance(told, Mapping):
        return None
    cached, as_of = told.get("cached_input_per_million_usd"), told.get("as_of")
    return PriceInfo(
        input_per_million_usd=float(told.get("input_per_million_usd", 0.0)),
        output_per_million_usd=float(told.get("output_per_million_usd", 0.0)),
        per_request_usd=float(told.get("per_request_usd", 0.0)),
        cached_input_per_million_usd=None if cached is None else float(cached),
        as_of=as_of if isinstance(as_of, str) else None,
    )


def _listed_price(pricing: Any) -> PriceInfo | None:
    """OpenRouter's list: US dollars for one token and for one request, as decimal text."""
    if not isinstance(pricing, Mapping):
        return None
    try:
        prompt, completion = float(pricing["prompt"]) * 1e6, float(pricing["completion"]) * 1e6
        request = float(pricing.get("request") or 0)
    except (KeyError, TypeError, ValueError):
        return None
    if not all(0 <= figure < _LARGEST for figure in (prompt, completion, request)):
        return None  # -1 means "depends on where it is routed"
    return PriceInfo(
        input_per_million_usd=round(prompt, 6), output_per_million_usd=round(completion, 6), per_request_usd=request
    )
