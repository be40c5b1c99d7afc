"""Which file of a repository is taken: grouping, picking by name, and choosing by the plan."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.local.hub import Hub, RepoFile, RepoModel, Repository, choose, group, pick
from hybridd.local.hub_errors import HubError
from hybridd.local.types import LoadOptions, Memory, Plan, Target
from tests.fakes.hub import FakeHub
from tests.fakes.tiny_gguf import make_tiny_gguf
from tests.local.hub_support import Place

GB = 10**9
SIZES = {"F16": 8, "Q8_0": 4, "Q6_K": 3, "Q4_K_M": 2, "Q2_K": 1}
LAYERS = 28


def files(*names: str) -> list[RepoFile]:
    return [RepoFile(name, 1000 - number) for number, name in enumerate(names)]


def models() -> list[RepoModel]:
    return group([RepoFile(f"m-{label}.gguf", size * GB) for label, size in SIZES.items()])[0]


def planned(model: RepoModel, room: int, target: Target) -> Plan:
    """As many layers as the room takes; None when it is not even one."""
    share = min(1.0, room / model.bytes)
    layers = LAYERS + 1 if share == 1.0 else int(share * LAYERS)
    fits = layers > 0 if target == "gpu" else share == 1.0
    return Plan(
        model=model.name, goal="quality", target=target, layers=LAYERS, budget=room, margin=0, memory=Memory(),
        options=LoadOptions(gpu_layers=layers if target == "gpu" else 0, context=8192) if fits else None,
        reasons=[] if fits else [f"{model.bytes:,} bytes are needed"], sequence_context=8192,
    )  # fmt: skip


def test_files_are_grouped_into_models(tmp_path: Path) -> None:
    """Parts are one model, projectors another kind, statistics and torn models none; the largest comes first."""
    found, incomplete = group(
        files(
            "m-Q4_K_M.gguf", "Q8_0/m-Q8_0-00001-of-00002.gguf", "Q8_0/m-Q8_0-00002-of-00002.gguf", "mmproj-F16.gguf",
            "m.imatrix.gguf", "torn-Q2_K-00001-of-00002.gguf", "IQ4_XS/plain.gguf",
        )
    )  # fmt: skip
    shown = [(model.name, model.quantization, len(model.files), model.kind) for model in found]
    assert shown == [
        ("m-Q8_0", "Q8_0", 2, "model"),
        ("m-Q4_K_M", "Q4_K_M", 1, "model"),
        ("mmproj-F16", "F16", 1, "projector"),
        ("plain", "IQ4_XS", 1, "model"),
    ]
    assert incomplete == ["torn-Q2_K"]


@pytest.mark.parametrize("wanted", ["sub/m-Q4_K_M.gguf", "M-q4_k_m.gguf", "m-Q4_K_M", "q4_k_m"])
def test_a_model_is_picked_by_path_name_stem_or_quantisation(wanted: str) -> None:
    """Each spelling means the same file."""
    found, _ = group(files("sub/m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj-Q4_K_M.gguf"))
    assert pick(Repository("a/b", "c", tuple(found)), wanted).files[0].path == "sub/m-Q4_K_M.gguf"


def test_what_means_several_files_or_none_is_an_error() -> None:
    """Two files of one quantisation have to be told apart; an unknown one is answered with near names."""
    found, _ = group(files("a-Q4_K_M.gguf", "b-Q4_K_M.gguf"))
    repository = Repository("a/b", "c", tuple(found))
    with pytest.raises(HubError, match=r"several files of a/b: a-Q4_K_M\.gguf, b-Q4_K_M\.gguf"):
        pick(repository, "Q4_K_M")
    with pytest.raises(HubError, match="the nearest: Q4_K_M"):
        pick(repository, "Q4_K_S")


def test_the_largest_that_fits_whole_is_taken_and_the_rest_has_reasons() -> None:
    """With room for 3.5 GB the 3 GB file is taken; smaller ones are not even planned."""
    asked: list[str] = []

    def plan(model: RepoModel) -> Plan:
        asked.append(model.quantization)
        return planned(model, int(3.5 * GB), "gpu")

    choice = choose(models(), plan, has_gpu=True)
    assert choice.model.quantization == "Q6_K"
    assert asked == ["Q8_0", "Q6_K"]
    assert choice.reasons[0] == "Q6_K is the largest that fits into the GPU with all 29 layers, 8,192 tokens of context"
    assert choice.passed_over == {
        "F16": "not quantised: twice the size of Q8_0 for no better answers",
        "Q8_0": "only 24 of 29 layers fit on the GPU",
    }


def test_when_nothing_fits_whole_the_one_with_the_most_layers_is_taken() -> None:
    """On a GPU too small for any of them, the smallest has the largest share on it; the reason says so."""
    choice = choose(models(), lambda model: planned(model, GB // 2, "gpu"), has_gpu=True)
    assert choice.model.quantization == "Q2_K"
    assert "nothing fits on the GPU as a whole" in choice.reasons[0]


def test_memory_counts_on_a_machine_without_a_gpu() -> None:
    """The same rule for main memory; on a machine with a GPU, a model beside it does not fit well."""
    assert choose(models(), lambda model: planned(model, 5 * GB, "cpu")).model.quantization == "Q8_0"
    mixed = choose(
        models(),
        lambda m: planned(m, 50 * GB if m.bytes > 2 * GB else 3 * GB, "cpu" if m.bytes > 2 * GB else "gpu"),
        has_gpu=True,
    )
    assert mixed.model.quantization == "Q4_K_M"


def test_an_unquantised_file_is_taken_when_there_is_no_other() -> None:
    """A repository with F16 alone is served with it."""
    found, _ = group([RepoFile("m-F16.gguf", GB)])
    assert choose(found, lambda model: planned(model, 2 * GB, "cpu")).model.quantization == "F16"


def test_nothing_that_fits_is_an_error_with_every_reason() -> None:
    """Each file is named with what it would need."""
    with pytest.raises(HubError) as caught:
        choose(models(), lambda model: planned(model, 1, "cpu"))
    assert caught.value.error_code == "does_not_fit"
    assert set(caught.value.details["rejected"]) == set(SIZES)


@given(st.integers(GB // 10, 9 * GB), st.integers(0, 2 * GB), st.sampled_from(["gpu", "cpu"]))
def test_more_room_never_chooses_a_smaller_file(room: int, more: int, target: Target) -> None:
    """Growing memory keeps the choice or makes it larger."""
    sizes = []
    for available in (room, room + more):
        try:
            choice = choose(models(), partial(planned, room=available, target=target), has_gpu=target == "gpu")
            sizes.append(choice.model.bytes)
        except HubError:
            sizes.append(0)
    assert sizes[0] <= sizes[1]


# ---- against a hub -------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with FakeHub() as hub:
        yield Place(tmp_path, hub)


def test_a_pull_without_a_name_plans_from_headers_and_downloads_the_one_chosen(place: Place, tmp_path: Path) -> None:
    """Real GGUF files: the headers are read by ranges, the larger quantisation is taken on this machine and the reason
    is in the result; of the other no content is downloaded."""
    small, large = (make_tiny_gguf(tmp_path / f"{size}.gguf", context=size).read_bytes() for size in (256, 512))
    place.hub.add("acme/two", {"m-Q4_0.gguf": small, "m-Q8_0.gguf": large + bytes(1 << 20)})
    ended = place.pull("acme/two")
    assert ended.result["model"] == "m-Q8_0"
    assert "Q8_0 is the largest that fits into memory" in ended.result["choice"]["reasons"][0]
    assert "choosing" in {line["state"] for line in ended.progress}
    assert [one for one in place.hub.requests("cdn") if "range" not in one.headers] != []


def test_a_file_that_is_no_model_is_passed_over_with_its_reason(place: Place, tmp_path: Path) -> None:
    """A broken header costs its file the choice, not the whole pull."""
    fine = make_tiny_gguf(tmp_path / "x.gguf").read_bytes()
    place.hub.add("acme/two", {"m-Q4_0.gguf": fine, "m-Q8_0.gguf": b"nonsense" * 100_000})
    done = place.pull("acme/two").result
    assert (done["model"], list(done["choice"]["passed_over"])) == ("m-Q4_0", ["Q8_0"])


def test_a_search_lists_repositories_with_what_the_hub_says(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloads, architecture, size, context and quantisations come from one request; a failing Hub has its code."""
    monkeypatch.setenv("HF_ENDPOINT", place.hub.url)
    about = {"gguf": {"total": 4_000_000_000, "architecture": "qwen3", "context_length": 40960}}
    place.hub.add("acme/tiny-GGUF", {"t-Q4_K_M.gguf": b"x", "t-Q8_0.gguf": b"y"}, gated=True, extra=about)
    place.hub.add("acme/other", {"o.gguf": b"x"})
    (found,) = Hub().search("tiny", limit=5)
    assert (found.repo, found.gated, found.quantizations) == ("acme/tiny-GGUF", True, ("Q4_K_M", "Q8_0"))
    assert (found.architecture, found.parameters, found.context) == ("qwen3", 4_000_000_000, 40960)
    place.hub.faults.status["api"] = (429, {"Retry-After": "5"}, 1)
    with pytest.raises(HubError) as caught:
        Hub().search("tiny")
    assert (caught.value.error_code, caught.value.retry_after) == ("rate_limited", 5)
