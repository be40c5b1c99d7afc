"""From a file to settings, with every mistake named.

``read`` checks form (JSON, keys, types, ranges) and then meaning (names, references, secrets that stand where only
references may). ``load`` also resolves.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hybridd import locations
from hybridd.config import checks, mistakes
from hybridd.config.jsonfile import Document
from hybridd.config.resolve import resolve
from hybridd.config.resolved import Resolved
from hybridd.config.settings import Settings
from hybridd.errors import ConfigError

# Keys in the formats that well-known hosts use: refused wherever they stand, and never echoed.
_KEY_FORMATS = re.compile(
    r"^(sk-|sk_|ghp_|gho_|ghu_|ghs_|github_pat_|hf_|gsk_|csk-|xai-|nvapi-|AIza|Bearer )[A-Za-z0-9_\-.]{12,}$"
)


def find(path: Path | None) -> Path | None:
    """The file to read: the one given (by ``--config`` or ``HYBRIDD_CONFIG``; it must exist), else the XDG place when a
    file is there, else none."""
    if path is not None:
        return path
    default = locations.config_path()
    return default if default.exists() or os.environ.get("HYBRIDD_CONFIG") else None


def read(path: Path | None) -> Settings:
    """The settings of a file; the defaults when ``path`` is None.

    Raises:
        ConfigError: names the file, line, key and what would be right.
    """
    return Settings() if path is None else parse(Document.read(path))


def parse(document: Document) -> Settings:
    """The settings of a parsed document; see :func:`read`."""
    data = dict(document.data)
    schema = data.pop("$schema", None)  # editors look it up; it means nothing here
    if schema is not None and not isinstance(schema, str):
        document.fail(("$schema",), "must be a text")
    _refuse_keys(document, data, ())
    try:
        settings = Settings.model_validate(data, strict=True)
    except ValidationError as error:
        problems = mistakes.describe(document, error.errors(include_url=False))
        details = [{"key": ".".join(map(str, key)), "message": text} for key, text in problems]
        first = ".".join(map(str, problems[0][0])) if problems else None
        raise ConfigError(mistakes.join(document, problems), param=first, details=details) from None
    checks.check(document, settings)
    return settings


def load(path: Path | None = None) -> Resolved:
    """Read and resolve. ``None``: the default place (``HYBRIDD_CONFIG`` or XDG) when a file is there, else defaults.

    Raises:
        ConfigError: see :func:`read`.
    """
    file = find(path)
    return resolve(read(file), file)


def _refuse_keys(document: Document, value: Any, path: tuple[str | int, ...]) -> None:
    """A string in the format of a well-known key is a leaked secret wherever it stands."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _refuse_keys(document, inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _refuse_keys(document, inner, (*path, index))
    elif isinstance(value, str) and _KEY_FORMATS.match(value):
        document.fail(
            path,
            "this looks like a key itself, which never stands in the configuration (treat it as leaked); "
            f"write where it is found: {mistakes.KEY_REFERENCE_FORMS}",
        )
