"""The built wheel, installed where nothing of the checkout is in reach."""

from __future__ import annotations

import configparser
import email
import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridd._version import __version__
from tests.house import ROOT, House

BUNDLED = "hybridd/_bundled"
# What the clean environment must not find: the editable install of the checkout, and an extra.
LEFT_OUT = ("hybridd", "__editable__", "_hybridd", "llama_cpp", "__pycache__")


# One worker: the environment is made once.
pytestmark = pytest.mark.xdist_group("wheel")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a virtual environment that holds the wheel.

    Its libraries are links to the ones in use here, so that no package index is needed.
    """
    folder = tmp_path_factory.mktemp("clean") / "v"
    venv.EnvBuilder(symlinks=True).create(folder)
    ours = Path(sysconfig.get_path("purelib"))
    theirs = folder / "lib" / ours.parent.name / "site-packages"
    for entry in ours.iterdir():
        if not entry.name.startswith(LEFT_OUT) and entry.suffix != ".pth":
            (theirs / entry.name).symlink_to(entry)
    python = folder / "bin" / "python"
    install = ["install", "--no-deps", "--no-index", "--no-compile", "--quiet", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), *install], check=True, capture_output=True)
    return python


@pytest.fixture(scope="module")
def house(python: Path) -> Iterator[House]:
    # A daemon elsewhere is no use to coverage: the report is about the checkout's files.
    unmeasured = {name: "" for name in os.environ if name.startswith(("COVERAGE", "COV_"))}
    built = House({}, env={**unmeasured, "PYTHONPATH": ""})
    built.python = str(python)
    with built:
        yield built


def sources(package: str) -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc" and not path.name.startswith(".")
    }


def test_the_wheel_holds_the_whole_product_and_nothing_else(wheel: Path) -> None:
    """Every source and data file is inside; `plugins` and `migrations` are no import names of their own."""
    expected = sources("hybridd") | sources("tui")
    expected |= {f"{BUNDLED}/{name}" for name in sources("plugins") | sources("migrations")}
    expected.add(f"{BUNDLED}/hybrid_config.json")
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if not name.startswith(f"hybridd-{__version__}.dist-info/")}
    assert inside == expected


def test_the_metadata_says_what_pyproject_says(wheel: Path) -> None:
    """Version, Python, extras, licence and the console script."""
    with zipfile.ZipFile(wheel) as archive:
        info = f"hybridd-{__version__}.dist-info"
        metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
        scripts = configparser.ConfigParser()
        scripts.read_string(archive.read(f"{info}/entry_points.txt").decode())
        assert archive.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert (metadata["Name"], metadata["Version"]) == ("hybridd", __version__)
    assert metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra") or ()) == {"local", "tui", "mlops", "all", "bench", "dev"}
    assert dict(scripts["console_scripts"]) == {"hybridd": "hybridd.cli.main:main"}


def test_only_hybridd_becomes_importable(python: Path, tmp_path: Path) -> None:
    """The wheel is found where it was installed, with its plugins, migrations and default configuration."""
    program = """
import importlib.util, json
from hybridd import locations
print(json.dumps({
    "hybridd": locations.__file__,
    "others": [name for name in ("plugins", "migrations", "tests", "scripts") if importlib.util.find_spec(name)],
    "plugins": str(locations.plugins_dir()), "migrations": str(locations.migrations_dir()),
    "config": json.loads(locations.default_config().read_text()),
}))
"""
    shown = subprocess.run([python, "-I", "-c", program], cwd=tmp_path, check=True, capture_output=True).stdout
    found = json.loads(shown)
    package = Path(found["hybridd"]).parent
    assert package.is_relative_to(python.parent.parent)
    assert found["others"] == []
    assert found["plugins"] == str(package / "_bundled" / "plugins")
    assert found["migrations"] == str(package / "_bundled" / "migrations")
    assert found["config"] == json.loads((ROOT / "config/ml/hybrid_config.json").read_text())


def test_migrations_run_from_the_wheel(python: Path, tmp_path: Path) -> None:
    """An empty database is brought to the newest revision by the migrations inside the package."""
    target = tmp_path / "old.db"
    program = f"""
import sqlite3, subprocess, sys
from hybridd.store.schema import HEAD
command = [sys.executable, "-m", "hybridd.store.migrate", "upgrade", "--database", {str(target)!r}, "--to", HEAD]
subprocess.run(command, check=True)
assert sqlite3.connect({str(target)!r}).execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]
"""
    target.touch()
    subprocess.run([python, "-I", "-c", program], cwd=tmp_path, check=True, capture_output=True)


def test_a_daemon_from_the_wheel_answers(house: House) -> None:
    """The specialists plugin is found, trained and answers; a second command sees the call recorded."""
    answered = house.cli("call", "--task", "sentiment_analysis", "--prompt", "Que dia maravilhoso!", "--json")
    assert answered.returncode == 0, answered.stderr
    result = json.loads(answered.stdout)
    assert result["model_choice"]["chosen_model"] == "specialists:sentiment"
    assert result["response"] == "positive"
    why = house.cli("why", result["request_id"], "--json")
    assert why.returncode == 0, why.stderr
    assert result["request_id"] in json.loads(why.stdout).values()


def test_what_an_extra_would_bring_names_the_extra(house: House) -> None:
    """Without llama-cpp-python the provider `local` is not configured and says what to install; so does the doctor."""
    status = json.loads(house.cli("status", "--json").stdout)
    (local,) = [one for one in status["providers"] if one["name"] == "local"]
    assert local["state"] == "not_configured"
    assert "hybridd[local]" in local["reason"]
    doctor = house.cli("doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert 'pip install "hybridd[local]"' in doctor.stdout


def test_commands_leave_the_working_directory_alone(house: House, python: Path, tmp_path: Path) -> None:
    """The console script works from an empty folder, checks a bundled plugin by name and writes nothing there."""
    program = python.parent / "hybridd"
    shown = subprocess.run(
        [program, "version"], cwd=tmp_path, env=house.env, capture_output=True, text=True, check=True
    )
    assert __version__ in shown.stdout
    check = [str(program), "plugin", "check", "specialists"]
    checked = subprocess.run(check, cwd=tmp_path, env=house.env, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    completion = subprocess.run(
        [program, "completion", "bash"], cwd=tmp_path, env=house.env, capture_output=True, check=True
    )
    assert b"_HYBRIDD_COMPLETE" in completion.stdout
    assert list(tmp_path.iterdir()) == []
