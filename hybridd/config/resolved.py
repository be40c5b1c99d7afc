"""What the settings mean: plain frozen values the daemon works with, free of legacy sections and presets.

:func:`hybridd.config.resolve.resolve` makes them; everything above reads only these.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from hybridd.config.settings import ExperimentSettings, Flags, Settings
from hybridd.contracts.quotas import ModelRef, Price, Quota

ProviderOrigin = Literal["config", "legacy", "builtin"]


class ModelSpec(msgspec.Struct, frozen=True):
    """A model known before its plugin says anything."""

    id: str
    context: int | None = None
    max_output: int | None = None
    price: Price | None = None
    tasks: tuple[str, ...] = ()


class ProviderSpec(msgspec.Struct, frozen=True):
    """One provider, fully resolved.

    ``plugin_config`` is what travels in ``initialize`` (key references only). ``environment`` names the variables
    the supervisor passes on. ``not_configured`` is the reason why it cannot be used yet (no key), or None.
    ``linger_seconds``: see the ledger; 0 on loopback. ``process`` groups providers served by one plugin process.
    """

    name: str
    plugin: str
    account: str
    enabled: bool = True
    origin: ProviderOrigin = "config"
    command: tuple[str, ...] | None = None
    process: str = ""
    models: dict[str, ModelSpec] = {}
    quotas: tuple[Quota, ...] = ()
    not_configured: str | None = None
    start: Literal["eager", "on_demand"] = "eager"
    idle_stop_seconds: float | None = None
    timeout_seconds: float = 60.0
    linger_seconds: float = 5.0
    environment: tuple[str, ...] = ()
    plugin_config: dict[str, Any] = {}
    preferred_models: dict[str, str] = {}


class TaskSpec(msgspec.Struct, frozen=True):
    """Candidates in order; ``model`` may be ``*``."""

    name: str
    candidates: tuple[ModelRef, ...]
    origin: ProviderOrigin = "config"
    system_prompt: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    timeout_seconds: float | None = None


class Resolved(msgspec.Struct, frozen=True):
    """Everything, plus the settings they came from (for sections without a resolved form)."""

    providers: dict[str, ProviderSpec]
    tasks: dict[str, TaskSpec]
    settings: Settings
    path: str | None = None

    @property
    def flags(self) -> Flags:
        return self.settings.flags

    @property
    def experiments(self) -> dict[str, ExperimentSettings]:
        return self.settings.experiments
