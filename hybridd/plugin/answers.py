"""OpenAI shapes made from plain text, for providers that produce nothing but text."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, TypeGuard

import msgspec

from hybridd.contracts.protocol import Usage

encode = msgspec.json.Encoder().encode


def identity(endpoint: str, call_id: int, trace_id: str) -> str:
    prefix = "cmpl" if endpoint == "completion" else "chatcmpl"
    return f"{prefix}-{trace_id or call_id}"


def whole(
    text: str, *, model: str, endpoint: str, answer_id: str, usage: Usage | None, finish_reason: str = "stop"
) -> dict[str, Any]:
    """A complete ``chat.completion`` or ``text_completion``."""
    if endpoint == "completion":
        choice: dict[str, Any] = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}
    else:
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            "finish_reason": finish_reason,
        }
    answer: dict[str, Any] = {
        "id": answer_id,
        "object": "text_completion" if endpoint == "completion" else "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
    }
    if usage is not None:
        answer["usage"] = usage_body(usage)
    return answer


def usage_body(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def usage_from(body: Mapping[str, Any]) -> Usage | None:
    """The usage of an OpenAI answer; None when absent or not two counts (absent is not zero)."""
    reported = body.get("usage")
    if not isinstance(reported, Mapping):
        return None
    prompt, completion = reported.get("prompt_tokens"), reported.get("completion_tokens", 0)
    if not _is_count(prompt) or not _is_count(completion):
        return None
    details = reported.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else None
    return Usage(input_tokens=prompt, output_tokens=completion, cached_input_tokens=cached if _is_count(cached) else 0)


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


class ChunkWriter:
    """Wraps text deltas of one answer into OpenAI chunks."""

    def __init__(self, *, model: str, endpoint: str, answer_id: str) -> None:
        self._completion = endpoint == "completion"
        kind = "text_completion" if self._completion else "chat.completion.chunk"
        head = {"id": answer_id, "object": kind, "created": int(time.time()), "model": model}
        # Only the choices differ from one chunk to the next: the head is encoded once.
        self._head = encode(head)[:-1]
        self._started = False

    def delta(self, text: str) -> bytes:
        quoted = encode(text)
        if self._completion:
            return b"".join(
                (self._head, b',"choices":[{"index":0,"text":', quoted, b',"logprobs":null,"finish_reason":null}]}')
            )
        role = b"" if self._started else b'"role":"assistant",'
        self._started = True
        return b"".join(
            (
                self._head,
                b',"choices":[{"index":0,"delta":{',
                role,
                b'"content":',
                quoted,
                b'},"logprobs":null,"finish_reason":null}]}',
            )
        )

    def finish(self, finish_reason: str = "stop") -> bytes:
        middle = b'"text":""' if self._completion else b'"delta":{}'
        return b"".join(
            (
                self._head,
                b',"choices":[{"index":0,',
                middle,
                b',"logprobs":null,"finish_reason":',
                encode(finish_reason),
                b"}]}",
            )
        )

    def usage(self, usage: Usage) -> bytes:
        return b"".join((self._head, b',"choices":[],"usage":', encode(usage_body(usage)), b"}"))


def chunks_of(body: Mapping[str, Any], writer: ChunkWriter) -> list[bytes]:
    """A complete answer as the chunks a streaming caller expects: tool calls kept, text in one piece."""
    events: list[bytes] = []
    for choice in body.get("choices") or []:
        message = choice.get("message") if isinstance(choice.get("message"), Mapping) else None
        finish = choice.get("finish_reason") or "stop"
        if message is None:
            events += [writer.delta(str(choice.get("text", ""))), writer.finish(finish)]
            continue
        delta = {key: value for key, value in message.items() if value is not None}
        if isinstance(delta.get("tool_calls"), list):
            delta["tool_calls"] = [{"index": at, **call} for at, call in enumerate(delta["tool_calls"])]
        index = choice.get("index", 0)
        head = {key: body[key] for key in ("id", "created", "model", "system_fingerprint") if key in body}
        head["object"] = "chat.completion.chunk"
        events.append(encode({**head, "choices": [{"index": index, "delta": delta, "finish_reason": None}]}))
        events.append(encode({**head, "choices": [{"index": index, "delta": {}, "finish_reason": finish}]}))
    return events


def text_of_event(event: bytes) -> tuple[str, str | None]:
    """The text delta and finish reason of one chunk; ("", None) when it has neither."""
    try:
        body = msgspec.json.decode(event)
        choice = body["choices"][0]
    except (msgspec.DecodeError, KeyError, IndexError, TypeError):
        return "", None
    delta = choice.get("delta") or {}
    text = delta.get("content") if "content" in delta else choice.get("text")
    return text if isinstance(text, str) else "", choice.get("finish_reason")
