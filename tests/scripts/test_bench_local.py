"""The parts of `scripts/bench local`, at tiny sizes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from itertools import count

import pytest

from hybridd.local.gguf import open_model
from scripts.bench_parts import local, local_engine, local_models, local_rivals, report
from scripts.bench_parts import main as bench
from scripts.bench_parts.house import House
from scripts.bench_parts.loadgen import Result, run
from scripts.bench_parts.local_house import LocalHouse
from scripts.bench_parts.local_loads import growth
from tests.fakes.upstream import InProcessUpstream, rule
from tests.scripts.test_bench_loadgen import target


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return local_models.make(local_models.TINY, tmp_path_factory.mktemp("bench"))


def test_the_model_is_the_same_every_time(tiny, tmp_path):
    """The same seed gives the same bytes, another seed others; the header is what our own reader accepts."""

    def digest(path):
        return hashlib.sha256(path.read_bytes()).hexdigest()

    assert digest(local_models.make(local_models.TINY, tmp_path)) == digest(tiny)
    assert digest(local_models.make(local_models.TINY, tmp_path, seed=2)) != digest(tiny)
    read = open_model(tiny)
    assert read.architecture == "llama"
    sizes = {tensor.name: tensor.shape for tensor in read.tensors}
    assert sizes["token_embd.weight"] == (local_models.TINY.embedding, local_models.TINY.vocabulary)


def test_the_sizes_are_the_promised_ones():
    """150 million parameters, and one gigabyte in Q8_0 (34 bytes for 32 weights)."""
    assert 145e6 <= local_models.SMALL.parameters <= 155e6
    assert 0.98e9 <= local_models.LARGE.parameters * 34 / 32 <= 1.05e9


def test_a_prompt_has_exactly_its_tokens(tiny):
    """207 words are 207 tokens in llama.cpp, the chat template adds none, and different prompts share no beginning."""
    native = pytest.importorskip("plugins.llama_cpp.native")
    model = native.Model(tiny)
    try:
        found = [
            list(model.tokenize(local_models.words(207, seed), add_special=True, parse_special=True))
            for seed in range(20)
        ]
    finally:
        model.close()
    assert {len(tokens) for tokens in found} == {207}
    assert len({tuple(tokens[:2]) for tokens in found}) == 20


def test_a_vocabulary_that_cannot_be_made_is_refused():
    """More tokens than there are words is an error, not a shorter list."""
    with pytest.raises(ValueError, match="cannot be made"):
        local_models.vocabulary(10_000_000)


def test_a_stream_counts_only_when_all_tokens_came():
    """An answer that ended early, or has no end, is none; an event with only the role is no first token."""
    role = b'data: {"choices":[{"delta":{"role":"assistant","content":null}}]}\n\n'
    empty = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
    text = b'data: {"choices":[{"delta":{"content":" bato"}}]}\n\n'
    spaced = b'data: {"choices": [{"delta": {"content": "ba"}}]}\n\n'
    end = b'data: {"choices":[{"delta":{},"finish_reason":"%s"}]}\n\ndata: [DONE]\n\n'
    assert [local.spoken(body) for body in (role, empty, role + text, spaced)] == [False, False, True, True]
    assert local.whole(role + text + end % b"length")
    assert not local.whole(role + text + end % b"stop")
    assert not local.whole(role + text + (end % b"length")[:-16])


async def test_each_call_has_its_own_prompt():
    """With an iterator of requests every call takes the next one; the first token is timed where the text begins."""
    sent = []

    def noted():
        for request in local.requests("m1", count(1)):
            sent.append(request)
            yield request

    async with InProcessUpstream() as fake:
        fake.script([rule({"chunks": 3, "chunk_interval_s": 0.01}, stream=True)])
        late = await run(target(fake), noted(), callers=3, calls=6, begun=lambda body: b"[DONE]" in body)
        early = await run(target(fake), noted(), callers=3, calls=6, begun=local.spoken)
    assert (late.answered, early.answered) == (6, 6)
    assert len(set(sent)) == 6  # the second run began again
    assert late.firsts == late.latencies
    assert all(first < whole for first, whole in zip(early.firsts, early.latencies, strict=True))


async def test_a_server_that_closes_gets_new_connections():
    """A target that closes after each stream is called on a new connection each time, and nothing is lost."""
    async with InProcessUpstream() as fake:
        fake.script([rule({"chunks": 2}, stream=True)])
        result = await run(target(fake)._replace(closes=True), local.requests("m1", count(1)), callers=2, calls=8)
    assert (result.answered, dict(result.errors)) == (8, {})


def test_targets_compare_with_the_same_round():
    """Ratios are of neighbours in time, the best of the others bounds the first token, and errors are not hidden."""

    def sample(seconds, first):
        made = []
        for calls in (8, 16, 8):
            result = Result()
            result.latencies, result.firsts, result.seconds = [seconds / calls] * calls, [first] * calls, seconds
            made.append(result)
        return local.Sample(*made)

    samples = {
        "hybridd": [sample(1.0, 0.2), sample(2.0, 0.2)],
        local_rivals.CPP: [sample(1.1, 0.4), sample(2.2, 0.4)],
        local_rivals.PYTHON: [sample(5.0, 0.3), sample(5.0, 0.3)],
    }
    samples["hybridd"][0].one.errors["connection lost"] = 1
    figures = local._figures(samples, [0.1], local_rivals.Setup(path="m.gguf"))
    aimed = {figure.name: figure for figure in figures if figure.verdict}
    ratios = [figure for name, figure in aimed.items() if "C++" in name]
    assert [report.number(figure.value) for figure in ratios] == ["1.1", "1.1", "1.1"]
    first = next(figure for name, figure in aimed.items() if name.startswith("first token"))
    assert (first.value, first.target, first.verdict) == (200, "≤ 300 ms", "met")
    assert aimed["errors"].verdict == "missed"


def test_a_missing_rival_is_a_line(monkeypatch, tmp_path):
    """What the rivals' Python lacks is found without importing it, and every recipe says how to get it."""
    monkeypatch.delenv("HYBRIDD_BENCH_RIVALS", raising=False)
    monkeypatch.delenv("HYBRIDD_BENCH_EXAMPLE", raising=False)
    assert local_rivals.lacking(["json", "no_such_module_here"]) == ["no_such_module_here"]
    setup = local_rivals.Setup(path="m.gguf")
    found = local_rivals.recipes(setup, 1, tmp_path)
    assert [one.name for one in found] == [local_rivals.CPP, local_rivals.PYTHON]
    assert all(one.missing.startswith("pip install ") for one in found)
    monkeypatch.setenv("HYBRIDD_BENCH_EXAMPLE", "/somewhere/server.py")
    assert local_rivals.recipes(setup, 1, tmp_path)[-1].name == local_rivals.EXAMPLE
    config = json.loads((tmp_path / "example.json").read_text())
    assert config["model"]["n_seq_max"] == setup.sequences


def test_the_group_is_wired():
    """`scripts/bench local` has every local figure, and the core group none of them."""
    assert {name for name in bench.PARTS if name.startswith("local-")} == set(bench.GROUPS["local"])
    assert not set(bench.GROUPS["local"]) & set(bench.GROUPS["core"])


def test_the_engine_alone_tells_its_own_share(tiny):
    """The engine runs in a process of its own and says where the time of its steps went."""
    pytest.importorskip("llama_cpp")
    wanted = {
        "path": str(tiny), "context": 512, "sequences": 4, "batch": 256, "micro_batch": 64, "threads": 1,
        "unified": True, "callers": 2, "calls": 1, "prompt_tokens": 20, "new_tokens": 8, "temperature": 0.8,
    }  # fmt: skip
    told = local_engine._run(wanted, {"PATH": os.environ["PATH"]})
    assert told["answer_tokens"] == 16
    assert told["steps"] >= 8
    assert told["computing"] > 0
    (figure,) = local_engine._figures(told, 2)
    assert figure.unit == "%"
    assert re.search(r"[\d.]+ ms computing", figure.detail)


@pytest.mark.slow
async def test_a_daemon_loads_and_forgets(tmp_path, monkeypatch):
    """The bench's daemon loads its models over the socket, and what requests and loads leave behind is a figure."""
    pytest.importorskip("llama_cpp")
    monkeypatch.setenv("HYBRIDD_BENCH_DIR", str(tmp_path))
    with House(quick=True) as house:
        with LocalHouse(house) as home:
            path = await asyncio.to_thread(home.make, local_models.TINY)
            seconds = await asyncio.to_thread(home.load, path.stem)
            assert seconds > 0
            assert [row["model"] for row in home.resident()] == [path.stem]
        figures = await growth(house, requests=40, loads=4)
    assert [figure.name for figure in figures if figure.value is None] == ["errors"]
    assert figures[-1].verdict == "met", report.table(figures)
