"""Every bundled plugin passes the check that authors run on theirs, through the real hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hybridd.providers.check import check
from hybridd.providers.check_report import render
from tests.fakes.tiny_gguf import make_tiny_gguf
from tests.fakes.upstream import FakeUpstream
from tests.plugins.support import ROOT


@pytest.mark.parametrize("name", ["openai_compatible", "github_models", "llama_cpp", "specialists"])
async def test_bundled_plugin_conforms(name: str, tmp_path: Path) -> None:
    """A bundled program keeps every rule of the public protocol."""
    if name == "llama_cpp":
        pytest.importorskip("llama_cpp")
        make_tiny_gguf(tmp_path / "tiny.gguf", never_ends=True)
    with FakeUpstream() as fake:
        settings: dict[str, dict[str, Any]] = {
            "openai_compatible": {"base_url": fake.base_url, "models": {"m1": {}}},
            "github_models": {"base_url": fake.url, "rate_limit_url": f"{fake.url}/rate_limit", "models": {"m1": {}}},
            "llama_cpp": {"model": "tiny", "path": str(tmp_path / "tiny.gguf"), "options": {"context": 256}},
            "specialists": {"cache_dir": str(tmp_path)},
        }
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        report = await check(name, settings=settings[name], environ=environ)
    assert report.ok, render(report)
    assert [rule.name for rule in report.rules if rule.verdict != "pass"] == []
