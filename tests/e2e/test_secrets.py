"""Canary keys and prompts, planted everywhere one can be, appear nowhere but where they belong."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.support import Events, error_of, quiet, recorded, until
from tests.fakes.upstream import FakeUpstream, rule
from tests.house import House, lab

# No known format, so that nothing but knowing the key itself hides it.
KEYS = {kind: f"canary.{kind}.Zq8vT1xW5mP3" for kind in ("env", "file", "command", "client", "unrelated")}
PROMPT = "canary-prompt-about-the-merger"
DUMP = """
import json, os, sys
from hybridd.plugin import Provider, run
with open(sys.argv[1], "w") as file:
    json.dump({"environ": dict(os.environ), "argv": sys.argv}, file)
class Dump(Provider):
    name = sys.argv[2]
    async def models(self):
        return []
run(Dump)
"""


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """A place outside the daemon's own, for the key file and the plugins' dumps."""
    folder: Path = tmp_path_factory.mktemp("outside")
    (folder / "key").write_text(KEYS["file"] + "\n")
    (folder / "dump.py").write_text(DUMP)
    return folder


@pytest.fixture(scope="module")
def upstream():
    with FakeUpstream() as fake:
        yield fake


def echo(key: str) -> dict[str, Any]:
    """An upstream that repeats the key in every member of its error."""
    error = {"message": f"Incorrect API key provided: {key}.", "type": key, "code": f"bad_{key}", "param": key}
    return {"status": 401, "body": {"error": error, "detail": key}, "headers": {"x-request-id": key, "via": key}}


@pytest.fixture(scope="module")
def house(upstream, outside):
    def dumping(name: str, **settings: Any) -> dict[str, Any]:
        command = [sys.executable, str(outside / "dump.py"), str(outside / f"{name}.json"), name]
        return {"plugin": name, "command": command, **settings}

    references = {
        "env": {"env": "CANARY_KEY"},
        "file": {"file": str(outside / "key")},
        # Backwards in the configuration, so that finding it anywhere means a leak.
        "command": {"command": ["sh", "-c", f"echo {KEYS['command'][::-1]} | rev"]},
    }
    providers = {}
    for kind, key in references.items():
        providers[kind] = lab(upstream.base_url, models={kind: {}}, api_key=key)
        providers[f"{kind}-fails"] = lab(upstream.base_url, models={f"{kind}-f": {}}, api_key=key)
    providers["listing"] = lab(upstream.base_url, models={}, api_key=references["env"])
    providers["nosy"] = dumping("nosy", env=["PYTHONPATH"])
    providers["asking"] = dumping("asking", env=["PYTHONPATH", "CANARY_KEY"])
    env = {"CANARY_KEY": KEYS["env"], "UNRELATED": KEYS["unrelated"], "HYBRIDD_LOG_LEVEL": "debug"}
    with House({"providers": providers}, env=env) as running:
        until(lambda: (outside / "nosy.json").exists() and (outside / "asking.json").exists())
        yield running


def digest(kind: str) -> str:
    """How the fake upstream's log shows an Authorization header."""
    return hashlib.sha256(f"Bearer {KEYS[kind]}".encode()).hexdigest()[:12]


def found_in(text: bytes | str, allowed: tuple[str, ...] = ()) -> list[str]:
    data = text.encode() if isinstance(text, str) else text
    wanted = {**KEYS, "prompt": PROMPT}
    return [kind for kind, canary in wanted.items() if kind not in allowed and canary.encode() in data]


def everything_written(house: House) -> dict[str, bytes]:
    """Every file below the daemon's home: database, logs, its own output."""
    files = [path for path in house.home.rglob("*") if path.is_file() and path != house.config_path]
    assert {"hybridd.db", "ml_usage.log", "daemon.log"} <= {path.name for path in files}
    return {str(path): path.read_bytes() for path in files}


def test_the_keys_reach_their_hosts(house, upstream):
    """Control: each provider sends its own key, found by env, by file and by command."""
    upstream.reset()
    for kind in ("env", "file", "command"):
        assert house.chat(f"{kind}:{kind}", PROMPT).status_code == 200
    sent = {arrival.model: arrival.authorization for arrival in upstream.log() if arrival.model}
    for kind in ("env", "file", "command"):
        assert sent[kind] == digest(kind)


def test_an_upstream_that_repeats_the_key(house, upstream):
    """Errors whole and streamed, headers and codes: what the client, the record and the alert show holds no key."""
    upstream.script([rule(echo(KEYS[kind]), model=f"{kind}-f") for kind in ("env", "file", "command")])
    answers = []
    for kind in ("env", "file", "command"):
        answer = house.chat(f"{kind}-fails:{kind}-f", PROMPT, stream=kind == "file")
        assert (answer.status_code, error_of(answer)["code"]) == (502, "upstream_auth")
        answers.append(answer)
        record = recorded(house, answer)
        assert found_in(json.dumps(record)) == []
    for answer in answers:
        assert found_in(answer.content) == []
        assert found_in(repr(answer.headers)) == []
    alerts = until(lambda: (found := house.http.get("/v1/alerts").json()["alerts"]) and len(found) >= 3 and found)
    assert {"env-fails", "file-fails", "command-fails"} <= {alert["provider"] for alert in alerts}
    assert found_in(json.dumps(alerts)) == []


def test_a_stream_that_ends_with_the_key(house, upstream):
    """An error in the middle of a stream, which repeats the key."""
    upstream.script([rule({"sse_error_midstream": {"message": f"key {KEYS['env']} expired", "code": KEYS["env"]}})])
    answer = house.chat("env:env", PROMPT, stream=True)
    assert '"error"' in answer.text
    assert found_in(answer.content) == []
    upstream.reset()


def test_what_the_client_sends_stays_with_the_client(house, upstream):
    """The caller's own Authorization goes nowhere: not to the provider, not to a record, not to a log."""
    upstream.reset()
    headers = {"authorization": f"Bearer {KEYS['client']}", "x-api-key": KEYS["client"], "cookie": KEYS["client"]}
    answer = house.chat("env:env", PROMPT, headers=headers)
    assert answer.status_code == 200
    assert [arrival.authorization for arrival in upstream.log()] == [digest("env")]
    body = {"model": "env:env", "messages": [{"role": "user", "content": PROMPT}], "api_base": "http://127.0.0.1:1/"}
    assert house.http.post("/v1/chat/completions", json=body).status_code == 200, "a client cannot send a key elsewhere"
    assert upstream.count(60).total == 2


@pytest.mark.parametrize(
    "path",
    ["/v1/status", "/v1/plugins", "/v1/limits", "/v1/models", "/v1/requests?limit=100", "/v1/alerts", "/v1/report",
     "/v1/usage", "/v1/history", "/v1/route?prompt=hello+there", "/openapi.json", "/health", "/ready"],
)  # fmt: skip
def test_no_answer_holds_a_key(house, path):
    """Every path that shows something."""
    answer = house.http.get(path)
    assert answer.status_code == 200
    assert found_in(answer.content) == []


def test_no_event_holds_a_key(house, upstream):
    """Snapshot and deltas while a call fails with the key in its message."""
    upstream.script([rule({**echo(KEYS["env"]), "status": 500}, model="env")])
    with Events(house) as events:
        house.chat("env:env", PROMPT)
        events.until(lambda event: event["kind"] == "request")
        assert found_in(json.dumps(events.seen)) == []
    upstream.reset()


@pytest.mark.parametrize("command", ["status", "limits", "alerts", "report", "requests", "plugin list", "doctor"])
def test_no_command_prints_a_key(house, command):
    """Text and JSON, standard output and standard error."""
    for arguments in (command.split(), [*command.split(), "--json"]):
        done = house.cli(*arguments)
        assert done.stdout
        assert found_in(done.stdout + done.stderr) == []


def test_plugins_get_only_what_they_asked_for(house, outside):
    """A plugin that did not name the variable has neither it nor anything else of the daemon's environment."""
    nosy, asking = (json.loads((outside / f"{name}.json").read_text()) for name in ("nosy", "asking"))
    assert found_in(json.dumps(nosy)) == []
    assert asking["environ"]["CANARY_KEY"] == KEYS["env"]
    assert found_in(json.dumps(asking), allowed=("env",)) == []


def test_no_command_line_holds_a_key(house):
    """What ``ps`` shows of the daemon and its plugins."""
    pids = [house.pid, *(pid for view in house.http.get("/v1/plugins").json()["plugins"] if (pid := view["pid"]))]
    assert len(pids) >= 2
    for pid in pids:
        assert found_in(Path(f"/proc/{pid}/cmdline").read_bytes()) == []


@pytest.mark.parametrize(
    "config",
    [
        {"providers": {"p": {"plugin": "openai_compatible", "api_key": KEYS["env"]}}},
        {"providers": {"p": {"plugin": "openai_compatible", "api_key": {"value": KEYS["env"]}}}},
        {"providers": {"p": {"plugin": "openai_compatible", "key": KEYS["env"]}}},
        {"providers": {"p": {"plugin": "openai_compatible", "base_url": f"http://user:{KEYS['env']}@host/v1"}}},
    ],
)
def test_a_key_in_the_configuration_is_refused_unseen(house, config):
    """A key where only a reference may stand: the refusal names the place and never repeats the key."""
    good = house.config_path.read_text()
    try:
        house.write_config(config)
        answer = house.http.post("/v1/reload")
        assert answer.status_code == 400
        assert "providers.p" in error_of(answer)["message"]
        assert found_in(answer.content) == []
    finally:
        house.config_path.write_text(good)


def test_nothing_written_holds_a_key_or_a_prompt(house):
    """Database, write-ahead log, usage and alert logs, the daemon's own log at level debug: no canary anywhere."""
    quiet(house)
    assert house.stop() == 0
    written = everything_written(house)
    assert {path: found_in(data) for path, data in written.items() if found_in(data)} == {}
    with contextlib.closing(sqlite3.connect(house.state / "hybridd.db")) as connection:
        rows = connection.execute("SELECT count(*) FROM requests").fetchone()[0]
    assert rows >= 8, "control: the requests were recorded"


def test_the_search_finds_what_is_there(house):
    """Negative control: a canary in a file of the daemon's home would have been found."""
    planted = house.home / "planted"
    planted.write_bytes(b"x" * 100 + KEYS["file"].encode())
    assert [path for path, data in everything_written(house).items() if found_in(data)] == [str(planted)]
    planted.unlink()
    assert os.path.exists(house.home)
