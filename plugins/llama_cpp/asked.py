"""What a request asks of the local engine, checked. Pure.

Nothing is quietly ignored that would change the answer: what the engine cannot do fails as ``unsupported`` (nothing
sent), and the router looks for a provider that can. What has no effect here is named in :attr:`Asked.ignored`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from plugins.llama_cpp import asked_messages, gbnf, sampling_params, schema
from plugins.llama_cpp.refuse import flag, number, shown, unsupported, wrong
from plugins.llama_cpp.sampling_params import LAST_TOKEN, Sampling

MAX_STOPS = 16
MAX_STOP = 256
MAX_CHOICES = 128
MAX_LOGPROBS = 20
MAX_INPUTS = 2048
MAX_TEMPLATE_VALUES = 64
_DURATION = re.compile(r"-?\d+(\.\d+)?\s*(ms|s|m|h)?")

ReasoningFormat = Literal["auto", "none"]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A chat or a completion.

    ``messages``: of a chat; None for a completion, which has ``prompts`` instead: texts or token ids. ``max_tokens``
    None: until the context is full. ``choices``: answers to each prompt. ``logprobs`` None: not wanted; otherwise how
    many alternatives each token comes with (0: only its own). ``tool_choice``: ``auto``, ``none``, ``required``, or a
    tool's name after ``=``. ``grammar``: GBNF, the caller's own or made from a JSON Schema, checked; empty for none.
    ``ignored``: parameters that had no effect.
    """

    sampling: Sampling = Sampling()
    messages: list[dict[str, Any]] | None = None
    prompts: tuple[str | tuple[int, ...], ...] = ()
    max_tokens: int | None = None
    stops: tuple[str, ...] = ()
    choices: int = 1
    logprobs: int | None = None
    echo: bool = False
    cache_prompt: bool = True
    grammar: str = ""
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: str = "auto"
    parallel_tool_calls: bool = True
    template_values: dict[str, Any] = {}
    add_generation_prompt: bool = True
    reasoning: ReasoningFormat = "auto"
    return_tokens: bool = False
    timings_per_token: bool = False
    include_usage: bool = False
    stream: bool = False
    ignored: tuple[str, ...] = ()


class AskedEmbedding(msgspec.Struct, frozen=True, kw_only=True):
    """``inputs``: texts or token ids. ``dimensions`` None: as many as the model has. ``normalize``: to length 1."""

    inputs: tuple[str | tuple[int, ...], ...]
    encoding: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    normalize: bool = True
    ignored: tuple[str, ...] = ()


# Taken by OpenAI's surface or llama.cpp's server, without effect on what this engine answers.
NO_EFFECT = frozenset({
    "id_slot", "n_keep", "n_discard", "n_cache_reuse", "prediction", "store", "metadata", "service_tier",
    "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "user", "return_progress", "sse_ping_interval",
    "verbosity",
})  # fmt: skip
# parameter → the values that ask nothing of the engine; any other goes to somebody who can do it.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,), "suffix": ("",), "audio": (), "modalities": (["text"], []), "web_search_options": (),
    "functions": ([],), "function_call": ("none",), "post_sampling_probs": (False,), "response_fields": ([],),
    "t_max_predict_ms": (0, -1), "lora": ([],), "n_indent": (0,), "grammar_lazy": (False,), "grammar_triggers": ([],),
    "image_data": ([],), "speculative": (), "adaptive_target": (-1,),
}  # fmt: skip
KNOWN = (
    frozenset(sampling_params.FIGURES) | frozenset(NEUTRAL) | NO_EFFECT
    | {
        "model", "messages", "prompt", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n_predict",
        "stop", "n", "n_cmpl", "logprobs", "top_logprobs", "n_probs", "echo", "cache_prompt", "grammar", "json_schema",
        "response_format", "tools", "tool_choice", "parallel_tool_calls", "chat_template_kwargs",
        "reasoning_effort", "reasoning_format", "add_generation_prompt", "return_tokens", "timings_per_token",
        "ignore_eos", "logit_bias", "keep_alive", "dry_sequence_breakers", "samplers", "documents",
    }
)  # fmt: skip
OF_CHATS = frozenset(
    {
        "messages", "tools", "tool_choice", "parallel_tool_calls", "chat_template_kwargs", "documents",
        "reasoning_effort", "reasoning_format", "add_generation_prompt",
    }
)  # fmt: skip


def read(body: Mapping[str, Any], *, chat: bool, template: str = "") -> Asked:
    """``template``: of the model, which may know roles of its own.

    Raises CallFailure (``bad_request`` or ``unsupported``, not sent) for what cannot be done.
    """
    refuse_unsupported(body)
    check_keep_alive(body.get("keep_alive"))
    tools = asked_messages.tools(body.get("tools")) if chat else ()
    names = frozenset(tool["function"]["name"] for tool in tools)
    options = body.get("stream_options")
    without = NO_EFFECT if chat else NO_EFFECT | OF_CHATS
    asked = Asked(
        sampling=sampling_params.read(body),
        messages=asked_messages.messages(body.get("messages"), template) if chat else None,
        prompts=() if chat else _texts("prompt", body.get("prompt")),
        max_tokens=_max_tokens(body),
        stops=_stops(body.get("stop")),
        choices=_choices(body),
        logprobs=_logprobs(body, chat=chat),
        echo=_flag(body, "echo", False) if not chat else False,
        cache_prompt=_flag(body, "cache_prompt", True),
        grammar=_grammar(body),
        tools=tools,
        tool_choice=asked_messages.tool_choice(body.get("tool_choice"), names) if chat else "none",
        parallel_tool_calls=_flag(body, "parallel_tool_calls", True),
        template_values=_template_values(body) if chat else {},
        add_generation_prompt=_flag(body, "add_generation_prompt", True),
        reasoning=_reasoning(body.get("reasoning_format")),
        return_tokens=_flag(body, "return_tokens", False),
        timings_per_token=_flag(body, "timings_per_token", False),
        include_usage=isinstance(options, Mapping) and options.get("include_usage") is True,
        stream=body.get("stream") is True,
        ignored=tuple(sorted(name for name in body if name in without or name not in KNOWN)),
    )
    if asked.grammar and forces_tools(asked):
        raise wrong("tool_choice", "asks for a tool call, and another parameter for an answer in a form of its own")
    if asked.sampling.ignore_eos and (asked.grammar or forces_tools(asked)):
        raise wrong("ignore_eos", "cannot go with a form of the answer, which says itself where it ends")
    if asked.echo and asked.logprobs is not None:
        raise unsupported("echo", "local models give no logprobs of the prompt")
    if len(asked.prompts) * asked.choices > MAX_CHOICES:
        raise wrong("n", f"times the number of prompts may be {MAX_CHOICES} at most")
    return asked


def read_embedding(body: Mapping[str, Any]) -> AskedEmbedding:
    """Raises CallFailure (``bad_request``, not sent) naming the wrong parameter."""
    encoding: Any = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise wrong("encoding_format", f"must be 'float' or 'base64', not {shown(encoding)}")
    dimensions = body.get("dimensions")
    known = {"model", "input", "encoding_format", "dimensions", "embd_normalize", "normalize", "user", "keep_alive"}
    check_keep_alive(body.get("keep_alive"))
    normalize = body.get("embd_normalize")
    if normalize not in (None, 2, -1):
        raise unsupported("embd_normalize", "local models give lengths of 1 (2) or what the model gave (-1)")
    return AskedEmbedding(
        inputs=_texts("input", body.get("input")),
        encoding=encoding,
        dimensions=None if dimensions is None else number("dimensions", dimensions, 1, 1_000_000, whole=True),
        normalize=normalize != -1 and _flag(body, "normalize", True),
        ignored=tuple(sorted(name for name in body if name not in known or name == "user")),
    )


def forces_tools(asked: Asked) -> bool:
    """Whether the answer must be a tool call."""
    return asked.tool_choice == "required" or asked.tool_choice.startswith("=")


def refuse_unsupported(body: Mapping[str, Any]) -> None:
    for name, neutral in NEUTRAL.items():
        value = body.get(name)
        if value is not None and not any(type(value) is type(one) and value == one for one in neutral):
            hint = " (use 'tools')" if name in ("functions", "function_call") else ""
            raise unsupported(name, f"local models do not support it{hint}")


def check_keep_alive(value: Any) -> None:
    """How long the model stays is the daemon's business; a wish it cannot read is refused here, by whoever is asked."""
    if isinstance(value, str):
        fits = _DURATION.fullmatch(value.strip()) is not None
    else:
        fits = value is None or (type(value) in (int, float) and math.isfinite(value))
    if not fits:
        raise wrong("keep_alive", f'must be a number of seconds or a text like "5m", not {shown(value)}')


def _grammar(body: Mapping[str, Any]) -> str:
    """What the answer must look like, as GBNF: ``grammar``, ``json_schema`` or ``response_format``, one of them."""
    grammar, wished, name = body.get("grammar"), body.get("json_schema"), "json_schema"
    if grammar is not None and not isinstance(grammar, str):
        raise wrong("grammar", "must be a text in GBNF")
    response = body.get("response_format")
    if response is not None:
        kind, form = _response_format(response)
        if kind != "text":
            if wished is not None or grammar:
                raise wrong("response_format", "and 'json_schema' or 'grammar' ask for two forms at once")
            wished, name = form, "response_format"
    if grammar and wished is not None:
        raise wrong("grammar", "and 'json_schema' ask for two forms at once")
    if grammar:
        gbnf.check(grammar)
        return grammar
    return "" if wished is None else schema.to_gbnf(wished, name)


def _response_format(value: Any) -> tuple[str, Any]:
    """(type, JSON Schema). OpenAI's form wraps the schema with a name; llama.cpp's server also takes it bare."""
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind == "text":
        return kind, None
    if kind == "json_object":
        return kind, value.get("schema", {"type": "object"})
    if kind != "json_schema":
        raise wrong("response_format", "must be an object whose type is 'text', 'json_object' or 'json_schema'")
    holder = value.get("json_schema")
    form = holder.get("schema") if isinstance(holder, Mapping) else value.get("schema")
    if form is None:
        raise wrong("response_format.json_schema.schema", "is missing")
    return kind, form


def _max_tokens(body: Mapping[str, Any]) -> int | None:
    """The first of the three names that is there counts; a wrong value behind another one is still wrong."""
    found = [
        int(number(name, value, 1, LAST_TOKEN, whole=True))
        for name in ("max_completion_tokens", "max_tokens", "n_predict")
        if (value := body.get(name)) is not None and not (name == "n_predict" and value == -1 and type(value) is int)
    ]
    return found[0] if found else None


def _stops(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else [] if value is None else value
    fits = isinstance(stops, list) and len(stops) <= MAX_STOPS
    if not fits or not all(isinstance(one, str) and len(one) <= MAX_STOP for one in stops):
        raise wrong("stop", f"must be a text or up to {MAX_STOPS} texts of up to {MAX_STOP} characters")
    return tuple(dict.fromkeys(one for one in stops if one))


def _choices(body: Mapping[str, Any]) -> int:
    found = [
        int(number(name, value, 1, MAX_CHOICES, whole=True))
        for name in ("n", "n_cmpl")
        if (value := body.get(name)) is not None
    ]
    return found[0] if found else 1


def _logprobs(body: Mapping[str, Any], *, chat: bool) -> int | None:
    """A chat says ``logprobs: true`` and ``top_logprobs``; a completion ``logprobs: 3``; llama.cpp ``n_probs``."""
    wish, top, probs = body.get("logprobs"), body.get("top_logprobs"), body.get("n_probs")
    if probs:
        return int(number("n_probs", probs, 0, MAX_LOGPROBS, whole=True))
    if chat or isinstance(wish, bool):
        wanted = wish is not None and flag("logprobs", wish)
        count = 0 if top is None else int(number("top_logprobs", top, 0, MAX_LOGPROBS, whole=True))
        if count and not wanted:
            raise wrong("top_logprobs", "needs 'logprobs': true")
        return count if wanted else None
    return None if wish is None else int(number("logprobs", wish, 0, MAX_LOGPROBS, whole=True))


def _texts(name: str, value: Any) -> tuple[str | tuple[int, ...], ...]:
    """A text, texts, token ids, or lists of token ids."""
    if isinstance(value, str):
        return (value,)
    what = f"must be a text, token ids, or a list of up to {MAX_INPUTS} of either"
    if not isinstance(value, list) or not value:
        raise wrong(name, what)
    if all(_is_token(one) for one in value):
        return (tuple(value),)
    if len(value) > MAX_INPUTS:
        raise wrong(name, what)
    made: list[str | tuple[int, ...]] = []
    for at, one in enumerate(value):
        if isinstance(one, str):
            made.append(one)
        elif isinstance(one, list) and one and all(_is_token(token) for token in one):
            made.append(tuple(one))
        else:
            raise wrong(f"{name}[{at}]", "must be a text or a list of token ids")
    return tuple(made)


def _is_token(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LAST_TOKEN


def _flag(body: Mapping[str, Any], name: str, default: bool) -> bool:
    value = body.get(name)
    return default if value is None else flag(name, value)


def _reasoning(value: Any) -> ReasoningFormat:
    if value not in (None, "auto", "none", "deepseek"):
        raise wrong("reasoning_format", f"must be 'auto', 'deepseek' or 'none', not {shown(value)}")
    return "none" if value == "none" else "auto"


def _template_values(body: Mapping[str, Any]) -> dict[str, Any]:
    values = body.get("chat_template_kwargs")
    if values is None:
        values = {}
    if not isinstance(values, Mapping) or len(values) > MAX_TEMPLATE_VALUES:
        raise wrong("chat_template_kwargs", f"must be an object of up to {MAX_TEMPLATE_VALUES} values")
    taken = dict(values)
    for name in ("reasoning_effort", "documents"):
        if body.get(name) is not None:
            taken.setdefault(name, body[name])
    return taken
