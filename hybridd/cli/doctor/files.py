"""Configuration, folders, disk space, socket."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from hybridd import locations
from hybridd.cli.doctor.finding import Finding
from hybridd.config import loader
from hybridd.config.resolve import resolve
from hybridd.config.resolved import Resolved
from hybridd.contracts.units import size
from hybridd.errors import ConfigError

LOW_BYTES = 500 * 1_000_000
LONGEST_SOCKET_PATH = 107  # sun_path holds 108 bytes, the last one NUL
_FIX = "hybridd doctor --fix"


def configuration(path: Path | None, *, fix: bool) -> tuple[list[Finding], Resolved | None]:
    """The file's form, meaning and permissions; what it resolves to, or None when it is broken."""
    place = path or locations.config_path()
    findings: list[Finding] = []
    if not place.exists():
        if fix:
            findings += _write_default(place)
        elif path is None:
            findings.append(Finding("configuration", "fact", f"{place}: none, everything has its default", _FIX))
    try:
        file = place if place.exists() or path is not None else None
        resolved = resolve(loader.read(file), file)
    except ConfigError as error:
        return [*findings, Finding("configuration", "error", error.message, "correct the file")], None
    if file is not None:
        findings.append(_permissions(file) or Finding("configuration", "ok", str(file)))
    return findings, resolved


def _write_default(place: Path) -> list[Finding]:
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with place.open("x", encoding="utf-8") as file:
            file.write(locations.default_config().read_text(encoding="utf-8"))
        place.chmod(0o600)
    except OSError as error:
        return [Finding("configuration", "error", f"{place}: cannot be written: {error.strerror}")]
    return [Finding("configuration", "fixed", f"wrote {place}")]


def _permissions(file: Path) -> Finding | None:
    """The file names programs to run (``command``): nobody else may change it."""
    facts = file.stat()
    if facts.st_uid not in {os.getuid(), 0}:
        return Finding("configuration", "error", f"{file} belongs to another user (uid {facts.st_uid})", "own it")
    if facts.st_mode & stat.S_IWOTH:
        return Finding("configuration", "error", f"{file} can be changed by every user", f"chmod o-w {file}")
    return None


def folders(resolved: Resolved | None, *, fix: bool) -> list[Finding]:
    """They exist and can be written; the state is private."""
    return [_folder(name, path, private, fix) for name, path, private in _folders(resolved)]


def _folders(resolved: Resolved | None) -> Iterator[tuple[str, Path, bool]]:
    yield "state", locations.state_dir(), True
    yield "runtime", locations.socket_path().parent, True
    yield "data", locations.data_dir(), False
    yield "cache", locations.cache_dir(), False
    yield "logs", locations.resolve("logs"), False
    if resolved is not None:
        yield "models", Path(resolved.providers["local"].plugin_config["models_dir"]), False
        yield "downloads", locations.resolve(resolved.settings.hugging_face.cache_dir), False


def _folder(name: str, path: Path, private: bool, fix: bool) -> Finding:
    check = f"folder {name}"
    if not path.exists():
        if not fix:
            return Finding(check, "fact", f"{path} does not exist yet; it is made when it is needed", _FIX)
        try:
            path.mkdir(mode=0o700 if private else 0o755, parents=True)
        except OSError as error:
            return Finding(check, "error", f"{path} cannot be made: {error.strerror}")
        return Finding(check, "fixed", f"made {path}")
    if not path.is_dir():
        return Finding(check, "error", f"{path} is not a folder", "move it away")
    if not os.access(path, os.W_OK | os.X_OK):
        return Finding(check, "error", f"{path} cannot be written", f"chown or chmod {path}")
    if private and path.stat().st_uid == os.getuid() and path.stat().st_mode & 0o077:
        if not fix:
            return Finding(check, "warning", f"{path} is open to other users", f"chmod 700 {path}")
        path.chmod(0o700)
        return Finding(check, "fixed", f"{path} is private now")
    return Finding(check, "ok", str(path))


def disk() -> list[Finding]:
    """Room for the database: without it nothing is dispatched."""
    place = locations.state_dir()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    shown = f"{size(free)} free at {place}"
    if free < LOW_BYTES:
        return [Finding("disk", "warning", shown, "make room: a full disk stops every call")]
    return [Finding("disk", "ok", shown)]


def socket_file() -> list[Finding]:
    """What stands at the socket's path, and does anybody answer?"""
    path = locations.socket_path()
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        remedy = "set HYBRIDD_SOCKET to a shorter path"
        return [Finding("socket", "error", f"{path} is longer than {LONGEST_SOCKET_PATH} bytes", remedy)]
    try:
        facts = path.lstat()
    except FileNotFoundError:
        return [Finding("socket", "fact", f"{path}: no daemon", "hybridd serve")]
    except OSError as error:
        return [Finding("socket", "error", f"{path}: {error.strerror}")]
    if not stat.S_ISSOCK(facts.st_mode):
        return [Finding("socket", "error", f"{path} is not a socket", "move it away")]
    if facts.st_uid not in {os.getuid(), 0}:
        return [Finding("socket", "error", f"{path} belongs to another user (uid {facts.st_uid})")]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return [
                Finding("socket", "fact", f"{path} is left over from a daemon that ended; the next one replaces it")
            ]
        except OSError as error:
            return [Finding("socket", "error", f"{path}: {error.strerror or error}")]
    return [Finding("socket", "ok", str(path))]
