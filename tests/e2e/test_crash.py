"""SIGKILL under load: whatever dies when, no window of the provider's ever sees more than the limit."""

from __future__ import annotations

import threading

import httpx
import pytest

from tests.fakes.upstream import FakeUpstream, rule
from tests.house import House, lab

LIMIT = 6
WINDOW_SECONDS = 3
CALLERS = 12


def hammer(house: House, stop: threading.Event) -> list[threading.Thread]:
    """Callers in closed loops until ``stop``; a dead daemon or a refusal just means the next attempt."""

    def caller() -> None:
        transport = httpx.HTTPTransport(uds=str(house.socket))
        with httpx.Client(transport=transport, base_url="http://hybridd", timeout=10) as client:
            body = {"model": "lab:m1", "max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]}
            while not stop.is_set():
                try:
                    client.post("/v1/chat/completions", json=body)
                except httpx.TransportError:
                    stop.wait(0.01)

    threads = [threading.Thread(target=caller, daemon=True) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    return threads


def run_rounds(upstream: FakeUpstream, module: str | None) -> int:
    """Three lives of one daemon, each killed with calls in flight; returns the most arrivals in any window."""
    upstream.script([rule({"first_byte_delay_s": 0.4})])
    quotas = [{"unit": "requests", "window": f"{WINDOW_SECONDS}s", "limit": LIMIT}]
    house = House({"providers": {"lab": lab(upstream.base_url, quotas=quotas)}})
    if module is not None:
        house.module = module
    stop = threading.Event()
    threads: list[threading.Thread] = []
    try:
        house.start()
        threads = hammer(house, stop)
        for life in range(3):
            upstream.wait(arrivals=upstream.count(60).total + 1, timeout_s=20)
            upstream.wait(arrivals=upstream.count(60).total + 2, timeout_s=20) if life else None
            house.kill()
            house.start()
        upstream.wait(arrivals=upstream.count(60).total + LIMIT, timeout_s=20)
    finally:
        stop.set()
        for thread in threads:
            thread.join(15)
        house.__exit__(None, None, None)
    assert upstream.count(60).total > LIMIT
    return upstream.max_in_window(WINDOW_SECONDS)


@pytest.mark.slow
def test_no_window_ever_exceeds_the_limit_across_crashes():
    """The provider's own log, over every alignment of the window, never shows more than the limit."""
    with FakeUpstream() as upstream:
        assert run_rounds(upstream, None) <= LIMIT


@pytest.mark.slow
def test_the_harness_catches_a_ledger_that_records_afterwards():
    """Negative control: with the row written after the call, the same harness sees an overrun."""
    with FakeUpstream() as upstream:
        assert run_rounds(upstream, "tests.e2e.late_recording") > LIMIT
