"""May this candidate answer now? One verdict for ``optimize``, ``/v1/route`` and real calls alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from hybridd.config.resolved import ProviderSpec, Resolved
from hybridd.contracts.quotas import ModelRef
from hybridd.contracts.views import Rejected
from hybridd.ledger import Ledger
from hybridd.ledger.estimate import least_input_tokens, longest_prompt
from hybridd.routing.candidates import KnownModel, expand, knows_model
from hybridd.routing.cooldown import Cooldowns
from hybridd.routing.estimate import Estimate, estimate
from hybridd.routing.request import RoutedRequest

_CANNOT = {"generate": "it makes no texts", "embed": "it makes no embeddings"}


class Runtime(Protocol):
    """What the hub says of a provider."""

    @property
    def state(self) -> str: ...

    @property
    def reason(self) -> str: ...


class Feasible(msgspec.Struct, frozen=True):
    """A candidate that may be called. ``known`` holds at least the model's id."""

    ref: ModelRef
    spec: ProviderSpec
    known: KnownModel
    estimate: Estimate


class Judge:
    """Collects what a verdict needs; :meth:`verdict` asks in the order of the cheapest and plainest reason first."""

    def __init__(
        self,
        ledger: Ledger,
        cooldowns: Cooldowns,
        runtime: Callable[[str], Runtime | None],
        catalogue: Callable[[str], Mapping[str, KnownModel]],
    ) -> None:
        self._ledger = ledger
        self._cooldowns = cooldowns
        self._runtime = runtime
        self._catalogue = catalogue

    def verdict(
        self, ref: ModelRef, request: RoutedRequest, resolved: Resolved, *, quotas: bool = True
    ) -> Feasible | Rejected:
        """``quotas=False`` leaves the limits to the reservation that follows at once."""
        spec = resolved.providers.get(ref.provider)
        problem = self._provider_problem(ref, spec, resolved)
        if problem is not None:
            return Rejected(str(ref), *problem)
        assert spec is not None  # _provider_problem rejects an unknown provider
        known = self._known(ref, request)
        if isinstance(known, Rejected):
            return known
        resting = self._resting(ref)
        if resting is not None:
            return resting
        reserved = estimate(request, known, spec.account, self._ledger, ref.provider)
        if known.context is not None and reserved.amounts.total_tokens > known.context:
            # The reservation is for all prompts and answers together; the context is for one of each.
            too_long = self._too_long(spec, known, known.context, request, reserved)
            if too_long is not None:
                return Rejected(str(ref), too_long, "context")
        if quotas:
            # Models and prices that only the plugin knows come with its registration.
            priced = known.price is not None or self._is_coming(ref.provider)
            refusal = self._ledger.refusal(spec.account, known.id, reserved.amounts, priced=priced)
            if refusal is not None:
                return Rejected(str(ref), refusal.reason, refusal.code, refusal.retry_after)
        return Feasible(ref, spec, known, reserved)

    def _provider_problem(self, ref: ModelRef, spec: ProviderSpec | None, resolved: Resolved) -> tuple[str, str] | None:
        """The reason and its code."""
        if spec is None:
            return f"there is no provider '{ref.provider}'", "not_configured"
        if not spec.enabled:
            return "disabled in the configuration", "disabled"
        if ref.provider == "ollama" and not resolved.flags.use_ollama:
            return "the flag use_ollama is off", "disabled"
        if spec.not_configured is not None:
            return f"not configured: {spec.not_configured}", "not_configured"
        runtime = self._runtime(ref.provider)
        state = runtime.state if runtime is not None else "disconnected"
        reason = runtime.reason if runtime is not None else ""
        if state == "retired":
            return reason or "retired by its host", "retired"
        if state == "not_configured":
            return f"not configured: {reason}", "not_configured"
        if state in ("failed", "disabled"):
            return reason or f"its plugin is {state}", "disconnected"
        if state == "disconnected":
            return reason or "its plugin is not connected", "disconnected"
        return None

    def _too_long(
        self, spec: ProviderSpec, known: KnownModel, context: int, request: RoutedRequest, reserved: Estimate
    ) -> str | None:
        """The reason, when the longest prompt with its answer does not fit. An answer without a bound may be short."""
        size = longest_prompt(request.body)
        if spec.plugin == "llama_cpp":
            # The engine counts exactly, and its refusal costs nothing: only what cannot fit is not shown to it.
            prompt, how = least_input_tokens(size), "at least"
        else:
            prompt, how = self._ledger.estimate_input(spec.name, known.id, size), "about"
        if request.kind == "embedding":
            return f"{how} {prompt} tokens do not fit its context of {context}" if prompt > context else None
        answer = request.max_tokens or reserved.send_max_tokens or 1
        if prompt + answer <= context:
            return None
        return f"{how} {prompt} prompt tokens and {answer} for the answer do not fit its context of {context}"

    def _is_coming(self, provider: str) -> bool:
        """Its plugin is being started, or is when a call needs it."""
        runtime = self._runtime(provider)
        return runtime is not None and runtime.state in ("idle", "starting")

    def models_of(self, ref: ModelRef, request: RoutedRequest, resolved: Resolved, task: str | None) -> list[ModelRef]:
        """What ``provider:*`` means by now."""
        return list(expand(ref, request, resolved, self._catalogue, task))

    def awaits_models(self, ref: ModelRef, resolved: Resolved) -> bool:
        """``provider:*`` of a plugin that is not connected yet, but can be."""
        spec = resolved.providers.get(ref.provider)
        return (
            ref.model == "*"
            and self._is_coming(ref.provider)
            and not self._catalogue(ref.provider)
            and self._provider_problem(ref, spec, resolved) is None
        )

    def _resting(self, ref: ModelRef) -> Rejected | None:
        rest = self._cooldowns.blocking(ref.provider, ref.model)
        if rest is None:
            return None
        code = {"parked": "parked", "retired": "retired"}.get(rest.state, "rate_limited" if rest.limited else "cooling")
        return Rejected(str(ref), rest.reason, code, self._cooldowns.retry_after(rest))

    def _known(self, ref: ModelRef, request: RoutedRequest) -> KnownModel | Rejected:
        listed = self._catalogue(ref.provider)
        if ref.model == "*":
            coming = not listed and self._is_coming(ref.provider)
            reason = "its plugin has not named its models yet" if coming else "it lists no model that can do this"
            return Rejected(str(ref), reason, "unknown_model")
        known = knows_model(listed, ref.model)
        if known is None:
            if listed:
                return Rejected(str(ref), f"{ref.provider} has no model '{ref.model}'", "unknown_model")
            known = KnownModel(ref.model, methods=("generate", "embed"))
        if request.method not in known.methods:
            return Rejected(str(ref), _CANNOT[request.method], "unsupported")
        return known
