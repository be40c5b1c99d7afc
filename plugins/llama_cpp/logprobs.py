"""Log-probabilities of tokens in OpenAI's shapes. Pure.

The chat shape has one object per token with its bytes; the older completion shape has parallel lists. As llama.cpp's
server does, the chat shape also carries each token's id.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

# JSON knows no infinity; this is what OpenAI's service says for "never".
LOWEST = -9999.0


class Found(msgspec.Struct, frozen=True, gc=False):
    """One token and how likely it was: ``logprob`` is the natural logarithm of its probability."""

    token: int
    piece: bytes
    logprob: float


class Scored(msgspec.Struct, frozen=True):
    """The token taken, and the likeliest ones at its place (best first), as many as were asked for."""

    taken: Found
    top: tuple[Found, ...] = ()


def chat(scores: Sequence[Scored]) -> dict[str, Any]:
    """``choices[].logprobs`` of a chat."""
    content = [{**_entry(score.taken), "top_logprobs": [_entry(one) for one in score.top]} for score in scores]
    return {"content": content, "refusal": None}


def completion(scores: Sequence[Scored], offsets: Sequence[int]) -> dict[str, Any]:
    """``choices[].logprobs`` of a completion. ``offsets``: where each token's text begins in the answer's text."""
    return {
        "tokens": [_text(score.taken) for score in scores],
        "token_logprobs": [_figure(score.taken.logprob) for score in scores],
        "top_logprobs": [_named(score) for score in scores],
        "text_offset": list(offsets),
    }


def _entry(found: Found) -> dict[str, Any]:
    return {
        "id": found.token,
        "token": _text(found),
        "logprob": _figure(found.logprob),
        "bytes": list(found.piece),
    }


def _named(score: Scored) -> dict[str, float]:
    """By text. Two tokens can have the same text (halves of characters): the likelier one stands."""
    named: dict[str, float] = {}
    for one in score.top:
        named.setdefault(_text(one), _figure(one.logprob))
    return named


def _text(found: Found) -> str:
    return found.piece.decode("utf-8", "replace")


def _figure(logprob: float) -> float:
    return max(logprob, LOWEST) if not math.isnan(logprob) else LOWEST
