"""A daemon with a past: figures, a request and an alert of the hours before the test, as the daemon keeps them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.fakes.upstream import FakeUpstream
from tests.house import House, lab
from tui.timetravel import on_grid

DAY = "quota.lab/requests/day.remaining"
HOUR = 3600.0


@contextmanager
def with_a_past(upstream: FakeUpstream) -> Iterator[House]:
    """Yields the daemon. ``house.then`` (UTC seconds, a whole minute) is two hours ago: 70 of 98 were left, a request
    of ``ci`` had ended half an hour before, an alert was open that ended half an hour later."""
    quotas = [
        {"unit": "requests", "window": "day", "limit": 100, "buffer": 2},
        {"unit": "concurrent", "limit": 4},
    ]
    house = House({
        "providers": {
            "lab": lab(upstream.base_url, quotas=quotas),
            "small": lab(upstream.base_url, quotas=[{"unit": "requests", "window": "86400s", "limit": 1}]),
        },
        "tasks": {"code": ["small:m1", "lab:m1"]},
        "monitoring": {"check_interval_seconds": 0.5},
    })  # fmt: skip
    with house:
        house.stop()
        then = on_grid(time.time() - 2 * HOUR)
        _write(house, then)
        house.start()
        house.then = then  # type: ignore[attr-defined]  # a fact about this daemon
        for number in range(3):
            house.chat("task:code", f"hello {number}", max_tokens=3, headers={"x-hybridd-client": "notebook"})
        yield house


def _write(house: House, then: float) -> None:
    (path,) = house.state.glob("*.db")
    started = then - HOUR / 2
    with sqlite3.connect(path) as database:
        samples = [(DAY, then - minute * 60 - 1, 70.0 + minute) for minute in range(28)]
        samples += [(DAY, then + minute * 60 + 1, 60.0) for minute in range(60)]
        samples += [("host.cpu_percent", then - 30, 42.0), ("host.memory_available_mb", then - 30, 1000.0)]
        database.executemany("INSERT INTO samples (name, at, value) VALUES (?, ?, ?)", samples)
        database.execute(
            "INSERT INTO requests (id, at_wall_ns, task, requested, provider, model, status, stream, cache, attempts,"
            " input_tokens, output_tokens, usd_micro, latency_us, client)"
            " VALUES (?, ?, 'code', 'auto', 'lab', 'm1', 200, 0, 'off', 1, 5, 7, 1000, 20000, 'ci')",
            (round(started * 1e6), round(started * 1e6) * 1000),
        )
        database.execute(
            "INSERT INTO alerts (id, key, name, severity, state, message, provider, opened_at, updated_at, resolved_at,"
            " count, data) VALUES (1, 'provider_parked:lab', 'ProviderParked', 'warning', 'resolved',"
            " 'lab is parked until you act.', 'lab', ?, ?, ?, 3, '{}')",
            (then - HOUR, then - HOUR / 2, then + HOUR / 2),
        )
    database.close()
