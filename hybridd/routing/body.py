"""What is really sent: the caller's body with the provider's model name, the task's defaults and a bound where a quota
needs one."""

from __future__ import annotations

from typing import Any

from hybridd.routing.feasible import Feasible
from hybridd.routing.outcome import Outcome
from hybridd.routing.request import RoutedRequest


def upstream_body(candidate: Feasible, request: RoutedRequest, outcome: Outcome) -> dict[str, Any]:
    """The caller's body with the provider's model name, the task's defaults, and a bound where a quota needs one."""
    body = {**request.body, "model": candidate.ref.model}
    task = outcome.task
    if task is not None:
        if task.temperature is not None:
            body.setdefault("temperature", task.temperature)
        if task.system_prompt is not None and request.kind == "chat":
            messages = body["messages"]
            if not any(message.get("role") in ("system", "developer") for message in messages):
                body["messages"] = [{"role": "system", "content": task.system_prompt}, *messages]
    if request.max_tokens is None and candidate.estimate.send_max_tokens is not None:
        body["max_tokens"] = outcome.max_tokens_sent = candidate.estimate.send_max_tokens
    if request.stream:
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    return body
