"""From an error answer to a typed failure: what the router and the ledger need to know. Pure.

Understands the error shapes of OpenAI (``{"error": {message, type, code, param}}``), GitHub, Hugging Face
(``{"error": "text"}``), Google (``{"error": {code, status, details}}``, alone or in an array), Anthropic
(``{"type": "error", "error": {…}}``), Cerebras (members at the top), FastAPI (``{"detail": …}``) and HTML pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import Struct

from hybridd.plugin import CallFailure
from plugins.openai_compatible import headers as header_figures
from plugins.openai_compatible import hints, text

_KINDS: dict[int, str] = {
    400: "bad_request", 401: "auth", 402: "payment", 403: "forbidden", 404: "not_found", 405: "unsupported",
    406: "unsupported", 407: "forbidden", 408: "timeout", 409: "conflict", 410: "gone", 411: "bad_request",
    413: "too_large", 414: "too_large", 415: "unsupported", 421: "unavailable", 422: "bad_request", 423: "conflict",
    425: "unavailable", 429: "rate_limited", 431: "too_large", 451: "forbidden", 498: "overloaded",
    501: "unsupported", 504: "timeout", 509: "rate_limited", 522: "timeout", 524: "timeout", 529: "overloaded",
}  # fmt: skip

_PAYMENT_CODES = frozenset({
    "insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance",
    "insufficient_credits", "insufficient_user_quota", "payment_required", "account_deactivated", "credits_exhausted",
})  # fmt: skip
_PAYMENT_TEXTS = (
    "monthly included credits", "credit balance is too low", "insufficient balance", "insufficient credits",
    "insufficient_quota", "payment required", "billing hard limit",
)  # fmt: skip
_TOO_LARGE_CODES = frozenset({
    "context_length_exceeded", "tokens_limit_reached", "request_too_large", "string_above_max_length",
    "payload_too_large", "exceed_context_size_error",
})  # fmt: skip
_TOO_LARGE_TEXTS = ("maximum context length", "context length exceeded", "exceeds the available context size",
                    "prompt is too long", "reduce the length of the")  # fmt: skip
_AUTH_CODES = frozenset({"invalid_api_key", "api_key_invalid", "authentication_error", "invalid_token"})
_MISSING_CODES = frozenset({"model_not_found", "model_decommissioned", "unknown_model", "model_not_available"})
_RATE_CODES = frozenset({
    "rate_limit_exceeded", "ratelimitreached", "rate_limited", "rate_limit_error", "too_many_requests",
    "too_many_requests_error", "tokens", "requests", "resource_exhausted",
})  # fmt: skip
_OVERLOADED_CODES = frozenset({"overloaded_error", "overloaded", "engine_overloaded", "server_overloaded"})
_OVERLOADED_TEXTS = ("overloaded", "over capacity", "too busy", "at capacity")


class Explained(Struct):
    """What an error body says. ``codes``: every code, type and status in it, lower case, the most telling first."""

    message: str = ""
    code: str | None = None
    param: str | None = None
    codes: tuple[str, ...] = ()
    status: int | None = None


def explain(body: Any) -> Explained:
    """Reads a decoded body of any of the known shapes; an unknown one has an empty message."""
    if isinstance(body, list):
        body = next((item for item in body if isinstance(item, Mapping)), None)
    if isinstance(body, str):
        return Explained(message=body)
    if not isinstance(body, Mapping):
        return Explained()
    error = body.get("error", body.get("errors"))
    if isinstance(error, list):
        error = next(iter(error), None)
    if isinstance(error, str):
        described = body.get("error_description") or body.get("message")
        message = f"{error}: {described}" if isinstance(described, str) else error
        return _explained({**body, "message": message})
    if isinstance(error, Mapping):
        return _explained({**{key: body[key] for key in ("code", "message", "detail") if key in body}, **error})
    return _explained(body)


def _explained(error: Mapping[str, Any]) -> Explained:
    message = next((m for m in (_prose(error.get(k)) for k in ("message", "detail", "details", "title")) if m), "")
    status, codes = None, []
    for value in (error.get("code"), error.get("type"), error.get("status"), *_reasons(error.get("details"))):
        if isinstance(value, int) and not isinstance(value, bool):
            status = status if status is not None else value
            continue
        if isinstance(value, str) and value:
            if value.isdecimal() and len(value) == 3:
                status = status if status is not None else int(value)
            codes.append(value[:100])
    param = error.get("param")
    return Explained(
        message=message,
        code=codes[0] if codes else None,
        param=param[:100] if isinstance(param, str) else None,
        codes=tuple(code.lower() for code in codes),
        status=status,
    )


def _prose(value: Any) -> str:
    """A message; FastAPI's list of ``{"loc", "msg"}`` as sentences."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return _prose(value.get("message", value.get("error")))
    if isinstance(value, list):
        told = [(item.get("loc"), item.get("msg")) for item in value[:5] if isinstance(item, Mapping)]
        return "; ".join(
            f"{'.'.join(str(part) for part in loc)}: {msg}" if isinstance(loc, list) else str(msg)
            for loc, msg in told
            if isinstance(msg, str)
        )
    return ""


def _reasons(details: Any) -> list[Any]:
    """``reason`` of Google's ErrorInfo details."""
    return [item.get("reason") for item in details if isinstance(item, Mapping)] if isinstance(details, list) else []


def kind_of(status: int, told: Explained, headers: Mapping[str, str], dialect: str = "openai") -> str:
    """The failure's kind from the status and, where hosts misuse statuses, from what the body says.

    A 403 with ``sunset`` is a retirement of any host; ``deprecation`` alone only at GitHub: elsewhere it announces.
    """
    words, codes = told.message.lower(), set(told.codes)
    retired = "sunset" in headers or (dialect.startswith("github") and "deprecation" in headers)
    if status == 410 or (status == 403 and retired):
        return "gone"
    if status in {400, 402, 403, 429} and (codes & _PAYMENT_CODES or _any(_PAYMENT_TEXTS, words)):
        return "payment"
    if status in {400, 422} and (codes & _TOO_LARGE_CODES or _any(_TOO_LARGE_TEXTS, words)):
        return "too_large"
    if status == 400 and (codes & _AUTH_CODES or "api key not valid" in words):
        return "auth"
    if status in {400, 403} and codes & _MISSING_CODES:
        return "not_found"
    if status == 403 and _is_limit(codes, words, headers):
        return "rate_limited"
    if status == 503 and (codes & _OVERLOADED_CODES or _any(_OVERLOADED_TEXTS, words)):
        return "overloaded"
    if status in _KINDS:
        return _KINDS[status]
    if status >= 500:
        return "unavailable"
    return "bad_request" if status >= 400 else "bad_response"


def _is_limit(codes: set[str], words: str, headers: Mapping[str, str]) -> bool:
    """GitHub answers 403 to a used-up limit."""
    return bool(
        codes & _RATE_CODES or "rate limit" in words or "retry-after" in headers
        or headers.get("x-ratelimit-remaining") == "0"
    )  # fmt: skip


def _any(phrases: Iterable[str], words: str) -> bool:
    return any(phrase in words for phrase in phrases)


def failure(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float,
    dialect: str = "openai",
    model: str | None = None,
    secrets: Iterable[str] = (),
) -> CallFailure:
    """The failure that an answer with an error status means. ``sent`` is "yes": the host has answered.

    Args:
        status: the HTTP status, 400 or more (a redirect or any other status is an unusable answer).
        headers: by lower-case name.
        body: as received, possibly cut to what is worth reading.
        now: UTC seconds since the epoch.
        dialect: see :mod:`plugins.openai_compatible.headers`.
        model: the model asked for, for limits that bind one model.
        secrets: keys that must never appear in the message.
    """
    decoded = _decode(body)
    told = explain(decoded)
    words = told.message or _plain(body, decoded)
    told = msgspec.structs.replace(told, message=words)
    kind = kind_of(status, told, headers, dialect)
    observations = [*header_figures.observe(headers, dialect, now), *header_figures.from_text(words, model, now)]
    wait = hints.retry_after(headers, decoded, words, now)
    if wait is None and kind == "rate_limited":
        wait = header_figures.exhausted_wait(observations)
    secrets = tuple(secrets)
    code = text.clean(told.code, secrets, limit=80) if told.code else None
    return CallFailure(
        kind,  # type: ignore[arg-type]  # one of the protocol's kinds
        _sentence(status, code, words, headers, secrets),
        sent="yes",
        status=status,
        retry_after=wait,
        permanent=kind == "gone",
        upstream_code=code,
        observations=observations,
    )


def in_band(error: Any, *, now: float, secrets: Iterable[str] = ()) -> CallFailure:
    """The failure that an ``error`` member means where the HTTP status said 200: in a stream, or in a whole body."""
    told = explain({"error": error})
    status = told.status if told.status is not None and 400 <= told.status < 600 else None
    codes = set(told.codes)
    if status is not None:
        kind = kind_of(status, told, {})
    elif codes & _PAYMENT_CODES:
        kind = "payment"
    elif codes & _RATE_CODES:
        kind = "rate_limited"
    elif codes & _TOO_LARGE_CODES or _any(_TOO_LARGE_TEXTS, told.message.lower()):
        kind = "too_large"
    elif codes & _OVERLOADED_CODES:
        kind = "overloaded"
    elif "invalid_request_error" in codes:
        kind = "bad_request"
    else:
        kind = "unavailable"
    secrets = tuple(secrets)
    said = text.clean(told.message, secrets) or "no message"
    return CallFailure(
        kind,  # type: ignore[arg-type]  # one of the protocol's kinds
        text.clean(f"the host broke off with an error: {said}"),
        sent="yes",
        status=status,
        retry_after=hints.retry_after({}, {"error": error}, told.message, now),
        permanent=kind == "gone",
        upstream_code=text.clean(told.code, secrets, limit=80) if told.code else None,
    )


def _sentence(status: int, code: str | None, words: str, headers: Mapping[str, str], secrets: tuple[str, ...]) -> str:
    said = text.clean(words, secrets)
    if not said and "sunset" in headers:
        said = f"retired since {text.clean(headers['sunset'], secrets, limit=60)}"
    elif not said:
        said = _phrase(status)
    if 300 <= status < 400:
        return f"the host answered {status}, a redirect, which is never followed (a key could leak to another host)"
    return text.clean(f"the host answered {status}{f' ({code})' if code else ''}: {said}")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "no explanation"


def _decode(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body) if body else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _plain(body: bytes, decoded: Any) -> str:
    """The words of a body that is no known error shape."""
    if text.is_markup(body):
        return f"an HTML page: {text.page_title(body)}"
    return str(decoded) if isinstance(decoded, (str, int, float)) else body[:4096].decode("utf-8", "replace")
