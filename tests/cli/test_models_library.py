"""`hybridd models search|pull|list|show|rm|gc|verify|import`: real folders, a hub on loopback, a canned daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hybridd import errors
from hybridd.cli import diagnostics
from hybridd.cli.commands.models import common, progress
from hybridd.cli.main import program
from hybridd.contracts.units import size
from hybridd.local import residuals
from hybridd.local.machine import look
from hybridd.local.residuals import Residual
from hybridd.local.types import LoadOptions, Memory, MemoryUse
from tests.cli.support import Done, Run
from tests.client.canned import Answer, Asked, CannedDaemon, error
from tests.fakes.hub import FakeHub
from tests.fakes.tiny_gguf import make_tiny_gguf

JOB: dict[str, Any] = {"id": "job_1", "kind": "pull", "state": "running", "progress": {}, "result": None, "error": None}
RESULT = {
    "repo": "acme/tiny", "revision": "c" * 40, "model": "tiny-Q4_K_M", "path": "/cache/tiny-Q4_K_M.gguf",
    "bytes": 2_500_000_000, "downloaded": 1_500_000_000,
    "files": [{"file": "tiny-Q4_K_M.gguf", "bytes": 2_500_000_000, "sha256": "a" * 64, "resumed": 1_000_000_000}],
    "choice": {"reasons": ["Q4_K_M is the largest that fits"], "passed_over": {"Q8_0": "only 3 of 29 layers fit"}},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The models folder of a home of its own."""
    for name in ("HF_TOKEN", "HYBRIDD_BASE", "HYBRIDD_CONFIG", "OLLAMA_MODELS", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HYBRIDD_STATE_DIR", str(tmp_path / "state"))
    for name, place in (("DATA", "data"), ("CONFIG", "config"), ("CACHE", "cache")):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / place))
    models = tmp_path / "data/hybridd/models"
    models.mkdir(parents=True)
    return models


@pytest.fixture
def run(folder: Path, canned: CannedDaemon, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line in this process, against the canned daemon."""
    monkeypatch.setenv("HYBRIDD_SOCKET", str(canned.socket))
    monkeypatch.setenv("COLUMNS", "80")

    def execute(*arguments: str) -> Done:
        code = diagnostics.run(program, ["models", *arguments])
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    return execute


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub() as fake:
        monkeypatch.setenv("HF_ENDPOINT", fake.url)
        yield fake


def loaded(canned: CannedDaemon, *names: str, **more: Any) -> None:
    models = [{"model": name, "state": "ready"} for name in names]
    canned.routes["GET", "/v1/local/resident"] = Answer({"models": models, "machine": {}, **more})


def test_list_shows_what_is_there_and_what_is_loaded(run: Run, canned: CannedDaemon, folder: Path) -> None:
    """Name, size, quantisation, origin and state, filtered and sorted; the same as JSON; without a daemon too."""
    (folder / "big-Q8_0.gguf").write_bytes(bytes(2_500_000))
    (folder / "small-Q4_K_M.gguf").write_bytes(bytes(1000))
    loaded(canned, "big-Q8_0")
    lines = run("list").out.splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["big-Q8_0", "3", "MiB", "Q8_0", "file", "ready"],
        ["small-Q4_K_M", "1000", "B", "Q4_K_M", "file", "on", "disk"],
    ]
    assert [one["id"] for one in run("list", "--json", "--sort", "bytes").json["models"]] == [
        "small-Q4_K_M",
        "big-Q8_0",
    ]
    assert [one["id"] for one in run("list", "--json", "--filter", "quantization=q8_0").json["models"]] == ["big-Q8_0"]
    assert run("list", "--filter", "nothing").out == "No model matches.\n"
    gone = run("list", "--socket", str(canned.socket) + ".gone")
    assert (gone.code, "on disk" in gone.out, "ready" in gone.out) == (0, True, False)


def test_the_running_daemons_folders_go_before_the_default_ones(run: Run, canned: CannedDaemon, tmp_path: Path) -> None:
    """A daemon with another configuration is asked where its files are; --config goes before both."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/far.gguf").write_bytes(b"GGUF")
    loaded(canned, folders={"models_dir": str(tmp_path / "theirs"), "cache_dir": str(tmp_path / "hub")})
    assert [one["id"] for one in run("list", "--json").json["models"]] == ["far"]
    config = tmp_path / "c.json"
    config.write_text(json.dumps({"local": {"models_dir": str(tmp_path / "none")}}))
    assert run("list", "--json", "--config", str(config)).json["models"] == []
    assert "`hybridd models search` finds models" in run("list", "--config", str(config)).out


def test_show_says_origin_header_and_plan(run: Run, folder: Path) -> None:
    """A real model: its header's facts and how it would be loaded; a file that is none: the header's problem."""
    make_tiny_gguf(folder / "tiny-F32.gguf")
    done = run("show", "tiny-F32")
    assert done.err == ""
    out = done.out
    for words in ("llama (text)", "256 tokens of context", "not recorded", "KiB (476,"):
        assert words in out
    shown = run("show", "tiny-F32", "--json").json
    assert (shown["facts"]["architecture"], shown["plan"]["model"], shown["problem"]) == (
        "llama",
        shown["facts"]["id"],
        None,
    )
    (folder / "none.gguf").write_bytes(b"GGUX" + bytes(100))
    broken = run("show", "none", "--json").json
    assert (broken["facts"], "magic" in broken["problem"].lower()) == (None, True)
    missing = run("show", "tiny-F16")
    assert (missing.code, "the nearest: tiny-F32" in missing.err) == (errors.EXIT_USAGE, True)


def test_rm_asks_refuses_what_is_loaded_and_says_what_it_freed(
    run: Run, canned: CannedDaemon, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loaded model stays; a no keeps everything; --yes removes, and the bytes are named."""
    path = folder / "tiny.gguf"
    path.write_bytes(bytes(2000))
    loaded(canned, "tiny")
    refused = run("rm", "tiny", "--yes")
    assert (refused.code, "hybridd models unload tiny" in refused.err) == (errors.EXIT_USAGE, True)
    loaded(canned)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _text="": "n")
    assert run("rm", "tiny").code == errors.EXIT_INTERRUPTED
    assert run("rm", "tiny", "--json").code == errors.EXIT_USAGE
    assert run("rm", "tiny", "--dry-run").out == "Would remove tiny: 2 KiB freed.\n"
    assert path.exists()
    assert run("rm", "tiny", "--yes").out == "Removed tiny: 2 KiB freed.\n"
    assert not path.exists()


def test_gc_says_the_bytes_before_and_after(run: Run, tmp_path: Path) -> None:
    """--dry-run names the same entries and bytes that are then freed; after that there is nothing."""
    blobs = tmp_path / "state/logs/ml_cache/models--a--b/blobs"
    blobs.mkdir(parents=True)
    (blobs / ("a" * 64 + ".incomplete")).write_bytes(bytes(3000))
    planned = run("gc", "--dry-run", "--json").json
    assert (planned["freed"], len(planned["removed"]), planned["dry_run"]) == (3000, 1, True)
    assert run("gc").out.splitlines()[-1] == "Freed 3 KiB in 1 entries."
    assert run("gc").out == "Nothing to free.\n"


def test_verify_finds_a_changed_file_and_fails(run: Run, folder: Path) -> None:
    """The first time digests are kept; a changed byte is then found, and the exit status says so."""
    path = make_tiny_gguf(folder / "tiny.gguf")
    assert [one["state"] for one in run("verify", "--json").json["files"]] == ["recorded"]
    assert run("verify", "tiny").code == 0
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    done = run("verify", "--json")
    assert (done.code, done.json["files"][0]["state"], done.json["wrong"]) == (errors.EXIT_FAILURE, "changed", 1)
    assert "not what the index says" in " ".join(run("verify").out.split())


def test_import_links_and_reports_each(run: Run, folder: Path, tmp_path: Path) -> None:
    """LM Studio's folder is found in the home; --from needs a source; nothing found is said."""
    theirs = tmp_path / ".lmstudio/models/acme/tiny/tiny-Q4_0.gguf"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"GGUF" + bytes(100))
    assert run("import", "--dry-run").out.splitlines()[-1] == "1 would be linked, 104 B shared; 1 looked at."
    assert [one["state"] for one in run("import", "--json").json["models"]] == ["linked"]
    assert (folder / "lm-studio/acme/tiny/tiny-Q4_0.gguf").is_symlink()
    assert run("import", "--from", str(tmp_path)).code == errors.EXIT_USAGE
    assert run("import", "ollama").code == errors.EXIT_USAGE
    assert run("import", "ollama", "--from", str(tmp_path)).code == errors.EXIT_USAGE


def test_search_shows_what_the_hub_says(run: Run, hub: FakeHub) -> None:
    """One line for each repository; the Hub's refusals are sentences with an exit code."""
    about = {"gguf": {"total": 4_000_000_000, "architecture": "qwen3", "context_length": 40960}}
    hub.add("acme/tiny-GGUF", {"t-Q4_K_M.gguf": b"x", "t-Q8_0.gguf": b"y"}, gated=True, extra=about)
    row = run("search", "tiny").out.splitlines()[1].split()
    assert row[:8] == ["acme/tiny-GGUF", "12", "k", "4.0", "B", "41", "k", "Q4_K_M,"] or "(gated)" in row
    assert run("search", "tiny", "--json").json["repositories"][0]["parameters"] == 4_000_000_000
    assert run("search", "nothing").out == "No repository matches.\n"
    hub.faults.status["api"] = (429, {"Retry-After": "5"}, 1)
    refused = run("search", "tiny")
    assert (refused.code, "in 5 s" in refused.err) == (errors.EXIT_PROVIDER, True)


# ---- pull through the daemon ---------------------------------------------------------------------------------------


def following(canned: CannedDaemon, *views: dict[str, Any]) -> None:
    """The job answers with one view after the other."""
    rest = [{**JOB, **view} for view in views]
    canned.routes["POST", "/v1/local/pull"] = Answer(JOB)

    def answer(_asked: Asked) -> Answer:
        return Answer(rest.pop(0) if len(rest) > 1 else rest[0])

    canned.routes["GET", "/v1/local/jobs/job_1"] = answer


def test_pull_follows_the_job_and_says_what_came_and_why(run: Run, canned: CannedDaemon) -> None:
    """The request carries what was asked; the end says the reasons, the bytes, and the name to call it by."""
    at = {"state": "downloading", "file": "t", "done": 1, "total": 2, "bytes_per_second": 1}
    following(canned, {"progress": at}, {"state": "done", "result": RESULT})
    done = run("pull", "acme/tiny:Q4_K_M", "--ctx", "8192", "--goal", "context")
    assert done.code == 0
    assert canned.asked[0].body == {"repo": "acme/tiny", "file": "Q4_K_M", "context": 8192, "goal": "context"}
    assert done.out.splitlines() == [
        "  Q4_K_M is the largest that fits",
        "  not Q8_0: only 3 of 29 layers fit",
        "tiny-Q4_K_M is ready as local:tiny-Q4_K_M (1,431 MiB downloaded, 954 MiB were here already, digest checked).",
        "  /cache/tiny-Q4_K_M.gguf",
    ]
    following(canned, {"state": "done", "result": RESULT})
    assert run("pull", "acme/tiny", "--json").json["result"] == RESULT


def test_a_pull_that_failed_ends_with_the_childs_sentence(run: Run, canned: CannedDaemon) -> None:
    """Message, code and pause of the job's error are the command's."""
    told = {"code": "rate_limited", "message": "the Hub asks for a pause", "retry_after": 17}
    following(canned, {"state": "failed", "error": told})
    done = run("pull", "acme/tiny")
    assert (done.code, done.out) == (errors.EXIT_PROVIDER, "")
    assert done.err == "error: the Hub asks for a pause\n  trying again can help in 17 s\n"
    as_json = json.loads(run("pull", "acme/tiny", "--json").err)["error"]
    assert (as_json["code"], as_json["retry_after"]) == ("rate_limited", 17)


def test_pull_says_what_images_would_need_and_is_left(run: Run, canned: CannedDaemon) -> None:
    """A projector is not fetched, since local models take text only; a file of the Hub may be named by its page."""
    following(canned, {"state": "done", "result": {**RESULT, "left": ["mmproj-f16.gguf"]}})
    done = run("pull", "https://huggingface.co/acme/tiny/blob/v1/tiny-Q4_K_M.gguf")
    assert "left: mmproj-f16.gguf: it is for images" in done.out
    assert canned.asked[0].body == {"repo": "acme/tiny", "file": "tiny-Q4_K_M.gguf", "revision": "v1"}


@pytest.mark.parametrize("command", [("rm", "--yes"), ("show",), ("plan",), ("verify",)])
def test_an_empty_name_is_nothing(run: Run, folder: Path, command: tuple[str, ...]) -> None:
    """A variable of the shell that is not set never means the one model that is there."""
    make_tiny_gguf(folder / "only.gguf")
    refused = run(command[0], "", *command[1:])
    assert (refused.code, refused.out) == (errors.EXIT_USAGE, "")
    assert "No model is named" in refused.err
    assert (folder / "only.gguf").exists()


def test_show_plans_as_the_daemon_does(run: Run, folder: Path) -> None:
    """What earlier loads took is kept free, the model's own settings hold, and what was measured is used."""
    make_tiny_gguf(folder / "tiny-F32.gguf", context=2048)
    plain = run("show", "tiny-F32", "--json").json["plan"]
    here = look()
    short = Memory(host=MemoryUse(weights=300 << 20))
    one = Residual(
        machine=here.machine_id, model="tiny-F32", at=1.0, options=LoadOptions(), predicted=Memory(), measured=short
    )
    residuals.store(one)
    learned = run("show", "tiny-F32", "--json").json["plan"]
    assert plain["margin"] < learned["margin"] >= 300 << 20
    assert run("plan", "tiny-F32", "--json").json["margin"] == learned["margin"]


def test_pull_detaches_cancels_and_lets_go(run: Run, canned: CannedDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """--detach prints the job, --cancel stops one, Ctrl-C leaves it running and says so."""
    following(canned, {})
    assert run("pull", "acme/tiny", "--detach").out == "Job job_1 downloads acme/tiny.\n"
    canned.routes["POST", "/v1/local/jobs/job_1/cancel"] = Answer({**JOB, "state": "cancelled"})
    assert "asked to stop" in run("pull", "--cancel", "job_1").out

    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hybridd.cli.commands.models.pull.time.sleep", interrupted)
    done = run("pull", "acme/tiny")
    assert (done.code, "--cancel job_1" in done.err) == (errors.EXIT_INTERRUPTED, True)


def test_pull_refuses_contradictions_before_sending(run: Run, canned: CannedDaemon) -> None:
    """No repository, both a repository and a job, a quantisation twice: usage errors; the daemon's refusal is its
    own."""
    for arguments in (("pull",), ("pull", "a/b", "--cancel", "x"), ("pull", "a/b:Q4_0", "--file", "x.gguf")):
        assert run(*arguments).code == errors.EXIT_USAGE
    for name in ("../../etc", "a b/c", "", "o/na..me", "https://elsewhere.example/x.gguf", "a/b/../c.gguf"):
        refused = run("pull", name)
        assert (refused.code, "looks like" in refused.err) == (errors.EXIT_USAGE, True), name
    assert run("pull", "a/b", "--file", "/etc/passwd").code == errors.EXIT_USAGE
    assert run("pull", "a/b", "--revision", "../x").code == errors.EXIT_USAGE
    assert canned.asked == []
    canned.routes["POST", "/v1/local/pull"] = Answer(error("used up", "no_feasible_provider"), status=503)
    assert run("pull", "a/b").code == errors.EXIT_NO_PROVIDER


def test_progress_is_one_line_that_fits() -> None:
    """Figures stay, a long name is cut; on a narrow terminal the figures alone are shown."""
    drawn = progress.line("downloading tiny-Q4_K_M.gguf", 1e9, 2.5e9, 12e6, 79, rich=True)
    assert drawn.endswith("40%  954 MiB of 2,385 MiB  12 MiB/s  2 min 5 s")
    assert len(drawn) <= 79
    assert "…" in drawn
    assert len(progress.line("x" * 50, 1.0, 2.0, None, 30, rich=False)) <= 30


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 MiB"), (999, "999 B"), (1 << 10, "1 KiB"), (2.5e6, "3 MiB"), (10 << 30, "10.0 GiB"), (None, "-")],
)
def test_sizes_are_binary(count: float | None, shown: str) -> None:
    """One unit for people: the one that memory and plans are in, never less than there is."""
    assert size(count) == shown


def test_model_names_complete(folder: Path) -> None:
    """The shell is offered the models that begin like that; a broken configuration offers nothing."""
    (folder / "one.gguf").write_bytes(b"GGUF")
    (folder / "two.gguf").write_bytes(b"GGUF")
    from click import Context, Option
    from click import command as plain

    @plain()
    def nothing() -> None:
        """Only for a context."""

    context, parameter = Context(nothing), Option(["--x"])
    assert [one.value for one in common.complete_model(context, parameter, "o")] == ["one"]
    config = folder.parents[2] / "config/hybridd/hybrid_config.json"
    config.parent.mkdir(parents=True)
    config.write_text("{")
    assert common.complete_model(context, parameter, "") == []
