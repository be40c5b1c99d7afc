"""How one request went: filled in while it is carried out, read by the records, the headers and the explanations."""

from __future__ import annotations

from typing import Any

import msgspec

from hybridd.config.resolved import TaskSpec
from hybridd.contracts.protocol import Usage
from hybridd.contracts.quotas import ModelRef
from hybridd.contracts.views import ModelChoice, Rejected
from hybridd.errors import HybriddError, InvalidRequest, NoFeasibleProvider, NotFound, TooLarge
from hybridd.routing.feasible import Feasible

# Rejections that waiting cures, beside those that are no candidates at all: then it is a 429, else a 503.
_BUSY = frozenset({"quota", "rate_limited", "not_configured", "disabled"})
# Rejections that have nothing to do with the providers.
_OURS = frozenset({"storage_failed", "recovering"})


class Outcome(msgspec.Struct):
    """How a request went, filled in as it goes. Times are CLOCK_BOOTTIME nanoseconds; money micro-dollars.

    ``refusal``: why the last candidate that had to be got ready was not, when that has a code of its own.
    """

    request_id: int
    started_ns: int
    started_wall_ns: int
    how: str = ""
    candidates: tuple[ModelRef, ...] = ()
    rejected: list[Rejected] = []
    task: TaskSpec | None = None
    chosen: Feasible | None = None
    refusal: HybriddError | None = None
    body: bytes = b""
    usage: Usage | None = None
    usd_micro: int = 0
    attempts: int = 0
    cache: str = "off"
    first_token_ns: int | None = None
    ended_ns: int | None = None
    dispatched_ns: int | None = None
    upstream_ms: float | None = None
    max_tokens_sent: int | None = None
    details: dict[str, Any] = {}

    @property
    def latency_ms(self) -> float:
        return ((self.ended_ns or self.started_ns) - self.started_ns) / 1e6

    @property
    def overhead_ms(self) -> float | None:
        """Everything that was not waiting for the provider; for a stream, the time until it was sent."""
        if self.upstream_ms is not None:
            return max(0.0, self.latency_ms - self.upstream_ms)
        if self.dispatched_ns is not None:
            return (self.dispatched_ns - self.started_ns) / 1e6
        return None

    @property
    def choice(self) -> ModelChoice:
        ref = self.chosen.ref if self.chosen else None
        return decision(self.how, self.task, self.candidates, ref, self.rejected, cached=self.cache == "hit")


def decision(
    how: str,
    task: TaskSpec | None,
    candidates: tuple[ModelRef, ...],
    chosen: ModelRef | None,
    rejected: list[Rejected],
    *,
    cached: bool = False,
) -> ModelChoice:
    """A decision with its reason in one sentence part."""
    if chosen is None:
        reason = "nobody can answer"
    elif cached:
        reason = "answered from the cache"
    elif not rejected:
        reason = "first candidate"
    else:
        reason = f"number {len(rejected) + 1} of {len(candidates)} candidates; those before it could not answer"
    return ModelChoice(
        task=task.name if task else None,
        chosen_model=str(chosen) if chosen else None,
        provider=chosen.provider if chosen else None,
        reason=f"{how}: {reason}",
        rejected=rejected,
        candidates=[str(ref) for ref in candidates],
        defaults=_defaults_of(task),
    )


def _defaults_of(task: TaskSpec | None) -> dict[str, Any]:
    if task is None:
        return {}
    names = ("system_prompt", "temperature", "max_tokens", "timeout_seconds")
    return {name: getattr(task, name) for name in names if getattr(task, name) is not None}


def nobody(outcome: Outcome) -> HybriddError:
    """The error when no candidate could be asked: each one's reason, and when the first becomes possible again. Of a
    single candidate that could not be got ready it is the very reason."""
    rejected = outcome.rejected
    if len(outcome.candidates) == len(rejected) == 1 and outcome.refusal is not None:
        return outcome.refusal
    if len(outcome.candidates) == 1 and rejected and rejected[0].code == "unknown_model":
        return NotFound(f"{rejected[0].candidate}: {rejected[0].reason}.", param="model", code="model_not_found")
    if rejected and all(item.code == "unsupported" for item in rejected):
        listed = "; ".join(f"{item.candidate}: {item.reason}" for item in rejected)
        return InvalidRequest(f"No model named here does this. {listed}.", param="model", code="unsupported")
    if rejected and all(item.code == "context" for item in rejected):
        listed = "; ".join(f"{item.candidate}: {item.reason}" for item in rejected)
        return TooLarge(
            f"The request is too long. {listed}.",
            param="messages",
            code="context_length_exceeded",
            details=[msgspec.to_builtins(item) for item in rejected],
        )
    waits = [item.retry_after for item in rejected if item.retry_after is not None]
    listed = "; ".join(f"{item.candidate}: {item.reason}" for item in rejected) or "there is no candidate"
    busy = bool(waits) and all(item.code in _BUSY for item in rejected)
    ours = next((item.code for item in rejected if item.code in _OURS), None)
    return NoFeasibleProvider(
        f"No provider can answer now. {listed}.",
        retry_after=min(waits) if waits else None,
        details=[msgspec.to_builtins(item) for item in rejected],
        code=ours or ("rate_limit_exceeded" if busy else "no_feasible_provider"),
        status=429 if busy else 503,
    )
