"""Limits that the fake upstream really keeps, and the headers and 429 bodies in which real providers report them."""

from __future__ import annotations

import math
from collections import deque
from datetime import UTC, datetime
from typing import Any

import msgspec

from tests.fakes.upstream_behaviour import RateLimit
from tests.fakes.upstream_log import window_ns
from tests.fakes.upstream_presets import go_duration


class Verdict(msgspec.Struct, kw_only=True):
    """Whether a request is let in, and how the limit stands after that decision. Times in seconds from the arrival."""

    refused: str | None
    """`requests`, `tokens` or `concurrent` when refused."""
    used_requests: int
    used_tokens: int
    wait_s: float
    """Until the same request would be let in (0 when it was)."""
    reset_s: float
    """Until nothing of what is counted now counts any more: the newest entry leaves, or the fixed window ends."""


class Limiter:
    """One counter of one limit. Refused requests are not counted. Not shared between threads."""

    def __init__(self, limit: RateLimit) -> None:
        self.limit = limit
        self.running = 0
        self._window = window_ns(limit.window_s)
        self._entries: deque[tuple[int, int]] = deque()
        self._tokens = 0
        self._start: int | None = None
        self._latest = 0

    def decide(self, at: int, tokens: int) -> Verdict:
        """Judges a request that arrived at `at` (ns) and costs `tokens`; counts nothing yet."""
        at = self._advance(at)
        limit = self.limit
        refused = None
        if limit.limit_concurrent is not None and self.running >= limit.limit_concurrent:
            refused = "concurrent"
        elif limit.limit_requests is not None and len(self._entries) >= limit.limit_requests:
            refused = "requests"
        elif limit.limit_tokens is not None and self._tokens + tokens > limit.limit_tokens:
            refused = "tokens"
        return self._verdict(at, refused, tokens)

    def admit(self, at: int, tokens: int) -> Verdict:
        """Counts a request that every limit let in; its answer runs until `release`."""
        at = self._advance(at)
        self._entries.append((at, tokens))
        self._tokens += tokens
        self.running += 1
        return self._verdict(at, None, 0)

    def release(self) -> None:
        self.running -= 1

    def _advance(self, at: int) -> int:
        """Forgets what has left the window; time never runs backwards, whatever order requests are judged in."""
        at = self._latest = max(at, self._latest)
        if self._start is None:
            self._start = at
        if self.limit.kind == "fixed":
            begun = self._start + (at - self._start) // self._window * self._window
            oldest = begun
        else:
            oldest = at - self._window + 1
        while self._entries and self._entries[0][0] < oldest:
            self._tokens -= self._entries.popleft()[1]
        return at

    def _verdict(self, at: int, refused: str | None, tokens: int) -> Verdict:
        if self.limit.kind == "fixed":
            assert self._start is not None
            reset = self._window - (at - self._start) % self._window
            wait = reset
        else:
            reset = self._entries[-1][0] + self._window - at if self._entries else 0
            wait = self._room_at(refused, tokens) - at if refused in ("requests", "tokens") and self._entries else 0
        return Verdict(
            refused=refused,
            used_requests=len(self._entries),
            used_tokens=self._tokens,
            wait_s=0 if refused is None else 1 if refused == "concurrent" else wait / 1e9,
            reset_s=reset / 1e9,
        )

    def _room_at(self, refused: str | None, tokens: int) -> int:
        if refused == "requests":
            return self._entries[0][0] + self._window
        excess = self._tokens + tokens - (self.limit.limit_tokens or 0)
        for at, cost in self._entries:
            excess -= cost
            if excess <= 0:
                return at + self._window
        return self._entries[-1][0] + self._window


def limit_headers(limit: RateLimit, verdict: Verdict, now: float) -> dict[str, str]:
    """What the style's provider says about a limit on each answer; `now` in epoch seconds."""
    requests, tokens = limit.limit_requests, limit.limit_tokens
    left_requests = max(0, (requests or 0) - verdict.used_requests)
    left_tokens = max(0, (tokens or 0) - verdict.used_tokens)
    reset = verdict.reset_s
    headers: dict[str, str] = {}
    if limit.style == "hf":
        quantity, window = requests or 0, math.ceil(limit.window_s)
        headers = {
            "ratelimit": f'"{limit.bucket}";r={left_requests};t={math.ceil(reset)}',
            "ratelimit-policy": f'"{limit.kind} window";"{limit.bucket}";q={quantity};w={window}',
        }
    elif limit.style == "github":
        headers = {
            "x-ratelimit-limit": str(requests or 0),
            "x-ratelimit-remaining": str(left_requests),
            "x-ratelimit-used": str(verdict.used_requests),
            "x-ratelimit-reset": str(math.ceil(now + reset)),
        }
    else:
        for unit, most, left in (("requests", requests, left_requests), ("tokens", tokens, left_tokens)):
            if most is None:
                continue
            if limit.style == "openai":
                name, text = f"x-ratelimit-{{}}-{unit}", go_duration(reset)
            elif limit.style == "cerebras":
                per = "day" if unit == "requests" else "minute"
                name, text = f"x-ratelimit-{{}}-{unit}-{per}", str(reset)
            else:
                when = datetime.fromtimestamp(math.ceil(now + reset), UTC)
                name, text = f"anthropic-ratelimit-{unit}-{{}}", when.strftime("%Y-%m-%dT%H:%M:%SZ")
            for field, value in (("limit", str(most)), ("remaining", str(left)), ("reset", text)):
                headers[name.format(field)] = value
    if verdict.refused:
        headers["retry-after"] = str(max(1, math.ceil(verdict.wait_s)))
        if limit.style == "github":
            headers["x-ratelimit-type"] = _GITHUB_TYPES[verdict.refused]
    return headers


_GITHUB_TYPES = {
    "requests": "UserByModelByMinute",
    "tokens": "UserByModelByMinuteTokens",
    "concurrent": "UserConcurrentRequests",
}


def refusal_body(limit: RateLimit, verdict: Verdict, model: str) -> Any:
    """The body of the style's 429."""
    wait = max(verdict.wait_s, 0.001)
    most = {"requests": limit.limit_requests, "tokens": limit.limit_tokens, "concurrent": limit.limit_concurrent}
    unit = verdict.refused or "requests"
    if limit.style == "github":
        text = (
            f"Rate limit of {most[unit]} per {math.ceil(limit.window_s)}s exceeded for {_GITHUB_TYPES[unit]}. "
            f"Please wait {math.ceil(wait)} seconds before retrying."
        )
        return {"error": {"code": "RateLimitReached", "message": text, "details": text}}
    if limit.style == "hf":
        return {"error": f"We had to rate limit you: {most[unit]} {unit} per {math.ceil(limit.window_s)} seconds."}
    if limit.style == "cerebras":
        return {
            "message": f"{unit.capitalize()} limit exceeded - too many {unit} sent.",
            "type": "too_many_requests_error",
            "param": "quota",
            "code": f"{unit.removesuffix('s')}_quota_exceeded",
        }
    if limit.style == "anthropic":
        error = {"type": "rate_limit_error", "message": f"This request would exceed the limit of {most[unit]} {unit}."}
        return {"type": "error", "error": error}
    used = verdict.used_tokens if unit == "tokens" else verdict.used_requests
    text = (
        f"Rate limit reached for {model or 'this endpoint'} on {unit}: Limit {most[unit]}, Used {used}. "
        f"Please try again in {go_duration(wait)}."
    )
    return {"error": {"message": text, "type": unit, "param": None, "code": "rate_limit_exceeded"}}
