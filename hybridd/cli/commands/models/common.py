"""What the library's commands share: where the files are, what is loaded, sizes, names to complete."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from hybridd.cli import output
from hybridd.client import wire
from hybridd.client.stdlib import Api
from hybridd.config import loader
from hybridd.config.settings import Settings
from hybridd.errors import DaemonUnreachable, HybriddError, NotFound
from hybridd.local import library
from hybridd.local.library import Folders

Function = Callable[..., Any]


def config_option(function: Function) -> Function:
    """``--config``: whose folders are meant."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        help="Use this configuration (default: the running daemon's, else the default one's).",
    )(function)


def resident(api: Api) -> dict[str, Any] | None:
    """The daemon's view of what is loaded; None without a daemon, and then nothing is loaded."""
    try:
        view = Api(api.socket, timeout=10.0).send(wire.get("/v1/local/resident"))
    except (DaemonUnreachable, NotFound):
        return None
    return view if isinstance(view, dict) else None


def loaded(view: dict[str, Any] | None) -> dict[str, str]:
    """Model → state (``loading``, ``ready``, ``draining``), of those that hold memory."""
    return {str(one["model"]): str(one["state"]) for one in (view or {}).get("models", ())}


def folders(config: Path | None, view: dict[str, Any] | None) -> Folders:
    """The folders of ``--config``, else those the running daemon works with, else those of the default configuration.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    told = view.get("folders") if view else None
    if config is None and isinstance(told, dict) and told.get("models_dir") and told.get("cache_dir"):
        default = told.get("default_path")
        return Folders(Path(told["models_dir"]), Path(told["cache_dir"]), Path(default) if default else None)
    return library.folders(settings(config))


def settings(config: Path | None, api: Api | None = None) -> Settings:
    """Of ``--config``, else (``api``) of the running daemon's configuration, else of the default one.

    Raises:
        ConfigError: it cannot be used.
    """
    return loader.read(loader.find(config or (_daemons(api) if api is not None else None)))


def _daemons(api: Api) -> Path | None:
    """The file that the running daemon reads; None without one, or without a daemon."""
    try:
        status = Api(api.socket, timeout=10.0).send(wire.get("/v1/status"))
    except (DaemonUnreachable, NotFound):
        return None
    path = status.get("config") if isinstance(status, dict) else None
    return Path(path) if path else None


def short(count: float | None) -> str:
    """Large counts for people: ``4.0 B`` (billions), ``150 M``, ``12 k``."""
    if count is None:
        return "-"
    for unit, power in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= power:
            return f"{count / power:.1f} {unit}" if count < 10 * power else f"{count / power:.0f} {unit}"
    return f"{count:.0f}"


def complete_model(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Names of models that begin like that; a broken configuration completes nothing."""
    try:
        where = library.folders(settings(None))
        return [CompletionItem(one.id) for one in library.models(where, {}) if one.id.startswith(begun)]
    except HybriddError:
        return []


def model_argument(function: Function) -> Function:
    """``MODEL``, as ``name``."""
    return click.argument("name", metavar="MODEL", shell_complete=complete_model)(function)


def emit_state(done: dict[str, Any], as_json: bool, sentence: str) -> None:
    """One result: the JSON, or a sentence."""
    if as_json:
        output.emit_json(done)
    else:
        output.emit(sentence)
