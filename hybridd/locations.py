"""Every path hybridd uses, in one module.

Nothing is ever looked up through the working directory. Relative paths of the configuration resolve under
``HYBRIDD_BASE`` when it is set (the start script sets it to the checkout) and under the state directory otherwise.
"""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _xdg(variable: str, fallback: str) -> Path:
    value = os.environ.get(variable, "")
    return Path(value) if value.startswith("/") else Path.home() / fallback


def state_dir() -> Path:
    """``HYBRIDD_STATE_DIR``, systemd's ``STATE_DIRECTORY``, or ``$XDG_STATE_HOME/hybridd``."""
    explicit = os.environ.get("HYBRIDD_STATE_DIR") or os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    return Path(explicit) if explicit else _xdg("XDG_STATE_HOME", ".local/state") / "hybridd"


def data_dir() -> Path:
    """Downloads and trained models: ``$XDG_DATA_HOME/hybridd``."""
    return _xdg("XDG_DATA_HOME", ".local/share") / "hybridd"


def cache_dir() -> Path:
    return _xdg("XDG_CACHE_HOME", ".cache") / "hybridd"


def config_path() -> Path:
    """The configuration read when ``--config`` is not given: ``HYBRIDD_CONFIG`` or the XDG place."""
    explicit = os.environ.get("HYBRIDD_CONFIG")
    return Path(explicit) if explicit else _xdg("XDG_CONFIG_HOME", ".config") / "hybridd" / "hybrid_config.json"


def runtime_dir() -> Path:
    explicit = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if explicit:
        return Path(explicit)
    xdg = os.environ.get("XDG_RUNTIME_DIR", "")
    if xdg.startswith("/"):
        return Path(xdg) / "hybridd"
    # Without a login session there is no runtime directory; the state directory is private to the user as well.
    return Path("/run/hybridd") if os.getuid() == 0 and Path("/run/hybridd").is_dir() else state_dir() / "run"


def socket_path() -> Path:
    explicit = os.environ.get("HYBRIDD_SOCKET")
    return Path(explicit) if explicit else runtime_dir() / "hybridd.sock"


def database_path() -> Path:
    return state_dir() / "hybridd.db"


def resolve(path: str | Path) -> Path:
    """A path of the configuration: ``~`` expanded, relative ones under HYBRIDD_BASE or the state directory."""
    candidate = Path(path).expanduser()
    if candidate.is_absolute():
        return candidate
    base = os.environ.get("HYBRIDD_BASE")
    return (Path(base) if base else state_dir()) / candidate


def _bundled(name: str) -> Path:
    inside = _PACKAGE / "_bundled" / name
    return inside if inside.exists() else _PACKAGE.parent / name


def migrations_dir() -> Path:
    return _bundled("migrations")


def plugins_dir() -> Path:
    """The folder that holds the bundled plugin programs, importable as ``plugins.<name>`` from its parent."""
    return _bundled("plugins")


def default_config() -> Path:
    inside = _PACKAGE / "_bundled" / "hybrid_config.json"
    return inside if inside.exists() else _PACKAGE.parent / "config" / "ml" / "hybrid_config.json"
