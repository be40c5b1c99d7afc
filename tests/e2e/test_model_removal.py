"""``POST /v1/local/remove``: what goes, what stays, and when it is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.tiny_gguf import make_tiny_gguf
from tests.house import House

pytest.importorskip("llama_cpp")


@pytest.fixture
def house() -> Iterator[House]:
    running = House()
    folder = running.home / "models"
    folder.mkdir()
    make_tiny_gguf(folder / "mine.gguf")
    running.write_config({"local": {"models_dir": str(folder)}, "hugging_face": {"cache_dir": "cache"}})
    with running:
        yield running


def names(house: House) -> set[str]:
    return {one["id"] for one in house.http.get("/v1/local/models").json()["models"]}


def test_a_removal_is_told_first_and_then_done(house: House) -> None:
    """A dry run names the file and its bytes and touches nothing; the model is gone for everybody afterwards."""
    path = house.home / "models" / "mine.gguf"
    size = path.stat().st_size
    told = house.http.post("/v1/local/remove", json={"model": "mine", "dry_run": True}).json()
    assert (told["freed"], told["dry_run"], told["aliases"]) == (size, True, [])
    assert [one["path"] for one in told["removed"]] == [str(path)]
    assert path.exists()
    done = house.http.post("/v1/local/remove", json={"model": "mine"}).json()
    assert (done["freed"], done["removed"]) == (size, told["removed"])
    assert not path.exists()
    assert "mine" not in names(house)
    assert house.http.post("/v1/local/remove", json={"model": "mine"}).json()["error"]["code"] == "model_not_found"


def test_a_loaded_model_stays(house: House) -> None:
    """Under each of its names; its file is still there."""
    path = house.home / "models" / "mine.gguf"
    assert house.http.post("/v1/local/load", json={"model": "mine"}).status_code == 200
    answer = house.http.post("/v1/local/remove", json={"model": "mine"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "model_loaded")
    assert path.exists()
    house.http.post("/v1/local/unload", json={"model": "mine"})
    assert house.http.post("/v1/local/remove", json={"model": "mine"}).status_code == 200


def test_of_a_link_only_the_link_goes(house: House) -> None:
    """What another program keeps elsewhere is not taken from it, and nothing is freed."""
    elsewhere = make_tiny_gguf(house.home / "elsewhere.gguf", seed=4)
    link = house.home / "models" / "linked.gguf"
    link.symlink_to(elsewhere)
    answer = house.http.post("/v1/local/remove", json={"model": "linked"}).json()
    assert answer["freed"] == 0
    assert elsewhere.exists()
    assert not link.is_symlink()
