"""A caller's request, parsed and checked once, independent of who will answer it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from hybridd.contracts.validation import check_tier
from hybridd.errors import InvalidRequest
from hybridd.ledger.estimate import PromptSize, prompt_size

Kind = Literal["chat", "completion", "embedding"]

_TASK_PREFIX = "task:"
_JSON_NAMES = {
    bool: "a boolean", str: "a string", int: "a number", float: "a number", list: "an array", dict: "an object",
}  # fmt: skip
# Far beyond any model; a reservation must stay a 64-bit integer whatever `n` multiplies it with.
_MOST_TOKENS = 2**31 - 1


class RoutedRequest(msgspec.Struct):
    """One request as the router sees it.

    ``body`` is the caller's JSON object, still with the caller's ``model``. ``size`` weighs everything that becomes
    prompt tokens. ``max_tokens`` is None when not given.
    """

    kind: Kind
    body: dict[str, Any]
    model: str
    task: str | None = None
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    choices: int = 1
    size: PromptSize = PromptSize(0)
    user: str | None = None
    tier: str | None = None
    client: str | None = None
    explain: bool = False

    @property
    def method(self) -> Literal["generate", "embed"]:
        return "embed" if self.kind == "embedding" else "generate"

    @property
    def prompt_text(self) -> str:
        """The last user text, for local task classification only."""
        for message in reversed(self.body.get("messages") or []):
            if message.get("role") == "user":
                return _text_of(message.get("content"))
        prompt = self.body.get("prompt")
        return prompt if isinstance(prompt, str) else ""


def parse_body(raw: bytes | bytearray) -> dict[str, Any]:
    """The JSON object in ``raw``.

    Raises:
        InvalidRequest: not UTF-8, not JSON, nested too deeply, or not an object.
    """
    try:
        body = msgspec.json.decode(raw)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The body is not valid UTF-8 (byte {error.start}).", code="invalid_utf8") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}.", code="invalid_json") from None
    if not isinstance(body, dict):
        raise InvalidRequest(f"The body must be a JSON object, not {_json_name(body)}.", code="invalid_json")
    return body


def parse(kind: Kind, body: dict[str, Any], header: Callable[[bytes], str | None]) -> RoutedRequest:
    """Checks what hybridd needs to know; everything else is the provider's to judge.

    Raises:
        InvalidRequest: a wrong type or value; ``param`` names the field.
    """
    model = body.get("model")
    if model is None:
        raise InvalidRequest("'model' is missing: use a model, 'provider:model', 'task:NAME' or 'auto'.", param="model")
    if not isinstance(model, str) or not model.strip():
        raise InvalidRequest(f"'model' must be a non-empty string, not {_json_name(model)}.", param="model")
    tier = header(b"x-hybridd-tier")
    if tier is not None:
        check_tier(tier)
    request = RoutedRequest(
        kind=kind,
        body=body,
        model=model.strip(),
        task=header(b"x-hybridd-task"),
        user=header(b"x-hybridd-user") or _optional(body, "user", str, "a string"),
        tier=tier,
        client=header(b"x-hybridd-client") or header(b"user-agent"),
        explain=header(b"x-hybridd-explain") == "1",
    )
    if request.model.startswith(_TASK_PREFIX):
        request.task = request.model[len(_TASK_PREFIX) :]
        if not request.task:
            raise InvalidRequest("'task:' needs the name of a task, for example 'task:code_generation'.", param="model")
    if kind == "embedding":
        _read_embedding(request)
    else:
        _read_generation(request)
        if kind == "chat":
            _read_messages(request)
        else:
            _read_prompt(request)
    request.size = prompt_size(body)
    return request


def _read_generation(request: RoutedRequest) -> None:
    body = request.body
    request.stream = bool(_optional(body, "stream", bool, "true or false"))
    options = _optional(body, "stream_options", dict, "an object")
    if options:
        if not request.stream:
            raise InvalidRequest("'stream_options' is only allowed when 'stream' is true.", param="stream_options")
        request.include_usage = bool(_optional(options, "include_usage", bool, "true or false"))
    for name in ("max_completion_tokens", "max_tokens"):
        value = _optional(body, name, int, "a whole number")
        if value is not None:
            if not 1 <= value <= _MOST_TOKENS:
                bound = "at least 1" if value < 1 else f"at most {_MOST_TOKENS}"
                raise InvalidRequest(f"'{name}' must be {bound}, not {value}.", param=name)
            request.max_tokens = value if request.max_tokens is None else min(value, request.max_tokens)
    choices = _optional(body, "n", int, "a whole number")
    if choices is not None:
        if not 1 <= choices <= 128:
            raise InvalidRequest(f"'n' must be between 1 and 128, not {choices}.", param="n")
        request.choices = choices
    _bounded(body, "temperature", 0, 2)
    _bounded(body, "top_p", 0, 1)


def _read_messages(request: RoutedRequest) -> None:
    messages = request.body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("'messages' must be a non-empty array of messages.", param="messages")
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, dict):
            raise InvalidRequest(f"'{where}' must be an object, not {_json_name(message)}.", param=where)
        if not isinstance(message.get("role"), str):
            raise InvalidRequest(f"'{where}.role' must be a string.", param=f"{where}.role")
        _check_content(message.get("content"), f"{where}.content")


def _check_content(content: Any, where: str) -> None:
    if isinstance(content, list):
        for part in content:
            if not isinstance(part, dict):
                raise InvalidRequest(f"'{where}' holds {_json_name(part)}; parts are objects.", param=where)
    elif content is not None and not isinstance(content, str):
        raise InvalidRequest(
            f"'{where}' must be a string or an array of parts, not {_json_name(content)}.", param=where
        )


def _read_prompt(request: RoutedRequest) -> None:
    prompt = request.body.get("prompt")
    if not isinstance(prompt, str | list):
        raise InvalidRequest("'prompt' must be a string or an array.", param="prompt")


def _read_embedding(request: RoutedRequest) -> None:
    given = request.body.get("input")
    if not isinstance(given, str | list) or not given:
        raise InvalidRequest("'input' must be a non-empty string or array.", param="input")


def _optional(body: dict[str, Any], name: str, kind: type, wanted: str) -> Any:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InvalidRequest(f"'{name}' must be {wanted}, not {_json_name(value)}.", param=name)
    return value


def _bounded(body: dict[str, Any], name: str, low: float, high: float) -> None:
    value = body.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidRequest(f"'{name}' must be a number, not {_json_name(value)}.", param=name)
    if not low <= value <= high:
        raise InvalidRequest(f"'{name}' must be between {low} and {high}, not {value}.", param=name)


def _json_name(value: Any) -> str:
    if value is None:
        return "null"
    names = {
        bool: "a boolean",
        str: "a string",
        int: "a number",
        float: "a number",
        list: "an array",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(
            part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    return ""
