"""The warning comes before the first refusal, whatever drains the quota and however fast."""

from __future__ import annotations

import json
import socket
from datetime import datetime
from typing import Any

import pytest

from tests.e2e.support import Events, chat_bytes, connected, until
from tests.fakes.upstream import FakeUpstream
from tests.house import House, lab

LIMITS: dict[str, list[dict[str, Any]]] = {
    "requests": [{"unit": "requests", "window": "3600s", "limit": 12}],
    "buffered": [{"unit": "requests", "window": "3600s", "limit": 20, "buffer": 5}],
    "daily": [{"unit": "requests", "window": "day", "limit": 8}],
    "tokens": [{"unit": "total_tokens", "window": "3600s", "limit": 250}],
    "money": [{"unit": "usd", "window": "month", "limit": 0.0001}],
    "one": [{"unit": "requests", "window": "3600s", "limit": 1}],
}


@pytest.fixture(scope="module")
def house():
    """The monitor's own tick is a minute away: what warns here is the admission itself."""
    with FakeUpstream() as upstream:
        providers = {name: lab(upstream.base_url, quotas=quotas) for name, quotas in LIMITS.items()}
        config = {"providers": providers, "monitoring": {"check_interval_seconds": 60}}
        with House(config) as running:
            with Events(running, "host") as events:
                events.next()  # the first check is over: the next minute has none
            yield running


def burst(house: House, model: str, calls: int) -> list[int]:
    """That many calls in one packet; their statuses in order."""
    with connected(house) as caller:
        caller.sendall(chat_bytes(model, max_tokens=20) * calls)
        data = b""
        while data.count(b"HTTP/1.1 ") < calls or not complete(data, calls):
            data += receive(caller)
    return [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]]


def receive(caller: socket.socket) -> bytes:
    part = caller.recv(1 << 20)
    assert part, "the daemon hung up"
    return part


def complete(data: bytes, calls: int) -> bool:
    last = data.rpartition(b"HTTP/1.1 ")[2]
    head, gap, body = last.partition(b"\r\n\r\n")
    lengths = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(gap) and bool(lengths) and len(body) >= lengths[0]


@pytest.mark.parametrize("name", LIMITS)
def test_a_burst_is_warned_of_before_it_is_refused(house, name):
    """Within one tick of the monitor the quota is drained; the alert's time is before the first refusal's."""
    statuses = burst(house, f"{name}:m1", 30)
    assert statuses[0] == 200
    assert 429 in statuses
    alerts = house.http.get("/v1/alerts").json()["alerts"]
    (alert,) = [alert for alert in alerts if alert["provider"] == name and alert["name"] == "QuotaLow"]
    assert alert["severity"] == "warning"
    requests = until(lambda: len(page := house.http.get("/v1/requests?limit=200&sort=id").json()["requests"]) and page)
    first_refusal = next(r["at"] for r in requests if r["requested"] == f"{name}:m1" and r["status"] == 429)
    assert alert["opened_at"] < first_refusal
    lines = until(lambda: logged(house, name))
    at = datetime.fromisoformat(lines[0]["at"]).timestamp()
    assert at <= first_refusal + 0.001
    assert lines[0]["change"] == "opened"


def logged(house: House, provider: str) -> list[dict[str, Any]]:
    """What ``ml_alerts.log`` says of a provider's quota."""
    files = list(house.home.rglob("ml_alerts.log"))
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return [line for line in lines if line.get("provider") == provider and line.get("name") == "QuotaLow"]
