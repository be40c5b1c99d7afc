"""What settings mean: providers, quotas, tasks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from hybridd.config import loader
from hybridd.config.amounts import linger_seconds
from hybridd.config.presets import PRESETS
from hybridd.config.resolved import Resolved
from hybridd.contracts.quotas import ModelRef, Price, Quota, Window
from hybridd.errors import ConfigError
from tests.config.conftest import Load
from tests.config.test_loader import MISSION_SECOND_BLOCK


def names(resolved: Resolved, task: str) -> list[str]:
    return [str(candidate) for candidate in resolved.tasks[task].candidates]


def lab(**members: Any) -> dict[str, Any]:
    return {"plugin": "openai_compatible", "base_url": "http://127.0.0.1:9000/v1", **members}


def test_the_missions_lab_provider_resolves_exactly(load: Load) -> None:
    """Quotas, prices and models of the mission's example become the ledger's integers."""
    spec = load(MISSION_SECOND_BLOCK).providers["lab"]
    shared = {"account": "lab", "provider": "lab"}
    assert spec.quotas == (
        Quota(unit="requests", limit=15, buffer=1, window=Window(seconds=60), **shared),  # type: ignore[arg-type]
        Quota(unit="requests", limit=150, window=Window(seconds=86400), models=frozenset({"m1"}), **shared),  # type: ignore[arg-type]
        Quota(unit="total_tokens", limit=6000, window=Window(seconds=60), **shared),  # type: ignore[arg-type]
        Quota(unit="usd", limit=5_000_000, window=Window(calendar="month"), **shared),  # type: ignore[arg-type]
        Quota(unit="concurrent", limit=5, **shared),  # type: ignore[arg-type]
    )
    model = spec.models["m1"]
    assert (model.context, model.price) == (8192, Price(150_000, 600_000, 0))
    assert (spec.not_configured, spec.linger_seconds, spec.timeout_seconds) == (None, 0.0, 60.0)


def test_money_is_converted_by_its_decimal(load: Load) -> None:
    """0.29 dollars are 290,000 micro-dollars; limits round down and prices up."""
    quotas = [{"unit": "usd", "window": "day", "limit": 0.29, "buffer": 0.0000011}]
    models = {"m": {"price": {"per_request_usd": 0.0000001, "cached_input_per_million_usd": 0.07}}}
    spec = load(providers={"lab": lab(quotas=quotas, models=models)}).providers["lab"]
    assert (spec.quotas[0].limit, spec.quotas[0].buffer) == (290_000, 2)
    assert spec.models["m"].price == Price(0, 0, 1, 70_000)


def test_default_tasks_on_a_bare_machine(load: Load) -> None:
    """Without any provider of the user's own the mission's table of roles stands as it is."""
    resolved = load("{}")
    assert names(resolved, "code_generation") == [
        "github_models:copilot-chat", "hugging_face:Qwen/Qwen2.5-Coder-32B-Instruct", "local:*",
    ]  # fmt: skip
    assert names(resolved, "sentiment_analysis")[0] == "specialists:sentiment"
    assert names(resolved, "text_generation")[0] == "github_models:gpt-4o-mini"
    assert names(resolved, "text_classification")[:2] == ["github_models:copilot-chat", "specialists:*"]
    assert all(task.origin == "builtin" for task in resolved.tasks.values())


def test_the_users_providers_inherit_the_dead_role(load: Load) -> None:
    """Configured providers stand right behind GitHub's role, in the order written; disabled ones do not."""
    resolved = load(providers={"b": lab(), "off": lab(enabled=False), "a": lab()})
    assert names(resolved, "code_generation")[:3] == ["github_models:copilot-chat", "b:*", "a:*"]
    assert names(resolved, "sentiment_analysis")[-4:] == ["github_models:gpt-4o-mini", "b:*", "a:*", "local:*"]


def test_preferred_models_come_first_unless_the_task_is_named(load: Load) -> None:
    """``preferred_models`` puts its model first; a task under ``tasks`` is exactly what it says; a new task appears."""
    github = {"preferred_models": {"code_generation": "x1", "sentiment_analysis": "lab:m", "translation": "x2"}}
    resolved = load(github_models=github, providers={"lab": lab()})
    assert names(resolved, "code_generation")[:2] == ["github_models:x1", "lab:*"]
    assert names(resolved, "sentiment_analysis")[:2] == ["lab:m", "specialists:sentiment"]
    assert names(resolved, "translation")[0] == "github_models:x2"
    assert names(resolved, "text_generation")[0] == "github_models:gpt-4o-mini"
    named = load(github_models=github, tasks={"code_generation": ["local:*"]})
    assert names(named, "code_generation") == ["local:*"]
    assert named.tasks["code_generation"].origin == "config"


def test_hugging_faces_preferred_model_takes_its_role(load: Load) -> None:
    """``hugging_face.preferred_models`` changes the model of that role and not the order."""
    resolved = load(hugging_face={"preferred_models": {"code_generation": "org/m:fast"}})
    assert names(resolved, "code_generation") == [
        "github_models:copilot-chat", "hugging_face:org/m:fast", "local:*",
    ]  # fmt: skip


def test_candidates_in_all_their_forms(load: Load) -> None:
    """provider:model, provider::model, a provider alone, colons in models, a declared plain model; repeats fall out."""
    task = ["lab:m1", "lab::m1", "lab", "lab:phi3:mini", "m2", "local:*"]
    resolved = load(providers={"lab": lab(models={"m2": {}})}, tasks={"t": task})
    assert resolved.tasks["t"].candidates == (
        ModelRef("lab", "m1"), ModelRef("lab", "*"), ModelRef("lab", "phi3:mini"), ModelRef("lab", "m2"),
        ModelRef("local", "*"),
    )  # fmt: skip


def test_a_task_may_be_an_object_with_defaults(load: Load) -> None:
    """An object's defaults travel with the task."""
    task = {
        "candidates": ["local:*"],
        "system_prompt": "Be brief.",
        "temperature": 0,
        "max_tokens": 50,
        "timeout_seconds": 9,
    }
    found = load(tasks={"t": task}).tasks["t"]
    assert (found.system_prompt, found.temperature, found.max_tokens, found.timeout_seconds) == ("Be brief.", 0, 50, 9)


# ---- every key of the mission's first block, flipped ----------------------------------------------------------------


def test_github_enabled_and_buffer(load: Load) -> None:
    """``enabled: false`` disables the provider; ``rate_limit_buffer`` is the hourly quota's buffer."""
    spec = load(github_models={"enabled": False, "rate_limit_buffer": 250}).providers["github_models"]
    assert spec.enabled is False
    (quota,) = spec.quotas
    assert (quota.limit, quota.window.seconds, quota.buffer) == (5000, 3600, 250)
    assert load("{}").providers["github_models"].quotas[0].buffer == 100
    assert load(github_models={"rate_limit_buffer": 9000}).providers["github_models"].quotas[0].buffer == 5000


def test_hugging_face_section(load: Load, tmp_path: Path) -> None:
    """``cache_dir`` resolves under the state directory, and both buffers are in the Hub's monthly quotas."""
    section = {"enabled": False, "cache_dir": "hub", "download_limit_buffer": 7, "upload_limit_buffer": 8}
    spec = load(hugging_face=section).providers["hugging_face"]
    assert spec.enabled is False
    assert spec.plugin_config["options"] == {"cache_dir": str(tmp_path / "state" / "hybridd" / "hub")}
    downloads, uploads = spec.quotas
    assert (downloads.unit, downloads.limit, downloads.buffer) == ("requests", 10_000, 7)
    assert downloads.models == frozenset({"hub:downloads"})
    assert (uploads.unit, uploads.limit, uploads.buffer) == ("bytes_up", 5_000_000_000, 8_000_000)
    assert uploads.models == frozenset({"hub:uploads"})


def test_relative_paths_resolve_under_the_base(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HYBRIDD_BASE holds relative paths when it is set."""
    monkeypatch.setenv("HYBRIDD_BASE", str(tmp_path / "checkout"))
    spec = load("{}").providers["hugging_face"]
    assert spec.plugin_config["options"] == {"cache_dir": str(tmp_path / "checkout" / "logs" / "ml_cache")}


def test_monitoring_and_optimization_reach_the_settings(load: Load) -> None:
    """The remaining keys of the first block are read as written."""
    monitoring = {
        "enabled": False, "check_interval_seconds": 5,
        "alert_thresholds": {"github_requests": 1, "hf_downloads": 2, "hf_uploads_mb": 3},
    }  # fmt: skip
    optimization = {"auto_fallback": False, "cost_optimization": False, "local_cache_enabled": False}
    found = load(monitoring=monitoring, optimization=optimization).settings
    assert found.monitoring.model_dump(include={"enabled", "check_interval_seconds"}) == {
        "enabled": False, "check_interval_seconds": 5,
    }  # fmt: skip
    thresholds = found.monitoring.alert_thresholds
    assert (thresholds.github_requests, thresholds.hf_downloads, thresholds.hf_uploads_mb) == (1, 2, 3)
    assert found.optimization.model_dump(include=set(optimization)) == optimization


# ---- keys -----------------------------------------------------------------------------------------------------------


def test_without_keys_the_legacy_providers_are_not_configured(load: Load) -> None:
    """No key is a state with a sentence that says where it was looked for, not an error."""
    providers = load("{}").providers
    assert "GITHUB_TOKEN" in (providers["github_models"].not_configured or "")
    assert "HF_TOKEN" in (providers["hugging_face"].not_configured or "")


def test_github_uses_the_variable_then_gh(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GITHUB_TOKEN wins; without it ``gh auth token`` is used when the program is on the PATH."""
    gh = tmp_path / "bin" / "gh"
    gh.write_text("#!/bin/sh\n")
    gh.chmod(0o755)
    spec = load("{}").providers["github_models"]
    assert (spec.not_configured, spec.plugin_config["api_key"]) == (None, {"command": ["gh", "auth", "token"]})
    monkeypatch.setenv("GITHUB_TOKEN", "canary")
    spec = load("{}").providers["github_models"]
    assert (spec.not_configured, spec.plugin_config["api_key"]) == (None, {"env": "GITHUB_TOKEN"})
    assert "canary" not in repr(load("{}"))


def test_hugging_face_uses_the_variable_then_the_hubs_file(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HF_TOKEN wins; without it the Hub client's own token file is referred to, and not read."""
    token = tmp_path / "cache" / "huggingface" / "token"
    token.parent.mkdir(parents=True)
    token.write_text("canary")
    spec = load("{}").providers["hugging_face"]
    assert (spec.not_configured, spec.plugin_config["api_key"]) == (None, {"file": str(token)})
    monkeypatch.setenv("HF_TOKEN", "canary")
    assert load("{}").providers["hugging_face"].plugin_config["api_key"] == {"env": "HF_TOKEN"}
    assert "canary" not in repr(load("{}"))


@pytest.mark.parametrize("kind", ["env", "file", "credential", "command"])
def test_each_reference_is_checked_for_existence_only(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A reference whose place is missing makes the provider not configured; when it is there, it is configured."""
    references: dict[str, dict[str, Any]] = {
        "env": {"env": "LAB_KEY"},
        "file": {"file": str(tmp_path / "key")},
        "credential": {"credential": "lab"},
        "command": {"command": ["keyring", "get"]},
    }
    reference = references[kind]
    before = load(providers={"lab": lab(api_key=reference)}).providers["lab"]
    assert (before.not_configured or "").startswith("no key: ")
    monkeypatch.setenv("LAB_KEY", "canary")
    (tmp_path / "key").write_text("canary")
    (tmp_path / "lab").write_text("canary")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    program = tmp_path / "bin" / "keyring"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    after = load(providers={"lab": lab(api_key=reference)}).providers["lab"]
    assert after.not_configured is None
    assert after.plugin_config["api_key"] == reference
    assert "canary" not in repr(after)
    if kind == "env":
        assert "LAB_KEY" in after.environment


# ---- presets, processes, addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_fill_in_and_are_overridden(load: Load, preset: str) -> None:
    """A preset gives base URL, dialect and the key's usual variable; what is written wins."""
    found = PRESETS[preset]
    if found.base_url is not None:
        spec = load(providers={"p": {"plugin": "openai_compatible", "preset": preset}}).providers["p"]
        assert spec.plugin_config["base_url"] == found.base_url
        assert spec.plugin_config["dialect"] == found.dialect
        assert spec.plugin_config["api_key"] == ({"env": found.key_env} if found.key_env else None)
    own = {
        "plugin": "openai_compatible",
        "preset": preset,
        "base_url": "http://127.0.0.1:9/v1",
        "api_key": {"env": "X"},
    }
    spec = load(providers={"p": own}).providers["p"]
    assert spec.plugin_config["base_url"] == "http://127.0.0.1:9/v1"
    assert spec.plugin_config["api_key"] == {"env": "X"}


def test_openai_shaped_hosts_share_one_process(load: Load) -> None:
    """All openai_compatible providers are in one process, your own plugins by command, self-connecting ones in none."""
    providers = {
        "a": lab(),
        "b": lab(),
        "own1": {"plugin": "mine", "command": ["mine"]},
        "own2": {"plugin": "mine", "command": ["mine"]},
        "two1": {"plugin": "two", "command": ["x"]},
        "two2": {"plugin": "two", "command": ["y"]},
        "outside": {"plugin": "outside"},
        "gguf": {"plugin": "llama_cpp"},
    }
    found = {name: spec.process for name, spec in load(providers=providers).providers.items()}
    assert found == {
        "github_models": "github_models", "hugging_face": "openai_compatible", "specialists": "specialists",
        "local": "local", "a": "openai_compatible", "b": "openai_compatible", "own1": "mine", "own2": "mine",
        "two1": "two1", "two2": "two2", "outside": "", "gguf": "gguf",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("url", "seconds"),
    [
        ("http://127.0.0.1:9000/v1", 0), ("http://127.8.8.8/v1", 0), ("http://[::1]:1/v1", 0),
        ("http://localhost/v1", 0), ("http://LOCALHOST.:1/v1", 0), ("https://api.groq.com/openai/v1", 5),
        ("http://192.168.1.4/v1", 5), ("http://localhost.example.org/v1", 5), ("http://127.0.0.1.example.org", 5),
        (None, 5),
    ],
)  # fmt: skip
def test_linger_is_zero_on_loopback_only(url: str | None, seconds: float) -> None:
    """Only this machine's own addresses are known not to deliver late."""
    assert linger_seconds(url) == seconds


def test_accounts_share_quotas(load: Load) -> None:
    """Two providers of one account may repeat a quota, which is kept once; different figures are an error."""

    def two(second: int) -> dict[str, Any]:
        quotas = [[{"unit": "requests", "window": "60s", "limit": limit}] for limit in (10, second)]
        return {name: lab(account="shared", quotas=one) for name, one in zip(("a", "b"), quotas, strict=True)}

    found = load(providers=two(10)).providers
    assert [len(found[name].quotas) for name in ("a", "b")] == [1, 0]
    assert found["a"].quotas[0].account == "shared"
    with pytest.raises(ConfigError, match="shared"):
        load(providers=two(11))


def test_a_configured_hugging_face_replaces_the_legacy_section(load: Load) -> None:
    """A provider named like a legacy section is that provider, written out."""
    spec = load(providers={"hugging_face": lab(preset="hugging_face", api_key={"env": "PATH"})}).providers[
        "hugging_face"
    ]
    assert (spec.origin, spec.quotas) == ("config", ())


def test_credit_binds_priced_models_only(load: Load) -> None:
    """The monthly credit holds the models with a price; the others' cost is not known."""
    models = {"a": {"price": {"input_per_million_usd": 1}}, "b": {}}
    quotas = load(hugging_face={"models": models, "monthly_credit_usd": 2}).providers["hugging_face"].quotas
    credit = [quota for quota in quotas if quota.unit == "usd"]
    assert [(quota.limit, quota.models) for quota in credit] == [(2_000_000, frozenset({"a"}))]


# ---- local models ---------------------------------------------------------------------------------------------------


def test_local_models_are_found_by_name(load: Load, tmp_path: Path) -> None:
    """GGUF files are models by stem, without the number of a part; projectors are none; the default stands first."""
    pytest.importorskip("llama_cpp")
    folder = tmp_path / "gguf"
    deep = tmp_path / "hub" / "models--o--n" / "snapshots" / "rev"
    for place in (folder, deep):
        place.mkdir(parents=True)
    for file in ("b.gguf", "a.GGUF", "mmproj-a.gguf", "s-00001-of-00002.gguf", "s-00002-of-00002.gguf", "notes.txt"):
        (folder / file).touch()
    (deep / "cached.gguf").touch()
    section = {"models_dir": str(folder), "default_model": "b"}
    spec = load(local=section, hugging_face={"cache_dir": str(tmp_path / "hub")}).providers["local"]
    assert list(spec.plugin_config["files"]) == ["b", "a", "cached", "s"]
    assert (spec.not_configured, spec.plugin_config["default_model"]) == (None, "b")


def test_local_without_library_says_so(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """No llama-cpp-python: not configured, with the remedy. Files may come later, so their absence is no such state."""
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "hybridd[local]" in (load("{}").providers["local"].not_configured or "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert load("{}").providers["local"].not_configured is None


def test_builtin_providers_are_on_demand(load: Load) -> None:
    """local and specialists start when needed and stop when idle; their sections change that."""
    found = load(specialists={"enabled": False, "idle_stop_seconds": 5}, local={"enabled": False}).providers
    specialists, local = found["specialists"], found["local"]
    assert (specialists.enabled, specialists.start, specialists.idle_stop_seconds) == (False, "on_demand", 5)
    assert (local.enabled, local.start, local.idle_stop_seconds) == (False, "on_demand", 600)
    assert specialists.models["sentiment"].tasks == ("sentiment_analysis",)


def test_loading_imports_nothing_heavy(tmp_path: Path) -> None:
    """Loading a configuration imports neither llama_cpp nor numpy nor any network library."""
    import subprocess

    program = (
        "import sys\nfrom hybridd.config import loader\nloader.load(None)\n"
        "print([n for n in ('llama_cpp', 'numpy', 'httpx', 'aiohttp', 'sklearn') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_same_file_resolves_the_same_twice(load: Load) -> None:
    """Resolving is a function of file and machine: a reload of an unchanged file is equal in every part."""
    first, second = load(MISSION_SECOND_BLOCK), load(MISSION_SECOND_BLOCK)
    assert (first.providers, first.tasks, first.settings) == (second.providers, second.tasks, second.settings)
    assert loader.load(None).tasks == loader.load(None).tasks
