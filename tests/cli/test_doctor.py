"""Each check of `hybridd doctor` sees what it is there for."""

from __future__ import annotations

import json
import socket
import tomllib
from pathlib import Path

import pytest

from hybridd.cli.doctor import files, services, software
from hybridd.config import loader
from tests.client.canned import PROVIDERS, STATUS, Answer, CannedDaemon

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_TOKEN", "HF_TOKEN", "HYBRIDD_CONFIG", "HYBRIDD_BASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HYBRIDD_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_the_list_of_libraries_equals_the_projects() -> None:
    """doctor's lists of distributions are pyproject's, extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(requirements: list[str]) -> set[str]:
        return {one.split("[")[0].split(">")[0].split("<")[0].split("=")[0].strip() for one in requirements}

    assert set(software.CORE.values()) == names(project["dependencies"])
    for extra, modules in software.EXTRAS.items():
        assert set(modules.values()) == names(project["optional-dependencies"][extra])


def test_a_missing_library_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that is not there is an error, a missing extra a fact with the command that installs it."""
    monkeypatch.setitem(software.CORE, "no_such_module", "no-such-library")
    monkeypatch.setitem(software.EXTRAS["tui"], "no_such_module", "no-such-library")
    found = {one.check: one for one in software.libraries()}
    assert (found["libraries"].level, found["libraries"].message) == ("error", "missing: no-such-library")
    assert (found["extra tui"].level, found["extra tui"].remedy) == ("fact", 'pip install "hybridd[tui]"')


def test_every_bundled_plugin_loads() -> None:
    """Every bundled plugin program can be imported in a process of its own."""
    assert {one.check: one.level for one in software.components()} == {
        "plugin github_models": "ok",
        "plugin llama_cpp": "ok",
        "plugin openai_compatible": "ok",
        "plugin specialists": "ok",
    }


def test_a_missing_plugin_program_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin folder that is not there, or does not load, is an error."""
    monkeypatch.setattr("hybridd.locations.plugins_dir", lambda: tmp_path / "plugins")
    assert {one.level for one in software.components()} == {"error"}
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "__init__.py").touch()
    for name in ("specialists", "llama_cpp", "github_models", "openai_compatible"):
        (tmp_path / "plugins" / name).mkdir()
        (tmp_path / "plugins" / name / "__main__.py").write_text("raise RuntimeError('broken by hand')")
    assert {one.message for one in software.components()} == {"RuntimeError: broken by hand"}


def test_a_broken_configuration_is_an_error(tmp_path: Path) -> None:
    """The configuration's own sentence is the finding, and nothing is resolved."""
    path = tmp_path / "c.json"
    path.write_text('{"flags": {"use_olama": true}}')
    (finding,), resolved = files.configuration(path, fix=False)
    assert finding.level == "error"
    assert "use_ollama" in finding.message
    assert resolved is None


def test_a_configuration_that_others_can_change_is_an_error(tmp_path: Path) -> None:
    """A world-writable configuration is refused: it names programs to run."""
    path = tmp_path / "c.json"
    path.write_text("{}")
    path.chmod(0o666)
    (finding,), _ = files.configuration(path, fix=False)
    assert (finding.level, finding.remedy) == ("error", f"chmod o-w {path}")


def test_fix_never_overwrites_a_configuration(tmp_path: Path) -> None:
    """An existing file, broken or not, stays as it is."""
    path = tmp_path / "c.json"
    path.write_text("{broken")
    files.configuration(path, fix=True)
    assert path.read_text() == "{broken"


def test_folders_are_reported_and_made(tmp_path: Path) -> None:
    """Missing folders are facts, made by --fix, private where they must be; a file in the way is an error."""
    assert {one.level for one in files.folders(None, fix=False)} <= {"fact", "ok", "warning"}
    state = tmp_path / "state"
    made = {one.check: one.level for one in files.folders(None, fix=True)}
    assert made["folder state"] == "fixed"
    state.chmod(0o755)
    assert {one.check: one.level for one in files.folders(None, fix=False)}["folder state"] == "warning"
    files.folders(None, fix=True)
    assert state.stat().st_mode & 0o777 == 0o700
    (state / "logs").rmdir()
    (state / "logs").write_text("in the way")
    assert {one.check: one.level for one in files.folders(None, fix=True)}["folder logs"] == "error"


@pytest.mark.parametrize("case", ["absent", "stale", "file", "long", "live"])
def test_what_stands_at_the_socket_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, canned: CannedDaemon, case: str
) -> None:
    """Absent, left over, a plain file, too long a path, a live daemon: each is called what it is."""
    path = tmp_path / "x.sock"
    if case == "stale":
        with socket.socket(socket.AF_UNIX) as left_over:
            left_over.bind(str(path))
    elif case == "file":
        path.write_text("x")
    elif case == "long":
        path = tmp_path / ("x" * 120)
    elif case == "live":
        path = canned.socket
    monkeypatch.setenv("HYBRIDD_SOCKET", str(path))
    (finding,) = files.socket_file()
    expected = {
        "absent": ("fact", "no daemon"),
        "stale": ("fact", "left over"),
        "file": ("error", "not a socket"),
        "long": ("error", "107 bytes"),
        "live": ("ok", str(path)),
    }
    assert finding.level == expected[case][0]
    assert expected[case][1] in finding.message


def test_the_daemon_and_its_providers(monkeypatch: pytest.MonkeyPatch, canned: CannedDaemon) -> None:
    """A running daemon's states are believed; another version is a warning; no daemon is a fact."""
    monkeypatch.setenv("HYBRIDD_SOCKET", str(canned.socket))
    (finding,), status = services.daemon()
    assert finding.level == "ok"
    parked = [{**PROVIDERS[0], "name": "specialists", "state": "parked", "reason": "HTTP 402"}]
    canned.routes["GET", "/v1/status"] = Answer({**STATUS, "version": "0.0.1", "providers": parked})
    (finding,), status = services.daemon()
    assert finding.level == "warning"
    found = {one.check: one for one in services.providers(loader.load(None), status)}
    assert (found["provider specialists"].level, found["provider specialists"].message) == (
        "warning",
        "parked: HTTP 402",
    )
    assert found["provider github_models"].message.startswith("not configured: no key")
    monkeypatch.setenv("HYBRIDD_SOCKET", str(canned.socket) + ".gone")
    (finding,), status = services.daemon()
    assert (finding.level, status) == ("fact", None)


def test_connectivity_is_a_connection_and_nothing_more(tmp_path: Path) -> None:
    """A host that accepts is reachable and receives not one byte; a closed port is a warning."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        path = tmp_path / "c.json"
        lab = {"plugin": "openai_compatible", "base_url": f"http://127.0.0.1:{port}/v1"}
        path.write_text(json.dumps({"providers": {"lab": lab}}))
        resolved = loader.load(path)
        found = {one.check: one for one in services.providers(resolved, None)}
        assert found["provider lab"].level == "ok"
        connection, _ = server.accept()
        with connection:
            assert connection.recv(1) == b""
    assert {one.check: one for one in services.providers(resolved, None)}["provider lab"].level == "warning"


def test_a_gpu_is_a_fact_either_way() -> None:
    """With or without a GPU the finding is a fact."""
    assert {one.level for one in services.gpu()} == {"fact"}


def test_little_disk_space_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than half a gigabyte is a warning that says what a full disk does."""
    assert files.disk()[0].level in {"ok", "warning"}
    monkeypatch.setattr(files, "LOW_BYTES", 1 << 62)
    assert files.disk()[0].level == "warning"
