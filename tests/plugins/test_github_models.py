"""GitHub Models: its wire format, its limits, its retirement."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hybridd.plugin import CallFailure, Observation, Result
from plugins.github_models.provider import GithubModels, core_limit
from plugins.openai_compatible.upstream import Connections
from tests.fakes.upstream import SENTENCE, InProcessUpstream, rate_limit_body, rule
from tests.plugins.support import call, chat, failure_of, plugin_process, stream, text_of

NOW = 1_795_000_000.0
CHAT = "/inference/chat/completions"


def settings(fake: InProcessUpstream) -> dict[str, Any]:
    return {"base_url": fake.url, "rate_limit_url": f"{fake.url}/rate_limit", "models": {"gpt-4o-mini": {}}}


@pytest.fixture
async def fake() -> AsyncIterator[InProcessUpstream]:
    async with InProcessUpstream() as server:
        yield server


@pytest.fixture
async def github(fake: InProcessUpstream) -> AsyncIterator[GithubModels]:
    connections = Connections()
    provider = GithubModels("github_models", settings(fake), connections)
    yield provider
    await provider.stop()


async def started(provider: GithubModels) -> list[Observation]:
    """Starts and waits for the first look; returns what it reported."""
    seen: list[Observation] = []
    monkeypatched: Any = provider
    monkeypatched.observed = seen.extend  # a listener in place of the daemon
    await provider.start()
    while provider._tasks:
        await asyncio.gather(*provider._tasks)
    return seen


async def test_legacy_wire_format(github: GithubModels, fake: InProcessUpstream) -> None:
    """Calls go to the documented path, streamed or not; the catalogue fills the model list, configured ones first."""
    await started(github)
    result = await call(github, chat())
    assert result.usage is not None
    ended, wire = await stream(github, chat())
    assert isinstance(ended, Result)
    assert wire.text == SENTENCE
    assert [one.path for one in fake.log() if one.method == "POST"] == [CHAT, CHAT]
    assert {one.path for one in fake.log() if one.method == "GET"} == {"/catalog/models", "/rate_limit"}
    assert (await github.models())[0].id == "gpt-4o-mini"


async def test_wrapped_catalogue(github: GithubModels, fake: InProcessUpstream) -> None:
    """A catalogue wrapped in {"data": […]} is read like the bare array."""
    fake.script([rule({"body": {"data": [{"id": "a", "limits": {"max_input_tokens": 8000}}]}}, path="/catalog/models")])
    await started(github)
    assert [(model.id, model.context) for model in await github.models()] == [("gpt-4o-mini", None), ("a", 8000)]


async def test_account_limit(github: GithubModels, fake: InProcessUpstream) -> None:
    """The account's requests an hour are observed at start and by every probe, which stays unmetered."""
    fake.script([rule({"body": rate_limit_body(time.time(), remaining=99, reset_s=1800)}, path="/rate_limit")])
    [first] = await started(github)
    assert (first.unit, first.window, first.limit, first.remaining, first.source) == (
        "requests", "3600s", 5000, 99, "body",
    )  # fmt: skip
    assert first.reset_ms is not None
    assert 1_790_000 < first.reset_ms <= 1_800_000
    fake.reset()
    probed = await github.probe()
    assert probed.ok
    assert [one.remaining for one in probed.observations] == [4999]
    assert [one.method for one in fake.log()] == ["GET"]


@pytest.mark.parametrize("body", [None, [], {}, {"resources": []}, {"resources": {"core": {"limit": "x"}}}, "x"])
def test_limit_that_cannot_be_read(body: Any) -> None:
    """Any other shape is no observation, and no failure."""
    assert core_limit(body, NOW) == []


def test_limit_reset_in_the_past() -> None:
    """A reset that has passed says nothing of when."""
    [observed] = core_limit({"resources": {"core": {"limit": 5000, "remaining": 1, "reset": NOW - 5}}}, NOW)
    assert observed.reset_ms is None


async def test_rate_limited(github: GithubModels, fake: InProcessUpstream) -> None:
    """Its 429 names the limit of that model and the wait."""
    await started(github)
    fake.script([rule({"preset": "github_429"})])
    failure = await failure_of(call(github, chat()))
    assert (failure.error.kind, failure.error.retry_after_ms) == ("rate_limited", 5_631_000)
    [observed] = failure.error.observations
    assert (observed.limit, observed.window, observed.models) == (50, "86400s", ["m1"])
    assert github.state == "ready"


@pytest.mark.parametrize("preset", ["github_retired_403", "github_brownout_410"])
async def test_retirement(github: GithubModels, fake: InProcessUpstream, preset: str) -> None:
    """The sunset 403 and the lying 410 are permanent: gone, retired, and nothing is ever sent again."""
    await started(github)
    fake.script([rule({"preset": preset}, path=CHAT)])
    failure = await failure_of(call(github, chat()))
    assert (failure.error.kind, failure.error.permanent, failure.error.sent) == ("gone", True, "yes")
    assert github.state == "retired"
    assert "retired" in github.reason
    fake.clear_log()
    for ended in (await failure_of(call(github, chat())), (await stream(github, chat()))[0]):
        assert isinstance(ended, CallFailure)
        assert (ended.error.kind, ended.error.permanent, ended.error.sent) == ("gone", True, "no")
    assert not (await github.probe()).ok
    assert [one for one in fake.log() if one.method == "POST"] == []


async def test_plain_403_is_no_retirement(github: GithubModels, fake: InProcessUpstream) -> None:
    """A 403 without those headers parks the provider; it does not bury it."""
    await started(github)
    fake.script([rule({"status": 403}, path=CHAT)])
    failure = await failure_of(call(github, chat()))
    assert (failure.error.kind, failure.error.permanent, github.state) == ("forbidden", False, "ready")


async def test_retired_limit_address_is_not_the_provider(github: GithubModels, fake: InProcessUpstream) -> None:
    """A 410 of the rate-limit address says nothing about the models."""
    fake.script([rule({"status": 410}, path="/rate_limit")])
    assert await started(github) == []
    assert github.state == "ready"
    assert not (await github.probe()).ok


async def test_api_version_and_key_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request carries the token and the API version."""
    from aiohttp import web

    seen: list[dict[str, str]] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        seen.append({name.lower(): value for name, value in request.headers.items()})
        return web.json_response({"choices": []})

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    monkeypatch.setenv("GH", "canary-token")
    connections = Connections()
    provider = GithubModels("g", {"base_url": site.name, "models": {"m": {}}, "api_key": {"env": "GH"}}, connections)
    await started(provider)
    await call(provider, chat())
    assert {(one["x-github-api-version"], one["authorization"]) for one in seen} == {
        ("2022-11-28", "Bearer canary-token")
    }
    await provider.stop()
    await runner.cleanup()


async def test_process_registers_the_tombstone(tmp_path: Path) -> None:
    """The real program finds the service retired by itself at start and registers that; before, it serves."""
    async with InProcessUpstream() as fake:
        async with plugin_process("plugins.github_models", {"github_models": settings(fake)}, tmp_path) as daemon:
            number, future = daemon.start("generate", "github_models", chat(stream=True), stream=True)
            assert "result" in await asyncio.wait_for(future, 10)
            assert text_of(daemon.events[number]) == SENTENCE
            await daemon.until(lambda one: any(note["method"] == "limits/observed" for note in one.notes))
        fake.script([rule({"preset": "github_retired_403"}, path="/catalog/models")])
        async with plugin_process("plugins.github_models", {"github_models": settings(fake)}, tmp_path) as daemon:
            await daemon.until(lambda one: one.registered["github_models"].get("state") == "retired")
            answer = await daemon.ask("generate", "github_models", chat())
            assert answer["error"]["data"]["kind"] == "gone"
            assert answer["error"]["data"]["permanent"] is True
