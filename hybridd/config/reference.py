"""The configuration reference and its JSON Schema, made from the settings models.

``python -m hybridd.config.reference --write`` writes ``docs/configuration.md`` and
``config/ml/hybrid_config.schema.json`` in a checkout; tests hold both equal to what this module makes.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from hybridd.config.presets import PRESETS, ROLES
from hybridd.config.settings import Section, Settings
from hybridd.config.tasks import resolve_tasks

_NAME_PATTERN = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
_SOURCE = "hybridd/config/settings.py"


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the configuration file."""
    made: dict[str, Any] = _plain(Settings.model_json_schema())
    properties = made["properties"]
    properties["$schema"] = {"type": "string", "description": "Where editors find this schema; ignored."}
    names = {"pattern": _NAME_PATTERN}
    properties["providers"]["propertyNames"] = {**names, "not": {"enum": ["auto", "local", "specialists", "task"]}}
    properties["tasks"]["propertyNames"] = names
    properties["experiments"]["propertyNames"] = names
    made["$defs"]["KeyReference"] |= {"minProperties": 1, "maxProperties": 1}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "hybridd configuration",
        **{key: value for key, value in made.items() if key != "title"},
    }


def schema_text() -> str:
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def markdown() -> str:
    """``docs/configuration.md``."""
    parts = [_INTRODUCTION, _table(Settings), *_sections(), _presets(), _roles()]
    return "\n\n".join(part.strip() for part in parts) + "\n"


_INTRODUCTION = f"""
# Configuration

<!-- Made by `python -m hybridd.config.reference --write` from {_SOURCE}; a test holds it equal. Edit there. -->

One JSON file: the one given with `--config`, else `HYBRIDD_CONFIG`, else `$XDG_CONFIG_HOME/hybridd/hybrid_config.json`.
Without a file everything has its default. `config/ml/hybrid_config.json` is an example that loads as it is, and
`config/ml/hybrid_config.schema.json` lets an editor complete and check (`"$schema"` at the top names it; it is ignored
otherwise).

- A mistake is an error that names the file, line and column, the key, and what would be right; an unknown key names
  the nearest known one. On a reload (`hybridd reload`, SIGHUP) a broken file is refused and the old settings stay.
- Keys never stand in the file. An `api_key` says where the key is found: `{{"env": "NAME"}}`, `{{"file": "PATH"}}`,
  `{{"credential": "NAME"}}` (systemd) or `{{"command": ["gh", "auth", "token"]}}`. It is read by the plugin that needs
  it, never by the daemon. A provider whose key is not there is "not configured", which is a state and not an error.
- Relative paths resolve under `HYBRIDD_BASE` when it is set, otherwise under the state directory.
- A model reference is `provider:model` (`provider::model` works too), split at the first colon when what stands before
  it is a provider. In a list of candidates `provider:*`, or the provider's name alone, means all its models.
"""

_PRESETS = """
## Presets

`preset` fills in what is left out: the base URL, how limit headers are read, and the usual variable of the key. Limits
are not part of it: state yours under `quotas`; those the host reports are learned.
""".strip()

_ROLES = """
## Default tasks

GitHub Models was switched off in July 2026, so the providers you configure stand right behind its role and inherit it.
`preferred_models` puts a model first; a task named under `tasks` is exactly what it says there.
""".strip()


def _sections() -> list[str]:
    done: set[type[Section]] = {Settings}
    made: list[str] = []

    def visit(model: type[Section], place: str) -> None:
        for name, field in model.model_fields.items():
            section = _section_in(field.annotation)
            if section is None or section in done:
                continue
            done.add(section)
            where = f"{place}{name}{_suffix(field.annotation)}"
            made.append(f"## `{where}`\n\n{_text(section.__doc__ or '')}\n\n{_table(section)}")
            visit(section, f"{where}.")

    visit(Settings, "")
    return made


def _table(model: type[Section]) -> str:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        meaning = _text(field.description or "").replace("|", "\\|")
        rows.append(f"| `{name}` | {_type_name(field.annotation)} | {_default(field)} | {meaning} |")
    return "\n".join(rows)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**needed**"
    value = field.default
    if value is None or value is PydanticUndefined:
        return "–"
    if isinstance(value, BaseModel):
        return "see below"
    text = json.dumps(value, ensure_ascii=False)
    return f"`{text}`"


def _type_name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return " or ".join(f'`"{value}"`' for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_type_name(argument) for argument in arguments if argument is not type(None))
    if origin is list:
        return f"list of {_type_name(arguments[0])}"
    if origin is dict:
        return f"object of {_type_name(arguments[1])}"
    names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return names.get(annotation, "anything" if annotation is Any else "object")


def _section_in(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    found = [_section_in(argument) for argument in get_args(annotation)]
    return next((section for section in found if section is not None), None)


def _suffix(annotation: Any) -> str:
    if get_origin(annotation) is dict:
        return ".<name>"
    if get_origin(annotation) is list:
        return "[]"
    return ""


def _presets() -> str:
    rows = ["| preset | base URL | key's variable | note |", "|---|---|---|---|"]
    rows += [
        f"| `{name}` | {f'`{preset.base_url}`' if preset.base_url else '**needed**'} "
        f"| {f'`{preset.key_env}`' if preset.key_env else 'none'} | {preset.note} |"
        for name, preset in PRESETS.items()
    ]
    return f"{_PRESETS}\n\n" + "\n".join(rows)


def _roles() -> str:
    """The default tasks, as they stand without any configuration."""
    tasks = resolve_tasks(Settings())
    rows = ["| task | candidates in order |", "|---|---|"]
    for name, role in ROLES.items():
        shown = []
        for candidate in tasks[name].candidates:
            shown.append(f"`{candidate}`")
            if candidate.provider == "github_models" and "users" in role.order:
                shown.append("your providers")
        rows.append(f"| `{name}` | {', '.join(shown)} |")
    return f"{_ROLES}\n\n" + "\n".join(rows)


def _text(docstring: str) -> str:
    return " ".join(docstring.split()).replace("``", "`")


def _plain(value: Any) -> Any:
    """Descriptions in Markdown rather than reStructuredText, and without pydantic's repetition of titles."""
    if isinstance(value, dict):
        return {
            key: _text(inner) if key == "description" and isinstance(inner, str) else _plain(inner)
            for key, inner in value.items()
            if not (key == "title" and isinstance(inner, str))
        }
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value


def targets(root: Path) -> dict[Path, str]:
    """The generated files of a checkout and their contents."""
    return {
        root / "docs" / "configuration.md": markdown(),
        root / "config" / "ml" / "hybrid_config.schema.json": schema_text(),
    }


def main(arguments: list[str]) -> int:
    root = Path(__file__).resolve().parents[2]
    if arguments != ["--write"]:
        sys.stdout.write(markdown())
        return 0
    for path, text in targets(root).items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
