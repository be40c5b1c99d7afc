"""The router: the one face the API, the monitor and the daemon see.

It owns the cooldowns, the response cache and the gate; it asks the ledger and the hub; it records every request with
the reasons of its decision.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from hybridd import logs
from hybridd.bus import EventBus
from hybridd.clocks import Clock
from hybridd.config.resolved import Resolved
from hybridd.contracts.ids import encode as encode_request_id
from hybridd.contracts.protocol import CallError
from hybridd.contracts.quotas import Amounts, ModelRef
from hybridd.contracts.views import ModelChoice, ModelView, ProviderView, Rejected
from hybridd.errors import HybriddError, NotFound
from hybridd.ledger import Ledger, Reservation
from hybridd.providers import Hub
from hybridd.routing.cache import ResponseCache
from hybridd.routing.candidates import Candidates, KnownModel, candidates_for
from hybridd.routing.catalogue import catalogue_of, price_view
from hybridd.routing.cooldown import Cooldowns, Rest, Target
from hybridd.routing.estimate import Estimate
from hybridd.routing.execute import Executor
from hybridd.routing.failure import Meaning
from hybridd.routing.feasible import Feasible, Judge
from hybridd.routing.gate import Gate
from hybridd.routing.outcome import Outcome, nobody
from hybridd.routing.quotas import all_quotas
from hybridd.routing.record import request_row, usage_record
from hybridd.routing.request import RoutedRequest
from hybridd.routing.stream import Sink
from hybridd.store.database import Database

encode = msgspec.json.Encoder().encode

_NOTHING = Estimate(Amounts(requests=0), 0)


class Router:
    """Everything is on the event loop; :meth:`configure` may be called at any time."""

    def __init__(
        self,
        *,
        hub: Hub,
        ledger: Ledger,
        database: Database,
        clock: Clock,
        bus: EventBus,
        rng: random.Random,
        resolved: Resolved,
    ) -> None:
        self._hub = hub
        self._ledger = ledger
        self._database = database
        self._clock = clock
        self._bus = bus
        self._catalogues: dict[str, dict[str, KnownModel]] = {}
        self.resolved = resolved
        self.on_rest: list[Callable[[Target, Rest | None], None]] = []
        self.cooldowns = Cooldowns(clock, rng, self._rest_changed)
        options = resolved.settings.optimization
        self.cache = ResponseCache(
            clock, ttl_seconds=options.cache_ttl_seconds, max_bytes=round(options.cache_max_mb * 1_048_576)
        )
        server = resolved.settings.server
        self.gate = Gate(server.max_in_flight, server.max_waiting, server.max_wait_seconds)
        self._judge = Judge(ledger, self.cooldowns, hub.providers.get, self.catalogue)
        self._executor = Executor(hub, ledger, clock, self._judge, self.cooldowns, self._attempt_failed)

    @property
    def on_admitted(self) -> Callable[[Reservation], object] | None:
        """Called with each reservation: the monitor warns before the first refusal."""
        return self._executor.on_admitted

    @on_admitted.setter
    def on_admitted(self, listener: Callable[[Reservation], object] | None) -> None:
        self._executor.on_admitted = listener

    # -- configuration ------------------------------------------------------------------------------------------------

    def configure(self, resolved: Resolved) -> None:
        """Takes a new configuration; calls in flight finish under the old one."""
        before, self.resolved = self.resolved, resolved
        options, server = resolved.settings.optimization, resolved.settings.server
        self.cache.configure(ttl_seconds=options.cache_ttl_seconds, max_bytes=round(options.cache_max_mb * 1_048_576))
        self.cache.clear()
        self.gate.configure(server.max_in_flight, server.max_waiting, server.max_wait_seconds)
        for name, spec in before.providers.items():
            now = resolved.providers.get(name)
            if now is None or now.plugin_config != spec.plugin_config:
                self.cooldowns.forget(name)
        self.cooldowns.unpark()
        self.providers_changed()

    def providers_changed(self, provider: str | None = None) -> None:
        """Models or quotas of a plugin changed: catalogues and the ledger's quotas follow."""
        if provider is None:
            self._catalogues.clear()
        else:
            self._catalogues.pop(provider, None)
        accounts = {spec.account for spec in self.resolved.providers.values()}
        self._ledger.configure(all_quotas(self.resolved, self._hub), accounts)

    def catalogue(self, provider: str) -> Mapping[str, KnownModel]:
        """What configuration and plugin together know of a provider's models."""
        known = self._catalogues.get(provider)
        if known is None:
            known = self._catalogues[provider] = catalogue_of(self.resolved, self._hub, provider)
        return known

    # -- deciding -----------------------------------------------------------------------------------------------------

    def explain(self, request: RoutedRequest) -> tuple[ModelChoice, Feasible | None]:
        """Who would answer now, and why the others would not. Calls nothing, reserves nothing.

        Raises:
            NotFound: unknown task, provider or model.
        """
        found = candidates_for(request, self.resolved, self.catalogue)
        outcome = Outcome(0, 0, 0, how=found.how, candidates=found.refs, rejected=[], task=found.task)
        for ref in found.refs:
            if outcome.chosen is not None:
                break
            verdict = self._judge.verdict(ref, request, self.resolved)
            if not isinstance(verdict, Rejected):
                verdict = self._not_loaded(ref) or verdict
            if isinstance(verdict, Rejected):
                outcome.rejected.append(verdict)
            else:
                outcome.chosen = verdict
        return outcome.choice, outcome.chosen

    def _not_loaded(self, ref: ModelRef) -> Rejected | None:
        """A model of ours whose load has failed, and is not tried again yet."""
        runtime = self._hub.providers.get(ref.provider)
        error = runtime.fleet.refusal(ref.model) if runtime is not None and runtime.fleet is not None else None
        return None if error is None else Rejected(str(ref), error.message, error.error_code, error.retry_after)

    async def candidates(self, request: RoutedRequest) -> Candidates:
        """Who is meant. A model that nobody knows may be a file that has just been put there: one look, on a miss only.

        Raises:
            NotFound: unknown task, provider or model.
        """
        try:
            return candidates_for(request, self.resolved, self.catalogue)
        except NotFound as missing:
            if missing.error_code != "model_not_found" or not await self._hub.look_everywhere(request.model):
                raise
            return candidates_for(request, self.resolved, self.catalogue)

    # -- carrying out -------------------------------------------------------------------------------------------------

    async def run(self, request: RoutedRequest, sink: Sink | None = None) -> Outcome:
        """Routes, answers and records one request. ``sink`` receives a stream's events.

        Raises:
            HybriddError: with ``request_id`` set; the request is recorded all the same.
        """
        outcome = Outcome(
            self._ledger.new_request_id(), self._clock.boot_ns(), self._clock.wall_ns(), rejected=[], details={}
        )
        try:
            found = await self.candidates(request)
            outcome.how, outcome.candidates, outcome.task = found.how, found.refs, found.task
            if found.task is not None and request.max_tokens is None:
                request.max_tokens = found.task.max_tokens
                if found.task.max_tokens is not None:
                    request.body["max_tokens"] = found.task.max_tokens
            key = self._cache_key(request, outcome)
            if key is not None and self._from_cache(key, outcome):
                self._record(request, outcome, None)
                return outcome
            if not found.refs:
                raise nobody(outcome)
            if not self.gate.try_enter():
                await self.gate.enter()
            try:
                await self._executor.run(request, found, self.resolved, outcome, sink)
            finally:
                self.gate.leave()
        except HybriddError as error:
            error.request_id = encode_request_id(outcome.request_id)
            self._record(request, outcome, error)
            raise
        except asyncio.CancelledError:
            self._record(request, outcome, HybriddError("The client left.", code="client_gone", status=499))
            raise
        chosen = outcome.chosen
        if key is not None and chosen is not None:
            self.cache.put(
                key, body=outcome.body, provider=chosen.ref.provider, model=chosen.ref.model, usage=outcome.usage
            )
        # The caller's answer goes out first; the settlement is queued already.
        self._executor.loop.call_soon(self._remember, request, outcome)
        return outcome

    def _remember(self, request: RoutedRequest, outcome: Outcome) -> None:
        chosen = outcome.chosen
        if outcome.usage is not None and chosen is not None:
            self._ledger.learn(chosen.ref.provider, chosen.known.id, request.size, outcome.usage.input_tokens)
        self._record(request, outcome, None)

    def _cache_key(self, request: RoutedRequest, outcome: Outcome) -> bytes | None:
        options = self.resolved.settings.optimization
        if not (options.local_cache_enabled and self.resolved.flags.enable_caching):
            return None
        key = self.cache.key(request, outcome.candidates)
        if key is not None:
            outcome.cache = "miss"
        return key

    def _from_cache(self, key: bytes, outcome: Outcome) -> bool:
        entry = self.cache.get(key)
        if entry is None:
            return False
        ref = ModelRef(entry.provider, entry.model)
        spec = self.resolved.providers.get(entry.provider)
        if spec is None or not spec.enabled:
            return False
        outcome.chosen = Feasible(ref, spec, KnownModel(entry.model), _NOTHING)
        outcome.cache = "hit"
        outcome.body = entry.body
        outcome.usage = entry.usage
        outcome.ended_ns = self._clock.boot_ns()
        return True

    # -- remembering --------------------------------------------------------------------------------------------------

    def _record(self, request: RoutedRequest, outcome: Outcome, error: HybriddError | None) -> None:
        if outcome.ended_ns is None or error is not None:
            outcome.ended_ns = self._clock.boot_ns()
        row = request_row(request, outcome, error)
        self._database.writer.request(row)
        logs.usage(partial(usage_record, row))
        if self._bus.wanted("request"):
            reason = outcome.rejected[-1].reason if outcome.rejected else None
            more = {"fell_back": reason, "tier": row.tier, "client": row.client, "overhead_ms": outcome.overhead_ms}
            self._bus.publish("request", {**usage_record(row), **more})

    def _attempt_failed(self, ref: ModelRef, error: CallError, what: Meaning, message: str, began_wall_ns: int) -> None:
        """Puts the target to rest as the failure's meaning says."""
        hint = error.retry_after_ms / 1000 if error.retry_after_ms is not None else None
        if what.rest == "retire":
            self.cooldowns.retire(ref.provider, message)
        elif what.rest == "park":
            self.cooldowns.park((ref.provider, None), message)
        elif what.rest == "cool_model":
            self.cooldowns.cool(
                (ref.provider, ref.model),
                message,
                hint_seconds=hint,
                began_wall_ns=began_wall_ns,
                limited=error.kind == "rate_limited",
            )
        elif what.rest == "cool_provider":
            self.cooldowns.cool((ref.provider, None), message, hint_seconds=hint, began_wall_ns=began_wall_ns)
        else:
            self.cooldowns.abandon(ref.provider, ref.model)

    def _rest_changed(self, target: Target, rest: Rest | None) -> None:
        for listener in self.on_rest:
            listener(target, rest)

    async def drain(self) -> None:
        """Waits until nothing is in flight and every abandoned call is settled."""
        await self.gate.idle()
        while self._executor.background:
            await asyncio.wait(set(self._executor.background))

    async def settle_orphans(self, timeout: float) -> int:
        """Once the plugins have ended: settles the calls of those that are dead; how many could not be."""
        if self._executor.orphans:
            await asyncio.wait(set(self._executor.orphans), timeout=timeout)
        return len(self._executor.orphans)

    # -- showing ------------------------------------------------------------------------------------------------------

    def provider_views(self) -> list[ProviderView]:
        """Every configured provider with one state that takes configuration, plugin and cooldowns together."""
        return [self._provider_view(name) for name in self.resolved.providers]

    def _provider_view(self, name: str) -> ProviderView:
        spec = self.resolved.providers[name]
        runtime = self._hub.providers.get(name)
        until: float | None = None
        state, reason = (runtime.state, runtime.reason) if runtime else ("disconnected", "")
        since = runtime.since if runtime else 0.0
        rest = self.cooldowns.all().get((name, None))
        if not spec.enabled:
            state, reason = "disabled", "disabled in the configuration"
        elif spec.not_configured is not None:
            state, reason = "not_configured", spec.not_configured
        elif rest is not None and rest.state != "half_open":
            state, reason, since = rest.state, rest.reason, rest.since_wall_ns / 1e9
            until = _until(rest)
        models = [self._model_view(name, model) for model in self.catalogue(name).values()]
        if state == "ready" and models and all(model.state != "ready" for model in models):
            first = min(models, key=lambda model: model.until or 0.0)
            state, reason, until = "cooling", f"all its models rest; {first.id}: {first.reason}", first.until
        return ProviderView(
            name=name,
            plugin=spec.plugin,
            state=state,
            reason=reason,
            models=models,
            account=spec.account,
            since=since,
            until=until,
            in_flight=runtime.in_flight if runtime else 0,
        )

    def _model_view(self, provider: str, model: KnownModel) -> ModelView:
        view = ModelView(model.id, model.context, list(model.tasks), price_view(model.price))
        rest = self.cooldowns.all().get((provider, model.id))
        if rest is not None and self.cooldowns.blocking(provider, model.id) is rest:
            view.state, view.reason, view.until = rest.state, rest.reason, _until(rest)
        return view


def _until(rest: Rest) -> float | None:
    return rest.until_wall_ns / 1e9 if rest.until_wall_ns is not None else None
