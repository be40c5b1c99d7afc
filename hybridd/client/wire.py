"""Requests and answers as plain values, shared by every client; standard library only.

Each function of the first half makes the :class:`Call` for one route; the second half reads answers and errors.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast
from urllib.parse import quote, urlencode

from hybridd import errors
from hybridd.client.types import CallResult, Message
from hybridd.contracts.validation import check_call, check_max_tokens, check_question, check_tier, check_user


class Call(NamedTuple):
    """One HTTP request. ``path`` holds the query; ``body`` is JSON-ready."""

    method: str
    path: str
    body: dict[str, Any] | None = None
    headers: Mapping[str, str] = {}

    def encoded(self) -> bytes | None:
        if self.body is None:
            return None
        try:
            return json.dumps(self.body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8")
        except (ValueError, TypeError, RecursionError) as error:
            raise errors.InvalidRequest(f"the request cannot be written as JSON: {error}") from None


def get(path: str, **parameters: Any) -> Call:
    """A GET whose parameters that are None are left out; lists are joined with commas."""
    given = {
        name.rstrip("_"): ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        for name, value in parameters.items()
        if value is not None
    }
    for name in ("since", "until"):
        if name in given:
            given[name] = _moment(name, given[name])
    return Call("GET", f"{path}?{urlencode(given)}" if given else path)


def _moment(name: str, value: Any) -> Any:
    """Seconds since the epoch as the time they are: as a bare number, a small one would be read as a duration."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or 1e8 <= value < 1e11:
        return value
    try:
        return datetime.fromtimestamp(value, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        raise errors.InvalidRequest(f"{name} must be seconds since the epoch, not {value}", param=name) from None


def post(path: str, **body: Any) -> Call:
    return Call("POST", path, {name: value for name, value in body.items() if value is not None})


def segment(value: Any) -> str:
    """One path segment, quoted: an id can never become another path."""
    return quote(str(value), safe="")


def as_messages(prompt: str | Sequence[Message], system: str | None) -> list[Message]:
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(one) for one in prompt]
    return [{"role": "system", "content": system}, *messages] if system else messages


def chat(
    prompt: str | Sequence[Message],
    *,
    model: str | None = None,
    task: str | None = None,
    system: str | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    user: str | None = None,
    tier: str | None = None,
    stream: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Call:
    """A routed chat call that answers with its own explanation.

    Without ``model`` the task decides, and without both it is ``auto``.

    Raises:
        InvalidRequest: question, tier, max_tokens or user break the rules of :mod:`hybridd.contracts.validation`.
    """
    messages = isinstance(prompt, Sequence) and not isinstance(prompt, (str, bytes, bytearray))
    if not messages or not all(isinstance(one, Mapping) for one in prompt):
        check_call(prompt, tier=tier, max_tokens=max_tokens, user=user)
    else:
        check_tier(tier)
        check_max_tokens(max_tokens)
        check_user(user)
    if task is not None and not (isinstance(task, str) and task and task.isascii() and task.isprintable()):
        raise errors.InvalidRequest("task must be the name of a task", param="task")
    body: dict[str, Any] = {
        "model": model or (f"task:{task}" if task else "auto"),
        "messages": as_messages(prompt, system),
        **(options or {}),
    }
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    if temperature is not None:
        body["temperature"] = temperature
    if stream:
        body["stream"] = True
    headers = {"x-hybridd-explain": "1"}
    for name, value in (("task", task), ("user", user), ("tier", tier)):
        if value is not None:
            headers[f"x-hybridd-{name}"] = value
    return Call("POST", "/v1/chat/completions", body, headers)


def route(
    task: str | None,
    prompt: str | None,
    *,
    max_tokens: int | None = None,
    user: str | None = None,
    tier: str | None = None,
    model: str | None = None,
) -> Call:
    """Which model would be chosen; calls nothing."""
    if prompt is not None:
        check_question(prompt)
    check_tier(tier)
    check_max_tokens(max_tokens)
    check_user(user)
    return post("/v1/route", task=task, prompt=prompt, max_tokens=max_tokens, user=user, tier=tier, model=model)


def feedback(request_id: str, score: float, subject: str | None, comment: str | None) -> Call:
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not -1 <= score <= 1:
        raise errors.InvalidRequest("score must be a number from -1 to 1", param="score")
    return post("/v1/feedback", request_id=request_id, score=score, subject=subject, comment=comment)


def silence(alert_id: int, seconds: float) -> Call:
    if isinstance(seconds, bool) or not 0 <= seconds < float("inf"):
        raise errors.InvalidRequest("seconds must be a number from 0 (which ends the silence)", param="seconds")
    return post(f"/v1/alerts/{segment(alert_id)}/silence", seconds=seconds)


# ---- answers -------------------------------------------------------------------------------------------------------


def decode(payload: bytes) -> Any:
    """The JSON of an answer.

    Raises:
        ProtocolError: it is not JSON: something else listens on the socket.
    """
    try:
        return json.loads(payload)
    except ValueError as error:
        raise errors.ProtocolError(f"the answer is not JSON (it starts with {payload[:40]!r})") from error


def error_of(status: int, payload: bytes, retry_after: str | None = None) -> errors.HybriddError:
    """The exception for an error answer: its class follows from the stable code, else from the status."""
    try:
        decoded = json.loads(payload)
    except ValueError:
        decoded = None
    inner = decoded.get("error") if isinstance(decoded, dict) else None
    fields: dict[str, Any] = inner if isinstance(inner, dict) else {}
    code = fields.get("code")
    kind = _by_code().get(str(code)) or _by_status(status)
    return kind(
        str(fields.get("message") or f"the daemon answered with HTTP status {status}"),
        param=fields.get("param"),
        retry_after=_seconds(retry_after),
        details=fields.get("details"),
        code=str(code) if code else None,
        status=status,
    )


def job_error(job: Mapping[str, Any]) -> errors.HybriddError:
    """The exception for a job that failed or was cancelled: what its code stands for, and else a provider's."""
    told: Mapping[str, Any] = job.get("error") or {}
    code = str(told.get("code") or job.get("state") or "failed")
    kind = _by_code().get(code, errors.ProviderError)
    return kind(
        str(told.get("message") or f"job {job.get('id')} ended as {job.get('state')}"),
        code=code,
        retry_after=told.get("retry_after"),
        details=told.get("details"),
    )


def _by_code() -> dict[str, type[errors.HybriddError]]:
    known: dict[str, type[errors.HybriddError]] = {}
    waiting: list[type[errors.HybriddError]] = [errors.HybriddError]
    while waiting:
        kind = waiting.pop()
        known[kind.code] = kind
        waiting += kind.__subclasses__()
    return known


def _by_status(status: int) -> type[errors.HybriddError]:
    exact: dict[int, type[errors.HybriddError]] = {
        403: errors.PermissionRefused,
        404: errors.NotFound,
        413: errors.TooLarge,
        429: errors.NoFeasibleProvider,
        502: errors.ProviderError,
        503: errors.Overloaded,
        504: errors.DeadlineExceeded,
    }
    return exact.get(status) or (errors.InvalidRequest if 400 <= status < 500 else errors.HybriddError)


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:
        return None


def text_of(body: Mapping[str, Any]) -> str:
    """The answer's text; empty for an answer that consists of tool calls."""
    choices = body.get("choices") or [{}]
    message = choices[0].get("message") or {}
    content = message.get("content", choices[0].get("text"))
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content or ""


def delta_of(chunk: Mapping[str, Any]) -> str:
    choices = chunk.get("choices") or [{}]
    delta = choices[0].get("delta") or {}
    return delta.get("content") or ""


def call_result(response: str, explained: Any) -> CallResult:
    """The documented result from an answer's ``hybridd`` member.

    Raises:
        ProtocolError: the daemon did not explain itself.
    """
    if not isinstance(explained, dict) or "model_choice" not in explained:
        raise errors.ProtocolError("the answer lacks its explanation; is this hybridd's socket, and the same version?")
    usage = explained.get("usage") or {}
    return {
        "response": response,
        "model_choice": explained["model_choice"],
        "usage": {"input_tokens": usage.get("input_tokens"), "output_tokens": usage.get("output_tokens")},
        "cost_usd": float(explained.get("cost_usd") or 0.0),
        "latency_ms": float(explained.get("latency_ms") or 0.0),
        "request_id": str(explained.get("request_id", "")),
        "cache": str(explained.get("cache", "off")),
    }


def result_of(body: Mapping[str, Any]) -> CallResult:
    return call_result(text_of(body), body.get("hybridd"))


def unreachable(socket: Any, error: object = None) -> errors.DaemonUnreachable:
    """The sentence that says how to start the daemon; and why not, when the reason is another one than its absence."""
    number = getattr(error, "errno", None)
    absent = number in {None, errno.ENOENT, errno.ECONNREFUSED}
    detail = "" if absent else f" ({getattr(error, 'strerror', error)})"
    return errors.DaemonUnreachable(f"No daemon answers at {socket}. Start it with: hybridd serve{detail}")


def github_limit(limits: list[dict[str, Any]]) -> dict[str, Any]:
    """The GitHub account's hourly requests among all limits, as whole numbers; None for each member when there is no
    such limit."""
    mine = [
        one
        for one in limits
        if one.get("provider") == "github_models" and one.get("unit") == "requests" and not one.get("models")
    ]
    hourly = [one for one in mine if one.get("window") in {"3600s", "hour"}] or mine
    found = min(hourly, key=lambda one: cast(float, one.get("remaining") or 0.0)) if hourly else {}
    whole = ("limit", "used", "reserved", "remaining", "buffer", "drift")
    result: dict[str, Any] = {name: int(found[name]) if found.get(name) is not None else None for name in whole}
    return {**result, "reset": found.get("reset"), "source": found.get("source")}
