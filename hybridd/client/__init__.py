"""Clients of the daemon's socket.

Names are imported on first use: the command line needs :mod:`hybridd.client.stdlib` alone, and httpx costs 90 ms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybridd.client.async_client import AsyncChatStream, AsyncClient
    from hybridd.client.client import ChatStream, Client
    from hybridd.client.optimizer import HybridMLOptimizer
    from hybridd.client.types import (
        CallResult,
        Event,
        GithubLimits,
        Job,
        Limit,
        LocalModel,
        LocalModelDetails,
        ModelChoice,
        Rejected,
        Report,
        Resident,
        Usage,
    )

_HOMES = {
    "AsyncChatStream": "async_client",
    "AsyncClient": "async_client",
    "CallResult": "types",
    "ChatStream": "client",
    "Client": "client",
    "Event": "types",
    "GithubLimits": "types",
    "HybridMLOptimizer": "optimizer",
    "Job": "types",
    "Limit": "types",
    "LocalModel": "types",
    "LocalModelDetails": "types",
    "ModelChoice": "types",
    "Rejected": "types",
    "Report": "types",
    "Resident": "types",
    "Usage": "types",
}

__all__ = [
    "AsyncChatStream",
    "AsyncClient",
    "CallResult",
    "ChatStream",
    "Client",
    "Event",
    "GithubLimits",
    "HybridMLOptimizer",
    "Job",
    "Limit",
    "LocalModel",
    "LocalModelDetails",
    "ModelChoice",
    "Rejected",
    "Report",
    "Resident",
    "Usage",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"hybridd.client.{home}"), name)
