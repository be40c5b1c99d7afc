"""Where a key is found. Keys are read here, in the plugin's own process, and nowhere else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

COMMAND_SECONDS = 10.0


class KeyUnavailable(Exception):
    """The reference is fine but there is no key behind it; the message says where it was looked for, never the key."""


def resolve_key(reference: dict[str, Any] | None) -> str | None:
    """The key behind ``{"env"|"file"|"credential"|"command": …}``; None for no reference.

    Blocking: a command may take up to 10 s, so call it once, in ``start``.

    Raises:
        KeyUnavailable: unset variable, unreadable or empty file, failing command.
    """
    if not reference:
        return None
    for kind, read in _READERS.items():
        value = reference.get(kind)
        if value:
            key = read(value).strip()
            if not key:
                raise KeyUnavailable(f"{kind} {_named(value)} is empty")
            if any(ord(character) < 0x20 or ord(character) == 0x7F for character in key):
                raise KeyUnavailable(f"{kind} {_named(value)} holds more than one line or control characters")
            return key
    raise KeyUnavailable("a key reference needs one of env, file, credential, command")


def _named(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) else str(value)


def _from_env(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise KeyUnavailable(f"environment variable {name} is not set")
    return value


def _from_file(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise KeyUnavailable(f"file {path}: {reason}") from None


def _from_credential(name: str) -> str:
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        raise KeyUnavailable(f"credential {name}: CREDENTIALS_DIRECTORY is not set (not started by systemd?)")
    if "/" in name or name in (".", ".."):
        raise KeyUnavailable(f"credential {name}: a plain name is needed")
    return _from_file(f"{directory}/{name}")


def _from_command(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
        )
    except (OSError, ValueError) as error:
        raise KeyUnavailable(f"command {_named(command)}: {error}") from None
    except subprocess.TimeoutExpired:
        raise KeyUnavailable(f"command {_named(command)} took longer than {COMMAND_SECONDS:g} s") from None
    if done.returncode != 0:
        # Its output is not repeated: a failing helper may print half a secret.
        raise KeyUnavailable(f"command {_named(command)} exited with {done.returncode}")
    return done.stdout


_READERS: dict[str, Callable[[Any], str]] = {
    "env": _from_env,
    "file": _from_file,
    "credential": _from_credential,
    "command": _from_command,
}
