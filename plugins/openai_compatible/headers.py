"""What a host says about its limits in the headers of an answer (and in GitHub's 429 text), as observations. Pure.

Families, recognised by name wherever they appear:

* ``x-ratelimit-{limit,remaining,reset}-{requests,tokens,…}[-{second,minute,hour,day,month}]`` (OpenAI, Groq, Cerebras,
  Mistral, NVIDIA, vLLM gateways);
* ``anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}``;
* ``x-ratelimit-{limit,remaining,reset}`` without a unit: requests (GitHub, OpenRouter);
* ``ratelimit`` and ``ratelimit-policy`` (Hugging Face's Hub, IETF draft 8), ``ratelimit-limit`` and so on (draft 3).

The window is None when the host does not say; a dialect adds what its documentation fixes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from hybridd.plugin import Observation
from plugins.openai_compatible import hints

_UNITS = {
    "requests": "requests", "request": "requests", "req": "requests", "tokens": "total_tokens", "token": "total_tokens",
    "total-tokens": "total_tokens", "input-tokens": "input_tokens", "prompt-tokens": "input_tokens",
    "output-tokens": "output_tokens", "completion-tokens": "output_tokens",
    "concurrent-requests": "concurrent", "concurrency": "concurrent",
}  # fmt: skip
_WINDOWS = {
    "second": "1s", "1s": "1s", "minute": "60s", "1m": "60s", "hour": "3600s", "1h": "3600s",
    "day": "86400s", "1d": "86400s", "month": "month",
}  # fmt: skip
# What the documentation of a host fixes about figures whose header names no window: dialect → unit → window.
_DIALECT_WINDOWS: dict[str, dict[str, str]] = {
    "github_models": {"requests": "3600s"},
    "groq": {"requests": "86400s", "total_tokens": "60s"},
    "github": {"requests": "3600s"},
}
_LARGEST = 10**15

_X = re.compile(r"x-ratelimit-(limit|remaining|reset)(?:-([a-z-]+?))?(?:-(second|minute|hour|day|month|1[smhd]))?\Z")
_ANTHROPIC = re.compile(r"anthropic-ratelimit-([a-z-]+)-(limit|remaining|reset)\Z")
_DRAFT3 = re.compile(r"ratelimit-(limit|remaining|reset)\Z")
_HUB_ITEM = re.compile(r'"([^"]{1,64})"((?:\s*;\s*[a-z]+\s*=\s*[0-9.]{1,20})+)')
_HUB_PART = re.compile(r"([a-z]+)\s*=\s*([0-9.]{1,20})")

# "Rate limit of 50 per 86400s exceeded for UserByModelByDay. Please wait 5631 seconds before retrying."
_GITHUB_TEXT = re.compile(r"Rate limit of (\d{1,12}) per (\d{1,9})s exceeded for (\w{1,80})")


class _Name(NamedTuple):
    field: str
    unit: str
    window: str | None


@lru_cache(maxsize=1024)
def _name(header: str) -> _Name | None:
    """What one header carries; cached, for the same names come with every answer."""
    matched = _X.match(header)
    if matched:
        unit = "requests" if matched[2] is None else _UNITS.get(matched[2])
        return _Name(matched[1], unit, _WINDOWS.get(matched[3] or "")) if unit else None
    matched = _ANTHROPIC.match(header)
    if matched:
        unit = _UNITS.get(matched[1])
        return _Name(matched[2], unit, None) if unit else None
    matched = _DRAFT3.match(header)
    return _Name(matched[1], "requests", None) if matched else None


def observe(headers: Mapping[str, str], dialect: str, now: float) -> list[Observation]:
    """Every limit that an answer's headers report.

    Args:
        headers: the answer's headers; names in any case.
        dialect: the host's family (``openai``, ``groq``, ``github``, …); unknown ones are read as ``openai``.
        now: UTC seconds since the epoch, for resets given as instants.
    """
    relevant = [(name.lower(), value) for name, value in headers.items() if "ratelimit" in name.lower()]
    if not relevant:
        return []
    by_name = dict(relevant)
    if dialect.startswith("github") and by_name.get("x-ratelimit-resource", "core") != "core":
        return []
    found: dict[tuple[str, str | None], dict[str, str]] = {}
    for header, value in relevant:
        name = _name(header)
        if name:
            found.setdefault((name.unit, name.window), {}).setdefault(name.field, value)
    fixed = _DIALECT_WINDOWS.get(dialect, {})
    observations = []
    for (unit, window), fields in found.items():
        made = _observation(unit, window or fixed.get(unit), fields, now)
        if made:
            observations.append(made)
    observations.extend(_hub(by_name))
    return observations


def _observation(unit: str, window: str | None, fields: Mapping[str, str], now: float) -> Observation | None:
    limit, remaining = count(fields.get("limit")), count(fields.get("remaining"))
    if (limit is None and remaining is None) or limit == 0 or fields.get("limit", "").startswith("-"):
        return None  # "0" and "-1" are how some gateways write "no limit"
    if fields.get("remaining") == "-1":
        remaining = None  # and this is how Azure writes "not known"
    return make(unit, limit=limit, remaining=remaining, window=window, reset=hints.wait(fields.get("reset"), now))


def make(
    unit: str,
    *,
    limit: float | None,
    remaining: float | None,
    window: str | None,
    reset: float | None,
    models: list[str] | None = None,
    source: str = "header",
) -> Observation:
    """An observation; ``reset`` in seconds from now, rounded up to the millisecond."""
    reset_ms = None if reset is None else math.ceil(reset * 1000)
    return Observation(
        unit=unit,  # type: ignore[arg-type]  # one of the values of _UNITS
        limit=limit,
        remaining=remaining,
        window=window,
        reset_ms=reset_ms,
        models=models,
        source=source,  # type: ignore[arg-type]  # header or body
    )


def count(text: str | None) -> float | None:
    """A non-negative figure; a negative remainder is nothing left; None for what is no number."""
    if text is None:
        return None
    try:
        value = float(text.strip().replace(",", ""))
    except ValueError:
        return None
    if not math.isfinite(value) or value > _LARGEST:
        return None
    return max(0.0, value)


def _hub(headers: Mapping[str, str]) -> Iterator[Observation]:
    """``ratelimit: "api";r=489;t=55`` with ``ratelimit-policy: "fixed window";"api";q=500;w=300``."""
    policies = _items(headers.get("ratelimit-policy", ""))
    for bucket, state in _items(headers.get("ratelimit", "")).items():
        if "r" not in state:
            continue
        policy = policies.get(bucket, {})
        seconds = policy.get("w")
        yield make(
            "requests",
            limit=policy.get("q"),
            remaining=state["r"],
            window=f"{int(seconds)}s" if seconds and seconds >= 1 else None,
            reset=hints.bounded(state["t"]) if "t" in state else None,
        )


def _items(text: str) -> dict[str, dict[str, float]]:
    items: dict[str, dict[str, float]] = {}
    for name, parts in _HUB_ITEM.findall(text[:1024]):
        values = {key: count(value) for key, value in _HUB_PART.findall(parts)}
        items[name] = {key: value for key, value in values.items() if value is not None}
    return items


def from_text(text: str, model: str | None, now: float) -> list[Observation]:
    """GitHub's sentence about the limit that was hit; a limit "ByModel" binds ``model`` alone."""
    matched = _GITHUB_TEXT.search(text[:4096])
    if not matched:
        return []
    seconds, scope = int(matched[2]), matched[3]
    concurrent = "Concurrent" in scope
    return [
        make(
            "concurrent" if concurrent else "requests",
            limit=float(matched[1]),
            remaining=0.0,
            window=f"{seconds}s" if seconds and not concurrent else None,
            reset=hints.from_prose(text, now),
            models=[model] if model and "ByModel" in scope else None,
            source="body",
        )
    ]


def exhausted_wait(observations: Iterable[Observation]) -> float | None:
    """Seconds until the last of the used-up limits resets; None when none is used up or none says when."""
    waits = [seen.reset_ms / 1000 for seen in observations if seen.remaining == 0 and seen.reset_ms is not None]
    return max(waits, default=None)
