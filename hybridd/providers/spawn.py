"""Starting and ending plugin processes.

Spawned from the main thread: PR_SET_PDEATHSIG fires when the spawning *thread* ends. The signal is asked for by a tiny
launcher in the child (``hybridd/plugin/launch.py``), which then becomes the plugin by exec: no code runs between fork
and exec in a copy of the daemon.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
import signal
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import msgspec

from hybridd import locations
from hybridd.config.resolved import ProviderSpec
from hybridd.contracts.protocol import HELD_VARIABLE, TOKEN_VARIABLE
from hybridd.errors import ProviderError
from hybridd.providers.link import Timing

STDERR_LINES = 50
LINE_CHARACTERS = 500
PIPE_SECONDS = 0.5
# What a plugin may print in a second: beyond the bytes its pipe is not read (it waits), beyond the lines they are only
# kept for the tail. One that printed without end wrote 7 MB/s to the daemon's log and held its loop for 100 ms a time.
OUTPUT_BYTES = 1024 * 1024
LOGGED_LINES = 200
# Found by file: importing the SDK here would cost the daemon its memory.
LAUNCHER = Path(locations.__file__).parent / "plugin" / "launch.py"

# What every program needs to run, find its files and reach the network; never a key. Everything else must be named.
PASSED = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV",
    "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME",
    "CREDENTIALS_DIRECTORY", "HYBRIDD_BASE", "HYBRIDD_STATE_DIR", "STATE_DIRECTORY", "RUNTIME_DIRECTORY",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
    "http_proxy", "https_proxy", "no_proxy", "all_proxy", "DBUS_SESSION_BUS_ADDRESS", "GH_CONFIG_DIR",
    "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "NVIDIA_VISIBLE_DEVICES",
})  # fmt: skip
PASSED_PREFIXES = ("LC_", "COVERAGE_")


class SpawnFailed(ProviderError):
    """The program cannot be started at all; trying again changes nothing."""

    code = "plugin_not_started"


class SpawnContext(msgspec.Struct, frozen=True):
    """What the supervisor needs of the world: where plugins connect, the daemon's environment, randomness, delays."""

    socket: Path
    environ: Mapping[str, str] = msgspec.field(default_factory=lambda: dict(os.environ))
    rng: random.Random = msgspec.field(default_factory=random.Random)
    timing: Timing = Timing()
    cwd: Path | None = None

    def working_directory(self) -> str:
        """Where relative paths of the configuration resolve: never where the daemon happened to be started."""
        directory = self.cwd or locations.resolve(".")
        return str(directory) if directory.is_dir() else "/"


class ProcessPlan(msgspec.Struct, frozen=True):
    """Everything a process depends on: an equal plan keeps a running process."""

    key: str
    plugin: str
    command: tuple[str, ...]
    environment: tuple[str, ...]
    config: dict[str, dict[str, object]]
    on_demand: bool
    idle_stop: float | None
    key_files: tuple[tuple[str, int, int, int], ...] = ()
    """What tells a changed key file from an unchanged one; never what is in it."""


def is_bundled(name: str) -> bool:
    """Is there a plugin program of that name in ``plugins/``?"""
    if not name.isidentifier():
        return False
    directory = locations.plugins_dir()
    return (directory / name / "__main__.py").is_file() or (directory / f"{name}.py").is_file()


def command_of(spec: ProviderSpec) -> tuple[str, ...] | None:
    """The program behind a provider; None for plugins that connect by themselves."""
    if spec.command is not None:
        return spec.command
    return (sys.executable, "-m", f"plugins.{spec.plugin}") if is_bundled(spec.plugin) else None


def is_spawned(spec: ProviderSpec) -> bool:
    return command_of(spec) is not None


def plans(specs: Mapping[str, ProviderSpec]) -> dict[str, ProcessPlan]:
    """One plan for each process that something enabled and configured needs."""
    groups: dict[str, list[ProviderSpec]] = {}
    for spec in specs.values():
        if spec.enabled and spec.not_configured is None and is_spawned(spec):
            groups.setdefault(spec.process or spec.name, []).append(spec)
    made = {}
    for key, members in groups.items():
        command = command_of(members[0])
        assert command is not None
        idle = [member.idle_stop_seconds for member in members]
        kept = [seconds for seconds in idle if seconds is not None]
        made[key] = ProcessPlan(
            key=key,
            plugin=members[0].plugin,
            command=command,
            environment=tuple(sorted({name for member in members for name in member.environment})),
            config={member.name: member.plugin_config for member in members},
            on_demand=all(member.start == "on_demand" for member in members),
            idle_stop=max(kept) if len(kept) == len(idle) else None,
            key_files=tuple(stamp for member in members if (stamp := _key_file(member)) is not None),
        )
    return made


def _key_file(spec: ProviderSpec) -> tuple[str, int, int, int] | None:
    reference = spec.plugin_config.get("api_key") or {}
    path = reference.get("file")
    if path is None and reference.get("credential"):
        path = os.path.join(os.environ.get("CREDENTIALS_DIRECTORY", ""), str(reference["credential"]))
    if path is None:
        return None
    try:
        found = os.stat(path)
    except OSError:
        return (str(path), 0, 0, 0)
    return (str(path), found.st_ino, found.st_mtime_ns, found.st_size)


def environment(context: SpawnContext, plan: ProcessPlan, token: str) -> dict[str, str]:
    """The child's whole environment: the basics, the referenced names, the socket and the one-time token."""
    passed = {
        name: value
        for name, value in context.environ.items()
        if name in PASSED or name.startswith(PASSED_PREFIXES) or name in plan.environment
    }
    # The daemon's own interpreter comes first, so that `python3` finds the SDK and `hybridd plugin bridge` is found.
    passed["PATH"] = os.pathsep.join((os.path.dirname(sys.executable), passed.get("PATH", os.defpath)))
    passed["HYBRIDD_SOCKET"] = str(context.socket)
    passed[TOKEN_VARIABLE] = token
    if plan.command[1:2] == ("-m",):
        passed["PYTHONPATH"] = str(locations.plugins_dir().parent)
    return passed


class Child(asyncio.SubprocessProtocol):
    """One running process in its own session and process group. ``exited`` resolves to its return code."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str, secrets: Sequence[str]) -> None:
        self.exited: asyncio.Future[int] = loop.create_future()
        self.stderr: deque[str] = deque(maxlen=STDERR_LINES)
        self.pid = 0
        self._transport: asyncio.SubprocessTransport | None = None
        self._loop = loop
        self._partial: dict[int, bytes] = {}
        self._since = float("-inf")
        self._bytes = self._lines = 0
        self._secrets = secrets
        self._log = logging.getLogger(f"hybridd.plugin.{name}")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)
        self.pid = self._transport.get_pid()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        *lines, rest = (self._partial.get(fd, b"") + data).split(b"\n")
        # A program that never ends its line must not fill the daemon's memory. The front stays: cut off, it could leave
        # half a key that is no longer recognised.
        self._partial[fd] = rest[: 4 * LINE_CHARACTERS]
        now = self._loop.time()
        if now - self._since >= 1.0:
            self._since, self._bytes, self._lines = now, 0, 0
        room = max(0, LOGGED_LINES - self._lines)
        self._lines += len(lines)
        for line in lines[:room]:
            self._keep(line)
        if room and len(lines) > room:
            self._log.warning("it prints more than %d lines a second; the rest is left out here", LOGGED_LINES)
        for line in lines[room:][-STDERR_LINES:]:
            self._keep(line, logged=False)
        self._bytes += len(data)
        if self._bytes > OUTPUT_BYTES and self._transport is not None:
            pipe = cast("asyncio.ReadTransport | None", self._transport.get_pipe_transport(fd))
            if pipe is not None and not pipe.is_closing() and pipe.is_reading():
                pipe.pause_reading()
                self._loop.call_later(self._since + 1.0 - now, self._read_on, pipe)

    @staticmethod
    def _read_on(pipe: asyncio.ReadTransport) -> None:
        if not pipe.is_closing():
            pipe.resume_reading()

    def process_exited(self) -> None:
        self.kill(signal.SIGKILL)  # whatever it left behind in its group
        # Its last words are still in the pipes; `connection_lost` follows once they are read. A child that left the
        # group may hold them open.
        self._loop.call_later(PIPE_SECONDS, self._resolve)

    def connection_lost(self, exc: Exception | None) -> None:
        self._resolve()

    def kill(self, number: signal.Signals) -> None:
        """Signals the whole group; a group that is gone is fine."""
        if self.pid <= 0:
            return  # group 0 would be the daemon's own
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return
        except PermissionError:
            self._log.warning("process group %d may not be signalled", self.pid)

    def go(self) -> None:
        """Lets a held process connect."""
        pipe = self._transport.get_pipe_transport(0) if self._transport is not None else None
        if pipe is not None:
            pipe = cast(asyncio.WriteTransport, pipe)
            pipe.write(b"\n")
            pipe.close()

    def death(self) -> str:
        """How it ended, with its last words; only once ``exited``."""
        code = self.exited.result()
        how = f"exited with {code}" if code >= 0 else f"killed by {_signal_name(-code)}"
        last = self.stderr[-1] if self.stderr else ""
        return f"{how}: {last}" if last else how

    def close(self) -> None:
        """Frees the pipes once the process is gone."""
        if self._transport is not None:
            self._transport.close()

    def _resolve(self) -> None:
        if self.exited.done():
            return
        for rest in self._partial.values():
            self._keep(rest)
        self._partial.clear()
        code = self._transport.get_returncode() if self._transport is not None else None
        self.exited.set_result(-1 if code is None else code)

    def _keep(self, line: bytes, *, logged: bool = True) -> None:
        # Keys go before anything is cut: half a key would not be found any more.
        text = line[: 8 * LINE_CHARACTERS].decode("utf-8", "replace").rstrip()
        for secret in self._secrets:
            text = text.replace(secret, "[redacted]")
        text = text[:LINE_CHARACTERS]
        if text:
            self.stderr.append(text)
            if logged:
                self._log.info("%s", text)


async def spawn(context: SpawnContext, plan: ProcessPlan, token: str, *, held: bool = False) -> Child:
    """Starts the plan's program; ``held``: it waits for :meth:`Child.go` before it connects.

    Raises:
        SpawnFailed: the program does not exist or may not be executed.
    """
    if threading.current_thread() is not threading.main_thread():
        raise SpawnFailed("plugins are started from the main thread only: their death signal is tied to it")
    program = plan.command[0]
    if "/" in program and not program.startswith("/"):
        program = str(locations.resolve(program))
    env = environment(context, plan, token) | ({HELD_VARIABLE: "1"} if held else {})
    found = shutil.which(program, path=env["PATH"])
    if found is None:
        raise SpawnFailed(f"program {plan.command[0]!r} does not exist or is not executable")
    secrets = [value for name in plan.environment if len(value := context.environ.get(name, "")) >= 8] + [token]
    loop = asyncio.get_running_loop()
    try:
        _, child = await loop.subprocess_exec(
            lambda: Child(loop, plan.key, secrets),
            *(sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), found, *plan.command[1:]),
            stdin=asyncio.subprocess.PIPE if held else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=env,
            cwd=context.working_directory(),
            start_new_session=True,
        )
    except OSError as error:
        raise SpawnFailed(f"cannot start {program}: {error}") from None
    return child


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
