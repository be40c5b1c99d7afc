"""`hybridd models bench`: without a daemon on a real tiny model, and through one that is canned."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hybridd import errors
from hybridd.cli import diagnostics
from hybridd.cli.main import program
from hybridd.local import calibration
from tests.client.canned import Answer
from tests.fakes.model_zoo import make_model

pytest.importorskip("llama_cpp")


def measured(micro_batch, prefill):
    speeds = {"prefill_per_second": prefill, "decode_per_second": {"1": 50.0, "4": 90.0}}
    return {"flash_attention": True, "micro_batch": micro_batch, **speeds}


RESULT: dict[str, Any] = {
    "machine": "here",
    "model": "tiny",
    "bytes": 1,
    "gpu_layers": 0,
    "llama_cpp": "1",
    "at": 0.0,
    "flash_attention": True,
    "micro_batch": 128,
    "sequences": 4,
    "measured": [measured(512, 900.0), measured(128, 1200.0)],
    "left_out": [{"flash_attention": False, "micro_batch": 512, "reason": "no time was left"}],
}


@pytest.fixture
def run(tmp_path, capfd, monkeypatch):
    for name in ("HYBRIDD_BASE", "HYBRIDD_CONFIG", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HYBRIDD_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("HYBRIDD_SOCKET", str(tmp_path / "none.sock"))
    monkeypatch.setenv("COLUMNS", "90")
    for name in ("DATA", "CONFIG", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))

    def execute(*arguments):
        code = diagnostics.run(program, ["models", "bench", *arguments])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return execute


def test_without_a_daemon(run, tmp_path):
    """The model is measured here, the finding is stored where planners look, and --json prints what is stored."""
    models = tmp_path / "data" / "hybridd" / "models"
    models.mkdir(parents=True)
    make_model(models / "tiny.gguf", "llama", context=1024)
    code, out, err = run("tiny", "--seconds", "1", "--json")
    assert code == 0, err
    shown = json.loads(out)
    (stored,) = calibration.read()
    assert (shown["model"], shown["micro_batch"]) == (stored.model, stored.micro_batch) == ("tiny", stored.micro_batch)
    assert len(shown["measured"]) == len(stored.measured) >= 1


def test_a_model_that_is_not_there(run):
    """An unknown model is one sentence and the exit code of a wrong request."""
    code, out, err = run("nothing-like-it")
    assert (code, out) == (errors.NotFound.exit_code, "")
    assert "no model here" in err


def test_an_embedding_model_has_nothing_to_choose(run, tmp_path):
    """Its texts go through whole: that is said at once, and llama.cpp is not asked for what it aborts on."""
    models = tmp_path / "data" / "hybridd" / "models"
    models.mkdir(parents=True)
    make_model(models / "bert.gguf", "bert")
    code, out, err = run("bert")
    assert (code, out) == (errors.EXIT_USAGE, "")
    assert "writes no answers (embedding)" in err


def test_through_the_daemon(run, canned, monkeypatch):
    """A running daemon measures as a job; the table marks the chosen candidate and says what will be used."""
    monkeypatch.setenv("HYBRIDD_SOCKET", str(canned.socket))
    job = {"id": "bench-1", "state": "running", "progress": {"state": "measuring", "done": 1, "total": 3}}
    canned.routes["GET", "/v1/local/resident"] = Answer({"models": [], "folders": {}})
    canned.routes["POST", "/v1/local/bench"] = Answer(job)
    canned.routes["GET", "/v1/local/jobs/bench-1"] = Answer({**job, "state": "done", "result": RESULT})
    code, out, err = run("tiny")
    assert code == 0, err
    lines = out.splitlines()
    assert [line for line in lines if line.endswith("chosen")] == [line for line in lines if "1,200" in line]
    assert "Not measured: flash attention off, micro-batch 512: no time was left." in out
    assert "is loaded with flash attention on, micro-batch 128" in " ".join(out.split())
    assert "4 at once" in out


@pytest.mark.parametrize(
    ("finding", "says"),
    [
        ({"gain": 0.2, "noise": 0.03}, "it saves 20% of a request's time, and the figures vary by ±3%."),
        ({"gain": 0.05, "noise": 0.08, "kept": True}, "vary by ±8%, so it may be chance."),
        ({"gain": 0.0, "noise": 0.03, "kept": True}, "the plan's own choice: nothing was faster (±3%)."),
    ],
)
def test_how_sure_the_choice_is(run, canned, monkeypatch, finding, says):
    """The share that is gained stands beside the noise; a gain within it is told as chance, and spreads are shown."""
    monkeypatch.setenv("HYBRIDD_SOCKET", str(canned.socket))
    canned.routes["GET", "/v1/local/resident"] = Answer({"models": [], "folders": {}})
    spread = {"prefill_spread": 0.07, "decode_spread": {"1": 0.01, "4": 0.04}}
    found = {**RESULT, **finding, "measured": [{**one, **spread} for one in RESULT["measured"]]}
    canned.routes["POST", "/v1/local/bench"] = Answer({"id": "b", "state": "done", "result": found})
    code, out, _ = run("tiny")
    assert (code, says in " ".join(out.split())) == (0, True), out
    assert "7%" in out
    assert "4%" in out


def test_a_refused_job(run, canned, monkeypatch):
    """A job that fails is the daemon's sentence on stderr and a non-zero exit status."""
    monkeypatch.setenv("HYBRIDD_SOCKET", str(canned.socket))
    canned.routes["GET", "/v1/local/resident"] = Answer({"models": [], "folders": {}})
    failed = {"id": "bench-2", "state": "failed", "error": {"code": "provider_error", "message": "no room for it"}}
    canned.routes["POST", "/v1/local/bench"] = Answer(failed)
    code, _, err = run("tiny")
    assert code == errors.EXIT_PROVIDER
    assert "no room for it" in err
