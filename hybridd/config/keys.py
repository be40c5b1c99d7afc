"""Where keys are found: existence only. The daemon never reads a key; the plugin that needs it does."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from hybridd import locations
from hybridd.config.settings import KeyReference

# Passed to a plugin whose key comes from a program: what `gh` and password managers need to find their own store.
_COMMAND_VARIABLES = (
    "GH_TOKEN",
    "GH_CONFIG_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "GNUPGHOME",
    "PASSWORD_STORE_DIR",
)


def missing(reference: KeyReference | None) -> str | None:
    """Why the key cannot be there, as a sentence; None when the place it is referred to exists."""
    if reference is None:
        return None
    if reference.env is not None:
        if os.environ.get(reference.env):
            return None
        return f"no key: the environment variable {reference.env} is not set"
    if reference.file is not None:
        path = locations.resolve(reference.file)
        try:
            readable = path.is_file() and os.access(path, os.R_OK)
        except OSError:
            readable = False
        return None if readable else f"no key: the file {path} does not exist or cannot be read"
    if reference.credential is not None:
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if not directory:
            return f"no key: systemd credential {reference.credential} (CREDENTIALS_DIRECTORY is not set)"
        if (Path(directory) / reference.credential).is_file():
            return None
        return f"no key: there is no systemd credential {reference.credential}"
    program = (reference.command or [""])[0]
    if shutil.which(program):
        return None
    return f"no key: the program {program} is not installed"


def as_config(reference: KeyReference | None) -> dict[str, object] | None:
    """The reference as it travels to the plugin: one member, paths made absolute."""
    if reference is None:
        return None
    given = reference.model_dump(exclude_none=True)
    if reference.file is not None:
        given["file"] = str(locations.resolve(reference.file))
    return given


def environment(reference: KeyReference | None) -> tuple[str, ...]:
    """Names of the variables that a plugin needs to resolve the reference."""
    if reference is None:
        return ()
    if reference.env is not None:
        return (reference.env,)
    if reference.credential is not None:
        return ("CREDENTIALS_DIRECTORY",)
    return _COMMAND_VARIABLES if reference.command is not None else ()


def github(given: KeyReference | None) -> tuple[KeyReference, str | None]:
    """The GitHub token: the reference given, else ``GITHUB_TOKEN``, else ``gh auth token`` if ``gh`` is installed."""
    if given is not None:
        return given, missing(given)
    variable = KeyReference(env="GITHUB_TOKEN")
    if os.environ.get("GITHUB_TOKEN"):
        return variable, None
    if shutil.which("gh"):
        return KeyReference(command=["gh", "auth", "token"]), None
    return variable, "no key: the environment variable GITHUB_TOKEN is not set and the program gh is not installed"


def hugging_face(given: KeyReference | None) -> tuple[KeyReference, str | None]:
    """The Hugging Face token: the reference given, else ``HF_TOKEN``, else the Hub client's own token file."""
    if given is not None:
        return given, missing(given)
    variable = KeyReference(env="HF_TOKEN")
    if os.environ.get("HF_TOKEN"):
        return variable, None
    stored = _hub_token_file()
    if missing(KeyReference(file=str(stored))) is None:
        return KeyReference(file=str(stored)), None
    return variable, f"no key: the environment variable HF_TOKEN is not set and {stored} does not exist"


def _hub_token_file() -> Path:
    explicit = os.environ.get("HF_TOKEN_PATH")
    if explicit:
        return Path(explicit).expanduser().absolute()
    home = os.environ.get("HF_HOME")
    if home:
        return Path(home).expanduser().absolute() / "token"
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if cache.startswith("/") else Path.home() / ".cache") / "huggingface" / "token"
