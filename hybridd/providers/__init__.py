"""Plugins, daemon side: connections, processes, provider names, calls."""

from __future__ import annotations

from hybridd.providers.calls import CallFailed, PluginCall
from hybridd.providers.hub import Hub
from hybridd.providers.link import Link, Peer, Timing
from hybridd.providers.registry import ProviderRuntime
from hybridd.providers.session import Session
from hybridd.providers.spawn import SpawnContext

__all__ = [
    "CallFailed",
    "Hub",
    "Link",
    "Peer",
    "PluginCall",
    "ProviderRuntime",
    "Session",
    "SpawnContext",
    "Timing",
]
