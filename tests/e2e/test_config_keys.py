"""Every key of the mission's first block, flipped by a reload of a running daemon, changes what it says it changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.support import Events, error_of, provider_of, recorded, until, used
from tests.fakes.upstream import SENTENCE, FakeUpstream, rule
from tests.house import ROOT, House, lab

DEAR = {"price": {"input_per_million_usd": 10, "output_per_million_usd": 10}}
CHEAP = {"price": {"input_per_million_usd": 1, "output_per_million_usd": 1}}
GITHUB = {"api_key": {"env": "GITHUB_TOKEN"}}


@pytest.fixture(scope="module")
def upstream():
    with FakeUpstream() as fake:
        yield fake


@pytest.fixture(scope="module")
def house(upstream):
    with House(base(upstream), env={"GITHUB_TOKEN": "ghp_test_token"}) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(upstream, house):
    """Each test starts from the same configuration, with nobody resting and an upstream that answers."""
    upstream.reset()
    configure(house, upstream, {"providers": {}, "tasks": {}})
    configure(house, upstream, {})


def base(upstream: FakeUpstream) -> dict[str, Any]:
    github = {**GITHUB, "base_url": upstream.url, "rate_limit_url": f"{upstream.url}/rate_limit"}
    return {
        "github_models": github,
        "providers": {
            "lab": lab(upstream.base_url, models={"dear": DEAR, "cheap": CHEAP}),
            "spare": lab(upstream.base_url, models={"s1": {}}),
        },
        "tasks": {"pair": ["lab:dear", "spare:s1"], "many": ["lab:*"]},
        "monitoring": {"check_interval_seconds": 0.2},
    }


def configure(house: House, upstream: FakeUpstream, changes: dict[str, Any]) -> None:
    """The base configuration with whole sections or single members replaced, loaded by the running daemon."""
    config = base(upstream)
    for section, members in changes.items():
        replace = section in ("providers", "tasks") or not isinstance(config.get(section), dict)
        config[section] = members if replace else {**config[section], **members}
    house.write_config(config)
    answer = house.http.post("/v1/reload")
    assert answer.status_code == 200, answer.text


def alerts(house: House, name: str, provider: str | None = None) -> list[dict[str, Any]]:
    found = house.http.get("/v1/alerts?state=live").json()["alerts"]
    return [alert for alert in found if alert["name"] == name and provider in (None, alert["provider"])]


def asked(upstream: FakeUpstream) -> int:
    """Chat requests that arrived; the unmetered looks at models and limits are no calls."""
    return upstream.count(60, method="POST").total


def limit_of(house: House, key: str) -> dict[str, Any]:
    limits: list[dict[str, Any]] = house.http.get("/v1/limits").json()["limits"]
    return next(limit for limit in limits if limit["key"] == key)


def test_the_missions_file_loads_unmodified(house):
    """The first block of the mission, as it stands in the repository, is accepted by a running daemon."""
    shipped = json.loads((ROOT / "config/ml/hybrid_config.json").read_text())
    house.write_config(shipped)
    answer = house.http.post("/v1/reload")
    assert answer.status_code == 200, answer.text
    assert {"github_models", "hugging_face", "local", "specialists"} <= set(answer.json()["providers"])


# -- optimization


@pytest.mark.parametrize("failure", ["error", "quota"])
@pytest.mark.parametrize("auto_fallback", [True, False])
def test_auto_fallback(house, upstream, auto_fallback, failure):
    """On: the next candidate answers. Off: the first provider's error is returned and nobody else is asked."""
    providers = base(upstream)["providers"]
    if failure == "quota":
        providers["lab"]["quotas"] = [{"unit": "requests", "window": "60s", "limit": 0}]
    configure(house, upstream, {"optimization": {"auto_fallback": auto_fallback}, "providers": providers})
    upstream.script([rule({"status": 500}, model="dear")])
    answer = house.chat("task:pair")
    models = [arrival.model for arrival in upstream.log() if arrival.method == "POST"]
    if auto_fallback:
        assert answer.headers["x-hybridd-provider"] == "spare"
    elif failure == "error":
        assert (answer.status_code, error_of(answer)["code"]) == (503, "upstream_unavailable")
        assert error_of(answer)["message"].startswith("lab:dear: ")
        assert models == ["dear"]
    else:
        assert answer.status_code == 503
        assert [item["candidate"] for item in error_of(answer)["details"]] == ["lab:dear"]
        assert models == []


@pytest.mark.parametrize(("cost_optimization", "chosen"), [(True, "cheap"), (False, "dear")])
def test_cost_optimization(house, upstream, cost_optimization, chosen):
    """On: ``lab:*`` means the cheapest first. Off: in the order of the configuration."""
    configure(house, upstream, {"optimization": {"cost_optimization": cost_optimization}})
    assert house.chat("task:many").headers["x-hybridd-model"] == chosen
    assert house.http.get("/v1/route?task=many").json()["chosen_model"] == f"lab:{chosen}"


@pytest.mark.parametrize(
    ("changes", "caches"),
    [
        ({}, True),
        ({"optimization": {"local_cache_enabled": False}}, False),
        ({"flags": {"enable_caching": False}}, False),
        ({"optimization": {"cache_ttl_seconds": 0}}, False),
    ],
)
def test_the_answer_cache(house, upstream, changes, caches):
    """An identical deterministic request is answered from memory and costs nothing, unless that is switched off."""
    configure(house, upstream, changes)
    first, second = (house.chat("lab:dear", temperature=0) for _ in range(2))
    assert second.json()["choices"][0]["message"]["content"] == SENTENCE
    assert asked(upstream) == (1 if caches else 2)
    assert (second.headers["x-hybridd-cache"] == "hit") == caches
    assert (recorded(house, second)["cost_usd"] == 0) == caches
    assert recorded(house, first)["cost_usd"] > 0


def test_what_is_not_deterministic_is_never_cached(house, upstream):
    """Without temperature 0 or a seed, and for streams, every request is asked anew."""
    for extra in ({}, {"temperature": 0.5}, {"temperature": 0, "stream": True}):
        for _ in range(2):
            assert house.chat("lab:dear", **extra).status_code == 200
    assert asked(upstream) == 6


# -- providers


@pytest.mark.parametrize("use_ollama", [True, False])
def test_use_ollama(house, upstream, use_ollama):
    """Off: a provider named ``ollama`` is passed over, with that reason."""
    providers = {**base(upstream)["providers"], "ollama": lab(upstream.base_url, models={"phi3:mini": {}})}
    tasks = {"home": ["ollama:phi3:mini", "spare:s1"]}
    configure(house, upstream, {"providers": providers, "tasks": tasks, "flags": {"use_ollama": use_ollama}})
    answer = house.chat("task:home")
    assert answer.headers["x-hybridd-provider"] == ("ollama" if use_ollama else "spare")
    if not use_ollama:
        (rejected,) = recorded(house, answer)["choice"]["rejected"]
        assert (rejected["code"], rejected["reason"]) == ("disabled", "the flag use_ollama is off")


def test_enabled(house, upstream):
    """A disabled provider stays in the list, answers nothing, and has no limits or models."""
    providers = base(upstream)["providers"]
    providers["lab"]["enabled"] = False
    configure(house, upstream, {"providers": providers})
    assert house.chat("task:pair").headers["x-hybridd-provider"] == "spare"
    refused = house.chat("lab:dear")
    assert refused.status_code == 503
    assert error_of(refused)["details"][0]["code"] == "disabled"
    assert provider_of(house, "lab")["state"] == "disabled"
    assert not [one for one in house.http.get("/v1/models").json()["data"] if one["owned_by"] == "lab"]


@pytest.mark.parametrize("section", ["github_models", "hugging_face", "local", "specialists"])
def test_enabled_of_the_built_in_providers(house, upstream, section):
    """Each built-in provider can be switched off."""
    assert provider_of(house, section)["state"] != "disabled"
    configure(house, upstream, {section: {"enabled": False}})
    assert provider_of(house, section)["state"] == "disabled"
    assert used(house, section) == {}


def test_preferred_models(house, upstream):
    """That model comes first for the task, unless ``tasks`` names the task, which wins."""
    preferred = {"preferred_models": {"text_generation": "gpt-9", "many": "gpt-9"}}
    configure(house, upstream, {"github_models": preferred})
    until(lambda: provider_of(house, "github_models")["state"] == "ready")
    answer = house.chat("task:text_generation")
    assert answer.headers["x-hybridd-model"] == "gpt-9", answer.text
    assert [arrival.path for arrival in upstream.log() if arrival.method == "POST"] == ["/inference/chat/completions"]
    assert house.chat("task:many").headers["x-hybridd-provider"] == "lab"
    configure(house, upstream, {"github_models": {"preferred_models": {"text_generation": "gpt-8"}}})
    assert house.http.get("/v1/route?task=text_generation").json()["candidates"][0] == "github_models:gpt-8"


def test_rate_limit_buffer(house, upstream):
    """Own traffic stops that many requests before GitHub's limit."""
    key = "github_models/requests/3600s"
    assert (limit_of(house, key)["buffer"], limit_of(house, key)["limit"]) == (100, 5000)
    configure(house, upstream, {"github_models": {"rate_limit_buffer": 5000}})
    assert limit_of(house, key)["remaining"] == 0
    refused = house.chat("github_models:gpt-4o-mini")
    assert error_of(refused)["details"][0]["code"] == "quota"
    configure(house, upstream, {"github_models": {"rate_limit_buffer": 0}})
    assert house.chat("github_models:gpt-4o-mini").status_code == 200


def test_hub_buffers(house, upstream):
    """Downloads and megabytes of uploads that are kept free."""
    downloads, uploads = "hugging_face/requests/month/hub:downloads", "hugging_face/bytes_up/month/hub:uploads"
    assert limit_of(house, downloads)["remaining"] == 9_000
    assert limit_of(house, uploads)["remaining"] == 4_500e6
    configure(house, upstream, {"hugging_face": {"download_limit_buffer": 9_999, "upload_limit_buffer": 5_000}})
    assert limit_of(house, downloads)["remaining"] == 1
    assert limit_of(house, uploads)["remaining"] == 0


def test_cache_dir(house, upstream):
    """Where Hub downloads are kept: a GGUF file there is a model of ``local``. Relative paths are under the state."""
    for name in ("logs/ml_cache", "elsewhere"):
        folder: Path = house.state / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"from-{folder.name}.gguf").write_bytes(b"GGUF")
    configure(house, upstream, {})
    assert [model["id"] for model in provider_of(house, "local")["models"]] == ["from-ml_cache"]
    configure(house, upstream, {"hugging_face": {"cache_dir": "elsewhere"}})
    assert [model["id"] for model in provider_of(house, "local")["models"]] == ["from-elsewhere"]


# -- monitoring


@pytest.mark.parametrize("seconds", [0.2, 0.6])
def test_check_interval_seconds(house, upstream, seconds):
    """The checks follow each other at that pace."""
    configure(house, upstream, {"monitoring": {"check_interval_seconds": seconds}})
    with Events(house, "host") as events:
        times = [events.until(lambda event: event["kind"] == "host")["at"] for _ in range(4)]
    # Between the second and the last: the first may still belong to the pace before.
    assert 0.5 * seconds * 2 <= times[-1] - times[1] <= seconds * 2 + 1.0


@pytest.mark.parametrize("section", ["monitoring", "flags"])
def test_monitoring_enabled(house, upstream, section):
    """Off, by the setting or by the flag: a drained quota raises no alert. On again: it does."""
    name = f"drained-{section}"  # a quota of its own: history counts against quotas that come later
    quotas = [{"unit": "requests", "window": "60s", "limit": 1}]
    providers = {name: lab(upstream.base_url, quotas=quotas)}
    off = {"monitoring": {"enabled": False}} if section == "monitoring" else {"flags": {"enable_monitoring": False}}
    configure(house, upstream, {**off, "providers": providers, "tasks": {}})
    assert [house.chat(f"{name}:m1").status_code for _ in range(2)] == [200, 429]
    assert alerts(house, "QuotaLow", name) == []
    configure(house, upstream, {"providers": providers, "tasks": {}})
    until(lambda: alerts(house, "QuotaLow", name))


@pytest.mark.parametrize(
    ("threshold", "value", "name"),
    [
        ("github_requests", 6_000, "GithubRequestsLow"),
        ("hf_downloads", 20_000, "HfDownloadsLow"),
        ("hf_uploads_mb", 6_000, "HfUploadsLow"),
    ],
)
def test_alert_thresholds(house, upstream, threshold, value, name):
    """Fewer left than the threshold raises the alert; a lower threshold lets it resolve by itself."""
    assert alerts(house, name) == []
    thresholds = {"monitoring": {"check_interval_seconds": 0.2, "alert_thresholds": {threshold: value}}}
    configure(house, upstream, thresholds)
    (alert,) = until(lambda: alerts(house, name))
    assert f"{value:,}" in alert["message"]
    configure(house, upstream, {})
    until(lambda: not alerts(house, name))
