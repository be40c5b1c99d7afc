"""The three clients against a real HTTP server on a Unix socket."""

from __future__ import annotations

import inspect
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import hybridd
import hybridd.client
from hybridd import errors
from hybridd.client import AsyncClient, Client, HybridMLOptimizer, wire
from hybridd.client.stdlib import Api, Streaming
from tests.client.canned import ALERT, CHOICE, EVENTS, EXPLAINED, LIMITS, STATUS, Answer, CannedDaemon, error, sse


def test_a_routed_call_returns_the_documented_result(canned: CannedDaemon) -> None:
    """``call_optimized_model`` gives exactly the members the mission lists, and sends task, user and tier."""
    with HybridMLOptimizer(canned.socket) as optimizer:
        result = optimizer.call_optimized_model(
            task="code_generation", prompt="sort a list", max_tokens=100, user="u1", tier="premium"
        )
    assert result == {"response": "Olá, mundo", **EXPLAINED}
    asked = canned.last
    assert asked.body == {
        "model": "task:code_generation",
        "messages": [{"role": "user", "content": "sort a list"}],
        "max_tokens": 100,
    }
    sent = {name: asked.headers.get(f"x-hybridd-{name}") for name in ("task", "user", "tier", "explain")}
    assert sent == {"task": "code_generation", "user": "u1", "tier": "premium", "explain": "1"}


def test_github_limits_are_whole_numbers(canned: CannedDaemon) -> None:
    """``check_github_limits()`` has integers under the mission's names."""
    found = HybridMLOptimizer(canned.socket).check_github_limits()
    assert found == {
        "limit": 5000, "used": 250, "reserved": 2, "remaining": 4648, "buffer": 100, "drift": 40,
        "reset": LIMITS[0]["reset"], "source": "header",
    }  # fmt: skip
    assert type(found["remaining"]) is int


def test_github_limits_without_github_are_none(canned: CannedDaemon) -> None:
    """Without a GitHub limit ``remaining`` is None rather than an error or a zero."""
    canned.routes["GET", "/v1/limits"] = Answer({"limits": LIMITS[1:]})
    assert HybridMLOptimizer(canned.socket).check_github_limits()["remaining"] is None


def test_stream_yields_text_and_then_the_result(canned: CannedDaemon) -> None:
    """A stream's pieces arrive in order, and its result is there at the end and not before."""
    with Client(canned.socket) as client:
        stream = client.stream("tell me", task="text_generation")
        assert stream.result is None
        assert list(stream) == ["Olá", ", ", "mundo"]
    assert stream.result == {"response": "Olá, mundo", **EXPLAINED}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_stream_may_be_split_anywhere(canned: CannedDaemon, size: int) -> None:
    """Pieces of the network cut neither characters nor events, whatever their size."""
    whole = sse("ação", " ", "日本").replace(b"\n", b"\r\n")
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    canned.routes["POST", "/v1/chat/completions"] = Answer(pieces=pieces, kind="text/event-stream")
    assert list(Client(canned.socket).stream("tell me")) == ["ação", " ", "日本"]
    assert list(Streaming(Api(canned.socket).open(wire.chat("tell me", stream=True)))) == ["ação", " ", "日本"]


def test_a_cut_stream_is_an_error(canned: CannedDaemon) -> None:
    """A stream that ends without [DONE] raises after its text, in every client."""
    answer = Answer(pieces=[sse("half", explained=None, done=False)], kind="text/event-stream")
    canned.routes["POST", "/v1/chat/completions"] = answer
    pieces: list[str] = []
    with pytest.raises(errors.ProviderError, match="before the answer was complete"):
        pieces.extend(Client(canned.socket).stream("tell me"))
    assert pieces == ["half"]
    with pytest.raises(errors.ProviderError):
        list(Streaming(Api(canned.socket).open(wire.chat("tell me", stream=True))))


def test_a_broken_connection_is_unreachable(canned: CannedDaemon) -> None:
    """A daemon that goes away in the middle of a chunked answer is DaemonUnreachable, not a raw exception."""
    canned.routes["POST", "/v1/chat/completions"] = Answer(pieces=[sse("half", done=False)], cut=True)
    with pytest.raises(errors.DaemonUnreachable):
        list(Client(canned.socket).stream("tell me"))
    with pytest.raises(errors.DaemonUnreachable):
        list(Streaming(Api(canned.socket).open(wire.chat("tell me", stream=True))))


def test_an_error_inside_a_stream_is_raised(canned: CannedDaemon) -> None:
    """An error event in a stream becomes the exception of its code."""
    body = (
        sse("half", explained=None, done=False) + b'data: {"error": {"message": "gone", "code": "provider_error"}}\n\n'
    )
    canned.routes["POST", "/v1/chat/completions"] = Answer(pieces=[body], kind="text/event-stream")
    with pytest.raises(errors.ProviderError, match="gone"):
        list(Client(canned.socket).stream("tell me"))


def test_leaving_a_stream_closes_the_connection(canned: CannedDaemon) -> None:
    """Breaking out of the loop tells the daemon that nobody listens, so that it can cancel the call."""
    hold = threading.Event()
    many = [sse("x", explained=None, done=False)] * 20_000
    canned.routes["POST", "/v1/chat/completions"] = Answer(pieces=many, kind="text/event-stream", hold=hold)
    stream = iter(Client(canned.socket).stream("tell me"))
    assert next(stream) == "x"
    stream.close()  # type: ignore[attr-defined]  # a generator
    hold.set()
    assert canned.left.wait(10)


async def test_the_async_client_does_the_same(canned: CannedDaemon) -> None:
    """Call, stream, events and limits of the async client equal the sync client's."""
    async with AsyncClient(canned.socket) as client:
        assert await client.call("sort a list", task="code_generation") == {"response": "Olá, mundo", **EXPLAINED}
        stream = client.stream("tell me")
        assert [piece async for piece in stream] == ["Olá", ", ", "mundo"]
        assert stream.result == {"response": "Olá, mundo", **EXPLAINED}
        assert await client.limits() == LIMITS
        assert [event async for event in client.events(["request"])] == EVENTS
        assert canned.last.query == {"kinds": "request"}
        with pytest.raises(errors.NotFound):
            await client.request("req_0")


def test_both_clients_have_the_same_methods() -> None:
    """Every public method of Client exists in AsyncClient with the same parameters."""

    def methods(kind: type) -> dict[str, list[str]]:
        found = inspect.getmembers(kind, inspect.isfunction)
        return {name: list(inspect.signature(one).parameters) for name, one in found if not name.startswith("_")}

    asynchronous = methods(AsyncClient)
    del asynchronous["start"]
    assert methods(Client) == asynchronous


def test_native_calls(canned: CannedDaemon) -> None:
    """Every native method asks for its route and unwraps its answer."""
    client = Client(canned.socket)
    assert client.status() == STATUS
    assert client.health() == {"status": "ok"}
    assert client.ready() == {"status": "ready"}
    assert client.models() == [{"id": "lab:m1"}]
    assert client.route("code_generation", "sort a list", tier="free") == CHOICE
    assert canned.last.body == {"task": "code_generation", "prompt": "sort a list", "tier": "free"}
    assert client.requests(provider="lab", limit=5)["next"] == "c2"
    assert canned.last.query == {"provider": "lab", "limit": "5"}
    assert client.request("req_65bfdedd6c000")["choice"] == CHOICE
    assert client.report(group_by=["day", "task"])["total"]["requests"] == 15
    assert canned.last.query == {"group_by": "day,task"}
    assert client.report(since=0, until=90.5)["rows"]
    assert canned.last.query == {"since": "1970-01-01T00:00:00+00:00", "until": "1970-01-01T00:01:30.500000+00:00"}
    with pytest.raises(errors.InvalidRequest, match="since must be seconds since the epoch"):
        client.report(since=float("nan"))
    assert client.usage() == {"rows": []}
    assert client.history("gpu", step=60)["points"]
    assert client.alerts("open") == [ALERT]
    assert client.ack(12)["state"] == "acknowledged"
    assert client.silence(12, 60)["state"] == "silenced"
    assert canned.last.body == {"seconds": 60}
    assert client.feedback("req_1", -0.5, comment="no")["ok"] is True
    assert canned.last.body == {"request_id": "req_1", "score": -0.5, "comment": "no"}
    assert client.plugins()[0]["name"] == "openai_compatible"
    assert client.reload() == {"changed": ["flags"]}
    assert list(client.events()) == EVENTS
    assert client.embeddings("text", model="lab:e")["data"]


def test_an_id_cannot_become_another_path(canned: CannedDaemon) -> None:
    """Ids are quoted: '../status' asks for an id of that name, not for the status."""
    with pytest.raises(errors.NotFound):
        Client(canned.socket).request("../status?x=1")
    assert canned.last.path == "/v1/requests/..%2Fstatus%3Fx%3D1"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (503, error("nobody", "no_feasible_provider", details=[{"candidate": "a", "reason": "b"}]),
         errors.NoFeasibleProvider),
        (429, error("later", "no_feasible_provider"), errors.NoFeasibleProvider),
        (400, error("wrong", "unheard_of_code"), errors.InvalidRequest),
        (404, error("what", "model_not_found"), errors.NotFound),
        (413, error("big", "x"), errors.TooLarge),
        (502, error("bad", "provider_error"), errors.ProviderError),
        (504, error("slow", "deadline_exceeded"), errors.DeadlineExceeded),
        (503, error("full", "storage_failed"), errors.StorageError),
        (500, error("broken file", "config_invalid"), errors.ConfigError),
        (500, "no object", errors.HybriddError),
        (502, {"error": "text"}, errors.ProviderError),
    ],
)  # fmt: skip
def test_errors_become_exceptions_by_code_then_status(
    canned: CannedDaemon, status: int, body: Any, kind: type[errors.HybriddError]
) -> None:
    """The stable code decides the exception's class, the status when the code is unknown; all figures survive."""
    canned.routes["GET", "/v1/limits"] = Answer(body, status=status, headers={"retry-after": "7"})
    for fails in (lambda: Client(canned.socket).limits(), lambda: Api(canned.socket).send(wire.get("/v1/limits"))):
        with pytest.raises(errors.HybriddError) as caught:
            fails()
        assert type(caught.value) is kind
        assert caught.value.status == status
        assert caught.value.retry_after == 7.0
        if isinstance(body, dict) and isinstance(body["error"], dict):
            assert caught.value.error_code == body["error"]["code"]
            assert caught.value.details == body["error"].get("details")


def test_something_else_on_the_socket_is_named(canned: CannedDaemon) -> None:
    """HTML instead of JSON is a ProtocolError, and an answer without explanation is one as well."""
    canned.routes["GET", "/v1/limits"] = Answer(pieces=[b"<html>"], kind="text/html")
    canned.routes["POST", "/v1/chat/completions"] = Answer({"choices": []})
    client = Client(canned.socket)
    with pytest.raises(errors.ProtocolError, match="not JSON"):
        client.limits()
    with pytest.raises(errors.ProtocolError, match="explanation"):
        client.call("sort a list")


@pytest.mark.parametrize("case", ["absent", "stale", "file"])
def test_no_daemon_says_how_to_start_one(tmp_path: Path, case: str) -> None:
    """No socket, a stale one, or a plain file: DaemonUnreachable with the path and the command that starts it."""
    path = tmp_path / "gone.sock"
    if case == "stale":
        with socket.socket(socket.AF_UNIX) as left_over:
            left_over.bind(str(path))
    elif case == "file":
        path.write_text("x")
    for fails in (lambda: Client(path).limits(), lambda: Api(path).send(wire.get("/v1/limits"))):
        with pytest.raises(errors.DaemonUnreachable) as caught:
            fails()
        assert caught.value.message == f"No daemon answers at {path}. Start it with: hybridd serve"
        assert caught.value.exit_code == 4


def test_a_silent_daemon_times_out(canned: CannedDaemon) -> None:
    """A daemon that accepts and says nothing more is DeadlineExceeded after the timeout."""
    hold = threading.Event()
    canned.routes["GET", "/v1/limits"] = Answer(pieces=[b"{"], hold=hold)
    try:
        for fails in (
            lambda: Client(canned.socket, timeout=0.2).limits(),
            lambda: Api(canned.socket, timeout=0.2).send(wire.get("/v1/limits")),
        ):
            with pytest.raises(errors.DeadlineExceeded):
                fails()
    finally:
        hold.set()


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"prompt": "hi"}, "prompt"),
        ({"prompt": "   a  "}, "prompt"),
        ({"prompt": "sort", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "sort", "max_tokens": True}, "max_tokens"),
        ({"prompt": "sort", "tier": "gold"}, "tier"),
        ({"prompt": "sort", "user": "a\nb"}, "user"),
        ({"prompt": "sort\ud800"}, "prompt"),
        ({"prompt": "sort", "task": "a\r\nx-evil: 1"}, "task"),
        ({"prompt": "sort", "task": 5}, "task"),
        ({"prompt": 123}, "prompt"),
        ({"prompt": ["sort"]}, "prompt"),
        ({"prompt": "sort", "temperature": float("nan")}, None),
        ({"prompt": "sort", "tools": [...]}, None),
    ],
)
def test_a_wrong_call_is_refused_before_it_is_sent(
    canned: CannedDaemon, arguments: dict[str, Any], param: str | None
) -> None:
    """Question, tier, max_tokens, user and task are checked here; nothing reaches the daemon."""
    with pytest.raises(errors.InvalidRequest) as caught:
        Client(canned.socket).call(**arguments)
    assert caught.value.param == param
    assert canned.asked == []


def test_messages_may_be_short(canned: CannedDaemon) -> None:
    """OpenAI messages follow OpenAI's rules: 'hi' is fine there, and options pass through."""
    body = Client(canned.socket).chat([{"role": "user", "content": "hi"}], model="lab:m1", seed=7)
    assert body["choices"][0]["message"]["content"] == "Olá, mundo"
    assert canned.last.body == {"model": "lab:m1", "messages": [{"role": "user", "content": "hi"}], "seed": 7}


def test_a_proxy_of_the_environment_is_not_used(canned: CannedDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY and ALL_PROXY never see what goes to the local socket."""
    for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert Client(canned.socket).limits() == LIMITS


def test_a_client_may_be_shared_by_threads(canned: CannedDaemon) -> None:
    """Sixteen threads with one client each get their own answer."""
    client = Client(canned.socket)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(client.call("sort a list")["response"])) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == ["Olá, mundo"] * 16


def test_auto_start_uses_a_running_daemon(canned: CannedDaemon) -> None:
    """``auto_start=True`` starts nothing when a daemon answers /ready."""
    with HybridMLOptimizer(canned.socket, auto_start=True) as optimizer:
        assert optimizer.check_limits() == LIMITS
    assert [asked.path for asked in canned.asked] == ["/ready", "/v1/limits"]


def test_auto_start_reports_a_daemon_that_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When ``hybridd serve`` fails at once, the error carries its last words and names the log."""
    broken = tmp_path / "broken.json"
    broken.write_text('{"flags": {"use_olama": true}}')
    monkeypatch.setenv("HYBRIDD_CONFIG", str(broken))
    monkeypatch.setenv("HYBRIDD_STATE_DIR", str(tmp_path / "state"))
    with pytest.raises(errors.DaemonUnreachable, match="use_ollama") as caught:
        Client(tmp_path / "d.sock", auto_start=True)
    assert str(tmp_path / "state" / "logs" / "daemon.log") in caught.value.message


def test_every_exported_name_exists() -> None:
    """``hybridd.client.__all__`` and ``hybridd.__all__`` can all be imported, and nothing else is promised."""
    for module in (hybridd, hybridd.client):
        for name in module.__all__:
            assert getattr(module, name) is not None
        with pytest.raises(AttributeError):
            module.no_such_name  # noqa: B018  # the access is the test


def test_the_package_is_lazy() -> None:
    """Importing hybridd, the command line and its HTTP client imports neither httpx nor pydantic nor msgspec."""
    program = (
        "import sys, hybridd, hybridd.client, hybridd.client.stdlib, hybridd.cli.main, hybridd.cli.commands.status\n"
        "print([name for name in ('httpx', 'pydantic', 'msgspec', 'asyncio', 'uvicorn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# ---- local models --------------------------------------------------------------------------------------------------

PULL: dict[str, Any] = {
    "id": "pull-1", "kind": "pull", "request": {}, "state": "running", "started": 0.0, "ended": None, "progress": {},
    "result": None, "error": None, "downloaded": None, "stderr": [],
}  # fmt: skip
AT = {"state": "downloading", "file": "a.gguf", "done": 1, "total": 2, "bytes_per_second": 1}


def pulling(canned: CannedDaemon, *views: dict[str, Any]) -> None:
    """A pull whose job looks like each of the views in turn."""
    rest = [{**PULL, **view} for view in views]
    canned.routes["POST", "/v1/local/pull"] = Answer(PULL)
    canned.routes["GET", "/v1/local/jobs/pull-1"] = lambda _asked: Answer(rest.pop(0) if len(rest) > 1 else rest[0])


async def test_local_models_are_asked_for_by_both_clients(canned: CannedDaemon) -> None:
    """Each method asks its route, unwraps its answer, and leaves out what was not given."""
    canned.routes["GET", "/v1/local/models"] = Answer({"models": [{"id": "a"}]})
    canned.routes["GET", "/v1/local/models/a%2Fb"] = Answer({"model": {"id": "a/b"}})
    canned.routes["POST", "/v1/local/plan"] = Answer({"files": []})
    canned.routes["POST", "/v1/local/load"] = Answer({"model": "a", "pid": 7})
    canned.routes["POST", "/v1/local/unload"] = Answer({"model": "a", "unloaded": True})
    canned.routes["GET", "/v1/local/resident"] = Answer({"models": [{"model": "a"}], "machine": {}})
    canned.routes["GET", "/v1/local/jobs"] = Answer({"jobs": [PULL]})
    canned.routes["POST", "/v1/local/jobs/pull-1/cancel"] = Answer({**PULL, "state": "cancelled"})
    files: Any = [{"id": "a"}]
    details: Any = {"model": {"id": "a/b"}}
    loaded: Any = [{"model": "a"}]
    client = Client(canned.socket)
    async with AsyncClient(canned.socket) as other:
        assert client.local_models(state="ready") == await other.local_models(state="ready") == files
        assert canned.last.query == {"state": "ready"}
        assert client.local_model("a/b") == await other.local_model("a/b") == details
        assert client.plan_model(repository="o/n", context=9) == await other.plan_model(repository="o/n", context=9)
        assert canned.last.body == {"repository": "o/n", "context": 9}
        assert client.load_model("a", timeout=5)["pid"] == (await other.load_model("a", timeout=5))["pid"] == 7
        assert canned.last.body == {"model": "a", "timeout_seconds": 5}
        assert client.unload_model("a") is await other.unload_model("a") is True
        assert client.resident_models() == await other.resident_models() == loaded
        assert client.jobs() == await other.jobs() == [PULL]
        assert client.cancel_job("pull-1")["state"] == (await other.cancel_job("pull-1"))["state"] == "cancelled"
        with pytest.raises(errors.InvalidRequest, match="not both"):
            client.plan_model()
        with pytest.raises(errors.InvalidRequest, match="not both"):
            await other.plan_model("a", repository="o/n")


async def test_a_pull_is_followed_to_its_end(canned: CannedDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is told when there is some, the result is returned; a failure raises what its code stands for."""
    monkeypatch.setattr("hybridd.client.local_models.POLL_SECONDS", 0.0)
    views = ({"progress": AT}, {"progress": AT}, {"state": "done", "result": {"model": "a"}, "progress": AT})
    seen: list[dict[str, Any]] = []
    pulling(canned, *views)
    assert Client(canned.socket).pull_model("o/n", file="Q4_0", progress=lambda job: seen.append(job["progress"]))
    assert seen == [{}, AT]
    assert canned.asked[0].body == {"repo": "o/n", "file": "Q4_0"}
    pulling(canned, *views)
    async with AsyncClient(canned.socket) as other:
        assert await other.pull_model("o/n") == {"model": "a"}
    pulling(canned, {"state": "failed", "error": {"code": "rate_limited", "message": "later", "retry_after": 9}})
    with pytest.raises(errors.ProviderError, match="later") as caught:
        Client(canned.socket).pull_model("o/n")
    assert (caught.value.error_code, caught.value.retry_after) == ("rate_limited", 9)
    pulling(canned, {"state": "failed", "error": {"code": "invalid_request", "message": "no such name"}})
    with pytest.raises(errors.InvalidRequest, match="no such name"):
        Client(canned.socket).pull_model("o/n")
