"""The provider ``github_models``: OpenAI's bodies on GitHub's paths, its catalogue, its account limit, its end.

A 403 with a ``sunset`` or ``deprecation`` header and a 410 are the retirement, whatever their text says ("temporarily
unavailable" is the brownout's): the call fails as ``gone`` for good and the provider registers as ``retired``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from hybridd.plugin import CallFailure, Observation, ProbeResult
from plugins.openai_compatible import headers, hints, text
from plugins.openai_compatible.provider import HostProvider

API_VERSION = "2022-11-28"
_HOUR = "3600s"
_MAX_LIMIT_BYTES = 256 * 1024


class GithubModels(HostProvider):
    """``settings`` as for :class:`HostProvider`, and ``rate_limit_url``: the account's hourly limit, free to ask."""

    def paths(self) -> dict[str, str]:
        return {
            "chat": "/inference/chat/completions",
            "embed": "/inference/embeddings",
            "models": "/catalog/models",
        }

    def dialect_of(self) -> str:
        return "github_models"

    def extra_headers(self) -> dict[str, str]:
        return {"X-GitHub-Api-Version": API_VERSION}

    def refused(self, failure: CallFailure) -> None:
        if failure.error.permanent and self.state != "retired":
            self.state, self.reason = "retired", text.clean(f"GitHub Models is retired: {failure.message}")
            self._spawn(self.register())

    async def first_look(self) -> None:
        """The catalogue and the limit cost nothing; both are asked in the background."""
        self._lists = True
        self._spawn(self._look_until_reached())
        self._spawn(self._watch_limit())

    async def probe(self) -> ProbeResult:
        if self._upstream is None:
            return ProbeResult(ok=False, reason=self.reason, details={"unmetered": True})
        observations = await self._limit()
        problem = "" if observations else "the account's rate limit could not be read"
        if self.state == "retired":
            problem = self.reason
        elif self.state == "degraded":
            await self._look()
        return ProbeResult(ok=not problem, reason=problem, observations=observations, details={"unmetered": True})

    async def _watch_limit(self) -> None:
        self.observed(await self._limit())

    async def _limit(self) -> list[Observation]:
        """What ``rate_limit`` says of the account's requests an hour; nothing when it cannot be had."""
        url = self.settings.get("rate_limit_url")
        if not url or self._upstream is None:
            return []
        try:
            async with asyncio.timeout(5.0):
                status, body = await self.fetch(self._upstream.address(str(url)), _MAX_LIMIT_BYTES, own=False)
            return core_limit(msgspec.json.decode(body), time.time()) if status == 200 else []
        except (CallFailure, TimeoutError, ValueError, RecursionError) as error:
            self.log("debug", f"rate limit not read: {text.clean(str(error), self._secrets)}")
            return []


def core_limit(body: Any, now: float) -> list[Observation]:
    """``{"resources": {"core": {limit, remaining, reset, used}}}`` as an observation of requests an hour.

    A ``reset`` in the past says nothing of when: the figure then belongs to a window that is over.
    """
    resources = body.get("resources") if isinstance(body, Mapping) else None
    core = resources.get("core") if isinstance(resources, Mapping) else None
    if not isinstance(core, Mapping):
        return []
    limit, remaining = _figure(core.get("limit")), _figure(core.get("remaining"))
    if limit is None or remaining is None:
        return []
    reset = hints.wait(core.get("reset"), now, factor=None)
    return [headers.make("requests", limit=limit, remaining=remaining, window=_HOUR, reset=reset, source="body")]


def _figure(value: Any) -> float | None:
    return None if isinstance(value, bool) or not isinstance(value, (int, float)) else headers.count(str(value))
