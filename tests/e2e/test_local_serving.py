"""Local models end to end: a real daemon, real workers, real llama.cpp on tiny files."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.support import Events, error_of, provider_of, quiet, recorded, until
from tests.fakes.model_zoo import make_model
from tests.fakes.tiny_gguf import CONTEXT, make_tiny_gguf
from tests.fakes.upstream import FakeUpstream
from tests.house import House, lab

pytest.importorskip("llama_cpp")


@pytest.fixture(scope="module")
def upstream():
    with FakeUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def house():
    with House({}) as running:
        folder = running.home / "models"
        folder.mkdir()
        make_tiny_gguf(folder / "tiny.gguf", never_ends=True)
        make_tiny_gguf(folder / "other.gguf", seed=2, never_ends=True)
        make_tiny_gguf(folder / "long.gguf", seed=3, context=8192, never_ends=True)
        broken = (folder / "tiny.gguf").read_bytes()[:20_000]
        (folder / "broken.gguf").write_bytes(broken)
        configure(running)
        yield running


@pytest.fixture(autouse=True)
def fresh(house):
    """Nothing is loaded when a test begins."""
    for one in resident(house):
        house.http.post("/v1/local/unload", json={"model": one["model"]})


def configure(house: House, *, others: dict[str, Any] | None = None, **local: Any) -> None:
    house.write_config({"local": {"models_dir": str(house.home / "models"), **local}, **(others or {})})
    assert house.http.post("/v1/reload", json={}).status_code == 200


def resident(house: House) -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = house.http.get("/v1/local/resident").json()["models"]
    return models


def pid_of(house: House, model: str) -> int:
    pid: int = next(one["pid"] for one in resident(house) if one["model"] == model)
    return pid


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def gone(pid: int) -> bool:
    return not alive(pid)


def test_twenty_cold_callers_one_load(house):
    """Twenty callers of a model that is not loaded cause one load with its progress as events; every answer says what
    it was made with."""
    with Events(house, "plugin") as events, ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda n: house.chat("local:tiny", f"hi {n}", max_tokens=3, seed=n), range(20)))
        seen = [events.next() for _ in range(4)]
    assert {answer.status_code for answer in answers} == {200}
    [loaded] = resident(house)
    assert house.log.count("Traceback") == 0
    assert any(event["data"].get("operation") == "load" or event["data"].get("event") == "state" for event in seen)
    views = [one for one in house.http.get("/v1/plugins").json()["plugins"] if one["name"] == "local:tiny"]
    assert [(one["state"], one["pid"]) for one in views] == [("ready", loaded["pid"])]
    body = answers[0].json()
    assert (body["local"]["file"], body["local"]["context"], body["local"]["gpu_layers"]) == ("tiny.gguf", CONTEXT, 0)
    assert body["timings"]["predicted_n"] == 3
    assert loaded["measured"]
    assert quiet(house)["in_flight"] == 0


def test_swap(house):
    """With room for one, the old model's process is gone once the new one answers, and back again."""
    configure(house, max_loaded=1)
    pids: list[int] = []
    for model in ("tiny", "other", "tiny"):
        assert house.chat(f"local:{model}", max_tokens=2).status_code == 200
        [one] = resident(house)
        assert one["model"] == model
        assert not any(alive(pid) for pid in pids)
        pids.append(one["pid"])
    configure(house)


def test_killed_in_a_stream(house):
    """kill -9 of a worker in a stream is the stream's last event, an error; the next call is answered by a new one."""
    house.http.post("/v1/local/load", json={"model": "long"})
    pid = pid_of(house, "long")
    body = {"model": "local:long", "stream": True, "max_tokens": 5000, "messages": [{"role": "user", "content": "x"}]}
    lines: list[str] = []
    with house.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        for line in answer.iter_lines():
            if not lines:
                os.kill(pid, signal.SIGKILL)
            if line:
                lines.append(line)
    error = json.loads(lines[-1].removeprefix("data: "))["error"]
    assert error["code"] == "upstream_unavailable"
    assert house.chat("local:long", max_tokens=2).status_code == 200
    assert pid_of(house, "long") != pid
    quiet(house)


def test_a_prompt_that_does_not_fit(house, upstream):
    """Too long for the model is a 413 with the numbers; in a list of candidates somebody else answers."""
    answer = house.chat("local:tiny", "x " * 2000)
    assert (answer.status_code, error_of(answer)["code"]) == (413, "context_length_exceeded")
    assert str(CONTEXT) in error_of(answer)["message"]
    # One that the estimate lets through and the tokenizer does not: the engine's own refusal, with both numbers.
    exact = house.chat("local:tiny", "é" * 120, max_tokens=1)
    assert exact.status_code in (200, 413)
    configure(house, others={"providers": {"lab": lab(upstream.base_url)}, "tasks": {"t": ["local:tiny", "lab:m1"]}})
    answer = house.chat("task:t", "x " * 2000)
    assert (answer.status_code, answer.headers["x-hybridd-provider"]) == (200, "lab")
    record = recorded(house, answer)
    assert [one["code"] for one in record["choice"]["rejected"]] == ["context"]
    configure(house)


def test_a_broken_file_says_so(house):
    """A file that is cut short fails with that reason, is tried by nobody, and is served once it is whole."""
    answer = house.chat("local:broken")
    assert (answer.status_code, error_of(answer)["code"]) == (503, "load_bad_file")
    assert "tried again when its file changes" in error_of(answer)["message"]
    assert "retry-after" not in answer.headers
    [record] = house.http.get("/v1/requests?limit=1").json()["requests"]
    assert record["error_code"] == "load_bad_file"
    told = house.http.post("/v1/route", json={"model": "local:broken", "prompt": "hello"}).json()
    assert [one["code"] for one in told["rejected"]] == ["load_bad_file"]
    listed = {one["id"]: one for one in house.http.get("/v1/local/models").json()["models"]}
    assert listed["broken"]["state"] == "failed"
    assert "broken.gguf" in listed["broken"]["reason"]
    place = house.home / "models" / "broken.gguf"
    before = place.read_bytes()
    make_tiny_gguf(place, seed=9)
    assert house.chat("local:broken", max_tokens=2).status_code == 200
    place.write_bytes(before)


def test_why_a_model_cannot_be_loaded(house):
    """Asked for alone, a model's own failure is the answer, with its numbers and its pause; in a list each candidate
    has its true reason, and whoever can answers."""
    configure(house, ram_limit_mb=1)
    chat = {"messages": [{"role": "user", "content": "x"}]}
    for path, body in (("chat/completions", chat), ("completions", {"prompt": "x"})):
        answer = house.http.post(f"/v1/{path}", json={"model": "local:tiny", **body, "stream": path == "completions"})
        error = error_of(answer)
        assert (answer.status_code, error["code"]) == (503, "does_not_fit")
        assert "MiB" in error["message"]
        assert (error["details"]["model"], error["details"]["options"]) == ("tiny", None)
        assert recorded(house, answer)["error_code"] == "does_not_fit"
    answer = house.chat("local")
    assert error_of(answer)["code"] == "no_feasible_provider"
    codes = {one["candidate"]: one["code"] for one in error_of(answer)["details"]}
    assert (codes["local:tiny"], codes["local:broken"]) == ("does_not_fit", "load_bad_file")
    configure(house, others={"tasks": {"t": ["local:broken", "local:tiny"]}})
    answer = house.chat("task:t", max_tokens=2)
    assert answer.status_code == 200
    assert [one["code"] for one in recorded(house, answer)["choice"]["rejected"]] == ["load_bad_file"]
    configure(house)


def test_a_model_that_keeps_crashing_rests_alone(house):
    """After its second crash a model is refused with that reason and its pause; the others go on answering."""
    place = make_tiny_gguf(house.home / "models" / "frail.gguf", seed=4, context=8192, never_ends=True)
    body = {"model": "local:frail", "stream": True, "max_tokens": 5000, "messages": [{"role": "user", "content": "x"}]}
    for _ in range(2):
        house.http.post("/v1/local/load", json={"model": "frail"})
        pid = pid_of(house, "frail")
        with house.http.stream("POST", "/v1/chat/completions", json=body) as answer:
            os.kill(pid, signal.SIGKILL)
            answer.read()
        until(lambda: not resident(house), what="the worker's end")
    assert house.chat("local:tiny", max_tokens=2).status_code == 200
    answer = house.chat("local:frail", max_tokens=2)
    assert (answer.status_code, error_of(answer)["code"]) == (503, "load_runtime")
    assert 1 <= int(answer.headers["retry-after"]) <= 3
    assert provider_of(house, "local")["state"] == "ready"
    configure(house)
    assert house.chat("local:frail", max_tokens=2).status_code == 200
    place.unlink()


def test_what_fits_is_not_refused_by_an_estimate(house):
    """A prompt without a bound for its answer takes what room there is; each of many prompts and answers has the
    context to itself; when it is not sure that a prompt is too long, the engine counts."""
    answer = house.chat("local:tiny", "hello", ignore_eos=True)
    usage = answer.json()["usage"]
    assert (answer.status_code, usage["total_tokens"]) == (200, CONTEXT)
    assert house.chat("local:tiny", "hello", n=4, max_tokens=CONTEXT // 2).status_code == 200
    body = {"model": "local:tiny", "prompt": ["the fox jumps over"] * 20, "max_tokens": 2}
    answer = house.http.post("/v1/completions", json=body)
    assert (answer.status_code, len(answer.json()["choices"])) == (200, 20)
    # Estimated at 0.4 tokens for each byte, and at 4 bytes for each id, these would be more than the context.
    answer = house.http.post("/v1/completions", json={**body, "prompt": [70] * 200})
    assert answer.json()["usage"]["prompt_tokens"] == 200
    answer = house.http.post("/v1/completions", json={**body, "prompt": [70] * 300})
    assert (answer.status_code, error_of(answer)["code"]) == (413, "context_length_exceeded")
    assert "the prompt has 300 tokens" in error_of(answer)["message"]


def test_embedding_many_texts(house):
    """Many short texts in one request may have more tokens together than the context; a model that makes no embeddings
    is the caller's mistake, and so is an embedding model in a chat."""
    place = make_model(house.home / "models" / "vectors.gguf", "bert")
    context = house.http.post("/v1/local/load", json={"model": "vectors"}).json()["loaded"]["context"]
    body = {"model": "local:vectors", "input": ["the fox jumps over the lazy dog"] * 300}
    answer = house.http.post("/v1/embeddings", json=body)
    assert (answer.status_code, len(answer.json()["data"])) == (200, 300)
    assert answer.json()["usage"]["prompt_tokens"] > context
    answers = [
        house.http.post("/v1/embeddings", json={**body, "model": "local:tiny"}),
        house.chat("local:vectors"),
    ]
    for one in answers:
        assert (one.status_code, error_of(one)["code"]) == (400, "unsupported")
        assert error_of(one)["type"] == "invalid_request_error"
    place.unlink()


def test_the_engines_refusal_is_the_callers_mistake(house):
    """A wrong parameter that only the engine can know is an invalid request with the parameter's name."""
    answer = house.chat("local:tiny", grammar="root ::= (")
    error = error_of(answer)
    assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
    assert (error["code"], error["param"]) == ("invalid_grammar", "grammar")
    for param, value in (("temperature", "hot"), ("n", 0), ("stop", 5), ("keep_alive", "soon"), ("top_k", "a")):
        answer = house.chat("local:tiny", **{param: value})
        error = error_of(answer)
        assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_request", param)
    answer = house.chat("local:tiny", audio={"voice": "x"})
    assert (answer.status_code, error_of(answer)["code"]) == (400, "unsupported")
    king = {"model": "local:tiny", "messages": [{"role": "king", "content": "x"}]}
    answer = house.http.post("/v1/chat/completions", json=king)
    assert (answer.status_code, error_of(answer)["param"]) == (400, "messages[0].role")


def test_a_new_file_needs_no_reload(house):
    """A file that appears is a model the next moment; it is gone with its file."""
    place = make_tiny_gguf(house.home / "models" / "fresh.gguf", seed=5)
    assert house.chat("local:fresh", max_tokens=2).status_code == 200
    place.unlink()
    listed = lambda: house.http.get("/v1/local/models").json()["models"]  # noqa: E731  # looked at again and again
    until(lambda: "fresh" not in {one["id"] for one in listed()}, what="fresh is gone")
    assert "fresh" not in {one["id"] for one in provider_of(house, "local")["models"]}
    until(lambda: not resident(house), what="its worker is gone")


def test_keep_alive_and_reload(house):
    """An unchanged worker outlives a reload; ``keep_alive: 0`` in a request ends it after its answer; the
    configuration's own time does the same for the rest."""
    house.chat("local:tiny", max_tokens=2)
    pid = pid_of(house, "tiny")
    configure(house, models={"other": {"context": 128}})
    answer = house.chat("local:tiny", max_tokens=2, keep_alive=0)
    assert "keep_alive" not in answer.json()["local"].get("ignored", [])
    until(lambda: not resident(house), what="nothing is loaded")
    assert not alive(pid)
    configure(house, idle_stop_seconds=0.2)
    house.chat("local:tiny", max_tokens=2)
    until(lambda: not resident(house), what="nothing is loaded")
    configure(house)


def test_plan_load_unload(house):
    """A plan loads nothing; a load answers with what it took; an unload answers when the process is gone."""
    plan = house.http.post("/v1/local/plan", json={"model": "long", "context": 2048, "parallel": 2}).json()
    assert (plan["options"]["sequences"], plan["sequence_context"]) == (2, 2048)
    assert resident(house) == []
    loaded = house.http.post("/v1/local/load", json={"model": "long"}).json()
    assert alive(loaded["pid"])
    details = house.http.get("/v1/local/models/long").json()
    assert details["resident"]["pid"] == loaded["pid"]
    assert details["facts"]["trained_context"] == 8192
    assert house.http.post("/v1/local/unload", json={"model": "long"}).json() == {"model": "long", "unloaded": True}
    assert not alive(loaded["pid"])
    assert house.http.post("/v1/local/load", json={"model": "nope"}).status_code == 404
    listed = house.http.get("/v1/local/models?sort=-trained_context&q=lla").json()["models"]
    assert listed[0]["id"] == "long"
    assert house.http.get("/v1/local/models?sort=nope").status_code == 400


def test_no_worker_outlives_its_daemon(tmp_path):
    """SIGTERM and SIGKILL of the daemon alike leave no worker behind."""
    make_tiny_gguf(tmp_path / "tiny.gguf")
    with House({"local": {"models_dir": str(tmp_path)}}) as house:
        for end in ("kill", "stop"):
            assert house.chat("local", max_tokens=2).status_code == 200
            pid = pid_of(house, "tiny")
            getattr(house, end)()
            until(partial(gone, pid), what="the worker's end")
            house.start()
