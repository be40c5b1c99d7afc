"""What the monitor needs of its neighbours, and no more: the seams tests put small real objects into."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from hybridd.contracts.protocol import Observation, ProbeResult
from hybridd.contracts.quotas import Quota
from hybridd.contracts.views import LimitView, PluginView, ProviderView

T = TypeVar("T")


class HubPort(Protocol):
    """The providers and their plugin processes."""

    def provider_views(self) -> list[ProviderView]: ...

    def plugin_views(self) -> list[PluginView]: ...

    async def probe(self, provider: str, timeout: float) -> ProbeResult: ...


class LedgerPort(Protocol):
    """The limits, and where a probe's figures go."""

    def limits(self) -> list[LimitView]: ...

    def observe(
        self,
        provider: str,
        account: str,
        model: str | None,
        observations: Sequence[Observation],
        *,
        as_of: None,
        as_of_boot_ns: int | None = None,
    ) -> object: ...


class CounterPort(Protocol):
    """One quota's running count, as the ledger holds it. ``total``: everything ever charged; ``cap``: the limit less
    the buffer; ``observed``: what the provider said last."""

    total: int
    cap: int

    @property
    def observed(self) -> object: ...

    @property
    def quota(self) -> Quota: ...

    @property
    def limit(self) -> int: ...

    def room(self, now: int, wall: int) -> int: ...


class BindingPort(Protocol):
    @property
    def counters(self) -> Sequence[CounterPort]: ...


class ReservationPort(Protocol):
    """An admitted call: the quotas it counts against, and when it was admitted."""

    @property
    def admitted_boot_ns(self) -> int: ...

    @property
    def admitted_wall_ns(self) -> int: ...

    @property
    def binding(self) -> BindingPort: ...


class WriterPort(Protocol):
    failed: str | None

    def execute(self, sql: str, params: tuple[Any, ...] = ()) -> object: ...

    async def call(self, function: Callable[[sqlite3.Connection], T]) -> T: ...


class ReaderPort(Protocol):
    async def run(self, function: Callable[..., T], *args: Any) -> T: ...


class DatabasePort(Protocol):
    """``path`` is the database file: its folder's disk is the one that is watched."""

    @property
    def path(self) -> Path: ...

    @property
    def boot(self) -> int: ...

    @property
    def writer(self) -> WriterPort: ...

    @property
    def reader(self) -> ReaderPort: ...
