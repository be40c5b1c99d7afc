"""OpenAI's answers as the local engine gives them: whole ones, chunks of a stream, embeddings. Pure.

Beside OpenAI's members an answer has ``timings`` (llama.cpp's server says the same) and ``local``: what was really
loaded. In a stream both are on the chunk with the last ``finish_reason`` and on the one with the usage.

A chunk is written for each token of every sequence: all but its text is encoded once per answer.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

encode = msgspec.json.Encoder().encode


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """``prompt_n``: tokens that were evaluated, without the ``cache_n`` found in the cache. Times in milliseconds."""

    prompt_n: int = 0
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0
    cache_n: int = 0

    def body(self) -> dict[str, Any]:
        return {
            "cache_n": self.cache_n,
            "prompt_n": self.prompt_n,
            "prompt_ms": round(self.prompt_ms, 3),
            "prompt_per_second": _speed(self.prompt_n, self.prompt_ms),
            "predicted_n": self.predicted_n,
            "predicted_ms": round(self.predicted_ms, 3),
            "predicted_per_second": _speed(self.predicted_n, self.predicted_ms),
        }


class Local(msgspec.Struct, frozen=True, kw_only=True):
    """What was really loaded and answered: ``gpu_layers`` of ``layers`` are in video memory.
    ``type_k`` and ``type_v`` None: it has no KV cache."""

    file: str
    quantization: str
    context: int
    gpu_layers: int
    layers: int
    type_k: str | None
    type_v: str | None

    def body(self, ignored: Sequence[str] = ()) -> dict[str, Any]:
        made: dict[str, Any] = msgspec.to_builtins(self)
        return {**made, "ignored": list(ignored)} if ignored else made


def usage(prompt: int, completion: int, cached: int = 0, reasoning: int = 0) -> dict[str, Any]:
    """``cached``: of the prompt's tokens, those found in the cache; ``reasoning``: of the answer's, those thought."""
    made: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    if reasoning:
        made["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return made


def whole(
    choices: Sequence[Mapping[str, Any]], *, answer_id: str, model: str, created: int, chat: bool,
    usage: Mapping[str, Any], extra: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """A complete answer. ``extra``: ``timings`` and ``local``."""
    return {
        "id": answer_id,
        "object": "chat.completion" if chat else "text_completion",
        "created": created,
        "model": model,
        "choices": list(choices),
        "usage": dict(usage),
        **extra,
    }


class Writer:
    """Writes the chunks of one answer, whose choices share it. ``created``: seconds since 1970."""

    def __init__(self, *, answer_id: str, model: str, created: int, chat: bool) -> None:
        self.chat = chat
        kind = "chat.completion.chunk" if chat else "text_completion"
        self._head = encode({"id": answer_id, "object": kind, "created": created, "model": model})[:-1]
        self._member = b'"delta":{"content":' if chat else b'"text":'
        self._after = b"}" * chat + b',"logprobs":null,"finish_reason":null}]}'

    def text_of(self, index: int) -> bytes:
        """What stands before the text of choice ``index``; :meth:`text` takes it."""
        return self._head + b',"choices":[{"index":%d,' % index + self._member

    def text(self, before: bytes, text: str) -> bytes:
        """The usual chunk: nothing but text."""
        return before + encode(text) + self._after

    def delta(
        self, index: int, delta: Mapping[str, Any], *, logprobs: Any = None, finish: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> bytes:  # fmt: skip
        """Any chunk. ``delta``: of a chat its members, of a completion ``text``; ``extra``: more members of the chunk
        (``tokens`` goes to the choice)."""
        choice: dict[str, Any] = {"index": index}
        choice |= {"delta": delta} if self.chat else {"text": delta.get("text", "")}
        choice |= {"logprobs": logprobs, "finish_reason": finish}
        more = dict(extra) if extra else {}
        if "tokens" in more:
            choice["tokens"] = more.pop("tokens")
        return self._head + b',"choices":[' + encode(choice) + b"]" + _members(more) + b"}"

    def usage(self, usage: Mapping[str, Any], extra: Mapping[str, Any]) -> bytes:
        """The last chunk: no choices, only figures."""
        return self._head + b',"choices":[],"usage":' + encode(usage) + _members(extra) + b"}"


def embeddings(
    vectors: Sequence[Sequence[float] | bytes], *, model: str, encoding: str, prompt_tokens: int,
    extra: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """An embeddings answer. A vector is numbers, or the bytes of little-endian 32-bit floats (the quicker way)."""
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(vector, encoding)}
        for index, vector in enumerate(vectors)
    ]
    figures = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
    return {"object": "list", "data": data, "model": model, "usage": figures, **extra}


def _vector(vector: Sequence[float] | bytes, encoding: str) -> list[float] | str:
    if encoding == "base64":
        raw = vector if isinstance(vector, bytes) else struct.pack(f"<{len(vector)}f", *vector)
        return base64.b64encode(raw).decode("ascii")
    return list(struct.unpack(f"<{len(vector) // 4}f", vector)) if isinstance(vector, bytes) else list(vector)


def _members(more: Mapping[str, Any]) -> bytes:
    return b"," + encode(more)[1:-1] if more else b""


def _speed(tokens: int, milliseconds: float) -> float:
    """Tokens per second; 0 when nothing was measured."""
    return round(tokens / milliseconds * 1000, 3) if milliseconds > 0 else 0.0
