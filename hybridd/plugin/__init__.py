"""The SDK for plugin authors: subclass :class:`Provider`, hand it to :func:`run`, done.

    from hybridd.plugin import Provider, run

    class Echo(Provider):
        name = "echo"
        async def models(self):
            return [Model(id="echo-1")]
        async def generate(self, request, stream):
            return request.prompt_text

    run(Echo)

The guide is ``docs/plugins.md``. This package knows nothing of the daemon's insides: it speaks the protocol of
:mod:`hybridd.contracts.protocol` over the daemon's socket, as any other language could.
"""

from __future__ import annotations

from hybridd.contracts.protocol import (
    ModelInfo as Model,
)
from hybridd.contracts.protocol import (
    Observation,
    PriceInfo,
    ProbeResult,
    Usage,
)
from hybridd.contracts.protocol import (
    QuotaInfo as Quota,
)
from hybridd.plugin.keys import KeyUnavailable, resolve_key
from hybridd.plugin.provider import CallFailure, LoadFailed, Plugin, PluginConfig, Provider, Request, Result
from hybridd.plugin.runtime import run, serve
from hybridd.plugin.stream import Stream

__all__ = [
    "CallFailure",
    "KeyUnavailable",
    "LoadFailed",
    "Model",
    "Observation",
    "Plugin",
    "PluginConfig",
    "PriceInfo",
    "ProbeResult",
    "Provider",
    "Quota",
    "Request",
    "Result",
    "Stream",
    "Usage",
    "resolve_key",
    "run",
    "serve",
]
