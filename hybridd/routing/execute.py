"""One request, carried out: reserve, dispatch, answer or fall back, settle. Each candidate is visited once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from functools import cached_property
from typing import Any

import msgspec
from msgspec import Raw

from hybridd import logs
from hybridd.clocks import Clock
from hybridd.config.resolved import Resolved
from hybridd.contracts.protocol import CallError, CallResult, Embed, Generate
from hybridd.contracts.quotas import ModelRef
from hybridd.contracts.views import Rejected
from hybridd.errors import DeadlineExceeded, HybriddError, InvalidRequest, ProviderError
from hybridd.ledger import Ending, Ledger, QuotaRefused, Reservation
from hybridd.providers import CallFailed, Hub, PluginCall
from hybridd.routing.body import upstream_body
from hybridd.routing.candidates import Candidates
from hybridd.routing.cooldown import Cooldowns
from hybridd.routing.failure import Meaning, code_of, counts_as_answer, meaning
from hybridd.routing.feasible import Feasible, Judge
from hybridd.routing.outcome import Outcome, nobody
from hybridd.routing.request import RoutedRequest
from hybridd.routing.stream import Pump, Sink

log = logs.get_logger("hybridd.routing")
encode = msgspec.json.Encoder().encode
# How long the process of a lost plugin is waited for before its calls are settled (in full, with the linger) anyway.
DEATH_SECONDS = 60.0
# How long after a stream's deadline its client may take to read what is there, before it is given up.
STALL_SECONDS = 1.0
_STALLED = Meaning(elsewhere=False, rest="none", whole_provider=False, status=408)


class Executor:
    """Carries requests out. ``on_failure(ref, error, meaning, message, began_wall_ns)`` lets the router keep its
    cooldowns. ``background`` holds what outlives a request (settling after the client left), ``orphans`` what waits for
    the end of the process that held the connection."""

    def __init__(
        self,
        hub: Hub,
        ledger: Ledger,
        clock: Clock,
        judge: Judge,
        cooldowns: Cooldowns,
        on_failure: Callable[[ModelRef, CallError, Meaning, str, int], None],
    ) -> None:
        self._hub = hub
        self._ledger = ledger
        self._clock = clock
        self._judge = judge
        self._cooldowns = cooldowns
        self._on_failure = on_failure
        self.on_admitted: Callable[[Reservation], object] | None = None
        self.background: set[asyncio.Task[None]] = set()
        self.orphans: set[asyncio.Task[None]] = set()

    @cached_property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Asked for once: on 3.11 asyncio asks the kernel for the pid each time, and a call needed it five times."""
        return asyncio.get_running_loop()

    async def run(
        self, request: RoutedRequest, found: Candidates, resolved: Resolved, outcome: Outcome, sink: Sink | None
    ) -> None:
        """Fills ``outcome``.

        Raises:
            NoFeasibleProvider: every candidate was rejected before anything was sent.
            ProviderError: the last attempt failed and nobody else could answer.
            DeadlineExceeded: the request's time budget ran out.
            StorageError: the call could not be recorded, so it was not sent.
        """
        options = resolved.settings.optimization
        budget = (found.task.timeout_seconds if found.task else None) or options.timeout_seconds
        deadline = self.loop.time() + budget
        ruled_out: dict[str, str] = {}
        last: HybriddError | None = None
        refs = deque(found.refs)
        while refs:
            ref = refs.popleft()
            spent = last is not None and outcome.attempts >= options.max_attempts
            skip = f"the budget of {options.max_attempts} attempts is spent" if spent else ruled_out.get(ref.provider)
            if skip is not None:
                outcome.rejected.append(Rejected(str(ref), skip, "failed"))
                continue
            if self.loop.time() >= deadline:
                last = DeadlineExceeded(f"The time budget of {budget:g} s ran out after {outcome.attempts} attempt(s).")
                break
            if not self._judge.awaits_models(ref, resolved):
                ready = await self._prepare(ref, request, resolved, outcome, deadline)
            elif await self._connect(ref, outcome, deadline):
                task = found.task.name if found.task else None
                refs.extendleft(reversed(self._judge.models_of(ref, request, resolved, task)))
                continue
            else:
                ready = None
            if ready is None:
                if not options.auto_fallback and outcome.rejected[-1].code not in ("not_configured", "disabled"):
                    break
                continue
            candidate, reservation = ready
            try:
                await self._attempt(candidate, reservation, request, outcome, deadline, sink)
            except _Failed as failed:
                last = failed.error
                outcome.rejected.append(Rejected(str(ref), last.message, last.error_code, last.retry_after))
                if not (failed.elsewhere and options.auto_fallback):
                    break
                if failed.meaning.whole_provider:
                    ruled_out[ref.provider] = f"{ref.provider} failed already in this request"
            else:
                return
        raise last if last is not None else nobody(outcome)

    async def _prepare(
        self, ref: ModelRef, request: RoutedRequest, resolved: Resolved, outcome: Outcome, deadline: float
    ) -> tuple[Feasible, Reservation] | None:
        """A reserved candidate, or None with the reason appended to ``outcome.rejected``."""
        connected = self._hub.connected(ref.provider, ref.model)
        # A plugin is not started for a call that its limits would refuse.
        verdict = self._judge.verdict(ref, request, resolved, quotas=not connected)
        if isinstance(verdict, Feasible) and not connected:
            if not await self._connect(ref, outcome, deadline):
                return None
            verdict = self._judge.verdict(ref, request, resolved)
        if isinstance(verdict, Rejected):
            # A file that has just appeared is a model the next moment.
            if verdict.code == "unknown_model" and await self._hub.look_again(ref.provider, ref.model):
                return await self._prepare(ref, request, resolved, outcome, deadline)
            outcome.rejected.append(verdict)
            return None
        spec = verdict.spec
        try:
            reservation = self._ledger.admit(
                request_id=outcome.request_id,
                provider=ref.provider,
                account=spec.account,
                model=verdict.known.id,
                task=request.task or "",
                amounts=verdict.estimate.amounts,
                price=verdict.known.price,
                linger_seconds=spec.linger_seconds,
            )
        except QuotaRefused as refused:
            refusal = refused.refusal
            outcome.rejected.append(Rejected(str(ref), refusal.reason, refusal.code, refusal.retry_after))
            return None
        if self.on_admitted is not None:
            try:
                self.on_admitted(reservation)
            except Exception:  # a warning that cannot be given must not cost the call, nor its reservation
                log.exception("the warning before a limit failed")
        return verdict, reservation

    async def _connect(self, ref: ModelRef, outcome: Outcome, deadline: float) -> bool:
        """Has the plugin started and waits for it; False with the reason appended to ``outcome.rejected``."""
        try:
            await self._hub.ensure_connected(ref.provider, deadline - self.loop.time(), ref.model)
        except ProviderError as error:
            # A local model that cannot be loaded says why; of a plugin that is not there nothing more is known.
            code = "disconnected" if error.error_code == ProviderError.code else error.error_code
            outcome.rejected.append(Rejected(str(ref), error.message, code, error.retry_after))
            outcome.refusal = error if code == error.error_code else None
            return False
        return True

    async def _attempt(
        self,
        candidate: Feasible,
        reservation: Reservation,
        request: RoutedRequest,
        outcome: Outcome,
        deadline: float,
        sink: Sink | None,
    ) -> None:
        ref = candidate.ref
        try:
            body = Raw(encode(upstream_body(candidate, request, outcome)))
            await self._ledger.dispatch(reservation)
        except RecursionError:
            self._ledger.release(reservation)
            raise InvalidRequest("The body is nested too deeply.", code="invalid_json") from None
        except BaseException:
            self._ledger.release(reservation)  # recorded perhaps, sent never
            raise
        self._cooldowns.begin(ref.provider, ref.model)
        outcome.attempts += 1
        began_wall = self._clock.wall_ns()
        loop = self.loop
        until = min(deadline, loop.time() + candidate.spec.timeout_seconds)
        pump = Pump(loop) if request.stream else None
        try:
            call = self._start(candidate, request, outcome, body, until, pump)
        except BaseException:
            self._ledger.release(reservation)  # not written, so not sent: nobody else would end it
            raise
        outcome.dispatched_ns = self._clock.boot_ns()
        try:
            if pump is not None and sink is not None:
                async with asyncio.timeout_at(until + STALL_SECONDS):
                    await self._pump(call, pump, candidate, reservation, outcome, sink)
            result = await call.result()
        except CallFailed as failure:
            delivered = outcome.first_token_ns is not None
            raise self._failed(candidate, reservation, outcome, failure, began_wall, delivered=delivered) from None
        except TimeoutError:
            # Whatever became of the call: a client that does not read is no fault of the provider's.
            call.cancel("the client does not read")
            self._later(self._settle_abandoned(call, candidate, reservation), self.background)
            message = "The client did not read the stream within its time."
            problem = DeadlineExceeded(message, code="client_stalled", status=_STALLED.status)
            raise _Failed(problem, _STALLED, delivered=True) from None
        except BaseException:
            # The client left (or the daemon stops): the provider is told, and the call is settled when it has ended.
            call.cancel("client gone")
            self._later(self._settle_abandoned(call, candidate, reservation), self.background)
            raise
        self._succeeded(candidate, reservation, outcome, result)

    def _start(
        self,
        candidate: Feasible,
        request: RoutedRequest,
        outcome: Outcome,
        body: Raw,
        until: float,
        pump: Pump | None,
    ) -> PluginCall:
        ref = candidate.ref
        trace = f"{outcome.request_id:x}"
        if request.kind == "embedding":
            embed = Embed(ref.provider, ref.model, body, trace_id=trace)
            return self._hub.start_call(ref.provider, "embed", embed, deadline=until)
        generate = Generate(
            ref.provider,
            ref.model,
            body,
            stream=request.stream,
            endpoint="completion" if request.kind == "completion" else "chat",
            trace_id=trace,
        )
        on_events = pump.put if pump is not None else None
        return self._hub.start_call(ref.provider, "generate", generate, deadline=until, on_events=on_events)

    async def _pump(
        self,
        call: PluginCall,
        pump: Pump,
        candidate: Feasible,
        reservation: Reservation,
        outcome: Outcome,
        sink: Sink,
    ) -> None:
        """Passes events on until the final answer is in; credit is granted as the client's connection takes bytes."""
        call.add_done_callback(pump.wake)
        while True:
            events = pump.take()
            if events:
                if outcome.first_token_ns is None:
                    outcome.first_token_ns = self._clock.boot_ns()
                    outcome.chosen = candidate
                    self._ledger.first_byte(reservation)
                call.grant(await sink.events(outcome, events))
            elif call.done():
                return
            else:
                await pump.wait()

    def _succeeded(self, candidate: Feasible, reservation: Reservation, outcome: Outcome, result: CallResult) -> None:
        ref = candidate.ref
        settlement = self._ledger.settle(reservation, Ending(kind="ok", sent="yes", usage=result.usage, answered=True))
        self._observe(candidate, reservation, result.observations)
        self._cooldowns.succeeded(ref.provider, ref.model)
        outcome.chosen = candidate
        outcome.ended_ns = self._clock.boot_ns()
        outcome.upstream_ms = result.upstream_ms
        outcome.usage = result.usage
        outcome.usd_micro += settlement.usd_micro
        outcome.details = result.details
        if not isinstance(result.body, msgspec.UnsetType):
            outcome.body = bytes(result.body)

    def _failed(
        self,
        candidate: Feasible,
        reservation: Reservation,
        outcome: Outcome,
        failure: CallFailed,
        began_wall: int,
        *,
        delivered: bool,
    ) -> _Failed:
        error, ref = failure.error, candidate.ref
        runtime = self._hub.providers.get(ref.provider)
        own = runtime is not None and runtime.fleet is not None
        what = meaning(error, own=own)
        self._settle_failure(reservation, failure)
        self._observe(candidate, reservation, error.observations)
        outcome.ended_ns = self._clock.boot_ns()
        outcome.upstream_ms = error.upstream_ms
        self._on_failure(ref, error, what, failure.message, began_wall)
        problem = ProviderError(
            f"{ref}: {failure.message}",
            param=error.param,
            code=code_of(error, what, own=own),
            status=what.status,
            retry_after=self._retry_after(ref, error, what),
        )
        return _Failed(problem, what, delivered)

    def _retry_after(self, ref: ModelRef, error: CallError, what: Meaning) -> float | None:
        """The provider's own hint, or how long we bench it ourselves where waiting is the cure."""
        if error.retry_after_ms is not None:
            return error.retry_after_ms / 1000
        rest = self._cooldowns.blocking(ref.provider, ref.model) if what.status in (429, 503) else None
        return self._cooldowns.retry_after(rest) if rest is not None else None

    def _settle_failure(self, reservation: Reservation, failure: CallFailed) -> None:
        error = failure.error
        answered = counts_as_answer(error)
        ending = Ending(
            kind="upstream_error" if answered else "cut",
            sent=error.sent,
            usage=error.usage,
            error_code=error.kind,
            answered=answered,
        )
        gone = failure.owner_gone
        if gone is not None and not gone.done():
            # The process that holds the connection may still be alive: the call ends when it is proven dead.
            self._later(self._settle_when_gone(gone, reservation, ending), self.orphans)
        else:
            self._ledger.settle(reservation, ending)

    async def _settle_when_gone(self, gone: asyncio.Future[None], reservation: Reservation, ending: Ending) -> None:
        # A plugin that we did not start may live on without its link; the SDK has closed its upstream calls by then.
        await asyncio.wait([gone], timeout=DEATH_SECONDS)
        self._ledger.settle(reservation, ending)

    async def _settle_abandoned(self, call: PluginCall, candidate: Feasible, reservation: Reservation) -> None:
        """The caller is gone; the call still has exactly one ending."""
        ref = candidate.ref
        try:
            result = await call.result()
        except CallFailed as failure:
            self._settle_failure(reservation, failure)
            self._cooldowns.abandon(ref.provider, ref.model)
        else:
            self._ledger.settle(reservation, Ending(kind="ok", sent="yes", usage=result.usage, answered=True))
            self._cooldowns.succeeded(ref.provider, ref.model)

    def _observe(self, candidate: Feasible, reservation: Reservation, observations: list[Any]) -> None:
        if observations:
            ref = candidate.ref
            self._ledger.observe(
                ref.provider, candidate.spec.account, candidate.known.id, observations, as_of=reservation
            )

    def _later(self, work: Coroutine[Any, Any, None], where: set[asyncio.Task[None]]) -> None:
        task = asyncio.ensure_future(work)
        where.add(task)
        task.add_done_callback(where.discard)


class _Failed(Exception):
    def __init__(self, error: HybriddError, what: Meaning, delivered: bool) -> None:
        super().__init__(error.message)
        self.error = error
        self.meaning = what
        # After the first event of a stream nobody else can go on with it.
        self.elsewhere = what.elsewhere and not delivered
