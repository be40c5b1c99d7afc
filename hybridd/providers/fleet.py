"""A provider that several processes of ours serve, one for each model: what the hub asks of their owner.

Ordinary providers have one connection; the hub keeps it in their runtime. A fleet has as many as it has loaded models,
and its owner (:mod:`hybridd.local.residency`) decides which of them live. The hub stays the one door: connections,
tokens, calls and views go through it either way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from hybridd.config.resolved import ProviderSpec
from hybridd.contracts import protocol as wire
from hybridd.contracts.views import PluginView, ProviderStateName
from hybridd.errors import ProviderError
from hybridd.providers.calls import InFlight

if TYPE_CHECKING:
    from hybridd.providers.session import Session

RoutedParams = wire.Generate | wire.Embed | wire.Predict | wire.Probe


class OwnedProcess(Protocol):
    """A process that the daemon started, as its connection sees it."""

    session: Session | None

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """What travels in ``initialize``: settings by provider name."""

    @property
    def pid(self) -> int | None: ...

    @property
    def exited(self) -> asyncio.Future[int] | None:
        """Done when the present life's process is gone and reaped."""

    def take_token(self, token: str) -> bool:
        """True once for the token of the present life."""

    def attached(self, session: Session, version: str) -> None: ...

    def registered(self) -> None: ...

    def progressed(self, progress: wire.Progress) -> None:
        """It says how far it is with something long: a start that goes on is not overdue."""

    def violated(self, reason: str) -> None: ...

    def lost(self, session: Session, reason: str) -> None: ...


class Fleet(Protocol):
    """The owner of a provider's workers. ``prepare`` and ``apply`` come with each configuration; everything else on the
    event loop, synchronously but for what waits."""

    @property
    def workers(self) -> Iterable[OwnedProcess]: ...

    def prepare(self, spec: ProviderSpec | None) -> None:
        """The provider's configuration, before anything is started; None: it is gone."""

    def apply(self) -> None:
        """Make what runs match the configuration last prepared."""

    def models(self) -> Mapping[str, wire.ModelInfo]: ...

    def state(self) -> tuple[ProviderStateName, str, bool]:
        """State, reason, degraded."""

    def connected(self, model: str) -> bool:
        """Can a call of that model be written right now? If so, its worker stays for the call that follows."""

    async def ensure(self, model: str, timeout: float) -> None:
        """Loads the model and waits for it.

        Raises:
            ProviderError: it cannot be had, with the reason; ``retry_after`` when waiting helps.
        """

    def refusal(self, model: str) -> ProviderError | None:
        """Why a call of that model would be refused now, as far as that is known without trying."""

    def route(self, params: RoutedParams) -> tuple[Session, InFlight] | None:
        """The connection for this call, and what counts it as in flight; None: its model is not loaded."""

    def register(self, session: Session, params: wire.Register) -> None:
        """One of the workers is up, or says why it is not."""

    async def look_again(self, model: str) -> bool:
        """A model nobody knows was asked for: is it there by now?"""

    async def probe(self, timeout: float) -> wire.ProbeResult: ...

    def plugin_views(self) -> list[PluginView]: ...

    async def close(self, grace: float) -> None:
        """Ends every worker; returns when they are gone."""
