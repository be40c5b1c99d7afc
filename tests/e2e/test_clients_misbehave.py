"""Clients that leave, stall, shout or come in crowds: each is answered with a reason, and nothing is left over."""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import subprocess
import sys
import time

import pytest

from tests.e2e.hasty import BODY_SILENCE_SECONDS
from tests.e2e.support import (
    PRICED,
    QUOTAS,
    chat_bytes,
    connected,
    error_of,
    provider_of,
    quiet,
    read_all,
    recorded,
    until,
    used,
)
from tests.fakes.upstream import FakeUpstream, rule
from tests.house import House, lab

SLOW = {"delay_s": 30}
DRIP = {"chunks": 5000, "chunk_interval_s": 0.02}


@pytest.fixture(scope="module")
def upstream():
    with FakeUpstream() as fake:
        yield fake


@pytest.fixture(scope="module")
def house(upstream):
    providers = {
        "lab": lab(upstream.base_url, models={"m1": PRICED}, quotas=QUOTAS, timeout_seconds=20),
        "free": lab(upstream.base_url, models={"f1": {}}),
        "brief": lab(upstream.base_url, models={"b1": PRICED}, quotas=QUOTAS, timeout_seconds=2),
    }
    house = House({"providers": providers, "server": {"max_in_flight": 64, "max_waiting": 100_000}})
    house.module = "tests.e2e.hasty"
    with house as running:
        yield running


@pytest.fixture(autouse=True)
def _clean(upstream, house):
    upstream.reset()
    yield
    quiet(house)


def newest(house: House) -> str:
    request_id: str = until(lambda: house.http.get("/v1/requests?limit=1").json()["requests"])[0]["id"]
    return request_id


def closing(request: bytes) -> bytes:
    """The same request, with the connection to be closed after it."""
    return request.replace(b"host: x", b"host: x\r\nconnection: close")


# -- leaving


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_before_the_answer(house, upstream, stream):
    """The upstream's connection closes at once, the call is charged in full, the place is free."""
    upstream.script([rule(SLOW)])
    before = used(house, "lab")["total_tokens"][0]
    with connected(house) as connection:
        connection.sendall(chat_bytes("lab:m1", max_tokens=50, stream=stream))
        upstream.wait(arrivals=1)
    left = time.monotonic_ns()
    upstream.wait(finished=1, timeout_s=5)
    (arrival,) = upstream.log()
    assert arrival.outcome == "client_gone"
    assert arrival.end_at is not None
    assert (arrival.end_at - left) / 1e9 < 1.0
    quiet(house)
    record = recorded(house, newest(house))
    assert (record["status"], record["error_code"]) == (499, "client_gone")
    assert [call["state"] for call in record["calls"]] == ["unknown"]
    assert used(house, "lab")["total_tokens"][0] - before > 50


def test_a_client_that_leaves_mid_stream(house, upstream):
    """After the first token: the upstream is told at once, the full reservation is charged."""
    upstream.script([rule(DRIP)])
    with connected(house) as connection:
        connection.sendall(chat_bytes("lab:m1", max_tokens=50, stream=True))
        assert b"200 OK" in connection.recv(4096)
    upstream.wait(finished=1, timeout_s=5)
    assert upstream.log()[0].outcome == "client_gone"
    quiet(house)
    record = recorded(house, newest(house))
    assert record["status"] == 499
    assert record["first_token_ms"] is not None


def test_a_client_that_leaves_while_waiting_for_a_place(house, upstream):
    """Its place in the queue is given up: nothing is sent for it, and those behind it are served."""
    upstream.script([rule({"delay_s": 0.5})])
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(70)]
    try:
        for connection in waiting:
            connection.connect(str(house.socket))
            connection.sendall(chat_bytes("free:f1", max_tokens=5))
        until(lambda: house.http.get("/v1/status").json()["waiting"] == 6)
        for connection in waiting[64:]:
            connection.close()
        until(lambda: house.http.get("/v1/status").json()["waiting"] == 0)
        upstream.wait(finished=64)
        quiet(house)
        assert upstream.count(60).total == 64
    finally:
        for connection in waiting:
            connection.close()


def test_a_client_that_does_not_read_its_stream(house, upstream):
    """Its place and its reservation are free soon after the provider's deadline, and the provider is not blamed."""
    upstream.script([rule({"chunks": 100_000})])
    with connected(house) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(closing(chat_bytes("brief:b1", max_tokens=50, stream=True)))
        upstream.wait(arrivals=1)
        quiet(house)
        record = recorded(house, newest(house))
        assert (record["status"], record["error_code"]) == (408, "client_stalled")
        rest = read_all(connection)
        assert b"client_stalled" in rest or b"0\r\n\r\n" not in rest
    assert [model["state"] for model in provider_of(house, "brief")["models"]] == ["ready"]


def test_a_client_that_reads_slowly_gets_everything(house, upstream):
    """Back-pressure reaches the upstream; no byte is lost."""
    upstream.script([rule({"chunks": 20_000})])
    with connected(house) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(closing(chat_bytes("free:f1", stream=True)))
        taken = b""
        while not taken.endswith(b"0\r\n\r\n"):
            select.select([], [], [], 0.0005)
            taken += connection.recv(65536)
    assert taken.count(b'"content":"') >= 20_000
    assert b"data: [DONE]" in taken


# -- half requests and no requests


def test_half_a_body_then_silence(house):
    """A request whose body never arrives whole gets a 408 that says so."""
    with connected(house) as connection:
        began = time.monotonic()
        connection.sendall(chat_bytes("lab:m1")[:-20])
        answer = read_all(connection)
        assert b"408 Request Timeout" in answer
        assert b'"code":"request_timeout"' in answer
        assert BODY_SILENCE_SECONDS - 0.05 < time.monotonic() - began < BODY_SILENCE_SECONDS + 3


def test_half_a_head_then_silence(house):
    """A head that never ends is a 408 with a code, and the connection is closed."""
    with connected(house) as client:
        client.settimeout(20)
        client.sendall(b"GET /v1/status HTTP/1.1\r\nhost:")
        answer = b""
        while part := client.recv(65536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code": "request_timeout"' in answer


def test_half_a_body_then_gone(house, upstream):
    """Nobody is there to be told; nothing is recorded and nothing is sent."""
    with connected(house) as connection:
        connection.sendall(chat_bytes("lab:m1")[:-20])
    assert house.chat("lab:m1").status_code == 200
    assert upstream.count(60).total == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),  # somebody speaks TLS
        b"GET / HTTP/9.9\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: minus one\r\n\r\n{}",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
        b"GET /v1/status HTTP/1.1\r\nbad header line\r\n\r\n",
        os.urandom(3000).replace(b"\n", b""),
    ],
    ids=["tls", "version", "nonsense", "length", "chunk", "header", "random"],
)
def test_what_is_not_http(house, garbage):
    """It gets a 400 in the usual shape, or nothing more than a closed connection; never a traceback."""
    with connected(house) as connection:
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        answer = read_all(connection)
    if answer:
        assert answer.startswith(b"HTTP/1.1 4")
        body = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert body["error"]["code"] in ("invalid_http", "invalid_json", "invalid_request")


@pytest.mark.parametrize("request_bytes", [
    b"GET /v1/requests HTTP/1.1\r\nhost: x\r\n\r\n", chat_bytes("free:f1"), chat_bytes("free:f1", stream=True),
], ids=["native", "whole", "stream"])  # fmt: skip
def test_a_client_that_closes_its_side_after_the_request(house, upstream, request_bytes):
    """``socat`` and ``nc -N`` do: they get their answer, and the connection is closed after it."""
    upstream.script([rule({"delay_s": 0.2})])
    with connected(house) as connection:
        connection.sendall(request_bytes)
        connection.shutdown(socket.SHUT_WR)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"[DONE]" in answer or answer.endswith(b"}")


def test_a_client_that_closes_its_side_and_then_leaves(house, upstream):
    """It is noticed all the same, and the provider is told."""
    upstream.script([rule(SLOW)])
    with connected(house) as connection:
        connection.sendall(chat_bytes("free:f1"))
        connection.shutdown(socket.SHUT_WR)
        upstream.wait(arrivals=1)
    upstream.wait(finished=1, timeout_s=5)
    assert upstream.log()[0].outcome == "client_gone"


def test_pipelined_requests(house):
    """Three requests in one packet get three answers, in order."""
    with connected(house) as connection:
        connection.sendall(
            b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
            + chat_bytes("lab:m1", max_tokens=3)
            + b"GET /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        )
        answers = read_all(connection)
    assert answers.count(b"HTTP/1.1 200 OK") == 3
    assert answers.index(b'"status":"ok"') < answers.index(b'"chat.completion"') < answers.index(b'"status":"ready"')


def test_two_pipelined_streams(house):
    """A stream is finished before the next answer begins."""
    with connected(house) as connection:
        connection.sendall(chat_bytes("lab:m1", stream=True) + closing(chat_bytes("lab:m1", stream=True)))
        answers = read_all(connection)
    first, _, rest = answers.partition(b"data: [DONE]")
    assert first.count(b"HTTP/1.1 200 OK") == 1
    assert rest.count(b"HTTP/1.1 200 OK") == 1
    assert rest.count(b"data: [DONE]") == 1


# -- too much and wrong


@pytest.mark.parametrize("chunked", [False, True])
def test_fifty_megabytes(house, upstream, chunked):
    """413 from the length alone, or as soon as the cap is passed; the daemon does not keep it."""
    part = b"x" * 1_000_000
    with house.http.stream(
        "POST",
        "/v1/chat/completions",
        content=(part for _ in range(50)),
        headers={} if chunked else {"content-length": "50000000"},
    ) as answer:
        answer.read()
    assert answer.status_code == 413
    assert error_of(answer)["code"] == "request_too_large"
    assert upstream.log() == []


@pytest.mark.parametrize("size", [65_000, 66_000, 300_000, 3_000_000, 30_000_000])
def test_a_large_prompt_passes(house, upstream, size):
    """Whatever fits the cap reaches the provider byte for byte."""
    prompt = "0123456789" * (size // 10)
    assert house.chat("free:f1", prompt).status_code == 200
    (arrival,) = upstream.log(bodies=True)
    assert arrival.body["messages"][0]["content"] == prompt


def test_a_large_prompt_under_the_cap_is_measured(house, upstream):
    """20 MB of prompt does not fit the model's context: said before anything is sent."""
    answer = house.chat("lab:m1", "word " * 4_000_000)
    assert (answer.status_code, error_of(answer)["code"]) == (413, "context_length_exceeded")
    (rejected,) = error_of(answer)["details"]
    assert (rejected["code"], "context of 8192" in rejected["reason"]) == ("context", True)
    assert upstream.log() == []


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/embeddings", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("PUT", "/v1/models/lab:m1", "GET, HEAD"),
        ("POST", "/v1/events", "GET, HEAD"),
        ("POST", "/openapi.json", "GET, HEAD"),
        ("POST", "/v1/status", "GET, HEAD"),
        ("PATCH", "/v1/requests/req_65bfdedd6c000", "GET, HEAD"),
        ("GET", "/v1/feedback", "POST"),
        ("OPTIONS", "/v1/route", "GET, POST, HEAD"),
        ("GET", "/v1/alerts/1/ack", "POST"),
    ],
)
def test_the_wrong_method(house, method, path, allow):
    """405 with the methods that the path takes."""
    answer = house.http.request(method, path)
    assert (answer.status_code, error_of(answer)["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize("path", ["/", "/v2/status", "/v1/status/", "/v1/requests/", "/v1/alerts/1/2/ack", "/é"])
def test_an_unknown_path(house, path):
    """404 with a stable code."""
    answer = house.http.get(path)
    assert (answer.status_code, error_of(answer)["code"]) == (404, "unknown_path")


@pytest.mark.parametrize("path", ["/health", "/v1/status", "/v1/models", "/openapi.json", "/v1/events", "/v1/limits"])
def test_head(house, path):
    """HEAD is answered without a body, streams included."""
    answer = house.http.head(path)
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    ("request_line", "param"),
    [
        ("GET /v1/status?verbose=1", "verbose"),
        ("GET /v1/events?kind=request", "kind"),
        ("GET /v1/events?kinds=nothing", "kinds"),
        ("GET /v1/alerts?before=99999999999999999999", "before"),
        ("GET /v1/alerts?limit=0", "limit"),
        ("GET /v1/requests?limit=99999999999999999999", "limit"),
        ("GET /v1/requests?limit=1&limit=2", "limit"),
        ("GET /v1/requests?since=yesterday", "since"),
        ("GET /v1/requests/nonsense", "id"),
        ("GET /v1/history?series=x&step=0", None),
        ("GET /v1/history?series=x&step=nan", None),
        ("GET /v1/report?group_by=colour", None),
        ("GET /v1/route?max_tokens=many", "max_tokens"),
        ("GET /v1/route?max_tokens=-1", "max_tokens"),
        ("GET /v1/route?tier=gold", "tier"),
        ("POST /v1/alerts/abc/ack", "id"),
        ("POST /v1/alerts/1/silence", None),
        ("POST /v1/feedback", None),
    ],
)
def test_wrong_parameters(house, request_line, param):
    """400 that names the parameter; nothing ends in a 500."""
    method, path = request_line.split()
    answer = house.http.request(method, path)
    assert answer.status_code == 400, answer.text
    if param is not None:
        assert error_of(answer)["param"] == param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 2**31}, "max_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"max_completion_tokens": -3}, "max_completion_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 10**6}, "n"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"user": 7}, "user"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [7]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [7]}]}, "messages[0].content"),
        ({"model": ""}, "model"),
        ({"model": 7}, "model"),
        ({"model": "task:"}, "model"),
        ({"model": "lab:"}, "model"),
    ],
)
def test_wrong_types(house, upstream, body, param):
    """400 or 404 that names the field, and nothing is sent."""
    whole = {"model": "lab:m1", "messages": [{"role": "user", "content": "x"}], **body}
    answer = house.http.post("/v1/chat/completions", json=whole)
    assert answer.status_code in (400, 404), answer.text
    assert error_of(answer)["param"] == param
    assert upstream.log() == []


@pytest.mark.parametrize("depth", [100, 900, 2000, 200_000])
def test_deep_nesting(house, depth):
    """JSON nested beyond what can be read is a 400, everything below passes through; never a crash."""
    nested = "[" * depth + "]" * depth
    body = f'{{"model":"lab:m1","temperature":0,"x":{nested},"messages":[{{"role":"user","content":"x"}}]}}'
    answer = house.http.post("/v1/chat/completions", content=body)
    assert answer.status_code == (200 if depth < 1000 else 400), answer.text


# -- who may


def test_an_origin_is_refused_everywhere(house):
    """No web page has business here: reading, asking, or connecting a plugin."""
    for method, path in (("GET", "/health"), ("POST", "/v1/chat/completions"), ("GET", "/v1/events"), ("GET", "/nope")):
        answer = house.http.request(method, path, headers={"origin": "null"})
        assert (answer.status_code, error_of(answer)["code"]) == (403, "origin_refused")
    upgrade = (
        b"GET /v1/plugins/connect HTTP/1.1\r\nhost: x\r\norigin: http://evil\r\nupgrade: websocket\r\n"
        b"connection: upgrade\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
    )
    with connected(house) as connection:
        connection.sendall(upgrade)
        assert b"HTTP/1.1 403" in connection.recv(4096)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody else")
def test_another_user_is_refused(house):
    """Even where the permissions of the path let somebody in, the peer's uid decides, and the log says who it was."""
    program = (
        "import os, socket, sys\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "s.sendall(b'GET /v1/status HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n')\n"
        "sys.stdout.write(s.recv(4096).decode())\n"
    )
    command = [sys.executable, "-c", program, str(house.socket)]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "PermissionError" in refused.stderr, "the directory is closed to others"
    opened = [(house.home, 0o711), (house.socket.parent, 0o711), (house.socket, 0o666)]
    before = [(path, path.stat().st_mode & 0o777) for path, _ in opened]
    try:
        for path, mode in opened:
            path.chmod(mode)
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    finally:
        for path, mode in before:
            path.chmod(mode)
    assert before[1:] == [(house.socket.parent, 0o700), (house.socket, 0o600)]
    assert answer.startswith("HTTP/1.1 403")
    assert '"permission_denied"' in answer
    until(lambda: "has uid 65534" in house.log)


# -- crowds


async def ask(house: House, number: int) -> tuple[int, bytes]:
    """One caller on a connection of its own: the status and the whole answer. (httpx's pool takes 20 s for 1,000.)"""
    reader, writer = await asyncio.open_unix_connection(str(house.socket))
    try:
        writer.write(closing(chat_bytes("lab:m1", max_tokens=5, stream=number % 2 == 1)))
        answer = await asyncio.wait_for(reader.read(-1), 60)
    finally:
        writer.close()
    return int(answer[9:12]), answer


def most_at_once(upstream: FakeUpstream) -> int:
    """The most requests that were running at the upstream at one moment, by its own log."""
    ends = [(arrival.end_at or 0, -1) for arrival in upstream.log()]
    running = most = 0
    for _, step in sorted([*((arrival.at, 1) for arrival in upstream.log()), *ends]):
        running += step
        most = max(most, running)
    return most


async def test_a_thousand_callers(house, upstream):
    """All are answered or refused with a reason, no more than the limit arrive at once, and nothing is left over."""
    upstream.script([rule({"first_byte_delay_s": 0.05})])
    answers = await asyncio.gather(*(ask(house, number) for number in range(1000)))
    answered = [answer for status, answer in answers if status == 200]
    refused = [answer for status, answer in answers if status != 200]
    assert len(answered) >= 50
    assert all(answer.endswith((b"[DONE]\n\n\r\n0\r\n\r\n", b"}")) for answer in answered)
    for answer in refused:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert json.loads(body)["error"]["code"] in ("rate_limit_exceeded", "overloaded"), body
        assert b"\r\nretry-after: " in head
    assert upstream.count(60).total == len(answered)
    assert most_at_once(upstream) <= 50
    quiet(house)


def test_a_full_waiting_room(house, upstream):
    """Beyond the waiting places, callers are refused at once with a reason and a time to come back."""
    config = json.loads(house.config_path.read_text())
    try:
        house.write_config({**config, "server": {"max_in_flight": 1, "max_waiting": 1}})
        assert house.http.post("/v1/reload").status_code == 200
        upstream.script([rule({"delay_s": 0.5})])
        with connected(house) as first, connected(house) as second:
            first.sendall(chat_bytes("lab:m1", max_tokens=2))
            upstream.wait(arrivals=1)
            second.sendall(chat_bytes("lab:m1", max_tokens=2))
            until(lambda: house.http.get("/v1/status").json()["waiting"] == 1)
            third = house.chat("lab:m1")
            assert (third.status_code, error_of(third)["code"]) == (503, "overloaded")
            assert third.headers["retry-after"] == "1"
            assert b"200 OK" in first.recv(65536)
            assert b"200 OK" in second.recv(65536)
    finally:
        house.write_config(config)
        house.http.post("/v1/reload")


def test_the_daemon_is_unharmed(house):
    """No error of ours was logged, and memory is bounded."""
    assert house.chat("lab:m1").status_code == 200
    assert '"unhandled error"' not in house.log
    assert "Exception in ASGI application" not in house.log
    with open(f"/proc/{house.pid}/status") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    assert peak < 700 * 1024, f"{peak} KiB"
