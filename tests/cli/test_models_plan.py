"""`hybridd models plan`: real files, a hub on loopback, no daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hybridd import errors
from hybridd.cli import diagnostics
from hybridd.cli.main import program
from hybridd.local import calibration
from hybridd.local.calibration import Calibration
from hybridd.local.machine import look
from tests.cli.support import Done, Run
from tests.fakes.hub import FakeHub
from tests.fakes.model_zoo import make_model
from tests.fakes.range_server import RangeServer

REPO = "acme/tiny-GGUF"


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model in three quantisations."""
    folder = tmp_path_factory.mktemp("plan")
    shape: dict[str, Any] = {"layers": 6, "width": 256, "vocabulary": 4_096, "context": 16_384}
    return {
        label: make_model(folder / f"tiny-{label}.gguf", "qwen3", weights=label.lower(), **shape)
        for label in ("Q4_0", "Q8_0", "F16")
    }


@pytest.fixture
def run(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line in this process, in a home of its own, without a daemon."""
    for name in ("HF_TOKEN", "HYBRIDD_BASE", "HYBRIDD_CONFIG", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HYBRIDD_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("HYBRIDD_SOCKET", str(tmp_path / "none.sock"))
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("DATA", "CONFIG", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))

    def execute(*arguments: str) -> Done:
        code = diagnostics.run(program, ["models", "plan", *arguments])
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    return execute


@pytest.fixture
def hub(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.add(REPO, {path.name: path.read_bytes() for path in files.values()})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def test_a_file_is_planned(run: Run, files: dict[str, Path]) -> None:
    """The plan, bars of what goes where within 80 columns, a table that adds up, and the reasons."""
    done = run(str(files["Q8_0"]), "--gpu-mb", "4096")
    assert (done.code, done.err) == (0, "")
    assert "tiny-Q8_0" in done.out
    assert "6 of 6 on the GPU, and the output layer" in done.out
    assert "▓ weights" in done.out
    assert "Why" in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    total = next(line for line in done.out.splitlines() if line.startswith("total"))
    parts = [line for line in done.out.splitlines() if line.endswith("MiB") and line.startswith(("weights", "runtime"))]
    assert total
    assert len(parts) == 2


def test_the_data_say_the_same(run: Run, files: dict[str, Path]) -> None:
    """--json: options, memory in bytes, reasons and rejected alternatives as data."""
    data = run(str(files["Q8_0"]), "--gpu-mb", "4096", "--json").json
    assert data["fit"] == "gpu"
    assert data["options"]["gpu_layers"] == 7
    assert data["memory"]["device"]["weights"] > 0
    assert sum(data["bars"][0]["parts"].values()) == 4096 << 20
    assert data["reasons"]
    assert data["rejected"][0]["options"]["gpu_layers"] == 0
    assert data["facts"]["architecture"] == "qwen3"


def test_wishes_reach_the_planner(run: Run, files: dict[str, Path]) -> None:
    """Context, parallel sequences, goal and limit; an impossible wish is exit code 1 with what would fit."""
    data = run(str(files["Q8_0"]), "--ctx", "1000", "--parallel", "3", "--goal", "throughput", "--json").json
    assert (data["sequence_context"], data["options"]["sequences"], data["goal"]) == (1000, 3, "throughput")
    limited = run(str(files["Q8_0"]), "--gpu-mb", "4096", "--vram-limit-mb", "400", "--json").json
    assert limited["budget"] == 400 << 20
    refused = run(str(files["Q8_0"]), "--ctx", "900000000")
    assert refused.code == errors.EXIT_FAILURE
    assert "a context of 16,384 would fit" in " ".join(refused.out.split())
    assert run(str(files["Q8_0"]), "--ctx", "0").code == errors.EXIT_USAGE


def test_the_configuration_is_the_default(run: Run, files: dict[str, Path], tmp_path: Path) -> None:
    """local.goal, context and parallel, for all models or one; what the command line says comes first."""
    folder = tmp_path / "config/hybridd"
    folder.mkdir(parents=True)
    section = {"goal": "throughput", "context": 2000, "models": {"tiny-Q8_0": {"parallel": 5}}, "ram_limit_mb": 3000}
    (folder / "hybrid_config.json").write_text(json.dumps({"local": section}))
    data = run(str(files["Q8_0"]), "--json").json
    assert (data["goal"], data["sequence_context"], data["options"]["sequences"]) == ("throughput", 2000, 5)
    assert data["budget"] <= 3000 << 20
    assert run(str(files["Q4_0"]), "--json").json["options"]["sequences"] == 8
    given = run(str(files["Q8_0"]), "--goal", "quality", "--ctx", "900", "--parallel", "2", "--json").json
    assert (given["goal"], given["sequence_context"], given["options"]["sequences"]) == ("quality", 900, 2)


def test_all_shows_what_was_rejected(run: Run, files: dict[str, Path]) -> None:
    """Without it only their number is told."""
    arguments = (str(files["Q8_0"]), "--gpu-mb", "4096")
    assert "1 alternative was rejected" in run(*arguments).out
    assert "On the processor alone" in run(*arguments, "--all").out


def test_ascii_is_enough(run: Run, files: dict[str, Path]) -> None:
    """A terminal that shows no more than ASCII gets the same bars."""
    out = run(str(files["Q8_0"]), "--gpu-mb", "4096", "--ascii").out
    assert "W weights" in out
    assert out.isascii()


@pytest.mark.parametrize(("size", "field"), [(3, "magic number"), (5_000, "tokenizer.ggml.tokens")])
def test_a_broken_file_is_a_sentence(run: Run, files: dict[str, Path], tmp_path: Path, size: int, field: str) -> None:
    """A cut file: the field and the place, exit code 1 or 2, no traceback."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(files["Q8_0"].read_bytes()[:size])
    done = run(str(broken))
    assert done.code != 0
    assert done.out == ""
    assert done.err.startswith(f"error: {broken}")
    assert field in done.err
    assert "Traceback" not in done.err
    assert json.loads(run(str(broken), "--json").err)["error"]["message"]


def test_what_is_not_there_is_said(run: Run, tmp_path: Path) -> None:
    """No file, a folder, no such model: one sentence each."""
    assert run(str(tmp_path / "none.gguf")).err == f"error: There is no file {tmp_path / 'none.gguf'}.\n"
    assert "is a folder" in run(str(tmp_path)).err
    assert "is no model here" in run("nothing").err


def test_a_model_of_this_machine_is_found_by_its_name(run: Run, files: dict[str, Path], tmp_path: Path) -> None:
    """An id of the library, as `models list` shows it, with or without local:."""
    folder = tmp_path / "data/hybridd/models"
    folder.mkdir(parents=True)
    (folder / "mine.gguf").symlink_to(files["Q4_0"])
    assert run("mine", "--json").json["model"] == "mine"
    assert run("local:mine", "--json").json["facts"]["quantization"] == "Q4_0"


def test_a_repository_lists_its_files(run: Run, hub: FakeHub) -> None:
    """A line for each quantisation, the one that a pull would take marked, and why; nothing is downloaded whole."""
    done = run(REPO, "--gpu-mb", "4096")
    assert done.code == 0
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["F16", "*", "Q4_0"]
    assert "Q8_0 is the largest that fits into the GPU" in " ".join(done.out.split())
    data = run(REPO, "--json", "--sort", "bytes").json
    assert [row["quantization"] for row in data["files"]] == ["Q4_0", "Q8_0", "F16"]
    assert [row["taken"] for row in data["files"]] == [False, True, False]
    assert [row["quantization"] for row in run(REPO, "--json", "--filter", "quantization=q4_0").json["files"]] == [
        "Q4_0"
    ]


def test_one_file_of_a_repository_is_planned(run: Run, hub: FakeHub) -> None:
    """By quantisation or by file, over HTTP ranges; the same plan as for the file itself."""
    by_label = run(f"{REPO}:Q8_0", "--gpu-mb", "4096", "--json").json
    by_file = run(f"{REPO}/tiny-Q8_0.gguf", "--gpu-mb", "4096", "--json").json
    assert by_label["options"] == by_file["options"]
    assert by_label["memory"] == by_file["memory"]
    assert by_label["model"] == "tiny-Q8_0"
    wrong = run(f"{REPO}:Q5_K_M")
    assert wrong.code != 0
    assert "the nearest: " in wrong.err


def test_a_file_on_any_web_server_is_planned(run: Run, files: dict[str, Path]) -> None:
    """By its address, from its header, over one connection; it is not confirmed, and another page is no model."""
    data = files["Q8_0"].read_bytes()
    with RangeServer(b"", files={"tiny-Q8_0.gguf": data}).running() as server:
        address = f"{server.base}/sound/tiny-Q8_0.gguf?download=secret"
        done = run(address, "--json")
        assert (done.code, done.json["model"], done.json["facts"]["bytes"]) == (0, "tiny-Q8_0", len(data))
        assert "secret" not in done.out
        assert server.connections == 1
        assert run(address, "--confirm").code == errors.EXIT_USAGE
        assert run(f"{server.base}/sound/none.gguf").code == errors.EXIT_USAGE
        assert run(f"{server.base}/page.html").code == errors.EXIT_USAGE
        ignores = run(f"{server.base}/ignores/tiny-Q8_0.gguf")
    assert "ignores ranges" in ignores.err


def test_a_page_of_the_hub_is_its_file(run: Run, hub: FakeHub) -> None:
    """The address of a file's page means that file of the repository."""
    done = run(f"{hub.url}/{REPO}/blob/main/tiny-Q4_0.gguf", "--json")
    assert (done.code, done.json["model"]) == (0, "tiny-Q4_0")


def test_what_was_measured_is_planned_with(run: Run, files: dict[str, Path]) -> None:
    """The finding of `models bench` for this machine holds, as it does for the daemon; not for a simulated GPU."""
    plain = run(str(files["Q8_0"]), "--json").json
    assert plain["options"]["micro_batch"] == 512
    here = look()
    finding = Calibration(
        machine=here.machine_id, model="tiny-Q8_0", bytes=files["Q8_0"].stat().st_size, gpu_layers=0,
        llama_cpp=calibration.llama_version(), at=1.0, flash_attention=False, micro_batch=128, sequences=4, measured=[],
    )  # fmt: skip
    calibration.store(finding)
    options = run(str(files["Q8_0"]), "--json").json["options"]
    assert (options["micro_batch"], options["flash_attention"]) == (128, False)
    assert run(str(files["Q8_0"]), "--gpu-mb", "4096", "--json").json["options"]["micro_batch"] == 512


def test_a_repository_where_nothing_fits(run: Run, hub: FakeHub) -> None:
    """Exit code 1, the lines all the same, and each reason."""
    done = run(REPO, "--ctx", "900000000", "--json")
    assert done.code == errors.EXIT_FAILURE
    assert {row["fit"] for row in done.json["files"]} == {"no"}
    assert "no file fits" in done.json["reasons"][0]


def test_a_name_that_is_no_repository(run: Run, hub: FakeHub) -> None:
    """Nothing of it becomes an address or a path."""
    for name in ("a/../../b", "acme/tiny-GGUF/../x.gguf", "acme/ti ny"):
        done = run(name)
        assert done.code == errors.EXIT_USAGE, name
    assert hub.asked == []


def test_llama_cpp_confirms_the_plan(run: Run, files: dict[str, Path]) -> None:
    """Its dry run stands beside the plan, part by part, and agrees; it needs the file and this machine."""
    done = run(str(files["Q8_0"]), "--confirm")
    assert done.code == 0
    assert "LLAMA.CPP" in done.out
    data = run(str(files["Q8_0"]), "--confirm", "--json").json
    assert data["dry_run"]["host"]["kv"] == data["memory"]["host"]["kv"] > 0
    assert abs(data["dry_run"]["host"]["compute"] - data["memory"]["host"]["compute"]) < 32 << 20
    assert run(f"{REPO}:Q8_0", "--confirm", "--gpu-mb", "9").code == errors.EXIT_USAGE


def test_only_a_file_here_can_be_confirmed(run: Run, hub: FakeHub) -> None:
    """A repository's file is pulled first."""
    done = run(f"{REPO}:Q8_0", "--confirm")
    assert done.code == errors.EXIT_USAGE
    assert "pull the model first" in done.err


def test_a_gated_repository_says_where_its_conditions_are(run: Run, hub: FakeHub, files: dict[str, Path]) -> None:
    """Its list of files is open and their headers are not: the sentence is the one that a download would end with."""
    hub.add("acme/gated-GGUF", {"gated-Q8_0.gguf": files["Q8_0"].read_bytes()}, gated=True)
    for name in ("acme/gated-GGUF", "acme/gated-GGUF:Q8_0"):
        done = run(name, "--json")
        assert (done.code, f"{hub.url}/acme/gated-GGUF, then a token is needed" in done.err) == (6, True), done.err
