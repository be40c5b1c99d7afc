"""``/v1/events``: a snapshot, then deltas of the kinds asked for; who does not read is dropped with a reason."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
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
        "lab": lab(upstream.base_url, quotas=quotas),
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


def test_states_are_coalesced(house):
    """A reader that pauses gets the newest figures of a quota once, not every step on the way."""
    with Events(house, "quota") as events:
        for _ in range(50):
            house.chat("lab:m1", max_tokens=1)
        last = events.until(lambda event: event["data"]["key"] == "lab/requests/60s" and event["data"]["used"] >= 50)
        of_lab = [event for event in events.seen[1:] if event["data"]["key"] == "lab/requests/60s"]
        assert len(of_lab) < 50
        assert last["data"]["used"] >= 50


def test_a_reader_that_falls_behind_is_dropped(house):
    """Its memory is bounded: once 4,096 events behind it is told so and cut off; everybody else goes on."""
    with connected(house) as slow, Events(house, "request") as quick, ThreadPoolExecutor(1) as pool:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(b"GET /v1/events?kinds=request HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"200 OK" in slow.recv(4096)
        wrong = b'{"model":"nope","messages":[{"role":"user","content":"x"}]}'
        request = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(wrong), wrong)
        with connected(house) as caller:
            # Refused requests are events too, and cost the least.
            sent, got = 6000, 0
            seen = pool.submit(lambda: [quick.next()["seq"] for _ in range(sent)])
            sender = threading.Thread(target=caller.sendall, args=(request * sent,))
            sender.start()
            while got < sent:
                got += caller.recv(1 << 20).count(b"HTTP/1.1 404")
            sender.join()
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
