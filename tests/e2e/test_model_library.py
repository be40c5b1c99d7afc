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
