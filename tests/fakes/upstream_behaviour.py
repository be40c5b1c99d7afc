"""The script of the fake upstream: which requests a rule is for, and what happens to them. Strictly validated data."""

from __future__ import annotations

import difflib
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from tests.fakes.upstream_presets import PRESETS

Header = str | int | list[str]


class RateLimit(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A limit that the server really keeps: counted over admitted requests, 429 past it, reported on every answer.

    `sliding` counts the last `window_s` exactly; `fixed` counts windows on a grid that starts at the first arrival.
    `limit_tokens` counts prompt and completion tokens of the answer about to be given, `limit_concurrent` running
    answers. One counter for all requests of the rule, or one for each value of `by`.
    """

    limit_requests: int | None = None
    limit_tokens: int | None = None
    limit_concurrent: int | None = None
    window_s: float = 60
    kind: Literal["sliding", "fixed"] = "sliding"
    style: Literal["openai", "cerebras", "hf", "github", "anthropic"] = "openai"
    by: Literal["model", "authorization"] | None = None
    bucket: str = "api"
    """Name of the Hub's bucket (`hf` style only)."""


class Behaviour(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What happens to a request. Everything combines: a preset is a starting point that the other keys override."""

    preset: str | None = None
    """A named answer from `upstream_presets`."""
    seconds: float | None = None
    """The wait that the preset names; each preset has its own default."""

    status: int | None = None
    headers: dict[str, Header] = {}
    """Added to the answer; one that the server would send itself is replaced (a lying `content-length`, say)."""
    body: Any | UnsetType = UNSET
    """Sent instead of the normal body: text as it is, anything else as JSON."""

    content: str | None = None
    """The text that the model says, instead of the fixed sentence."""
    thoughts: str | None = None
    """What it thinks before it answers: `reasoning_content` of the message, or of deltas before the content's."""
    chunks: int | None = None
    """How many words (and streamed chunks) the answer has; wins over the request's max_tokens."""
    tool_calls: list[dict[str, Any]] | None = None
    """The answer calls these: `{"name", "arguments"}` or OpenAI's full shape; arguments as text or as an object."""
    models: list[str | dict[str, Any]] | None = None
    """What the model lists contain: names, or entries taken as they are."""
    usage: dict[str, Any] | None = None
    """Reported instead of the true usage."""
    no_usage: bool = False
    """No usage anywhere, even when the request asks for it."""
    no_done: bool = False
    """The stream ends cleanly, but without `[DONE]`."""
    sse_error_midstream: bool | dict[str, Any] = False
    """Half of the stream, then an `error` event (this object, or OpenAI's server_error), then a clean end."""

    html: bool = False
    redirect: str | None = None
    """307 (or `status`) to this address."""
    invalid_json: bool = False
    """Well-formed HTTP around JSON that breaks off; in a stream, one broken event in the middle."""
    invalid_utf8: bool = False
    """Bytes that are not UTF-8 inside the text; in a stream, in the middle event."""
    chunked_garbage: bool = False
    """Half of a chunked answer, then a chunk header that is none, then the connection is closed."""

    delay_s: float = 0
    """Silence before the status line."""
    first_byte_delay_s: float = 0
    """Headers at once (after `delay_s`), then silence before the first byte of the body."""
    chunk_interval_s: float = 0
    """Between two content chunks of a stream."""
    slow_drip: float | None = None
    """Bytes per second, headers included."""
    cut_after_bytes: int | None = None
    """Close after that many bytes of answer, headers included; 0 closes without an answer. No effect past its end."""
    reset: bool = False
    """`cut_after_bytes` ends in RST instead of FIN."""
    hang: bool = False
    """Accept, never answer."""
    hang_after_bytes: int | None = None
    """Answer that many bytes, then stay silent with the connection open."""
    ratelimit_headers: RateLimit | list[RateLimit] | None = None

    @property
    def limits(self) -> list[RateLimit]:
        if self.ratelimit_headers is None:
            return []
        return self.ratelimit_headers if isinstance(self.ratelimit_headers, list) else [self.ratelimit_headers]

    @property
    def instant(self) -> bool:
        """Whether the same request always gets the same bytes at once, so that they can be built once and kept."""
        return not (
            self.preset
            or self.delay_s
            or self.first_byte_delay_s
            or self.chunk_interval_s
            or self.hang
            or self.chunked_garbage
            or self.ratelimit_headers
        ) and (self.slow_drip is self.cut_after_bytes is self.hang_after_bytes is None)

    def resolved(self, now: float) -> Behaviour:
        """With the preset filled in; `now` (epoch seconds) because some presets name a date."""
        if self.preset is None:
            return self
        given = {name: getattr(self, name) for name in self.__struct_fields__}
        base = msgspec.convert(PRESETS[self.preset](self.seconds, now), Behaviour)
        for name, default in zip(self.__struct_fields__, _DEFAULTS, strict=True):
            if given[name] == default:
                given[name] = getattr(base, name)
        given["headers"] = {**base.headers, **self.headers}
        given["preset"] = None
        return Behaviour(**given)


_PLAIN = Behaviour()
_DEFAULTS = [getattr(_PLAIN, name) for name in Behaviour.__struct_fields__]


class Match(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Which requests a rule is for: all given fields must be equal.

    A trailing `*` in `path` or `model` matches any rest; `authorization` is the whole header or the bearer token alone.
    """

    path: str | None = None
    model: str | None = None
    authorization: str | None = None
    method: str | None = None
    stream: bool | None = None

    def accepts(self, *, path: str, model: str | None, authorization: str | None, method: str, stream: bool) -> bool:
        return (
            (self.path is None or _like(self.path, path))
            and (self.model is None or (model is not None and _like(self.model, model)))
            and (self.authorization is None or authorization in (self.authorization, f"Bearer {self.authorization}"))
            and (self.method is None or self.method == method)
            and (self.stream is None or self.stream == stream)
        )


def _like(pattern: str, value: str) -> bool:
    return value.startswith(pattern[:-1]) if pattern.endswith("*") else value == pattern


class Rule(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One line of the script. The first rule that matches and is not used up decides."""

    behaviour: Behaviour
    match: Match = msgspec.field(default_factory=Match)
    times: int | None = None


class BadScript(ValueError):
    """The script is refused as a whole; the message names the key, and the nearest known one where there is one."""


def parse_rules(text: bytes) -> list[Rule]:
    """Rules from JSON; raises `BadScript`."""
    try:
        rules = msgspec.json.decode(text, type=list[Rule])
    except msgspec.DecodeError as error:
        raise BadScript(_with_hint(str(error))) from error
    for rule in rules:
        preset = rule.behaviour.preset
        if preset is not None and preset not in PRESETS:
            raise BadScript(f"no preset {preset!r}{_nearest(preset, list(PRESETS))}")
    return rules


def _with_hint(message: str) -> str:
    key = message.split("unknown field `")[-1].split("`")[0] if "unknown field `" in message else ""
    known = [*Behaviour.__struct_fields__, *RateLimit.__struct_fields__, *Match.__struct_fields__, "match", "times"]
    return message + _nearest(key, known) if key else message


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
