"""One real daemon with a fake upstream for the tests that only look."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from textual.scrollbar import ScrollBar

from tests.fakes.upstream import FakeUpstream
from tests.house import House, lab
from tests.tui.seeded import with_a_past

QUOTAS: list[dict[str, Any]] = [
    {"unit": "requests", "window": "60s", "limit": 1000, "buffer": 100},
    {"unit": "usd", "window": "month", "limit": 5, "zone": "UTC"},
]


def config(base_url: str) -> dict[str, Any]:
    small = [{"unit": "requests", "window": "86400s", "limit": 1}]
    return {
        "providers": {"lab": lab(base_url, quotas=QUOTAS), "small": lab(base_url, quotas=small)},
        "tasks": {"code_generation": ["small:m1", "lab:m1"]},
        "monitoring": {"check_interval_seconds": 0.5},
    }


@pytest.fixture(scope="package")
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream() as fake:
        yield fake


@pytest.fixture(scope="package")
def house(upstream: FakeUpstream) -> Iterator[House]:
    with House(config(upstream.base_url)) as running:
        running.chat("small:m1", max_tokens=3)
        running.chat("task:code_generation", max_tokens=3)
        yield running


@pytest.fixture(scope="package")
def seeded(upstream: FakeUpstream) -> Iterator[House]:
    with with_a_past(upstream) as running:
        yield running


@pytest.fixture(autouse=True)
def full_scroll_bars() -> Iterator[None]:
    """``--ascii`` changes Textual's scroll bars for the whole process, which here goes on to other tests."""
    before = ScrollBar.renderer
    yield
    ScrollBar.renderer = before
