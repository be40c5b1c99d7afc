"""What is remembered of a request: its row in the database and its line in ``logs/ml_usage.log``. Never the prompt."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from hybridd.config.resolved import TaskSpec
from hybridd.contracts.ids import encode as encode_request_id
from hybridd.contracts.quotas import ModelRef
from hybridd.errors import HybriddError
from hybridd.routing.outcome import Outcome, decision
from hybridd.routing.request import RoutedRequest
from hybridd.store.rows import RequestRow

encode = msgspec.json.Encoder().encode


def request_row(request: RoutedRequest, outcome: Outcome, error: HybriddError | None) -> RequestRow:
    """``outcome.ended_ns`` must be set."""
    assert outcome.ended_ns is not None
    chosen, usage = outcome.chosen, outcome.usage
    started = outcome.started_ns
    first = outcome.first_token_ns
    overhead = outcome.overhead_ms
    return RequestRow(
        id=outcome.request_id,
        at_wall_ns=outcome.started_wall_ns,
        task=request.task or "",
        requested=request.model[:200],
        provider=chosen.ref.provider if chosen else "",
        model=chosen.ref.model if chosen else "",
        status=error.status if error else 200,
        error_code=error.error_code if error else None,
        stream=int(request.stream),
        cache=outcome.cache,
        attempts=outcome.attempts,
        input_tokens=usage.input_tokens if usage else None,
        output_tokens=usage.output_tokens if usage else None,
        usd_micro=outcome.usd_micro,
        latency_us=(outcome.ended_ns - started) // 1000,
        first_token_us=(first - started) // 1000 if first is not None else None,
        overhead_us=round(overhead * 1000) if overhead is not None else None,
        tier=request.tier,
        subject=request.user,
        client=request.client[:80] if request.client else None,
        choice=_choice(outcome),
    )


def _choice(outcome: Outcome) -> str:
    chosen = outcome.chosen
    if chosen is None or outcome.rejected or outcome.cache == "hit":
        return encode(outcome.choice).decode()
    return _first_choice(outcome.how, outcome.task, outcome.candidates, chosen.ref)


@lru_cache(maxsize=512)
def _first_choice(how: str, task: TaskSpec | None, candidates: tuple[ModelRef, ...], chosen: ModelRef) -> str:
    """The usual decision, again and again the same text: nobody was passed over."""
    return encode(decision(how, task, candidates, chosen, [])).decode()


def usage_record(row: RequestRow) -> dict[str, Any]:
    """Times in milliseconds, money in US dollars, ``at`` UTC seconds."""
    return {
        "at": row.at_wall_ns / 1e9,
        "id": encode_request_id(row.id),
        "task": row.task or None,
        "requested": row.requested,
        "provider": row.provider or None,
        "model": row.model or None,
        "status": row.status,
        "error_code": row.error_code,
        "stream": bool(row.stream),
        "cache": row.cache,
        "attempts": row.attempts,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "cost_usd": row.usd_micro / 1e6,
        "latency_ms": row.latency_us / 1000,
        "first_token_ms": row.first_token_us / 1000 if row.first_token_us is not None else None,
    }
