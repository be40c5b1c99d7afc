"""How providers and plugin connections look from outside."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from hybridd.config.resolved import ProviderSpec
from hybridd.contracts.views import ModelView, PluginView, ProviderView
from hybridd.providers.registry import ProviderRuntime
from hybridd.providers.session import Session


def session_view(session: Session, specs: Mapping[str, ProviderSpec]) -> PluginView:
    """A plugin that connected by itself."""
    assert session.info is not None
    return PluginView(
        name=session.info.name,
        state="ready" if session.providers else "starting",
        pid=session.peer.pid,
        restarts=0,
        providers=sorted(session.providers),
        since=session.since,
        version=session.info.version,
        reason=session.degraded or unnamed(session, specs),
    )


def unnamed(session: Session, specs: Mapping[str, ProviderSpec]) -> str:
    """Why a connected plugin is never chosen, when that is so."""
    names = ", ".join(sorted(name for name in session.providers if name not in specs))
    return f"never chosen, because the configuration does not name it under providers: {names}" if names else ""


def provider_view(runtime: ProviderRuntime) -> ProviderView:
    spec = runtime.spec
    return ProviderView(
        name=runtime.name,
        plugin=spec.plugin if spec is not None else "",
        state=runtime.state,
        reason=runtime.reason,
        models=[
            ModelView(
                id=model.id,
                context=model.context,
                tasks=model.tasks,
                price=msgspec.to_builtins(model.price) if model.price is not None else None,
                shutdown_date=model.shutdown_date,
            )
            for model in runtime.models.values()
        ],
        account=spec.account if spec is not None else runtime.name,
        since=runtime.since,
        in_flight=runtime.in_flight,
    )
