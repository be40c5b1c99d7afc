from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hybridd.config import loader
from hybridd.config.resolved import Resolved

KEY_VARIABLES = ("GITHUB_TOKEN", "GH_TOKEN", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HOME", "GROQ_API_KEY")


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No keys, no configuration, no `gh`: a fresh home."""
    for name in (*KEY_VARIABLES, "HYBRIDD_CONFIG", "HYBRIDD_BASE", "HYBRIDD_STATE_DIR", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("STATE", "DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.setenv("HOME", str(tmp_path))
    empty = tmp_path / "bin"
    empty.mkdir()
    monkeypatch.setenv("PATH", str(empty))


Load = Callable[..., Resolved]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Write a configuration and load it: a text as it stands, members as JSON."""

    def write(text: str | None = None, **members: Any) -> Resolved:
        path = tmp_path / "hybrid_config.json"
        path.write_text(json.dumps(members) if text is None else text, encoding="utf-8")
        return loader.load(path)

    return write
