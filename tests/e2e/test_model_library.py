"""From the Hub into an answer: the command line, the daemon, its download child, the books, and a real model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # it ships no types
import pytest

from tests.e2e.support import Events, until
from tests.fakes.hub import FakeHub
from tests.fakes.tiny_gguf import make_tiny_gguf
from tests.house import House

REPO = "acme/tiny-GGUF"
HELD = 200_000


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    with FakeHub() as fake:
        body = make_tiny_gguf(tmp_path / "tiny.gguf").read_bytes()
        fake.add(REPO, {"tiny-Q4_K_M.gguf": body, "tiny-Q8_0.gguf": body + bytes(4096)})
        yield fake


@pytest.fixture
def house(hub: FakeHub) -> Iterator[House]:
    env = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_TELEMETRY": "1"}
    with House({"hugging_face": {"cache_dir": "cache"}}, env=env) as started:
        yield started


def downloads(house: House) -> tuple[float, float]:
    """Used and reserved downloads of the month."""
    limits = house.http.get("/v1/limits?provider=hugging_face").json()["limits"]
    mine = next(limit for limit in limits if limit["models"] == ["hub:downloads"])
    return mine["used"], mine["reserved"]


def job(house: House, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = house.http.get(f"/v1/local/jobs/{job_id}").json()
    return found


def test_a_download_that_another_file_hides_says_so(house: House, hub: FakeHub) -> None:
    """A file of one's own with the same name goes before a downloaded one: the pull does not call that one ready."""
    own = house.home / ".local" / "share" / "hybridd" / "models"
    own.mkdir(parents=True)
    mine = make_tiny_gguf(own / "tiny-Q4_K_M.gguf", seed=9)
    done = house.cli("models", "pull", f"{REPO}:Q4_K_M")
    assert (done.returncode, str(mine) in done.stdout, "is ready" in done.stdout) == (0, True, False), done.stderr
    mine.unlink()
    again = house.cli("models", "pull", f"{REPO}:Q4_K_M")
    assert "is ready as local:tiny-Q4_K_M" in again.stdout


def test_a_model_is_pulled_counted_listed_and_called(house: House, hub: FakeHub) -> None:
    """One command brings the file that fits best; the download is one of the month's, the model answers at once, and
    while it is loaded it is not removed."""
    done = house.cli("models", "pull", REPO, "--json")
    assert done.returncode == 0, done.stderr
    pulled = json.loads(done.stdout)
    assert (pulled["state"], pulled["result"]["model"]) == ("done", "tiny-Q8_0")
    assert pulled["result"]["downloaded"] == len(hub.repos[REPO].files["tiny-Q8_0.gguf"])
    assert downloads(house) == (1, 0)
    listed = json.loads(house.cli("models", "list", "--json").stdout)
    assert [(one["id"], one["repo"], one["state"]) for one in listed["models"]] == [("tiny-Q8_0", REPO, "on disk")]
    answer = house.chat("local:tiny-Q8_0", max_tokens=4)
    assert answer.status_code == 200, answer.text
    refused = house.cli("models", "rm", "tiny-Q8_0", "--yes", "--json")
    assert json.loads(refused.stderr)["error"]["code"] == "model_loaded"
    house.http.post("/v1/local/unload", json={"model": "tiny-Q8_0"})
    assert house.cli("models", "rm", "tiny-Q8_0", "--yes").returncode == 0
    assert list((house.state / "cache").rglob("*.gguf")) == []


def test_a_cancelled_pull_is_counted_and_the_next_goes_on(house: House, hub: FakeHub) -> None:
    """Cancelling ends the child and says so as an event; the partial file stays, and the next pull brings the rest."""
    hub.faults.hold_after = HELD
    with Events(house, "job") as events:
        started = house.http.post("/v1/local/pull", json={"repo": REPO, "file": "Q4_K_M"}).json()
        events.until(lambda event: event["data"].get("progress", {}).get("done", 0) > 0)
        cancelled = house.http.post(f"/v1/local/jobs/{started['id']}/cancel", json={}).json()
        assert (cancelled["state"], cancelled["error"]["code"]) == ("cancelled", "cancelled")
        events.until(lambda event: event["data"].get("state") == "cancelled")
    hub.faults.release.set()
    there = cancelled["downloaded"]
    assert 0 < there <= HELD
    assert downloads(house) == (1, 0)
    done = house.cli("models", "pull", f"{REPO}:Q4_K_M")
    assert done.returncode == 0, done.stderr
    assert "were here already" in done.stdout
    assert hub.requests("cdn")[-1].headers["range"] == f"bytes={there}-"


def test_a_broken_file_of_the_hub_is_not_called_ready(house: House, hub: FakeHub) -> None:
    """What arrives just as it is on the Hub and is no model is kept, named with its fault, and the command fails."""
    hub.add("acme/cut-GGUF", {"cut-Q4_K_M.gguf": hub.repos[REPO].files["tiny-Q4_K_M.gguf"][:200_000]})
    done = house.cli("models", "pull", "acme/cut-GGUF")
    assert (done.returncode, "ready" in done.stdout) == (1, False), done.stdout
    assert "cut short" in done.stdout


def test_the_running_daemons_configuration_is_planned_with(house: House, tmp_path: Path) -> None:
    """A daemon that was started with `--config` has models and wishes of its own; `models plan` takes those."""
    make_tiny_gguf(tmp_path / "mine.gguf")
    house.write_config({"local": {"models_dir": str(tmp_path), "context": 128, "parallel": 2}})
    assert house.http.post("/v1/reload", json={}).status_code == 200
    done = house.cli("models", "plan", "mine", "--json")
    assert done.returncode == 0, done.stderr
    options = json.loads(done.stdout)["options"]
    assert (options["context"], options["sequences"]) == (256, 2)
    shown = json.loads(house.cli("models", "show", "mine", "--json").stdout)
    assert shown["plan"]["options"] == options
    assert house.cli("models", "plan", "mine", "--config", str(tmp_path / "none.json")).returncode == 3
    many = house.http.post("/v1/local/pull", json={"repo": REPO, "parallel": 257})
    assert (many.status_code, many.json()["error"]["param"]) == (400, "parallel")


def test_what_brings_nothing_is_no_download(house: House, hub: FakeHub) -> None:
    """A pull of a repository that is not there, and one of a file that is here already, use up no download."""
    assert house.cli("models", "pull", "nobody/nothing").returncode != 0
    assert downloads(house) == (0, 0)
    assert house.cli("models", "pull", f"{REPO}:Q4_K_M").returncode == 0
    assert house.cli("models", "pull", f"{REPO}:Q4_K_M").returncode == 0
    assert downloads(house) == (1, 0)


def test_no_download_outlives_its_daemon(house: House, hub: FakeHub) -> None:
    """A killed daemon takes its download along; what had come is the next one's start."""
    hub.faults.hold_after = HELD
    with Events(house, "job") as events:
        house.http.post("/v1/local/pull", json={"repo": REPO, "file": "Q4_K_M"})
        events.until(lambda event: event["data"].get("progress", {}).get("done", 0) > 0)
    children = [
        one for one in psutil.Process(house.pid).children(recursive=True) if "hybridd.local.pull" in one.cmdline()
    ]
    assert len(children) == 1
    house.kill()
    until(lambda: not any(child.is_running() for child in children), what="the child's end")
    hub.faults.release.set()
    house.start()
    done = house.cli("models", "pull", f"{REPO}:Q4_K_M", "--json")
    assert json.loads(done.stdout)["result"]["files"][0]["resumed"] > 0


def test_a_repository_is_planned_by_the_daemon(house: House, hub: FakeHub) -> None:
    """POST /v1/local/plan looks at every file from its header, at one in full, and at a file by its address; nothing is
    downloaded, counted or listed as a job."""

    def ask(**asked: Any) -> Any:
        return house.http.post("/v1/local/plan", json=asked)

    whole = ask(repository=REPO, context=256).json()
    assert {one["file"]: one["context"] for one in whole["files"]} == {"tiny-Q4_K_M.gguf": 256, "tiny-Q8_0.gguf": 256}
    assert [one["file"] for one in whole["files"] if one["taken"]] == ["tiny-Q8_0.gguf"]
    one = ask(repository=f"{REPO}:Q4_K_M").json()
    assert (len(one["files"]), one["plan"]["model"]) == (1, "tiny-Q4_K_M")
    page = ask(repository=f"{hub.url}/{REPO}/resolve/main/tiny-Q8_0.gguf").json()
    assert page["plan"]["model"] == "tiny-Q8_0"
    assert downloads(house) == (0, 0)
    assert house.http.get("/v1/local/jobs").json() == {"jobs": []}
    for wrong, status, code in (
        ({"repository": "nobody/nothing"}, 404, "repository_not_found"),
        ({"repository": f"{REPO}:Q2_K"}, 404, "file_not_found"),
        ({"repository": "../x"}, 400, "invalid_request"),
        ({"repository": REPO, "context": 0}, 400, "invalid_request"),
        ({"repository": REPO, "model": "x"}, 400, "invalid_request"),
        ({}, 400, "invalid_request"),
    ):
        answer = ask(**wrong)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), wrong


def test_a_name_that_is_none_starts_nothing(house: House, hub: FakeHub) -> None:
    """A pull of a malformed name, file or revision, or of two files at once, is refused before anything is counted,
    written or started."""
    for wrong in ({"repo": "../../etc"}, {"repo": REPO, "file": "../x"}, {"repo": REPO, "revision": "../x"}):
        answer = house.http.post("/v1/local/pull", json=wrong)
        assert (answer.status_code, "looks like" in answer.json()["error"]["message"]) == (400, True), wrong
    page = f"{hub.url}/{REPO}/tree/main"
    for wrong in ({"repo": f"{REPO}:Q4_K_M", "file": "Q8_0"}, {"repo": page, "revision": "v1"}):
        answer = house.http.post("/v1/local/pull", json=wrong)
        assert (answer.status_code, "already" in answer.json()["error"]["message"]) == (400, True), wrong
    assert house.http.get("/v1/local/jobs").json() == {"jobs": []}
    assert downloads(house) == (0, 0)
    assert not (house.home / "cache").exists()
    assert hub.asked == []


def test_a_file_that_is_put_into_the_folder_is_found_at_the_next_request(house: House) -> None:
    """By its plain name, in a call, in a question about routing, and among the models; nobody's name stays unknown."""
    own = house.home / ".local" / "share" / "hybridd" / "models"
    own.mkdir(parents=True)
    make_tiny_gguf(own / "first.gguf", seed=1)
    chosen = house.http.post("/v1/route", json={"model": "first", "prompt": "hello there"}).json()
    assert chosen["chosen_model"] == "local:first"
    make_tiny_gguf(own / "second.gguf", seed=2)
    assert house.http.get("/v1/models/local:second").json()["id"] == "local:second"
    make_tiny_gguf(own / "third.gguf", seed=3)
    body = {"model": "third", "messages": [{"role": "user", "content": "hello there"}], "max_tokens": 2}
    assert house.http.post("/v1/chat/completions", json=body).headers["x-hybridd-model"] == "third"
    answer = house.http.post("/v1/chat/completions", json={**body, "model": "nobody"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
