"""What the house knows of each provider: configuration, registration and process, folded into one state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from hybridd.config.resolved import ProviderSpec
from hybridd.contracts import protocol as wire
from hybridd.contracts.protocol import ModelInfo, QuotaInfo, Register
from hybridd.contracts.quotas import Window
from hybridd.contracts.views import ProviderStateName
from hybridd.providers.fleet import Fleet
from hybridd.providers.messages import Refused
from hybridd.providers.process import PluginProcess
from hybridd.providers.session import Session
from hybridd.providers.spawn import is_spawned

# Names on one connection, beyond those of the configuration: a plugin that registers without end fills no memory.
MAX_PROVIDERS = 256
RESERVED = frozenset({"auto", "task", "local", "specialists"})


class ProviderRuntime:
    """One provider name. ``state`` and ``reason`` are recomputed by :meth:`refresh`, never set from outside.

    ``models`` and ``quotas`` are what its plugin registered last; they outlive an idle process. ``since`` is UTC
    seconds of the last change of state.
    """

    def __init__(self, name: str, wall: Callable[[], float]) -> None:
        self.name = name
        self.spec: ProviderSpec | None = None
        self.state: ProviderStateName = "disconnected"
        self.reason = ""
        self.degraded = False
        self.models: dict[str, ModelInfo] = {}
        self.quotas: list[QuotaInfo] = []
        self.in_flight = 0
        self.since = wall()
        self.last_used = 0.0
        self.session: Session | None = None
        self.process: PluginProcess | None = None
        self.fleet: Fleet | None = None
        self._registered: Register | None = None
        self._wall = wall
        self._waiters: list[asyncio.Future[None]] = []

    def register(self, session: Session, params: Register) -> None:
        self.session = session
        self._registered = params
        self.models = {model.id: model for model in params.models}
        self.quotas = params.quotas

    def detach(self) -> None:
        self.session = None

    def refresh(self) -> bool:
        """Recomputes the state; True when it changed."""
        state, reason, degraded = self._state()
        changed = (state, reason, degraded) != (self.state, self.reason, self.degraded)
        if state != self.state:
            self.since = self._wall()
        self.state, self.reason, self.degraded = state, reason, degraded
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        return changed

    async def changed(self) -> None:
        """Waits for the next refresh."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _state(self) -> tuple[ProviderStateName, str, bool]:
        spec = self.spec
        if spec is not None and not spec.enabled:
            return "disabled", "disabled in the configuration", False
        if spec is not None and spec.not_configured is not None:
            return "not_configured", spec.not_configured, False
        if self.fleet is not None:
            return self.fleet.state()
        if self.session is not None and self._registered is not None:
            return self._connected_state(self.session, self._registered)
        if self.process is None:
            return "disconnected", "its plugin is not connected", False
        return self.process.provider_state()

    @staticmethod
    def _connected_state(session: Session, registered: Register) -> tuple[ProviderStateName, str, bool]:
        if registered.state == "degraded":
            return "ready", registered.reason or "degraded", True
        if registered.state != "ready":
            return registered.state, registered.reason, False
        return "ready", session.degraded, bool(session.degraded)


def unusable(params: Register) -> str | None:
    """Why a registration cannot be taken over, beyond what its types say."""
    seen: set[str] = set()
    for model in params.models:
        if model.id in seen:
            return f"model {model.id!r} is registered twice"
        seen.add(model.id)
    for quota in params.quotas:
        if (quota.unit == "concurrent") != (quota.window is None):
            return f"quota {quota.unit}: a window is needed for every unit but concurrent"
        if quota.window is not None:
            try:
                Window.parse(quota.window, quota.zone)
                ZoneInfo(quota.zone)
            except (ValueError, OSError, ZoneInfoNotFoundError) as error:
                return f"quota {quota.unit}: window {quota.window!r} in zone {quota.zone!r}: {error}"
        if not 0 <= quota.buffer <= quota.limit < float("inf"):
            return f"quota {quota.unit}: limit {quota.limit} and buffer {quota.buffer} do not fit"
    return None


def check_claim(
    session: Session, name: str, spec: ProviderSpec | None, runtime: ProviderRuntime | None, *, own: bool
) -> None:
    """May this connection register ``name``? ``own``: it is the process that the daemon started for it.

    Raises:
        Refused: the name is somebody else's, reserved or disabled, or the connection has registered too many.
    """
    if spec is None and name not in session.providers and len(session.providers) >= MAX_PROVIDERS:
        raise Refused(wire.INVALID_PARAMS, f"a connection registers at most {MAX_PROVIDERS} providers", fatal=False)
    holder = runtime.session if runtime is not None else None
    taken = ""
    if spec is not None and is_spawned(spec):
        if not own:
            taken = f"the configuration gives the name {name!r} to a plugin that the daemon starts"
    elif spec is None and name in RESERVED:
        taken = f"{name!r} is a reserved name"
    elif spec is not None and not spec.enabled:
        taken = f"provider {name!r} is disabled in the configuration"
    elif holder is not None and holder is not session and holder.instance_id != session.instance_id:
        taken = f"{name!r} is registered by {holder.label}"
    if taken:
        raise Refused(wire.NAME_TAKEN, taken, fatal=False)
