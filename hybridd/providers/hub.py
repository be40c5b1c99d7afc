"""The hub: every plugin connection, every plugin process, every provider name.

All of it runs on the event loop and synchronously, but for the supervisors' tasks. Listeners are called in place;
one that raises is logged and changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from hybridd._version import __version__
from hybridd.bus import EventBus
from hybridd.clocks import NS, Clock
from hybridd.config.resolved import ProviderSpec
from hybridd.contracts import protocol as wire
from hybridd.contracts.views import PluginView, ProviderView
from hybridd.errors import DeadlineExceeded, ProviderError
from hybridd.providers.calls import InFlight, OnEvents, PluginCall, failed_call
from hybridd.providers.fleet import Fleet, OwnedProcess, RoutedParams
from hybridd.providers.link import Link, Peer
from hybridd.providers.messages import Refused
from hybridd.providers.process import PluginProcess
from hybridd.providers.processes import Processes
from hybridd.providers.registry import ProviderRuntime, check_claim, unusable
from hybridd.providers.session import TOLD_CHARACTERS, Session
from hybridd.providers.spawn import SpawnContext, is_spawned, plans
from hybridd.providers.views import provider_view, session_view, unnamed
from hybridd.providers.watch import watch_death

logger = logging.getLogger("hybridd.providers")


class Hub:
    """See the module. Lists of listeners: ``on_registered(provider)``, ``on_observed(provider, observations)``,
    ``on_state(provider)``."""

    def __init__(self, *, clock: Clock, bus: EventBus, spawn: SpawnContext, rng: random.Random | None = None) -> None:
        self.on_registered: list[Callable[[str], object]] = []
        self.on_observed: list[Callable[[str, list[wire.Observation]], object]] = []
        self.on_state: list[Callable[[str], object]] = []
        self._clock = clock
        self._bus = bus
        self._spawn = spawn if rng is None else msgspec.structs.replace(spawn, rng=rng)
        self._specs: dict[str, ProviderSpec] = {}
        self._runtimes: dict[str, ProviderRuntime] = {}
        self._processes = Processes(self._spawn, clock, self._runtimes, self._process_changed, self._withdraw)
        self._fleets: dict[str, Fleet] = {}
        self._sessions: set[Session] = set()
        self._closed = False

    # configuration

    @property
    def providers(self) -> Mapping[str, ProviderRuntime]:
        return self._runtimes

    def add_fleet(self, provider: str, fleet: Fleet) -> None:
        """``fleet`` owns the processes behind this provider from now on; once, before the first configuration."""
        self._fleets[provider] = fleet
        self._runtime(provider).fleet = fleet

    @property
    def spawn_context(self) -> SpawnContext:
        return self._spawn

    def prepare(self, specs: Mapping[str, ProviderSpec]) -> None:
        """Makes the names known without starting anything, so that the first request sees them."""
        self._specs = dict(specs)
        for name, fleet in self._fleets.items():
            fleet.prepare(specs.get(name))
            self._runtime(name).models = dict(fleet.models())
        for name, spec in specs.items():
            self._runtime(name).spec = spec
        for name in [name for name in self._runtimes if name not in specs]:
            runtime = self._runtimes[name]
            runtime.spec = None
            if runtime.fleet is None and (runtime.process is not None or runtime.session is None):
                del self._runtimes[name]
        self._refresh_all()

    async def apply(self, specs: Mapping[str, ProviderSpec]) -> None:
        """Makes the processes match. Unchanged ones keep running; changed ones are replaced without losing a call:
        the new process takes the names over as it registers, the old one finishes its calls."""
        self.prepare(specs)
        wanted = plans({name: spec for name, spec in specs.items() if name not in self._fleets})
        self._processes.apply(wanted)
        by_provider = {name: process for process in self._processes for name in process.plan.config}
        for name, runtime in self._runtimes.items():
            runtime.process = by_provider.get(name)
            held = runtime.session
            if held is not None and held.process is not None and runtime.process is None:
                runtime.detach()
        self._processes.start()
        for fleet in self._fleets.values():
            fleet.apply()
        self._refresh_all()

    async def close(self, grace: float) -> None:
        """Ends every plugin; calls still open fail."""
        self._closed = True
        await asyncio.gather(self._processes.close(grace), *(fleet.close(grace) for fleet in self._fleets.values()))
        external = [session for session in self._sessions if not session.closed]
        await asyncio.gather(*(session.shutdown(grace) for session in external))
        for session in external:
            session.close("the daemon stops")

    # connections

    def accept(self, link: Link, peer: Peer) -> Session:
        """A plugin has connected; everything it sends goes to ``Session.on_message``."""
        session = Session(self, link, peer, asyncio.get_running_loop(), self._spawn.timing)
        session.death = watch_death(peer.pid)
        self._sessions.add(session)
        return session

    def initialize(self, session: Session, params: wire.Initialize, version: str) -> wire.InitializeResult:
        """Checks the token; answers with the settings of the providers this plugin serves."""
        if self._closed:
            raise Refused(wire.INVALID_REQUEST, "the daemon is stopping")
        if params.token:
            process = next((one for one in self._owned() if one.take_token(params.token)), None)
            if process is None:
                raise Refused(wire.BAD_TOKEN, "the token is unknown or was used before")
            session.process = process
            process.attached(session, params.plugin.version)
            settings: dict[str, dict[str, Any]] = process.settings
        else:
            settings = {
                name: spec.plugin_config
                for name, spec in self._specs.items()
                if spec.plugin == params.plugin.name and spec.enabled and not is_spawned(spec)
            }
        return wire.InitializeResult(
            protocol_version=version,
            heartbeat_ms=round(self._spawn.timing.heartbeat * 1000),
            providers=settings,
            daemon=f"hybridd {__version__}",
        )

    def register(self, session: Session, params: wire.Register) -> wire.Ping:
        """Binds a provider name to a connection; again from the same instance replaces models and quotas."""
        name = params.provider
        own = session.process is not None and name in session.process.settings
        check_claim(session, name, self._specs.get(name), self._runtimes.get(name), own=own)
        reason = unusable(params)
        if reason is not None:
            raise Refused(wire.INVALID_PARAMS, f"provider/register {name}: {reason}", fatal=False)
        runtime = self._runtime(name)
        if runtime.fleet is not None:
            session.providers.add(name)
            runtime.fleet.register(session, params)
            return wire.Ping()
        previous = runtime.session
        if previous is not None and previous is not session and not previous.closed:
            previous.providers.discard(name)
            if previous.process is None and not previous.providers:
                previous.close("replaced by a newer connection of the same instance")
        newly = name not in session.providers
        session.providers.add(name)
        runtime.register(session, params)
        if session.process is not None:
            session.process.registered()
        if newly and name not in self._specs:
            logger.warning("plugin %s is %s", session.label, unnamed(session, self._specs))
        self._refresh(runtime)
        self._tell(self.on_registered, name)
        return wire.Ping()

    def fleet_changed(self, provider: str) -> None:
        """Its models or its state are not what they were."""
        runtime = self._runtime(provider)
        fleet = runtime.fleet
        assert fleet is not None
        models = fleet.models()
        if runtime.models != models:
            runtime.models = dict(models)
            self._tell(self.on_registered, provider)
        self._refresh(runtime)

    def _owned(self) -> list[OwnedProcess]:
        """Every process that we started."""
        return [*self._processes, *(one for fleet in self._fleets.values() for one in fleet.workers)]

    def process_of(self, name: str) -> PluginProcess | None:
        return self._processes.of(name)

    # from the sessions

    def session_lost(self, session: Session) -> None:
        self._sessions.discard(session)
        process = session.process
        exited = process.exited if process is not None else None
        if session.calls:
            session.death.when_dead(exited, session.owner_gone)
        else:
            session.death.forget()
        if process is not None:
            process.lost(session, session.closed)
        self._withdraw(session)

    def session_violated(self, session: Session, reason: str) -> None:
        process = session.process
        if process is None:
            # Broken before its token was seen: the process is known by its number.
            process = next((one for one in self._owned() if one.pid == session.peer.pid), None)
        if process is not None:
            process.violated(reason)
        if self._bus.wanted("plugin"):
            self._bus.publish("plugin", {"event": "violation", "plugin": session.label, "reason": reason})

    def session_changed(self, session: Session) -> None:
        for name in session.providers:
            runtime = self._runtimes.get(name)
            if runtime is not None and (runtime.session is session or runtime.fleet is not None):
                self._refresh(runtime)

    def call_ended(self, call: PluginCall, now: float) -> None:
        """``now``: loop time."""
        home = call.home
        if home is not None:
            call.home = None
            home.in_flight -= 1
            home.last_used = now

    def observed(self, provider: str, observations: list[wire.Observation]) -> None:
        self._tell(self.on_observed, provider, observations)

    def plugin_log(self, session: Session, entry: wire.Log) -> None:
        name = session.info.name if session.info is not None else "plugin"
        fields = " ".join(f"{key}={value}" for key, value in entry.fields.items())
        said = f"{entry.message} {fields}".strip()[:TOLD_CHARACTERS]
        logging.getLogger(f"hybridd.plugin.{name}").log(logging.getLevelNamesMapping()[entry.level.upper()], "%s", said)

    def plugin_progress(self, session: Session, progress: wire.Progress) -> None:
        if session.process is not None:
            session.process.progressed(progress)
        if self._bus.wanted("plugin"):
            self._bus.publish("plugin", {"event": "progress", "plugin": session.label, **msgspec.to_builtins(progress)})

    # calls

    def connected(self, provider: str, model: str = "") -> bool:
        """Can a call be written right now? ``model`` matters to a provider that has a process for each."""
        runtime = self._runtimes.get(provider)
        if runtime is None:
            return False
        if runtime.fleet is not None:
            return runtime.fleet.connected(model)
        return runtime.session is not None and not runtime.session.draining

    async def look_again(self, provider: str, model: str) -> bool:
        """A model that nobody knows: may its provider have it by now? Only a fleet can say."""
        fleet = self._fleets.get(provider)
        return fleet is not None and await fleet.look_again(model)

    async def look_everywhere(self, model: str) -> bool:
        """As :meth:`look_again`, of every provider that can say."""
        return any([await fleet.look_again(model) for fleet in self._fleets.values()])

    async def ensure_connected(self, provider: str, timeout: float, model: str = "") -> None:
        """Starts an on-demand plugin and waits for its registration; of a fleet, loads ``model``.

        Raises:
            ProviderError: it cannot be had: unknown, disabled, not configured, retired, failed, waiting to be
                started again, or not there in time.
        """
        fleet = self._fleets.get(provider)
        if fleet is not None:
            await fleet.ensure(model, timeout)
            return
        try:
            async with asyncio.timeout(timeout):
                while not self.connected(provider):
                    runtime = self._runtimes.get(provider)
                    if runtime is None:
                        raise ProviderError(f"there is no provider {provider!r}")
                    stuck = runtime.state in ("disabled", "not_configured", "failed")
                    if runtime.process is None or stuck or runtime.process.state == "backoff":
                        raise ProviderError(f"{provider}: {runtime.reason or 'its plugin is not connected'}")
                    runtime.process.want()
                    await runtime.changed()
        except TimeoutError:
            runtime = self._runtimes.get(provider)
            why = f" ({runtime.reason})" if runtime is not None and runtime.reason else ""
            raise DeadlineExceeded(f"{provider}: its plugin was not ready within {timeout:g} s{why}") from None

    def start_call(
        self,
        provider: str,
        method: str,
        params: RoutedParams,
        *,
        deadline: float,
        on_events: OnEvents | None = None,
    ) -> PluginCall:
        """Writes the request at once. ``deadline`` is loop time and goes into the request. Never raises: a call that
        cannot be written has failed with ``sent: no``."""
        runtime = self._runtimes.get(provider)
        home: InFlight | None = runtime
        session = runtime.session if runtime is not None else None
        if runtime is not None and runtime.fleet is not None:
            session, home = runtime.fleet.route(params) or (None, None)
        if home is None or session is None or session.draining:
            error = wire.CallError(kind="unavailable", sent="no")
            return failed_call(provider, method, error, f"provider {provider} is not connected")
        left = round((deadline - session.loop.time()) * 1000)
        if left <= 0:
            return failed_call(
                provider, method, wire.CallError(kind="timeout", sent="no"), "the deadline has already passed"
            )
        params.deadline_ms = left
        call = session.start_call(provider, method, params, deadline=deadline, on_events=on_events)
        if not call.done():
            call.home = home
            home.in_flight += 1
        return call

    async def probe(self, provider: str, timeout: float) -> wire.ProbeResult:
        """Unmetered facts. Never starts a plugin.

        Raises:
            CallFailed: not connected, or it failed.
        """
        fleet = self._fleets.get(provider)
        if fleet is not None:
            return await fleet.probe(timeout)
        deadline = asyncio.get_running_loop().time() + timeout
        call = self.start_call(provider, "probe", wire.Probe(provider=provider), deadline=deadline)
        outcome = await call.outcome()
        assert isinstance(outcome, wire.ProbeResult)
        return outcome

    # views

    def plugin_views(self) -> list[PluginView]:
        own = [process.view(sorted(process.plan.config)) for process in self._processes]
        foreign = [
            session_view(session, self._specs)
            for session in self._sessions
            if session.process is None and session.info is not None
        ]
        fleets = [view for fleet in self._fleets.values() for view in fleet.plugin_views()]
        return sorted([*own, *foreign, *fleets], key=lambda view: view.name)

    def provider_views(self) -> list[ProviderView]:
        """As the plugin side sees them (cooldowns are the router's)."""
        return [provider_view(runtime) for _, runtime in sorted(self._runtimes.items())]

    # inside

    def _runtime(self, name: str) -> ProviderRuntime:
        runtime = self._runtimes.get(name)
        if runtime is None:
            runtime = self._runtimes[name] = ProviderRuntime(name, lambda: self._clock.wall_ns() / NS)
        return runtime

    def _withdraw(self, session: Session) -> None:
        """Its names are no longer its own."""
        for name in tuple(session.providers):
            runtime = self._runtimes.get(name)
            if runtime is not None and runtime.session is session:
                runtime.detach()
                self._refresh(runtime)

    def _process_changed(self, process: PluginProcess) -> None:
        for name in process.plan.config:
            runtime = self._runtimes.get(name)
            if runtime is not None and runtime.process is process:
                if process.state == "stopping" and runtime.session is process.session:
                    runtime.detach()
                self._refresh(runtime)
        if self._bus.wanted("plugin"):
            view = process.view(sorted(process.plan.config))
            self._bus.publish("plugin", {"key": process.plan.key, "event": "state", "plugin": view})

    def _refresh_all(self) -> None:
        for runtime in tuple(self._runtimes.values()):
            self._refresh(runtime)

    def _refresh(self, runtime: ProviderRuntime) -> None:
        if not runtime.refresh():
            return
        self._tell(self.on_state, runtime.name)
        if self._bus.wanted("provider"):
            self._bus.publish("provider", {"key": runtime.name, "provider": provider_view(runtime)})

    @staticmethod
    def _tell(listeners: list[Callable[..., object]], *arguments: Any) -> None:
        for listener in listeners:
            try:
                listener(*arguments)
            except Exception:
                logger.exception("a listener failed")
