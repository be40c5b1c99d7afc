"""The bodies that the fake upstream answers with, in OpenAI's shapes: pure functions from a request and a behaviour.

Everything is deterministic. The model says a fixed sentence (or as many of its words as asked), one word a chunk;
prompt tokens are the whitespace words of all messages, completion tokens the chunks.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import Any, Literal

import msgspec

from tests.fakes.upstream_behaviour import Behaviour
from tests.fakes.upstream_presets import rate_limit_body

SENTENCE = "The quick brown fox jumps over the lazy dog."
CREATED = 1_764_547_200
SLOT = "@fake-n-slot"
"""Stands in a built answer where the request's number goes: 12 characters, like the number."""

Kind = Literal["chat", "completions", "embeddings", "models", "catalog", "rate_limit"]
KINDS: dict[str, Kind] = {
    "/chat/completions": "chat",
    "/completions": "completions",
    "/embeddings": "embeddings",
    "/models": "models",
    "/catalog/models": "catalog",
    "/rate_limit": "rate_limit",
}
GET_KINDS = frozenset({"models", "catalog", "rate_limit"})
MODELS: list[str | dict[str, Any]] = [
    {"id": "m1", "owned_by": "fake", "shutdown_date": None},
    {"id": "gpt-4o-mini", "owned_by": "openai", "shutdown_date": None},
    {"id": "old-model", "owned_by": "fake", "shutdown_date": "2026-12-31"},
]


class Message(msgspec.Struct, gc=False):
    content: str | list[Any] | None = None


class StreamOptions(msgspec.Struct, gc=False):
    include_usage: bool | None = False


class Ask(msgspec.Struct):
    """The part of a request body that the answer depends on; the rest is ignored, as providers do."""

    model: str = ""
    messages: list[Message] = []
    prompt: str | list[Any] | None = None
    input: str | list[Any] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    encoding_format: str | None = None
    dimensions: int | None = None

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)


def kind_of(path: str) -> Kind | None:
    """Which endpoint a path is; the prefix is free (`/v1`, `/inference`, `/openai/v1`), as base URLs are."""
    return next((kind for tail in _TAILS if path.endswith(tail) for kind in [KINDS[tail]]), None)


_TAILS = sorted(KINDS, key=len, reverse=True)


def prompt_tokens(ask: Ask) -> int:
    """Whitespace words of all messages, of the prompt, or of the embedding's input (token arrays count their items)."""
    words = 0
    for message in ask.messages:
        content = message.content
        if isinstance(content, str):
            words += len(content.split())
        elif content is not None:
            words += sum(len(str(part.get("text", "")).split()) for part in content if isinstance(part, dict))
    for given in (ask.prompt, ask.input):
        if isinstance(given, str):
            words += len(given.split())
        elif given is not None:
            words += sum(_item_tokens(item) for item in given)
    return words


def _item_tokens(item: Any) -> int:
    return len(item.split()) if isinstance(item, str) else len(item) if isinstance(item, list) else 1


class Reply(msgspec.Struct, kw_only=True):
    """What the model says, before it is put into a shape."""

    pieces: list[str]
    thoughts: list[str]
    tool_calls: list[dict[str, Any]] | None
    finish: str
    usage: dict[str, Any] | None


def reply(ask: Ask, behaviour: Behaviour, prompt: int, kind: Kind) -> Reply:
    """The model's answer to `ask`; `prompt` is its number of prompt tokens."""
    calls = [_tool_call(i, call) for i, call in enumerate(behaviour.tool_calls or ())] if kind == "chat" else []
    if calls:
        pieces: list[str] = []
        finish = "tool_calls"
        completion = sum(len(_fragments(call)) for call in calls)
    else:
        text = SENTENCE if behaviour.content is None else behaviour.content
        words = text.split(" ") if text else []
        most = ask.max_completion_tokens or ask.max_tokens
        count = len(words) if behaviour.chunks is None else behaviour.chunks
        finish = "stop"
        if behaviour.chunks is None and most is not None and most < count:
            count, finish = most, "length"
        pieces = [(" " if i else "") + words[i % len(words)] for i in range(count)] if words else []
        completion = count
    usage: dict[str, Any] | None = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if behaviour.usage is not None:
        usage = behaviour.usage
    thoughts = [f"{word} " for word in (behaviour.thoughts or "").split()] if kind == "chat" else []
    return Reply(
        pieces=pieces,
        thoughts=thoughts,
        tool_calls=calls or None,
        finish=finish,
        usage=None if behaviour.no_usage else usage,
    )


def answer_body(ask: Ask, said: Reply, kind: Kind) -> bytes:
    """A whole chat or text completion."""
    if kind == "chat":
        message: dict[str, Any] = {"role": "assistant", "content": "".join(said.pieces), "refusal": None}
        if said.tool_calls:
            message = {"role": "assistant", "content": None, "tool_calls": said.tool_calls}
        if said.thoughts:
            message["reasoning_content"] = "".join(said.thoughts)
        choice: dict[str, Any] = {"index": 0, "message": message, "logprobs": None, "finish_reason": said.finish}
    else:
        choice = {"index": 0, "text": "".join(said.pieces), "logprobs": None, "finish_reason": said.finish}
    body = _envelope(ask, kind, "chat.completion" if kind == "chat" else "text_completion", [choice])
    if said.usage is not None:
        body["usage"] = said.usage
    return msgspec.json.encode(body)


def answer_events(ask: Ask, said: Reply, kind: Kind, *, done: bool) -> list[list[bytes]]:
    """The same as SSE events, grouped by the moment at which they are sent: one group per content chunk.

    The role travels with the first chunk, the finish reason, the usage and `[DONE]` with the last.
    """
    name = "chat.completion.chunk" if kind == "chat" else "text_completion"
    with_usage = ask.include_usage and said.usage is not None

    def event(choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        body = _envelope(ask, kind, name, choices)
        if with_usage:
            body["usage"] = usage
        return b"data: " + msgspec.json.encode(body) + b"\n\n"

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        if kind == "chat":
            return event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}])
        return event([{"index": 0, "text": delta.get("content", ""), "logprobs": None, "finish_reason": finish}])

    groups = [[chunk(delta)] for delta in _deltas(said)] or [[]]
    if kind == "chat":
        groups[0].insert(0, chunk({"role": "assistant", "content": None if said.tool_calls else ""}))
    groups[-1].append(chunk({}, said.finish))
    if with_usage:
        groups[-1].append(event([], said.usage))
    if done:
        groups[-1].append(b"data: [DONE]\n\n")
    return groups


def _deltas(said: Reply) -> list[dict[str, Any]]:
    if not said.tool_calls:
        return [*({"reasoning_content": one} for one in said.thoughts), *({"content": one} for one in said.pieces)]
    deltas = []
    for index, call in enumerate(said.tool_calls):
        for i, fragment in enumerate(_fragments(call)):
            opening = {"id": call["id"], "type": "function"} if i == 0 else {}
            name = {"name": call["function"]["name"]} if i == 0 else {}
            function = {**name, "arguments": fragment}
            deltas.append({"tool_calls": [{"index": index, **opening, "function": function}]})
    return deltas


def _fragments(call: dict[str, Any]) -> list[str]:
    """A call's arguments in the pieces in which they are streamed; the first is empty and carries the name."""
    arguments = call["function"]["arguments"]
    return ["", *(arguments[i : i + 8] for i in range(0, len(arguments), 8))]


def _tool_call(index: int, given: dict[str, Any]) -> dict[str, Any]:
    function = given.get("function", given)
    arguments = function.get("arguments", {})
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
    return {
        "id": given.get("id", f"call_{SLOT}_{index}"),
        "type": "function",
        "function": {"name": function["name"], "arguments": text},
    }


def _envelope(ask: Ask, kind: Kind, name: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": f"{'chatcmpl' if kind == 'chat' else 'cmpl'}-{SLOT}",
        "object": name,
        "created": CREATED,
        "model": ask.model,
        "system_fingerprint": "fp_fake",
        "choices": choices,
    }


def embeddings_body(ask: Ask, behaviour: Behaviour, prompt: int) -> bytes:
    """One vector per input, made from its SHA-256: equal inputs get equal vectors of `dimensions` (8) numbers."""
    inputs = ask.input if isinstance(ask.input, list) else [ask.input or ""]
    if inputs and isinstance(inputs[0], int):
        inputs = [inputs]
    data = []
    for index, item in enumerate(inputs):
        vector: Any = vector_of(item if isinstance(item, str) else repr(item), ask.dimensions or 8)
        if ask.encoding_format == "base64":
            vector = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    body: dict[str, Any] = {"object": "list", "data": data, "model": ask.model}
    if not behaviour.no_usage:
        body["usage"] = behaviour.usage or {"prompt_tokens": prompt, "total_tokens": prompt}
    return msgspec.json.encode(body)


def vector_of(text: str, dimensions: int) -> list[float]:
    """A vector that depends on the text alone; each number is a multiple of 1/128 in [-1, 1), exact in float32."""
    seed = b"".join(hashlib.sha256(f"{text}|{i}".encode()).digest() for i in range(-(-dimensions // 32)))
    return [(byte - 128) / 128 for byte in seed[:dimensions]]


def listing_body(kind: Kind, behaviour: Behaviour, now: float) -> bytes:
    """What the GET endpoints answer; `now` (epoch seconds) only dates the rate limit's reset."""
    if kind == "rate_limit":
        return msgspec.json.encode(rate_limit_body(now))
    entries = [{"id": e} if isinstance(e, str) else e for e in (behaviour.models or MODELS)]
    if kind == "catalog":
        return msgspec.json.encode([{**_CATALOG, "name": e["id"], **e} for e in entries])
    data = [{"object": "model", "created": CREATED, "owned_by": "fake", **e} for e in entries]
    return msgspec.json.encode({"object": "list", "data": data})


_CATALOG: dict[str, Any] = {
    "publisher": "fake",
    "rate_limit_tier": "low",
    "supported_input_modalities": ["text"],
    "supported_output_modalities": ["text"],
    "limits": {"max_input_tokens": 8000, "max_output_tokens": 4000},
    "capabilities": ["streaming", "tool-calling"],
}
