"""What both clients know of local models, downloads and measurements: the requests, and when a job has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hybridd.client import wire
from hybridd.client.types import Goal, Job
from hybridd.errors import InvalidRequest

ENDED = frozenset({"done", "failed", "cancelled"})
POLL_SECONDS = 0.25
LOAD_GRACE_SECONDS = 10.0
"""Beyond what the daemon itself waits for a load."""
PLAN_SECONDS = 130.0
UNLOAD_SECONDS = 120.0

Progress = Callable[[Job], object]


def plan(
    model: str | None, repository: str | None, context: int | None, parallel: int | None, goal: Goal | None
) -> wire.Call:
    """Raises InvalidRequest for both of ``model`` and ``repository``, or none."""
    if (model is None) == (repository is None):
        raise InvalidRequest("give a model of this machine or a repository of the Hub, not both", param="model")
    return wire.post(
        "/v1/local/plan", model=model, repository=repository, context=context, parallel=parallel, goal=goal
    )


def job(job_id: str, end: str = "") -> str:
    return f"/v1/local/jobs/{wire.segment(job_id)}{end}"


def result_of(ended: Job) -> dict[str, Any]:
    """What a job that is over has brought.

    Raises:
        HybriddError: it failed or was cancelled.
    """
    if ended["state"] != "done":
        raise wire.job_error(ended)
    return dict(ended["result"] or {})
