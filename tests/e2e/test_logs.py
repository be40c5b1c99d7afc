"""``/v1/logs``, its events and ``hybridd logs`` on a real daemon."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hybridd.logs.ring import MOST_BYTES, MOST_RECORDS
from hybridd.monitor.log_events import MOST_AT_ONCE
from tests.e2e.support import Events, error_of, until
from tests.fakes.upstream import FakeUpstream, rule
from tests.house import House, lab

CANARY = "sk-canary-1234567890abcdef"
UNKNOWN = "canary.env.Zq8vT1xW5mP3"  # no known format: only knowing the key itself hides it
LINES = 190
CHATTERBOXES = 12
# Each prints its lines at once when its file appears.
CHATTER = f"while [ ! -e $0/go ]; do sleep 0.02; done; seq -f 'chatter %g of {LINES}' {LINES} >&2; exec sleep 600"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made: Path = tmp_path_factory.mktemp("chatter")
    return made


@pytest.fixture(scope="module")
def upstream():
    with FakeUpstream() as fake:
        yield fake


@pytest.fixture(scope="module")
def house(upstream, folder):
    leaky = f"echo leaks {CANARY} and $CANARY_KEY >&2; echo authorization: Bearer {CANARY} >&2; exec sleep 600"
    providers = {
        "lab": lab(upstream.base_url),
        "parked": lab(upstream.base_url, models={"locked": {}}),
        "leaky": {"plugin": "leaky", "command": ["sh", "-c", leaky], "env": ["CANARY_KEY"]},
    }
    for number in range(CHATTERBOXES):
        command = ["sh", "-c", CHATTER, str(folder)]
        providers[f"chatter{number}"] = {"plugin": f"chatter{number}", "command": command}
    with House({"providers": providers}, env={"CANARY_KEY": UNKNOWN}) as running:
        yield running


def page(house: House, query: str = "") -> dict[str, Any]:
    answer = house.http.get(f"/v1/logs{query}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def found(house: House, query: str, count: int = 1) -> list[dict[str, Any]]:
    """The records of a filter once there are so many."""

    def look() -> list[dict[str, Any]] | None:
        records: list[dict[str, Any]] = page(house, query)["logs"]
        return records if len(records) >= count else None

    records: list[dict[str, Any]] = until(look)
    return records


def test_what_the_daemon_says(house):
    """Newest first, with level, component and fields; nothing is missing of a young daemon."""
    (ready,) = found(house, "?component=hybridd&contains=ready&level=info")[-1:]
    assert (ready["level"], ready["component"], ready["message"]) == ("info", "hybridd", "ready")
    assert ready["fields"]["socket"] == str(house.socket)
    whole = page(house, "?limit=1000")
    ids = [one["id"] for one in whole["logs"]]
    assert ids == sorted(ids, reverse=True)
    assert whole["next"] is None
    assert (whole["kept"], whole["lost"], whole["level"]) == (len(ids), 0, "info")
    assert whole["first"] == ids[-1]


def test_a_plugin_that_prints_its_key(house):
    """What a plugin writes to standard error is there under its name, and no key in it, known or merely shaped so."""
    records = found(house, "?component=hybridd.plugin.leaky", 2)
    text = json.dumps(page(house, "?limit=1000"))
    assert "leaks [redacted] and [redacted]" in text
    assert records[0]["component"] == "hybridd.plugin.leaky"
    for key in (CANARY, UNKNOWN):
        assert key not in text
        assert key not in house.log
    assert page(house, f"?contains={UNKNOWN}")["logs"] == []


def test_an_alert_names_its_provider(house, upstream):
    """A rejected key: a record with the provider and the alert's number, as a record and as an event."""
    upstream.script([rule({"status": 401}, model="locked")])
    with Events(house, "log") as events:
        assert house.chat("parked:locked").status_code == 502
        told = events.until(lambda event: event["kind"] == "log" and event["data"].get("provider") == "parked")
    (record,) = page(house, "?contains=provider_parked&level=warning")["logs"]
    assert told["data"] == record
    assert record["fields"]["alert"] == "ProviderParked"
    upstream.reset()


def test_a_routed_call_logs_nothing(house):
    """The data path keeps no records: what a call costs is unchanged."""
    before = page(house)["kept"]
    for _ in range(20):
        assert house.chat("lab:m1", max_tokens=1).status_code == 200
    assert page(house)["kept"] == before


def test_pages(house):
    """Page by page, without a record twice or left out, the same as the whole."""
    whole = [one["id"] for one in page(house, "?limit=1000")["logs"]]
    ids: list[int] = []
    following: int | None = None
    while True:
        one = page(house, "?limit=3" + (f"&before={following}" if following is not None else ""))
        ids += [record["id"] for record in one["logs"]]
        following = one["next"]
        if following is None:
            break
    assert ids[-len(whole) :] == whole


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("level=loud", "level"), ("limit=0", "limit"), ("limit=1001", "limit"), ("limit=many", "limit"),
        ("before=0", "before"), ("before=9223372036854775808", "before"), ("since=never", "since"),
        ("until=1e400", "until"), ("contains=" + "x" * 1001, "contains"), ("nope=1", "nope"),
    ],
)  # fmt: skip
def test_wrong_questions(house, query, param):
    """Each is a 400 that names the parameter."""
    answer = house.http.get(f"/v1/logs?{query}")
    assert (answer.status_code, error_of(answer)["param"]) == (400, param)


def test_the_command(house):
    """Newest last, filtered as asked; one JSON document; wrong levels are usage errors."""
    done = house.cli("logs", "--component", "hybridd", "--grep", "READY")
    assert done.returncode == 0
    assert "hybridd: ready version=" in done.stdout
    shown = json.loads(house.cli("logs", "--json", "--limit", "2").stdout)
    assert len(shown["logs"]) == 2
    assert shown["next"] is not None
    assert "No record matches." in house.cli("logs", "--grep", "no such thing").stdout
    assert house.cli("logs", "--level", "loud").returncode == 2
    assert house.cli("logs", "--follow", "--until", "1h").returncode == 2


class Following:
    """``hybridd logs --follow --json`` while it runs."""

    def __init__(self, house: House, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hybridd.cli.main", "logs", "--follow", "--json", *arguments],
            env=house.env, cwd=house.home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.lines = self.process.stdout

    def until(self, condition: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        read: list[dict[str, Any]] = []
        while not read or not condition(read[-1]):
            line = self.lines.readline()
            assert line, self.process.communicate()[1]
            read.append(json.loads(line))
        return read


def test_a_flood(house, folder):
    """2,280 lines at once: memory keeps its bounds, a reader is told a few of them with a count of the others, the
    command that follows gets all that is still kept, and the daemon goes on answering."""
    with Events(house, "log") as events:
        following = Following(house, "--component", "hybridd", "--limit", "1")
        following.until(lambda record: True)
        (folder / "go").touch()
        lines = LINES * CHATTERBOXES
        whole = until(lambda: (now := page(house)) and now["lost"] + now["kept"] >= lines and now)
        assert whole["kept"] <= MOST_RECORDS
        assert house.chat("lab:m1", max_tokens=1).status_code == 200
        kept = [one for start in ("", f"&before={page(house, '?limit=1000')['next']}")
                for one in page(house, f"?limit=1000{start}")["logs"]]  # fmt: skip
        assert sum(len(json.dumps(one, ensure_ascii=False, separators=(",", ":"))) for one in kept) <= MOST_BYTES
        newest = kept[0]["id"]
        told = [events.until(lambda event: True)["data"]]
        while told[-1].get("id", told[-1].get("last")) < newest:
            told.append(events.until(lambda event: True)["data"])
        left_out = sum(one.get("left_out", 0) for one in told)
        assert left_out + sum("id" in one for one in told) >= lines
        assert left_out > lines / 2
        assert len(told) < 20 * MOST_AT_ONCE
    chatter = [one["id"] for one in kept if one["message"].startswith("chatter")]
    shown = [one["id"] for one in following.until(lambda record: record["id"] >= chatter[0])]
    assert shown == sorted(set(shown))
    assert len(shown) > len(chatter) * 0.9
    following.process.terminate()
    following.process.communicate()


def test_following_ends_with_the_daemon(upstream):
    """It prints what is logged from now on, and ends with a reason and the status of a daemon that is gone."""
    with House({"providers": {"lab": lab(upstream.base_url)}}) as house:
        following = Following(house)
        following.until(lambda record: record["message"] == "ready")
        house.http.post("/v1/reload", json={})
        assert following.until(lambda record: True)[-1]["message"] == "configuration reloaded"
        house.stop()
        assert "hybridd is stopping" in following.process.communicate(timeout=20)[1]
        assert following.process.returncode == 4
