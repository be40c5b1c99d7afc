"""``start_ml_hybrid.sh`` as a user meets it: in a copied tree with a space in its path, with a HOME of its own."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridd import errors
from tests.house import ROOT, House

PARTS = (
    "start_ml_hybrid.sh",
    "scripts",
    "hybridd",
    "plugins",
    "migrations",
    "config",
    "pyproject.toml",
    "constraints.txt",
)
TOOLS = (
    "sh",
    "dirname",
    "readlink",
    "mkdir",
    "cat",
    "cksum",
    "grep",
    "tr",
    "wc",
    "tail",
    "sed",
    "cut",
    "sleep",
    "setsid",
)


class Checkout:
    """A copy of the project and the environment of a new user."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="hy-"))  # short, because a socket path has 107 bytes
        self.root = self.home / "a b" / "hy bridd"
        self.root.mkdir(parents=True)
        for part in PARTS:
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, self.root / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(ROOT / part, self.root / part)
        self.script = self.root / "start_ml_hybrid.sh"
        self.pid_file = self.root / "logs" / "hybridd.pid"
        self.env = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            # What is installed here already is used as it is, with the code of the copy.
            "HYBRIDD_VENV": sys.prefix,
            "HYBRIDD_SETUP": "0",
            "PYTHONPATH": str(self.root),
        }

    def run(
        self, *arguments: str, script: Path | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [script or self.script, *arguments], env={**self.env, **(env or {})}, cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        return int(self.pid_file.read_text())


@pytest.fixture(scope="module")
def made() -> Iterator[Checkout]:
    checkout = Checkout()
    yield checkout
    shutil.rmtree(checkout.home)


@pytest.fixture
def checkout(made: Checkout) -> Iterator[Checkout]:
    yield made
    made.run("stop")
    assert not made.pid_file.exists()


def test_one_command_starts_shows_and_calls(checkout: Checkout) -> None:
    """The first start makes a daemon, shows limits, gets a routed answer and prints the commands worth knowing."""
    started = checkout.run()
    assert started.returncode == 0, started.stderr
    assert f"running (pid {checkout.pid})" in started.stderr
    assert "5,000 requests/h" in started.stdout
    assert "\npositive\n" in started.stdout
    assert "answered by specialists:sentiment" in started.stderr
    assert "hybridd optimize --task code_generation" in started.stdout
    assert f'"{checkout.script}" stop' in started.stdout

    again = checkout.run("start")
    assert (again.returncode, again.stderr) == (0, f"hybridd is already running (pid {checkout.pid}).\n")
    status = checkout.run("status")
    assert status.returncode == 0
    assert f"pid {checkout.pid}" in status.stdout
    assert str(checkout.root / "config/ml/hybrid_config.json") in status.stdout

    before = checkout.pid
    restarted = checkout.run("restart")
    assert restarted.returncode == 0, restarted.stderr
    assert checkout.pid != before

    stopped = checkout.run("stop")
    assert (stopped.returncode, stopped.stderr) == (0, "hybridd has stopped.\n")
    assert checkout.run("status").returncode == errors.EXIT_UNREACHABLE
    assert checkout.run("stop").stderr == "hybridd is not running.\n"


def test_a_link_from_a_folder_with_misleading_modules(checkout: Checkout) -> None:
    """Started through a link, from a folder whose files look like modules, the checkout's own code runs."""
    (checkout.home / "click.py").write_text("raise SystemExit(9)\n")
    (checkout.home / "json.py").write_text("raise SystemExit(9)\n")
    link = checkout.home / "hystart"
    link.symlink_to(checkout.script)
    try:
        started = checkout.run(script=link)
        assert started.returncode == 0, started.stderr
        assert Path(f"/proc/{checkout.pid}/cwd").readlink() == checkout.root
    finally:
        for left in ("click.py", "json.py", "hystart"):
            (checkout.home / left).unlink()


def test_a_killed_daemon_and_its_stale_pid_file(checkout: Checkout) -> None:
    """After kill -9 the status is "not running", and the next start works."""
    assert checkout.run().returncode == 0
    killed = checkout.pid
    ended = os.pidfd_open(killed)
    os.kill(killed, signal.SIGKILL)
    select.select([ended], [], [], 10)
    os.close(ended)
    assert checkout.run("status").returncode == errors.EXIT_UNREACHABLE
    assert checkout.run().returncode == 0
    assert checkout.pid != killed


def test_a_recycled_pid_is_left_alone(checkout: Checkout) -> None:
    """A PID file that names another program does not make that program ours: it is not reported and not ended."""
    checkout.pid_file.parent.mkdir(exist_ok=True)
    with subprocess.Popen(["sleep", "100"]) as bystander:
        checkout.pid_file.write_text(f"{bystander.pid}\n")
        assert checkout.run("status").returncode == errors.EXIT_UNREACHABLE
        assert checkout.run("stop").stderr == "hybridd is not running.\n"
        assert bystander.poll() is None
        bystander.kill()


def test_a_daemon_of_someone_else_is_named(checkout: Checkout) -> None:
    """When a daemon already answers on the socket, start leaves it, and stop says whose it is."""
    with House({}) as house:
        started = checkout.run(env={"HYBRIDD_SOCKET": str(house.socket)})
        assert started.returncode == 0
        assert f"already running (pid {house.pid})" in started.stderr
        stopped = checkout.run("stop", env={"HYBRIDD_SOCKET": str(house.socket)})
        assert stopped.returncode == 1
        assert f"kill {house.pid}" in stopped.stderr
        assert house.chat("specialists:sentiment", "What a lovely day").status_code == 200


@pytest.mark.parametrize("text", ['{"monitorin": {}}', '{"monitoring": '], ids=["unknown-key", "cut-off"])
def test_a_broken_configuration_names_the_file_and_the_log(checkout: Checkout, text: str) -> None:
    """Starting fails with the configuration's own message and the name of the log; nothing is left running."""
    broken = checkout.home / "broken.json"
    broken.write_text(text)
    failed = checkout.run(env={"HYBRIDD_CONFIG": "broken.json"})  # relative to where the user stands
    assert failed.returncode == 1
    assert f"{broken}:1:" in failed.stderr
    assert failed.stderr.endswith(f"Starting failed (log: {checkout.root}/logs/hybridd.log)\n")
    assert not checkout.pid_file.exists()


def test_a_broken_configuration_does_not_cost_the_running_daemon(checkout: Checkout) -> None:
    """`restart` with a broken configuration is refused while the old daemon keeps running."""
    assert checkout.run().returncode == 0
    broken = checkout.home / "broken.json"
    broken.write_text("[]")
    refused = checkout.run("restart", env={"HYBRIDD_CONFIG": str(broken)})
    assert refused.returncode == 1
    assert "keeps running" in refused.stderr
    assert checkout.run("status").returncode == 0


def test_a_socket_path_that_is_too_long(checkout: Checkout) -> None:
    """The limit of 107 bytes is named."""
    failed = checkout.run(env={"HYBRIDD_SOCKET": str(checkout.home / ("x" * 120) / "s")})
    assert failed.returncode == 1
    assert "at most 107" in failed.stderr


@pytest.mark.parametrize("arguments", [("nonsense",), ("start", "now")])
def test_wrong_arguments_show_the_usage(checkout: Checkout, arguments: tuple[str, ...]) -> None:
    """A word that is no command, or one too many, exits with 2 and the usage."""
    refused = checkout.run(*arguments)
    assert refused.returncode == errors.EXIT_USAGE
    assert refused.stderr.startswith("usage: start_ml_hybrid.sh")


def test_logs_before_the_first_start(checkout: Checkout, tmp_path: Path) -> None:
    """There is nothing to follow, and that is said."""
    shown = checkout.run("logs", env={"HYBRIDD_BASE": str(tmp_path)})
    assert shown.returncode == 1
    assert f"{tmp_path}/logs/hybridd.log" in shown.stderr


def test_a_configuration_is_written_when_there_is_none(checkout: Checkout, tmp_path: Path) -> None:
    """Base and configuration elsewhere: the default file and the logs appear there."""
    config = tmp_path / "new" / "config.json"
    elsewhere = {"HYBRIDD_BASE": str(tmp_path), "HYBRIDD_CONFIG": str(config)}
    assert checkout.run(env=elsewhere).returncode == 0
    assert config.read_bytes() == (ROOT / "config/ml/hybrid_config.json").read_bytes()
    assert (tmp_path / "logs" / "hybridd.log").exists()
    assert checkout.run("stop", env=elsewhere).stderr == "hybridd has stopped.\n"


class Machine:
    """A PATH with nothing but what is named: no compiler, and the Python that a test wants."""

    def __init__(self, folder: Path, python: str) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        for tool in (*TOOLS, "flock", "nproc", "ls", "mv", "rm"):
            found = shutil.which(tool)
            if found is not None:
                (self.bin / tool).symlink_to(found)
        (self.bin / "python3").write_text(f"#!/bin/sh\n{python}\n")
        (self.bin / "python3").chmod(0o755)
        self.env = {"PATH": str(self.bin), "HYBRIDD_VENV": str(folder / "v"), "HYBRIDD_SETUP": "1"}


def test_an_old_python_is_refused(checkout: Checkout, tmp_path: Path) -> None:
    """One sentence names the version found, the one needed and what to install."""
    machine = Machine(tmp_path, '[ "$1" = --version ] || exit 1; echo Python 3.9.2')
    failed = checkout.run(env=machine.env)
    assert failed.returncode == 1
    assert "needs Python 3.11 or newer; found: Python 3.9.2. On Debian: apt install" in failed.stderr


def test_a_python_without_venv_names_the_package(checkout: Checkout, tmp_path: Path) -> None:
    """Debian's Python without python3-venv and without pip: the remedy and the log are named."""
    fails = 'case "$*" in *"-m venv"*|*"-m pip"*) echo "ensurepip is not available"; exit 1;; esac'
    machine = Machine(tmp_path, f'{fails}\nexec "{sys.executable}" "$@"')
    failed = checkout.run(env=machine.env)
    assert failed.returncode == 1
    assert "ensurepip is not available" in failed.stderr
    assert failed.stderr.endswith(f"(log: {checkout.root}/logs/setup.log). On Debian: apt install python3-venv\n")


def test_an_index_out_of_reach_names_the_log(checkout: Checkout, tmp_path: Path) -> None:
    """When the package client fails, its last lines and the whole log's name are shown; the next try begins anew."""
    packages = "pip() { echo 'ERROR: No matching distribution found for hatchling' ; exit 1; }"
    fake = f'{packages}\ncase "$*" in *"pip install"*) pip;; *"-m pip"*) exit 0;; esac\nexec "{sys.executable}" "$@"'
    machine = Machine(tmp_path, fake)
    (tmp_path / "v" / "bin").mkdir(parents=True)
    (tmp_path / "v" / "pyvenv.cfg").touch()
    (tmp_path / "v" / "bin" / "python").symlink_to(machine.bin / "python3")
    for _ in range(2):
        failed = checkout.run(env=machine.env)
        assert failed.returncode == 1
        assert "No matching distribution" in failed.stderr
        assert failed.stderr.endswith(f"The whole log is {checkout.root}/logs/setup.log\n")


def test_a_place_that_cannot_be_written(checkout: Checkout, tmp_path: Path) -> None:
    """A base where no folder can be made is named, with the variable that moves it."""
    (tmp_path / "logs").touch()
    failed = checkout.run(env={"HYBRIDD_BASE": str(tmp_path)})
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"hybridd cannot write in {tmp_path}/logs: make it writable, or set HYBRIDD_BASE")


def test_without_a_compiler_everything_else_works(checkout: Checkout, tmp_path: Path) -> None:
    """No C++ compiler: the daemon answers all the same, and one sentence says what local models need."""
    program = f'. "{checkout.root}/scripts/env.sh"; has_llama() {{ return 1; }}; wants_llama && install_llama'
    machine = Machine(tmp_path, f'exec "{sys.executable}" "$@"')
    shell = ["sh", "-c", f'ROOT="{checkout.root}"; {program}']
    shown = subprocess.run(shell, env=machine.env, capture_output=True, text=True, check=False)
    assert shown.returncode == 1
    assert "need a C and a C++ compiler. On Debian: apt install build-essential" in shown.stderr
