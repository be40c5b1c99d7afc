"""The generated reference and schema equal what the settings say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # ships no stubs
import pytest

from hybridd.config import reference
from hybridd.config.settings import Settings
from tests.config.test_loader import MISSION_SECOND_BLOCK

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", sorted(reference.targets(ROOT)))
def test_generated_files_are_current(path: Path) -> None:
    """docs/configuration.md and the schema are what `python -m hybridd.config.reference --write` makes."""
    assert path.read_text(encoding="utf-8") == reference.targets(ROOT)[path]


def test_every_setting_is_documented() -> None:
    """Every key of the settings has a description, and the reference shows it."""
    page = reference.markdown()

    def visit(model: Any) -> None:
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name} has no docstring"
            assert f"| `{name}` |" in page
            section = reference._section_in(field.annotation)
            if section is not None:
                visit(section)

    visit(Settings)


def test_the_schema_accepts_the_missions_files() -> None:
    """The JSON Schema is valid itself and accepts both blocks of the mission, with and without ``$schema``."""
    schema = reference.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    first = json.loads((ROOT / "config" / "ml" / "hybrid_config.json").read_text(encoding="utf-8"))
    validator.validate(first)
    validator.validate({"$schema": "x", **first, **json.loads(MISSION_SECOND_BLOCK)})


@pytest.mark.parametrize(
    "wrong",
    [
        {"flags": {"use_olama": True}},
        {"providers": {"auto": {"plugin": "x"}}},
        {"providers": {"a": {"plugin": "x", "api_key": "secret"}}},
        {"providers": {"a": {"plugin": "x", "api_key": {"env": "A", "file": "b"}}}},
        {"providers": {"a": {"plugin": "x", "quotas": [{"unit": "requests", "limit": 1, "window": "60"}]}}},
        {"github_models": {"rate_limit_buffer": -1}},
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(wrong: dict[str, Any]) -> None:
    """An editor with the schema sees the common mistakes."""
    assert list(jsonschema.Draft202012Validator(reference.schema()).iter_errors(wrong))
