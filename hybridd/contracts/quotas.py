"""Quotas, amounts and model references: the vocabulary shared by configuration, ledger, routing and plugins."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

Unit = Literal[
    "requests", "input_tokens", "output_tokens", "total_tokens", "bytes_down", "bytes_up", "usd", "concurrent"
]
UNITS: tuple[Unit, ...] = (
    "requests", "input_tokens", "output_tokens", "total_tokens", "bytes_down", "bytes_up", "usd", "concurrent",
)  # fmt: skip
Calendar = Literal["hour", "day", "month"]
QuotaSource = Literal["config", "header", "body", "plugin", "default"]

_ROLLING = re.compile(r"^([1-9][0-9]{0,8})s$")


class Amounts(msgspec.Struct, frozen=True):
    """What one call uses or may use. Tokens and bytes are counts; money is integer micro-dollars (1e-6 USD)."""

    requests: int = 1
    input_tokens: int = 0
    output_tokens: int = 0
    bytes_down: int = 0
    bytes_up: int = 0
    usd_micro: int = 0

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def of(self, unit: Unit) -> int:
        """The amount in a quota's unit (``usd`` in micro-dollars; ``concurrent`` is 1 for each open call)."""
        if unit == "usd":
            return self.usd_micro
        if unit == "concurrent":
            return 1
        return getattr(self, unit)  # type: ignore[no-any-return]  # every remaining unit is an int field or property


class Window(msgspec.Struct, frozen=True):
    """``seconds`` for a rolling window, ``calendar`` and ``zone`` for a calendar one; neither means no window:
    ``concurrent``, or a figure that only the provider's own reports drive."""

    seconds: int | None = None
    calendar: Calendar | None = None
    zone: str = "UTC"

    @classmethod
    def parse(cls, text: str, zone: str = "UTC") -> Window:
        """``"60s"`` is rolling; ``hour``, ``day``, ``month`` are calendar periods in ``zone``.

        Raises:
            ValueError: anything else.
        """
        rolling = _ROLLING.match(text)
        if rolling:
            return cls(seconds=int(rolling.group(1)))
        if text in ("hour", "day", "month"):
            return cls(calendar=text, zone=zone)  # type: ignore[arg-type]  # narrowed by the test above
        raise ValueError(f"window {text!r} is neither '<n>s' (rolling seconds) nor one of hour, day, month")

    def __str__(self) -> str:
        if self.seconds is not None:
            return f"{self.seconds}s"
        return self.calendar or "none"


class Quota(msgspec.Struct, frozen=True):
    """One limit of one account. ``limit`` and ``buffer`` are in the unit (``usd`` in micro-dollars).

    ``models``: None binds every model of the account; one name binds that model; several share one pool.
    ``counted``: ``"end"`` holds an amount until the end of the answer plus the window; ``"arrival"`` frees it one
    window after the first byte, for providers known to count arrivals.
    """

    account: str
    unit: Unit
    limit: int
    window: Window = Window()
    buffer: int = 0
    models: frozenset[str] | None = None
    counted: Literal["end", "arrival"] = "end"
    source: QuotaSource = "config"
    provider: str = ""

    @property
    def key(self) -> str:
        """Stable text identity, used in events, history and the API: ``account/unit/window[/model,model]``."""
        parts = [self.account, self.unit, str(self.window)]
        if self.window.calendar and self.window.zone != "UTC":
            parts[-1] += f"@{self.window.zone}"
        if self.models is not None:
            parts.append(",".join(sorted(self.models)))
        return "/".join(parts)

    def binds(self, account: str, model: str) -> bool:
        return account == self.account and (self.models is None or model in self.models)


class Price(msgspec.Struct, frozen=True):
    """Micro-dollars per million tokens (0.15 USD per million = 150,000) and per request. ``as_of`` is a date."""

    input_per_million: int = 0
    output_per_million: int = 0
    per_request: int = 0
    cached_input_per_million: int | None = None
    as_of: str | None = None


class ModelRef(msgspec.Struct, frozen=True):
    """``provider:model``; ``model`` may be ``*`` in a task's candidate list."""

    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}:{self.model}"


RESERVED_NAMES = frozenset({"auto", "task", "local", "specialists"})


def parse_model_ref(text: str, providers: frozenset[str] | set[str]) -> ModelRef | None:
    """Split at the first colon when what stands before it is a provider (``provider::model`` is accepted too).

    Returns None for a plain model name: ``llama3.2:3b``, ``org/m:host``, ``gpt-4o-mini``.
    """
    head, colon, tail = text.partition(":")
    if not colon or head not in providers:
        return None
    return ModelRef(head, tail.removeprefix(":"))
