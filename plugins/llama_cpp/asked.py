"""What a request asks of the local engine, checked. Pure.

Nothing is quietly ignored that would change the answer: what the engine cannot do fails as ``unsupported`` (nothing
sent), and the router looks for a provider that can.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hybridd.plugin import CallFailure

MAX_STOPS = 16


class Sampling(msgspec.Struct, frozen=True):
    """llama.cpp's own defaults where the request says nothing. ``seed`` None: random."""

    temperature: float = 0.8
    top_p: float = 0.95
    top_k: int = 40
    min_p: float = 0.05
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repeat_penalty: float = 1.0
    seed: int | None = None


class Asked(msgspec.Struct, frozen=True):
    """``max_tokens`` None: until the context is full."""

    sampling: Sampling
    max_tokens: int | None
    stops: tuple[str, ...]
    messages: list[dict[str, Any]] | None
    prompt: str | None
    include_usage: bool


# parameter → (lowest, highest)
_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0, 2), "top_p": (0, 1), "min_p": (0, 1), "top_k": (0, 1_000_000), "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2), "repeat_penalty": (0, 10), "seed": (-(2**63), 2**64),
}  # fmt: skip
_WHOLE = frozenset({"top_k", "seed"})


def read(body: dict[str, Any], *, chat: bool) -> Asked:
    """Raises :class:`CallFailure` (``bad_request`` or ``unsupported``, not sent) for what cannot be done."""
    _refuse_unsupported(body)
    figures: dict[str, Any] = {}
    for name, (low, high) in _RANGES.items():
        value = body.get(name)
        if value is None:
            continue
        number = isinstance(value, int) or (isinstance(value, float) and name not in _WHOLE)
        if isinstance(value, bool) or not number or not low <= value <= high:
            kind = "a whole number" if name in _WHOLE else "a number"
            raise _wrong(name, f"must be {kind} from {low:g} to {high:g}")
        figures[name] = value
    if "seed" in figures:
        figures["seed"] %= 2**32 - 1  # the last value means "random" to llama.cpp
    limit = body.get("max_completion_tokens")
    limit = body.get("max_tokens") if limit is None else limit
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise _wrong("max_tokens", "must be a whole number of at least 1")
    options = body.get("stream_options")
    return Asked(
        sampling=Sampling(**figures),
        max_tokens=limit,
        stops=_stops(body.get("stop")),
        messages=_messages(body.get("messages")) if chat else None,
        prompt=None if chat else _prompt(body.get("prompt")),
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


def _refuse_unsupported(body: dict[str, Any]) -> None:
    form = body.get("response_format")
    wishes = {
        "n": body.get("n") not in (None, 1),
        "best_of": body.get("best_of") not in (None, 1),
        "logprobs": bool(body.get("logprobs")) or bool(body.get("top_logprobs")),
        "logit_bias": bool(body.get("logit_bias")),
        "echo": bool(body.get("echo")),
        "suffix": bool(body.get("suffix")),
        "tools": bool(body.get("tools") or body.get("functions")) and body.get("tool_choice") != "none",
        "response_format": isinstance(form, dict) and form.get("type") not in (None, "text"),
    }
    for name, wished in wishes.items():
        if wished:
            raise CallFailure("unsupported", f"local models do not support {name} yet", sent="no", param=name)


def _stops(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(isinstance(one, str) for one in stops):
        raise _wrong("stop", f"must be a text or up to {MAX_STOPS} texts")
    return tuple(one for one in stops if one)


def _messages(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise _wrong("messages", "must be a list of at least one message")
    made = []
    for at, message in enumerate(value):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _wrong(f"messages.{at}", "must be an object with a role")
        content = message.get("content")
        made.append({**message, "content": _text(content, f"messages.{at}.content")})
    return made


def _text(content: Any, where: str) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _wrong(where, "must be a text or a list of parts")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            raise CallFailure("unsupported", f"local models take text only, not {kind!r}", sent="no", param=where)
        if not isinstance(part.get("text"), str):
            raise _wrong(where, "has a text part without text")
        texts.append(part["text"])
    return "\n".join(texts)


def _prompt(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        raise CallFailure("unsupported", "local models take one prompt, as text", sent="no", param="prompt")
    raise _wrong("prompt", "must be a text")


def _wrong(name: str, what: str) -> CallFailure:
    return CallFailure("bad_request", f"{name} {what}", sent="no", param=name)
