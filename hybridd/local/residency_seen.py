"""How the provider of local models looks among the others: its state, and its processes among the plugins."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from hybridd.contracts.views import PluginView, ProviderStateName
from hybridd.local.residency_models import Shelf
from hybridd.local.residency_pauses import Pause
from hybridd.local.residency_worker import Worker

_STATES = {"ready": "ready", "draining": "ready", "loading": "starting", "failed": "failed", "gone": "stopped"}


def plugin_view(worker: Worker, provider: str) -> PluginView:
    return PluginView(
        name=f"{provider}:{worker.model}",
        state=_STATES.get(worker.state, worker.state),
        pid=worker.pid,
        restarts=0,
        providers=[provider],
        since=worker.since,
        version=worker.version,
        reason=worker.reason,
        stderr=worker.stderr,
    )


def plugin_views(workers: Iterable[Worker], pauses: Mapping[str, Pause], provider: str) -> list[PluginView]:
    """The processes, and the models of which somebody should know that they cannot be loaded."""
    live = [plugin_view(worker, provider) for worker in workers]
    shown = {view.name for view in live}
    failed = [pause.view(provider, model) for model, pause in pauses.items() if pause.alert]
    return [*live, *(view for view in failed if view.name not in shown)]


def provider_state(
    shelf: Shelf, workers: Iterable[Worker], loading: Collection[str], pauses: Mapping[str, Pause]
) -> tuple[ProviderStateName, str, bool]:
    """State, reason, degraded. ``loading``: a text for each load that goes on."""
    if not shelf.known:
        places = " or ".join(str(folder) for folder in shelf.folders) or "the configuration"
        return "not_configured", f"no GGUF file in {places}", False
    troubles = [f"{model}: {pause.reason}" for model, pause in pauses.items()]
    reason = "; ".join(troubles)
    if any(worker.state == "ready" for worker in workers):
        return "ready", reason, bool(troubles)
    if loading:
        return "starting", "; ".join(loading), bool(troubles)
    return "idle", reason, bool(troubles)
