from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hybridd.bus import EventBus
from hybridd.clocks import ManualClock
from hybridd.store.database import Database
from tests.monitor.helpers import SmallHub


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def bus(clock: ManualClock) -> EventBus:
    return EventBus(clock)


@pytest.fixture
def hub() -> SmallHub:
    return SmallHub()


@pytest.fixture
async def database(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Database]:
    opened = Database.open(tmp_path / "state", clock=clock)
    yield opened
    opened.close()
