"""Plugins that misbehave in every way a stranger's plugin can: the daemon stays up, callers get typed errors, the
ledger charges what may have been used, and the other providers work."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from tests.e2e.rude_plugin import ANSWERS, STARTS, USAGE
from tests.e2e.support import QUOTAS, error_of, plugin_of, provider_of, quiet, recorded, until, used
from tests.house import ROOT, House

PROGRAM = [sys.executable, "-W", "ignore", str(ROOT / "tests/e2e/rude_plugin.py")]
MOST_TOKENS = 50


class Bad(NamedTuple):
    """``code`` and ``said``: the caller's error; ``kind``: the call's; ``charge``: ``all`` that was reserved, or the
    ``usage`` reported. ``dropped``: the plugin's life is over for it. ``stream``: it shows in streams only; ``begun``:
    after the first event."""

    code: str
    said: str
    kind: str = "unavailable"
    charge: str = "all"
    dropped: bool = True
    stream: bool = False
    begun: bool = False


LOST = "upstream_unavailable"
NO_ANSWER = "upstream_bad_response"
BAD: dict[str, Bad] = {
    "garbage": Bad(LOST, "a message is not valid"),
    "not-rpc": Bad(LOST, "a message is not valid"),
    "no-result": Bad(LOST, "exactly one of result and error"),
    "both": Bad(LOST, "exactly one of result and error"),
    "unknown-id": Bad(LOST, "an answer to the unknown or already answered request"),
    "wrong-types": Bad(LOST, "is not valid: Expected `object | null`"),
    "negative-usage": Bad(LOST, "is not valid: Expected `int` >= 0"),
    "absurd-usage": Bad(LOST, "is not valid: Expected `int` <="),
    "large-usage": Bad(LOST, "is not valid: Expected `int` <="),
    "body-number": Bad(NO_ANSWER, "a body that is not a JSON object", "bad_response", dropped=False),
    "body-text": Bad(NO_ANSWER, "a body that is not a JSON object", "bad_response", dropped=False),
    "body-null": Bad(NO_ANSWER, "a body that is not a JSON object", "bad_response", dropped=False),
    "no-body": Bad(NO_ANSWER, "answered generate without a body", "bad_response", dropped=False),
    "polite": Bad(NO_ANSWER, "a stream without an event", "bad_response", dropped=False, stream=True),
    "hangs": Bad("upstream_timeout", "did not answer by the deadline", "timeout"),
    "blocks": Bad("upstream_timeout", "did not answer by the deadline", "timeout"),
    "dies": Bad(LOST, "was lost", stream=True, begun=True),
    "floods-chunks": Bad(LOST, "with a credit of", stream=True, begun=True),
    "wrong-seq": Bad(LOST, "chunk 7", stream=True),
    "event-text": Bad(LOST, "an event is not a JSON object", stream=True),
}
# What each bad start is said to have failed of, in the plugin's reason.
STARTED: dict[str, str] = {
    "never-connects": "did not register a provider within",
    "never-initialises": "no initialize within",
    "other-version": "are not supported; supported: ['1']",
    "garbage-first": "a message is not valid",
    "binary": "a binary frame",
    "not-websocket": "exited with 0",
    "wrong-token": "the token is unknown",
    "exits-at-once": "exited with 9: no licence file found",
    "foreign-name": "did not register a provider within",
    "huge-message": "exceeds limit of",
    "floods": "more than 2000 messages in a second",
}


def rude(name: str, **settings: Any) -> dict[str, Any]:
    return {"plugin": name, "command": [*PROGRAM, name], "timeout_seconds": 0.8, "quotas": QUOTAS, **settings}


@pytest.fixture(scope="module")
def house():
    names = [*STARTED, *ANSWERS]
    providers = {name: rude(name) for name in names}
    providers["absurd-price"]["quotas"] = []
    for name in STARTED:
        providers[name]["quotas"] = []
    for name in ("late", "later"):
        providers[name]["start"] = "on_demand"
    providers["not-there"] = {"plugin": "not-there", "command": ["/no/such/program"]}
    providers["guest"] = {"plugin": "guest"}  # connects by itself
    tasks: dict[str, Any] = {"whenever": ["later:*", "polite:m"]}
    tasks |= {f"t{name}": [f"{name}:m", "polite:m"] for name in [*BAD, *STARTED]}
    house = House({"providers": providers, "tasks": tasks})
    house.module = "tests.e2e.hasty"
    with house as running:
        until(lambda: provider_of(running, "polite")["state"] == "ready")
        yield running


def test_every_mode_has_its_test():
    """The tables here and in the rude plugin name the same modes."""
    assert set(STARTED) == {start.__name__.replace("_", "-") for start in STARTS}
    assert set(BAD) | {"twice", "pretty", "absurd-price", "absurd-limits", "late", "later"} == set(ANSWERS)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_answer(house, name):
    """The caller gets a typed error that says what was wrong; what may have been used is charged; a plugin that breaks
    the protocol is dropped and started again."""
    bad = BAD[name]
    until(lambda: provider_of(house, name)["state"] == "ready")
    before = used(house, name)["total_tokens"][0]
    answer = house.chat(f"{name}:m", max_tokens=MOST_TOKENS, stream=bad.stream)
    if bad.begun:
        assert answer.status_code == 200
        assert "[DONE]" not in answer.text
        error = json.loads(answer.text.rstrip().split("\n\n")[-1].removeprefix("data: "))["error"]
    else:
        error = error_of(answer)
    assert error["code"] == bad.code, error
    assert bad.said in error["message"]
    (call,) = recorded(house, answer)["calls"]
    assert (call["state"], call["error_code"]) == ("unknown", bad.kind)
    charged = used(house, name)["total_tokens"][0] - before
    assert charged > MOST_TOKENS
    assert all(reserved == 0 for _, reserved in used(house, name).values())
    if bad.dropped:
        until(lambda: plugin_of(house, name)["restarts"] > 0)


@pytest.mark.parametrize("name", ["garbage", "dies", "hangs"])
def test_the_next_provider_answers(house, name):
    """A lost or silent plugin leads to the next candidate, as long as nothing was delivered."""
    until(lambda: provider_of(house, name)["state"] == "ready", timeout=20)
    answer = house.chat(f"task:t{name}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-hybridd-provider"] == "polite"


def test_a_second_answer_changes_nothing(house):
    """The first answer stands and is charged once; the plugin is dropped for the second."""
    until(lambda: provider_of(house, "twice")["state"] == "ready")
    answer = house.chat("twice:m", max_tokens=MOST_TOKENS)
    assert answer.json()["choices"][0]["message"]["content"] == "fine"
    (call,) = recorded(house, answer)["calls"]
    assert call["state"] == "settled"
    assert used(house, "twice")["total_tokens"] == (USAGE["inputTokens"] + USAGE["outputTokens"], 0)
    until(lambda: plugin_of(house, "twice")["restarts"] > 0)
    assert "unknown or already answered" in house.log


def test_events_of_several_lines_reach_the_client_whole(house):
    """JSON with line breaks is passed on as one event each: a line break would end an event of a stream."""
    until(lambda: provider_of(house, "pretty")["state"] == "ready")
    answer = house.chat("pretty:m", stream=True)
    events = answer.text.split("\n\n")
    assert [json.loads(event.removeprefix("data: "))["id"] for event in events[:2]] == ["x", "x"]
    assert events[2:] == ["data: [DONE]", ""]


def test_prices_nobody_can_mean(house):
    """A negative or infinite price is no price: the model works, and a money limit refuses it."""
    until(lambda: provider_of(house, "absurd-price")["state"] == "ready")
    answer = house.chat("absurd-price:m")
    assert answer.status_code == 200
    assert recorded(house, answer)["cost_usd"] == 0
    (model,) = provider_of(house, "absurd-price")["models"]
    assert model["price"] is None
    assert house.http.get("/v1/models").status_code == 200


def test_figures_nobody_can_mean(house):
    """Absurd observations neither break the daemon nor open the limits."""
    until(lambda: provider_of(house, "absurd-limits")["state"] == "ready")
    answer = house.chat("absurd-limits:m")
    assert answer.status_code == 200
    limits = house.http.get("/v1/limits?provider=absurd-limits").json()["limits"]
    configured = {limit["unit"]: limit for limit in limits if limit["window"] in ("3600s", "month", "none")}
    assert configured["usd"]["remaining"] <= 50
    assert configured["requests"]["remaining"] <= 999


@pytest.mark.parametrize("name", STARTED)
def test_a_bad_start(house, name):
    """Its provider is never ready for a call, callers are told quickly, and the reason is kept for the user."""
    began = time.monotonic()
    answer = house.chat(f"{name}:m")
    assert answer.status_code == 503, answer.text
    assert error_of(answer)["code"] in ("no_feasible_provider", LOST)
    assert time.monotonic() - began < 12, "no caller waits longer than one start may take"
    seen = until(lambda: [line for line in house.log.splitlines() if STARTED[name] in line and name in line], 20)
    assert seen
    fallback = house.chat(f"task:t{name}")
    assert fallback.headers.get("x-hybridd-provider") == "polite", fallback.text


def test_the_breaker_opens(house):
    """Five failures in ten minutes: it is left alone, with its last words and an alert; a reload is the cure."""
    view = until(lambda: (plugin := plugin_of(house, "exits-at-once"))["state"] == "failed" and plugin, 20)
    assert view["restarts"] == 5
    assert view["stderr"] == ["no licence file found"]
    assert "exited with 9" in view["reason"]
    answer = house.chat("exits-at-once:m")
    assert answer.status_code == 503
    assert "no licence file found" in error_of(answer)["message"]
    assert plugin_of(house, "exits-at-once")["restarts"] == 5
    alerts = house.http.get("/v1/alerts").json()["alerts"]
    assert "plugin_failed:exits-at-once" in [alert["key"] for alert in alerts]
    assert house.http.post("/v1/reload").status_code == 200
    until(lambda: plugin_of(house, "exits-at-once")["state"] in ("starting", "backoff", "failed"))
    assert plugin_of(house, "exits-at-once")["restarts"] < 5


def test_a_program_that_is_not_there(house):
    """Says so at once, and is not tried again and again."""
    view = plugin_of(house, "not-there")
    assert view["state"] == "failed"
    assert "'/no/such/program' does not exist" in view["reason"]
    assert "does not exist" in error_of(house.chat("not-there:m"))["message"]


@pytest.mark.parametrize(("name", "model"), [("late", "late:m"), ("later", "task:whenever")])
def test_a_plugin_that_starts_with_the_first_call(house, name, model):
    """What only its registration tells, the models behind ``*`` and a price under a money limit, is waited for."""
    assert provider_of(house, name)["state"] == "idle"
    answer = house.chat(model)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-hybridd-provider"] == name
    assert recorded(house, answer)["cost_usd"] > 0


# -- plugins that connect by themselves


class Guest:
    """A connection of the test's own, spoken word by word: a WebSocket in thirty lines, frames of up to 64 KiB."""

    def __init__(self, house: House) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10)
        self._socket.connect(str(house.socket))
        self._file = self._socket.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET /v1/plugins/connect HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            f"sec-websocket-key: {key}\r\nsec-websocket-version: 13\r\n\r\n".encode()
        )
        assert b" 101 " in self._file.readline()
        while self._file.readline().strip():
            continue

    def send(self, **message: Any) -> None:
        data = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._socket.sendall(bytes((0x81, 0x80 | 126)) + struct.pack("!H", len(data)) + bytes(4) + data)

    def next(self) -> dict[str, Any]:
        """The next message; EOFError once the daemon has said goodbye."""
        head = self._file.read(2)
        if not head or head[0] == 0x88:
            raise EOFError
        size = head[1] if head[1] < 126 else struct.unpack("!H", self._file.read(2))[0]
        message: dict[str, Any] = json.loads(self._file.read(size))
        return message

    def ask(self, number: int, method: str, **params: Any) -> dict[str, Any]:
        self.send(id=number, method=method, params=params)
        return self.next()

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


HELLO = {"protocolVersions": ["1"], "plugin": {"name": "guest"}, "instanceId": "g1"}


def test_a_guest_may_not_take_a_spawned_name(house):
    """A name that the configuration gives to a plugin of the daemon's, or that is reserved, is refused."""
    with Guest(house) as guest:
        guest.ask(1, "initialize", **HELLO)
        for number, name in enumerate(("polite", "specialists", "local", "auto"), 2):
            answer = guest.ask(number, "provider/register", provider=name, models=[])
            assert answer["error"]["code"] == -32003, answer
    assert house.chat("polite:m").status_code == 200


def test_a_guest_that_leaves_fails_its_call_at_once(house):
    """Its provider is disconnected and the call counts in full; a new connection takes over and answers."""
    for leaves in (True, False):
        with Guest(house) as guest, ThreadPoolExecutor(1) as pool:
            guest.ask(1, "initialize", **HELLO)
            guest.ask(2, "provider/register", provider="guest", models=[{"id": "m"}])
            assert provider_of(house, "guest")["state"] == "ready"
            asked = pool.submit(house.chat, "guest:m")
            message = guest.next()
            while message["method"] != "generate":
                message = guest.next()
            if leaves:
                guest.close()
            else:
                guest.send(id=message["id"], result={"body": {"choices": []}})
            answer = asked.result(10)
        if leaves:
            assert (answer.status_code, error_of(answer)["code"]) == (503, LOST)
            assert provider_of(house, "guest")["state"] == "disconnected"
        else:
            assert answer.json() == {"choices": []}


def test_one_wrong_first_word(house):
    """Before ``initialize`` nothing else is taken."""
    with Guest(house) as guest:
        assert guest.ask(1, "provider/register", provider="guest", models=[])["error"]["code"] == -32002
        with pytest.raises(EOFError):
            guest.next()


def test_another_version_is_told_which_are_spoken(house):
    """The error names the supported versions as data."""
    with Guest(house) as guest:
        error = guest.ask(1, "initialize", **{**HELLO, "protocolVersions": ["7"]})["error"]
        assert (error["code"], error["data"]) == (-32001, {"supported": ["1"]})


def test_no_orphan_survives_a_killed_plugin(house):
    """SIGKILL to a plugin's process: it comes back as another process and answers again."""
    pid = plugin_of(house, "polite")["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: plugin_of(house, "polite")["pid"] not in (pid, None))
    until(lambda: provider_of(house, "polite")["state"] == "ready")
    assert house.chat("polite:m").status_code == 200


def test_the_daemon_is_unharmed(house):
    """After all of this nothing is in flight, nothing is reserved, and no error of ours was logged."""
    status = quiet(house)
    assert status["storage"] is None
    assert house.chat("polite:m").status_code == 200
    assert '"unhandled error"' not in house.log
    assert "a check failed" not in house.log
