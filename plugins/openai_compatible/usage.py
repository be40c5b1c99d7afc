"""Usage figures of answers: what was reported, or nothing. Pure.

"Absent is not zero": figures that are missing, null, negative or no numbers make the usage unknown (None), so that the
ledger charges the whole reservation.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from hybridd.plugin import Usage

_LARGEST = 10**12


class PromptDetails(Struct):
    cached_tokens: int | None = None


class Reported(Struct):
    """The ``usage`` member as the hosts write it. ``cost`` (OpenRouter) is in US dollars."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    prompt_cache_hit_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None


def convert(reported: Reported | None) -> Usage | None:
    """The protocol's usage, or None when the figures cannot be told.

    A total larger than prompt and completion together is believed: several hosts leave "thinking" tokens out of
    ``completion_tokens`` but bill them as output.
    """
    if reported is None:
        return None
    prompt = _first(reported.prompt_tokens, reported.input_tokens)
    completion = _first(reported.completion_tokens, reported.output_tokens)
    total = reported.total_tokens
    if prompt is None or _wrong(prompt) or (completion is not None and _wrong(completion)):
        return None
    if total is not None and not _wrong(total) and total >= prompt:
        completion = max(completion or 0, total - prompt)
    if completion is None:
        return None
    details = reported.prompt_tokens_details
    cached = _first(details.cached_tokens if details else None, reported.prompt_cache_hit_tokens) or 0
    dollars = reported.cost
    return Usage(
        input_tokens=prompt,
        output_tokens=completion,
        cached_input_tokens=min(max(cached, 0), prompt),
        usd=dollars if dollars is not None and 0 <= dollars < _LARGEST else None,
    )


def tolerant(value: Any) -> Usage | None:
    """From a decoded ``usage`` member of any shape: figures as 12.0 or "12" count, anything else is left out."""
    if not isinstance(value, dict):
        return None
    cleaned: dict[str, Any] = {key: _number(figure) for key, figure in value.items() if isinstance(key, str)}
    details = value.get("prompt_tokens_details")
    if isinstance(details, dict):
        cleaned["prompt_tokens_details"] = {"cached_tokens": _number(details.get("cached_tokens"))}
    cost = value.get("cost")
    cleaned["cost"] = cost if isinstance(cost, (int, float)) and not isinstance(cost, bool) else None
    try:
        return convert(msgspec.convert(cleaned, Reported))
    except msgspec.ValidationError:
        return None


def _number(figure: Any) -> int | None:
    if isinstance(figure, bool):
        return None
    try:
        number = float(figure)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if abs(number) < _LARGEST and number.is_integer() else None


def _first(*figures: int | None) -> int | None:
    for figure in figures:
        if figure is not None:
            return figure
    return None


def _wrong(figure: int) -> bool:
    return not 0 <= figure < _LARGEST
