"""``HybridMLOptimizer``: the small Python API of the project."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self, cast

from hybridd.client import wire
from hybridd.client.client import ChatStream, Client
from hybridd.client.types import CallResult, GithubLimits, Limit, ModelChoice, Report
from hybridd.contracts.validation import Tier


class HybridMLOptimizer:
    """Routed calls in one line.

    >>> optimizer = HybridMLOptimizer()
    >>> optimizer.check_github_limits()["remaining"]
    4900
    >>> r = optimizer.call_optimized_model("sentiment_analysis", "Este produto é incrível!")
    >>> r["model_choice"]["chosen_model"], r["response"]
    ('sentiment', 'positive')

    Args:
        socket: path of the daemon's socket; absent: ``HYBRIDD_SOCKET`` or the default place.
        timeout: seconds without a byte after which a call fails.
        auto_start: start the daemon when nobody listens.

    ``client`` is the whole :class:`~hybridd.client.Client`.
    """

    def __init__(
        self, socket: str | Path | None = None, *, timeout: float | None = 120.0, auto_start: bool = False
    ) -> None:
        self.client = Client(socket, timeout=timeout, auto_start=auto_start)

    def close(self) -> None:
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def check_github_limits(self) -> GithubLimits:
        """The GitHub account's hourly requests. ``remaining`` is an int, or None when there is no such limit."""
        found = wire.github_limit([dict(limit) for limit in self.client.limits()])
        return cast(GithubLimits, found)

    def check_limits(self) -> list[Limit]:
        """Every limit of every provider."""
        return self.client.limits()

    def call_optimized_model(
        self,
        task: str,
        prompt: str,
        max_tokens: int | None = None,
        *,
        user: str | None = None,
        tier: Tier | None = None,
        model: str | None = None,
        system: str | None = None,
        temperature: float | None = None,
    ) -> CallResult:
        """The task's best model that may answer now, with fallback.

        Raises:
            InvalidRequest: question shorter than three characters, unknown task, tier or max_tokens out of range.
            NoFeasibleProvider: nobody may or can answer; ``details`` has each candidate's reason.
            ProviderError: every allowed attempt failed.
        """
        return self.client.call(
            prompt,
            task=task,
            model=model,
            system=system,
            max_tokens=max_tokens,
            temperature=temperature,
            user=user,
            tier=tier,
        )

    def stream_optimized_model(
        self,
        task: str,
        prompt: str,
        max_tokens: int | None = None,
        *,
        user: str | None = None,
        tier: Tier | None = None,
    ) -> ChatStream:
        """As :meth:`call_optimized_model`, streamed: iterate over the text, then read ``result``."""
        return self.client.stream(prompt, task=task, max_tokens=max_tokens, user=user, tier=tier)

    def choose_model(self, task: str, prompt: str | None = None, max_tokens: int | None = None) -> ModelChoice:
        """Which model would be chosen, and why; calls nothing."""
        return self.client.route(task, prompt, max_tokens=max_tokens)

    def usage_report(self, group_by: str = "provider") -> Report:
        """Usage, cost and trend."""
        return self.client.report(group_by=group_by)
