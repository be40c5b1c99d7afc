"""``/v1/events``: a snapshot, then deltas of the kinds asked for; who does not read is dropped with a reason."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.support import Events, chat_bytes, connected, provider_of, until
from tests.fakes.upstream import FakeUpstream, rule
from tests.house import House, lab


@pytest.fixture(scope="module")
def upstream():
    with FakeUpstream() as fake:
        yield fake


@pytest.fixture(scope="module")
def house(upstream):
    quotas = [{"unit": "requests", "window": "60s", "limit": 10_000}]
    providers = {
        "lab": lab(upstream.base_url, quotas=quotas, models={"m1": {}, "many": {}}),
        "small": lab(upstream.base_url, quotas=[{"unit": "requests", "window": "3600s", "limit": 3}]),
        "parked": lab(upstream.base_url, models={"locked": {}}),
    }
    with House({"providers": providers, "monitoring": {"check_interval_seconds": 0.3}}) as running:
        yield running


@pytest.fixture(autouse=True)
def _clean(upstream):
    upstream.reset()


def test_a_snapshot_comes_first(house):
    """It holds the status, the limits and the open alerts, so that a screen needs nothing else to begin."""
    with Events(house) as events:
        (first,) = events.seen
        assert (first["kind"], set(first)) == ("snapshot", {"seq", "at", "kind", "data"})
        data = first["data"]
        assert {"lab", "small"} <= {provider["name"] for provider in data["status"]["providers"]}
        assert "small/requests/3600s" in [limit["key"] for limit in data["limits"]]
        assert isinstance(data["alerts"], list)


def test_a_call_shows_as_request_and_quota(house):
    """One routed call: a request event with what happened, and the quota's new figures."""
    with Events(house, "request,quota") as events:
        answer = house.chat("lab:m1", max_tokens=3)
        request = events.until(lambda event: event["kind"] == "request")
        quota = events.until(lambda event: event["kind"] == "quota" and event["data"]["key"] == "lab/requests/60s")
    data = request["data"]
    assert data["id"] == answer.headers["x-hybridd-request-id"]
    assert (data["provider"], data["model"], data["status"]) == ("lab", "m1", 200)
    assert quota["data"]["used"] + quota["data"]["reserved"] >= 1
    assert request["seq"] < quota["seq"] or request["seq"] > 0


def test_a_failure_shows_as_provider_and_alert(house, upstream):
    """A rejected key: the provider's new state and the alert, without any polling."""
    upstream.script([rule({"status": 401}, model="locked")])
    with Events(house, "provider,alert") as events:
        assert house.chat("parked:locked").status_code == 502
        provider = events.until(lambda event: event["kind"] == "provider")
        alert = events.until(lambda event: event["kind"] == "alert" and event["data"]["provider"] == "parked")
    assert (provider["data"]["key"], provider["data"]["provider"]["state"]) == ("parked", "parked")
    assert (alert["data"]["name"], alert["data"]["change"]) == ("ProviderParked", "opened")


def test_the_mask(house):
    """Only the kinds asked for, and the snapshot; sequence numbers grow."""
    with Events(house, "alert") as masked, Events(house, "request") as events:
        for _ in range(3):
            house.chat("lab:m1", max_tokens=1)
        for _ in range(3):
            events.until(lambda event: True)
        assert [event["kind"] for event in events.seen[1:]] == ["request"] * 3
        numbers = [event["seq"] for event in events.seen]
        assert numbers == sorted(set(numbers))
        assert [event["kind"] for event in masked.seen] == ["snapshot"]


WRONG = b'{"model":"nope","messages":[{"role":"user","content":"x"}]}'


def refused_requests(house: House, count: int) -> None:
    """So many request events, at the least cost: requests that are refused, in one pipeline."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(WRONG)
    got = 0
    with connected(house) as caller:
        sender = threading.Thread(target=caller.sendall, args=((head + WRONG) * count,))
        sender.start()
        while got < count:
            got += caller.recv(1 << 20).count(b"HTTP/1.1 404")
        sender.join()


@contextlib.contextmanager
def lazy_reader(house: House, kinds: str) -> Iterator[socket.socket]:
    """Subscribed, but not reading; its connection is full after a thousand requests."""
    with connected(house) as reader:
        reader.sendall(f"GET /v1/events?kinds={kinds} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        assert b"200 OK" in reader.recv(4096)
        yield reader


def test_states_are_coalesced(house, upstream):
    """A reader that pauses gets the newest state of a provider once, and every request."""
    upstream.script([rule({"preset": "retry_after_seconds", "delay_s": 0.3}, model="many")])
    callers = 40
    with lazy_reader(house, "request,provider") as reader:
        refused_requests(house, 1500)
        with contextlib.ExitStack() as stack:
            for _ in range(callers):
                caller = stack.enter_context(connected(house))
                caller.sendall(chat_bytes("lab:many"))
            upstream.wait(finished=callers)
            until(lambda: provider_of(house, "lab")["models"][-1]["state"] == "cooling")
        text = b""
        while text.count(b'"kind":"request"') < 1500 + callers:
            text += reader.recv(1 << 20)
    changes = text.count(b'"kind":"provider"')
    assert 1 <= changes < callers / 2, f"{changes} events for {callers} changes of one provider"


def test_a_reader_that_falls_behind_is_dropped(house):
    """Its memory is bounded: once 4,096 events behind it is told so and cut off; everybody else goes on."""
    with lazy_reader(house, "request") as slow, Events(house, "request") as quick, ThreadPoolExecutor(1) as pool:
        sent = 6000
        seen = pool.submit(lambda: [quick.next()["seq"] for _ in range(sent)])
        refused_requests(house, sent)
        assert len(seen.result(20)) == sent
        rest = b""
        while part := slow.recv(1 << 20):
            rest += part
    assert b'"kind":"dropped"' in rest
    assert b"reader fell 4096 events behind" in rest
    assert rest.count(b'"kind":"request"') < sent


def test_the_command_line(house):
    """``hybridd events --json`` prints one JSON object on each line until it has enough."""
    with subprocess.Popen(
        [sys.executable, "-m", "hybridd.cli.main", "events", "--json", "--kinds", "request", "--count", "3"],
        env=house.env, cwd=house.home, stdout=subprocess.PIPE, text=True,
    ) as command:  # fmt: skip
        assert command.stdout is not None
        assert json.loads(command.stdout.readline())["kind"] == "snapshot"
        for number in range(2):
            answer = house.chat("lab:m1", max_tokens=1)
            event = json.loads(command.stdout.readline())
            assert event["data"]["id"] == answer.headers["x-hybridd-request-id"], number
        assert command.wait(10) == 0


def test_readers_come_and_go(house):
    """A hundred readers that leave without a word leave nothing behind."""
    readers = [Events(house) for _ in range(100)]
    for reader in readers:
        reader.close()
    with connected(house) as half:
        half.sendall(b"GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n")
    assert house.chat("lab:m1", max_tokens=1).status_code == 200
    descriptors = f"/proc/{house.pid}/fd"
    until(lambda: len(os.listdir(descriptors)) < 60)


def test_the_warning_comes_as_an_event(house):
    """A drained quota: the alert event is there before the first refusal is answered."""
    with Events(house, "alert,request") as events, connected(house) as caller:
        caller.sendall(chat_bytes("small:m1", max_tokens=1) * 4)
        seen: list[str] = []
        while "429" not in seen:
            event = events.until(lambda event: True)
            data = event["data"]
            if event["kind"] == "request" and data["provider"] != "lab":
                seen.append(str(data["status"]))
            elif event["kind"] == "alert" and data["provider"] == "small":
                seen.append(data["name"])
        assert select.select([caller], [], [], 5)[0]
    assert seen.index("QuotaLow") < seen.index("429")
    assert provider_of(house, "small")["state"] == "ready"
