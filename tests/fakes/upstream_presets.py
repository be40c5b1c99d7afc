"""Answers of real providers by name, as gathered in the project's notes on wire facts (November 2026).

A preset is a function of the wait it names (seconds, None for its own default) and of the time (epoch seconds); it
returns the keys of a `Behaviour`.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from typing import Any

Preset = Callable[[float | None, float], dict[str, Any]]
PRESETS: dict[str, Preset] = {}


def go_duration(seconds: float) -> str:
    """A duration as Go prints it, to the millisecond: `1s`, `6m0s`, `12ms`, `1h2m3.5s`."""
    milliseconds = round(seconds * 1000)
    if milliseconds <= 0:
        return "0s"
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def plain(seconds: float) -> int | float:
    """An integer where there is one, as providers write their waits."""
    return int(seconds) if float(seconds).is_integer() else seconds


def rate_limit_body(
    now: float, *, limit: int = 5000, remaining: int = 4999, reset_s: float = 3600
) -> dict[str, dict[str, Any]]:
    """`GET /rate_limit` of api.github.com; `now` in epoch seconds."""
    core = {"limit": limit, "used": limit - remaining, "remaining": remaining, "reset": int(now + reset_s)}
    search = {"limit": 30, "used": 0, "remaining": 30, "reset": int(now + 60)}
    return {"resources": {"core": core, "search": search}, "rate": core}


def _error(message: str, code: str | int | None, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": more.pop("type", None), "param": None, "code": code, **more}}


def _preset(name: str, default_seconds: float = 0) -> Callable[[Callable[[float, float], dict[str, Any]]], None]:
    def register(build: Callable[[float, float], dict[str, Any]]) -> None:
        PRESETS[name] = lambda seconds, now: build(default_seconds if seconds is None else seconds, now)

    return register


def _fixed(name: str, behaviour: dict[str, Any]) -> None:
    PRESETS[name] = lambda _seconds, _now: behaviour


_fixed(
    "github_retired_403",
    {
        "status": 403,
        "headers": {
            "deprecation": "@1777939200",
            "sunset": "Thu, 30 Jul 2026 00:00:00 GMT",
            "link": '<https://github.blog/changelog/github-models-retirement>; rel="deprecation"',
        },
        "body": "",
    },
)
_fixed(
    "github_brownout_410",
    {
        "status": 410,
        "body": {
            "error": {
                "code": "github_models_retirement_brownout",
                "message": "GitHub Models is temporarily unavailable during a scheduled brownout.",
            }
        },
    },
)


@_preset("github_429", 5631)
def _github_429(seconds: float, _now: float) -> dict[str, Any]:
    text = (
        "Rate limit of 50 per 86400s exceeded for UserByModelByDay. "
        f"Please wait {plain(seconds)} seconds before retrying."
    )
    return {
        "status": 429,
        "headers": {"x-ratelimit-type": "UserByModelByDay", "retry-after": str(plain(seconds))},
        "body": {"error": {"code": "RateLimitReached", "message": text, "details": text}},
    }


@_preset("github_rate_limit_low", 1800)
def _github_rate_limit_low(seconds: float, now: float) -> dict[str, Any]:
    return {"status": 200, "body": rate_limit_body(now, remaining=99, reset_s=seconds)}


_fixed(
    "hf_402",
    {
        "status": 402,
        "body": {
            "error": "You have exceeded your monthly included credits for Inference Providers. Subscribe to PRO to get "
            "20x more monthly included credits."
        },
    },
)


@_preset("hf_429", 55)
def _hf_429(seconds: float, _now: float) -> dict[str, Any]:
    return {
        "status": 429,
        "headers": {
            "ratelimit": f'"api";r=0;t={plain(seconds)}',
            "ratelimit-policy": '"fixed window";"api";q=500;w=300',
        },
        "body": {"error": "We had to rate limit you. Upgrade your plan or wait for the window to end."},
    }


@_preset("openai_429_reset_headers", 6 * 60)
def _openai_429_reset_headers(seconds: float, _now: float) -> dict[str, Any]:
    return {
        "status": 429,
        "headers": {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-limit-tokens": "150000",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-remaining-tokens": "149984",
            "x-ratelimit-reset-requests": go_duration(seconds),
            "x-ratelimit-reset-tokens": "12ms",
        },
        "body": _error("Rate limit reached for requests.", "rate_limit_exceeded", type="requests"),
    }


_fixed(
    "openai_insufficient_quota",
    {
        "status": 429,
        "body": _error(
            "You exceeded your current quota, please check your plan and billing details.",
            "insufficient_quota",
            type="insufficient_quota",
        ),
    },
)
_fixed(
    "openai_401",
    {
        "status": 401,
        "body": _error("Incorrect API key provided: sk-fake.", "invalid_api_key", type="invalid_request_error"),
    },
)
_fixed(
    "openai_model_not_found",
    {
        "status": 404,
        "body": _error("The model does not exist.", "model_not_found", type="invalid_request_error"),
    },
)
_fixed(
    "openai_context_length",
    {
        "status": 400,
        "body": _error(
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
            "context_length_exceeded",
            type="invalid_request_error",
        ),
    },
)


@_preset("cerebras_429", 33011.382867)
def _cerebras_429(seconds: float, _now: float) -> dict[str, Any]:
    return {
        "status": 429,
        "headers": {
            "x-ratelimit-limit-requests-day": "14400",
            "x-ratelimit-remaining-requests-day": "0",
            "x-ratelimit-reset-requests-day": str(seconds),
            "x-ratelimit-limit-tokens-minute": "60000",
            "x-ratelimit-remaining-tokens-minute": "60000",
            "x-ratelimit-reset-tokens-minute": "11.38",
        },
        "body": {
            "message": "Requests per day limit exceeded - too many requests sent.",
            "type": "too_many_requests_error",
            "param": "quota",
            "code": "request_quota_exceeded",
        },
    }


@_preset("retry_after_seconds", 30)
def _retry_after_seconds(seconds: float, _now: float) -> dict[str, Any]:
    return {"status": 429, "headers": {"retry-after": str(plain(seconds))}}


@_preset("retry_after_date", 30)
def _retry_after_date(seconds: float, now: float) -> dict[str, Any]:
    return {"status": 429, "headers": {"retry-after": formatdate(now + seconds, usegmt=True)}}


_fixed("retry_after_negative", {"status": 429, "headers": {"retry-after": "-5"}})
_fixed("retry_after_absurd", {"status": 429, "headers": {"retry-after": "99999999999"}})


@_preset("google_retryinfo", 17)
def _google_retryinfo(seconds: float, _now: float) -> dict[str, Any]:
    return {
        "status": 429,
        "body": {
            "error": {
                "code": 429,
                "message": "You exceeded your current quota, please check your plan and billing details.",
                "status": "RESOURCE_EXHAUSTED",
                "details": [
                    {"@type": "type.googleapis.com/google.rpc.Help", "links": []},
                    {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{plain(seconds)}s"},
                ],
            }
        },
    }


@_preset("google_retryinfo_array", 1.5)
def _google_retryinfo_array(seconds: float, now: float) -> dict[str, Any]:
    single = PRESETS["google_retryinfo"](seconds, now)
    return {**single, "body": [single["body"]]}


def _in_body(field: str) -> None:
    PRESETS[f"body_{field}"] = lambda seconds, _now: {
        "status": 429,
        "body": {
            **_error("Too many requests.", "rate_limited", type="rate_limit_error"),
            field: plain(30 if seconds is None else seconds),
        },
    }


for _name in ("retry_after", "retryAfter", "retry_after_seconds"):
    _in_body(_name)


def _prose(name: str, default_seconds: float, sentence: str) -> None:
    PRESETS[name] = lambda seconds, _now: {
        "status": 429,
        "body": _error(
            sentence.format(plain(default_seconds if seconds is None else seconds)),
            "rate_limit_exceeded",
            type="rate_limit_error",
        ),
    }


_prose("prose_retry", 7.66, "Rate limit reached for model `m` on tokens per minute (TPM). Please try again in {}s.")
_prose("prose_retry_after", 30, "Too many requests, retry after {} seconds.")
_prose("prose_wait", 5631, "Rate limit exceeded. Please wait {} seconds before retrying.")
_prose("prose_days", 6, "Monthly limit reached. Resets in {} days.")
_fixed("gateway_502_html", {"status": 502, "html": True})
_fixed("overloaded_503", {"status": 503, "body": _error("The engine is overloaded.", None, type="server_error")})
