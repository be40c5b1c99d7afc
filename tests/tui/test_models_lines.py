"""The words, figures and bars of local models: pure functions of plain values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from hybridd.errors import HybriddError, NotFound
from tui.deltas import apply
from tui.events import Event, answer
from tui.house import House, Resident
from tui.queries import QUERIES, wanted_after
from tui.screens.model_jobs import JOB_COLUMNS, outcome, running_text, shown, subject
from tui.screens.model_lines import about_lines, empty_text, parse_wish, removal_text, wish_text
from tui.screens.model_memory import Side, bar_line, legend_lines, sides, speed_line, speed_now
from tui.screens.model_pull import COLUMNS as FILE_COLUMNS
from tui.screens.model_pull import PLAN_SECONDS, RepoFile, ask_plan, parse_repo
from tui.screens.model_rows import COLUMNS, leaves_text, rows, speed_of, state_text
from tui.shapes import Gpu, Host, Job, LocalFile, Request
from tui.text import ASCII, RICH, clean, plain
from tui.widgets.columns import layout, row_line

NOW = 1_795_000_000.0
GB = 1 << 30


def resident(model: str = "m", **more: Any) -> Resident:
    memory = {"device": {"weights": 2 * GB, "kv": GB, "compute": GB // 2}, "host": {"weights": GB, "runtime": GB // 4}}
    plan = {"target": "gpu", "budget": 6 * GB}
    return Resident(**{"model": model, "state": "ready", "memory": memory, "plan": plan, "options": {"gpu": 0}, **more})


def house(*models: Resident, gpu: bool = True, **more: Any) -> House:
    made = House(now=NOW, local={one.model: one for one in models}, local_at=NOW, **more)
    gpus = [{"name": "G", "total": 12 * GB, "free": 7 * GB}] if gpu else []
    made.machine = {"ram_total": 16 * GB, "ram_available": 10 * GB, "gpus": gpus, "gpu_reason": ""}
    return made


def request(**more: Any) -> Request:
    return Request(**{"id": "r1", "at": NOW - 1, "provider": "local", "model": "m", "output_tokens": 50,
                      "latency_ms": 1500.0, "first_token_ms": 500.0, **more})  # fmt: skip


# ---- memory --------------------------------------------------------------------------------------------------------


def test_the_gpu_is_stacked_against_the_budget() -> None:
    """What is used beyond the models' own is others'; what the budget does not cover is kept free."""
    vram, ram = sides(house(resident()))
    assert (vram.title, vram.weights, vram.kv, vram.compute) == ("VRAM", 2 * GB, GB, GB // 2)
    assert (vram.others, vram.budget) == (5 * GB - 3.5 * GB, 6 * GB)
    stack = {part.name: part.size for part in vram.stack()}
    assert (stack["free"], stack["kept free"]) == (2.5 * GB, 4.5 * GB)
    assert "3.5 GiB of 6.0 GiB budget" in plain(bar_line(vram, 100, RICH))
    assert ram.title == "RAM"


def test_without_a_gpu_it_is_the_machines_memory() -> None:
    """Weights are mapped from their file, so that they are not among what the kernel calls used."""
    (ram,) = sides(house(resident(), gpu=False))
    assert (ram.weights, ram.compute, ram.others, ram.budget) == (GB, GB // 4, 6 * GB - GB // 4, None)
    assert "1.2 GiB of 16.0 GiB" in plain(bar_line(ram, 60, RICH))
    assert "budget" not in plain(bar_line(ram, 100, RICH))


def test_the_budget_of_two_is_the_newest_plans_beside_the_older() -> None:
    """The newest plan was made beside what was there before it."""
    first, second = resident("a", since=1.0), resident("b", since=2.0, plan={"target": "gpu", "budget": 4 * GB})
    assert sides(house(first, second))[0].budget == int(3.5 * GB) + 4 * GB


def test_a_newer_sample_of_the_same_gpu_counts() -> None:
    """The host's samples are newer than the answer about what is loaded."""
    made = house(resident(), host=Host(gpus=[Gpu(0, "G", 12 * GB, 11 * GB, GB)]))
    assert sides(made)[0].others == int(7.5 * GB)


@given(st.lists(st.integers(0, 40 * GB), min_size=5, max_size=5), st.none() | st.integers(0, 60 * GB),
       st.integers(20, 200), st.booleans())  # fmt: skip
def test_the_bar_always_fits(sizes, budget, width, rich) -> None:
    """Its width never depends on the figures, and its parts never exceed the whole when they fit into it."""
    total, *used = sizes
    weights, kv, compute, others = used
    side = Side("VRAM", total, weights, kv, compute, others, budget)
    signs = RICH if rich else ASCII
    assert cell_len(plain(bar_line(side, width, signs))) <= max(width, 7 + 4 + 30)
    assert all(part.size >= 0 for part in side.stack())
    if sum(used) <= total:
        assert sum(part.size for part in side.stack()) == total
    assert all(cell_len(plain(line).rstrip()) <= max(width, 24) for line in legend_lines(side, width, signs))
    if not rich:
        assert plain(bar_line(side, width, signs)).isascii()


def test_tokens_per_second_are_those_of_the_last_seconds() -> None:
    """All local answers together; nothing is no speed."""
    made = house(resident(in_flight=2), resident("n", state="loading"))
    made.rates.add(NOW - 3, 10.0, local_tokens=200)
    said = plain(speed_line(made, 100, RICH))
    assert "20.0" in said
    assert "1 loaded, 1 loading" in said
    assert "2 calls in flight" in said


def test_tokens_per_second_are_those_that_are_written_now() -> None:
    """A worker tells of an answer that has not ended; what it said before its last call ended is over."""
    made = house(resident(in_flight=1, tokens_per_second=41.5))
    assert "41.5" in plain(speed_line(made, 100, RICH))
    assert plain(speed_line(made, 100, RICH)).count("█") == 1
    assert rows(made)[0].speed == 41.5
    assert speed_now(house(resident(in_flight=0, tokens_per_second=41.5))) == 0.0
    made.rates.add(NOW - 2, 1000.0, local_tokens=1000)
    assert speed_now(made) == 100.0


def test_the_budget_of_nothing_loaded_is_that_of_any_plan() -> None:
    """Made while nothing was loaded; as soon as something is, its own plan counts."""
    assert sides(house(gpu=False), {"cpu": 6 * GB})[0].budget == 6 * GB
    vram, ram = sides(house(), {"gpu": 5 * GB})
    assert (vram.budget, ram.budget) == (5 * GB, None)
    assert sides(house(resident()), {"gpu": 5 * GB})[0].budget == 6 * GB


# ---- rows ----------------------------------------------------------------------------------------------------------


def test_what_is_loaded_stands_first_with_its_state_in_words() -> None:
    """Loading, ready, failed, the others by name; a loading one with how far it is."""
    library = {name: LocalFile(name, state) for name, state in
               [("z", "unloaded"), ("b", "failed"), ("a", "unloaded"), ("r", "ready"), ("gone", "ready")]}  # fmt: skip
    made = rows(house(resident("r", leaves_in=90.4), resident("l", state="loading", fraction=0.43), library=library))
    assert [(one.id, state_text(one)[0]) for one in made] == [
        ("l", "loading 43 %"), ("r", "ready"), ("b", "! failed"), ("a", "on disk"), ("gone", "on disk"),
        ("z", "on disk"),
    ]  # fmt: skip
    assert leaves_text(made[1]) == "in 1 min"
    assert state_text(rows(house(resident(in_flight=1)))[0])[0] == "busy 1 call"
    assert leaves_text(rows(house(resident(in_flight=1)))[0]) == "in use"
    assert leaves_text(rows(house(resident()))[0]) == "stays"


def test_the_speed_is_that_of_the_last_answer() -> None:
    """A streamed answer counts from its first token, which is there by then; another without the time its model took to
    load. Hits, others' answers and what came all at once have no speed."""
    assert speed_of(request(stream=True)) == 49.0
    assert speed_of(request(overhead_ms=500.0)) == 50.0
    assert speed_of(request(stream=True, output_tokens=1)) is None
    assert speed_of(request(stream=True, first_token_ms=1499.5)) is None
    assert speed_of(request()) == pytest.approx(33.333, rel=1e-3)
    assert speed_of(request(cache="hit")) is None
    assert speed_of(request(provider="groq")) is None
    assert speed_of(request(output_tokens=0)) is None
    made = house(resident())
    made.requests.extend([request(output_tokens=10), request(id="r2")])
    assert rows(made)[0].speed == pytest.approx(33.333, rel=1e-3)


@pytest.mark.parametrize("width", [58, 78, 160])
def test_rows_fill_exactly_the_width(width: int) -> None:
    """Also with what a file says of itself: no control character, no glyph of unknown width."""
    library = {"m": LocalFile("m\x1b[31m日本", "failed", reason="a\nb", architecture="llama", bytes=5 * GB)}
    line = plain(row_line(rows(house(library=library))[0], layout(COLUMNS, width), ASCII))
    assert cell_len(line) == width
    assert "\x1b" not in line


# ---- one model -----------------------------------------------------------------------------------------------------

PLAN = {
    "model": "m", "goal": "quality", "target": "gpu", "gpu": "RTX", "layers": 32, "budget": 6 * GB, "margin": GB // 4,
    "options": {"gpu_layers": 20, "sequences": 2, "type_k": "q8_0", "type_v": "q8_0", "batch": 512, "micro_batch": 256},
    "sequence_context": 8192, "memory": {"device": {"weights": 2 * GB}, "host": {}},
    "reasons": ["20 of 32 layers fit"], "rejected": [{"reason": "f16 cache is too large."}],
}  # fmt: skip


def about(made: House, details: dict[str, Any] | None, asked: str = "", width: int = 100) -> str:
    return "\n".join(plain(line) for line in about_lines(rows(made)[0], details, asked, width, RICH))


def test_a_plan_says_where_how_and_why() -> None:
    """Layers, context, cache, memory by part, budget, reasons and what was passed over."""
    said = about(house(library={"m": LocalFile("m", path="/x/m.gguf", keep_alive=600.0)}), {"plan": PLAN})
    for part in ("20 of 32 layers on RTX", "8,192 tokens for each of 2 requests at once", "KV q8_0/q8_0",
                 "2.0 GiB: weights 2.0 GiB", "6.0 GiB, 256 MiB of it kept free", "20 of 32 layers fit.",
                 "f16 cache is too large", "/x/m.gguf", "leaves 10 min after its last call"):  # fmt: skip
        assert part in said


def test_a_plan_that_does_not_fit_says_so_first() -> None:
    """With the wish it was made for, also beside a loaded model."""
    refused = {**PLAN, "options": None, "reasons": ["it needs 9 GB and 6 GB are there"]}
    said = about(house(resident()), {"plan": refused}, "65,536 tokens")
    assert said.splitlines()[0].endswith("It does not fit for 65,536 tokens. It needs 9 GB and 6 GB are there.")
    assert "as planned" in said


def test_a_failed_model_says_why() -> None:
    """The daemon's sentence stands first."""
    made = house(library={"m": LocalFile("m", "failed", reason="the file is cut short")})
    assert about(made, None).splitlines()[0] == " failed    the file is cut short"


def test_what_a_removal_would_do_is_said() -> None:
    """The bytes that come back; of a link that none do; and names under which the file stays."""
    assert removal_text("m", 3 * GB, []) == "Remove m from the disk? 3.0 GiB are freed."
    assert removal_text("m", 0, ["n"]) == (
        "Remove m? It is a link: only that goes, and nothing is freed. The same file stays reachable as n."
    )


@pytest.mark.parametrize(
    ("text", "wish", "said"),
    [
        ("", {}, ""),
        ("8192", {"context": 8192}, "8,192 tokens"),
        ("8k x4", {"context": 8192, "parallel": 4}, "8,192 tokens, 4 at once"),
        ("throughput 16,384", {"goal": "throughput", "context": 16384}, "16,384 tokens, throughput"),
    ],
)
def test_a_wish_is_read(text: str, wish: dict[str, Any], said: str) -> None:
    """Tokens, requests at once and a goal in any order."""
    assert parse_wish(text) == wish
    assert wish_text(wish) == said


@pytest.mark.parametrize("text", ["much", "0", "x0", "-5", "8q", "x", "²"])
def test_a_wish_that_means_nothing_is_refused(text: str) -> None:
    """With a sentence that says what could be meant."""
    with pytest.raises(ValueError, match=r"must be at least 1|neither tokens"):
        parse_wish(text)


def test_without_models_it_says_what_to_do() -> None:
    """Pull one, or put a file into the folder that is looked into."""
    made = house()
    made.folders = {"models_dir": "/data/models"}
    assert empty_text(made) == "No model here yet: p pulls one from the Hub, or put a .gguf file into /data/models."


# ---- downloads and measurements ------------------------------------------------------------------------------------


def job(**more: Any) -> Job:
    return Job(**{"id": "pull-1", "kind": "pull", "state": "running", "started": NOW - 60,
                  "request": {"repo": "acme/tiny", "file": "Q4_K_M"}, **more})  # fmt: skip


def test_a_download_says_how_far_how_fast_and_how_long() -> None:
    """And only its state while nothing has come."""
    at = {"state": "downloading", "done": GB, "total": 2 * GB, "bytes_per_second": 64 << 20}
    assert running_text(job(progress=at)) == "50 %  1.0 GiB of 2.0 GiB  64 MiB/s  16 s left"
    assert running_text(job()) == "starting"
    assert running_text(job(progress={"state": "verifying", "done": 1, "total": 1})) == "verifying"
    measured = {"state": "measuring", "done": 3, "total": 8}
    assert running_text(job(kind="bench", progress=measured)) == "measuring 3 of 8"
    assert subject(job()) == "acme/tiny:Q4_K_M"


def test_an_ended_job_says_what_came_of_it() -> None:
    """Success in figures, a failure in the daemon's sentence."""
    done = job(state="done", ended=NOW, result={"model": "tiny"}, downloaded=5 << 20)
    assert outcome(done) == ("tiny is here, 5 MiB", "good")
    broken = {"model": "tiny", "problem": "tiny.gguf: it is cut short.", "hidden_by": None}
    assert outcome(job(state="done", ended=NOW, result=broken, downloaded=5 << 20)) == (
        "! tiny is here and cannot be loaded: tiny.gguf: it is cut short.", "warn",
    )  # fmt: skip
    hidden = {"model": "tiny", "problem": None, "hidden_by": "/models/tiny.gguf"}
    assert outcome(job(state="done", ended=NOW, result=hidden)) == (
        "! tiny is here, but local:tiny is another file: /models/tiny.gguf", "warn",
    )  # fmt: skip
    failed = job(state="failed", ended=NOW, error={"message": "no such repository"})
    assert outcome(failed) == ("! no such repository", "warn")
    assert "what has arrived is kept" in outcome(job(state="cancelled", ended=NOW))[0]
    line = plain(row_line(failed, layout(JOB_COLUMNS, 60), RICH))
    assert "no such repository" in line
    assert cell_len(line) == 60


def test_what_runs_stands_before_what_ended_lately() -> None:
    """The newest first; what ended long ago is left out."""
    jobs = [job(id="a"), job(id="b", started=NOW - 5), job(id="c", state="done", ended=NOW - 9),
            job(id="d", state="done", ended=NOW - 9000)]  # fmt: skip
    assert [one.id for one in shown(jobs, NOW)] == ["b", "a", "c"]


# ---- pulling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("acme/tiny-GGUF", ("acme/tiny-GGUF", None)),
        (" acme/tiny:Q4_K_M ", ("acme/tiny", "Q4_K_M")),
        ("acme/tiny/sub/tiny.gguf", ("acme/tiny", "sub/tiny.gguf")),
        ("https://huggingface.co/acme/tiny", ("acme/tiny", None)),
    ],
)
def test_a_repository_is_read_as_it_is_copied(text: str, parsed: tuple[str, str | None]) -> None:
    """Its name, its address, with a quantisation or a file."""
    assert parse_repo(text) == parsed


@pytest.mark.parametrize("text", ["", "tiny", "a b/c", "--json/x y", "acme/"])
def test_what_is_no_repository_is_refused(text: str) -> None:
    """Before anybody is asked."""
    with pytest.raises(ValueError, match="owner/name"):
        parse_repo(text)


class Asked:
    """A dashboard whose daemon gives one answer, or says no."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.calls: list[tuple[Any, float | None]] = []

    async def query_daemon(self, call: Any, *, seconds: float | None = None) -> Any:
        self.calls.append((call.body, seconds))
        if isinstance(self.answer, HybriddError):
            raise self.answer
        return self.answer


async def test_a_plan_that_cannot_be_made_is_a_sentence() -> None:
    """The daemon is asked for the repository, with patience; its own error or a strange answer is one sentence."""
    asked: Any = Asked(NotFound("There is no such \x1brepository."))
    assert await ask_plan(asked, "a/b") == (None, clean("There is no such \x1brepository."))
    assert asked.calls == [({"repository": "a/b"}, PLAN_SECONDS)]
    asked.answer = {"repo": 1}
    assert "is no plan of a repository" in (await ask_plan(asked, "a/b"))[1]
    asked.answer = {"repo": "a/b", "files": [{"file": "x.gguf", "fit": "gpu", "more": 1}]}
    plan, reason = await ask_plan(asked, "a/b")
    assert plan is not None
    assert not reason
    assert "on the GPU" in plain(row_line(plan.files[0], layout(FILE_COLUMNS, 100), RICH))
    assert cell_len(plain(row_line(RepoFile("x" * 200), layout(FILE_COLUMNS, 58), RICH))) == 58


# ---- the house -----------------------------------------------------------------------------------------------------


def test_the_progress_of_a_load_is_taken_from_the_stream() -> None:
    """Of a model that is known to be loading; everything else of a plugin's progress changes nothing."""
    made = house(resident("m", state="loading"))

    def progress(seq: int, **more: Any) -> set[str]:
        data = {"event": "progress", "plugin": "local:m", "operation": "load", "text": "m", "fraction": 0.5, **more}
        return apply(made, Event(seq, NOW, "plugin", data))

    assert progress(1) == {"local"}
    assert made.local["m"].fraction == 0.5
    assert progress(2, text="other") == set()
    assert progress(3, operation="training") == set()
    assert progress(4, fraction="half") == set()
    assert made.misread == 1


def test_the_library_is_asked_for_by_its_screen_alone() -> None:
    """After connecting the daemon is not made to look into its folders; the answer replaces what was known."""
    assert wanted_after([Event(1, NOW, "snapshot", {})]) == set(QUERIES) - {"library"}
    made = house(library={"old": LocalFile("old")})
    body = {"models": [{"id": "m", "state": "ready", "bytes": 5, "unknown": 1}]}
    assert apply(made, answer("library", body, NOW)) == {"local"}
    assert made.library == {"m": LocalFile("m", "ready", bytes=5)}
