from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from hybridd.clocks import ManualClock
from hybridd.contracts.quotas import Quota
from tests.ledger.support import House

Build = Callable[..., Awaitable[House]]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Build]:
    """``await house(quota, …, clock=…)``: a started ledger on a fresh database."""
    made: list[House] = []

    async def build(*quotas: Quota, clock: ManualClock | None = None) -> House:
        made.append(House(tmp_path / f"state{len(made)}", quotas, clock))
        return await made[-1].start()

    yield build
    for one in made:
        one.close()


def keys(quotas: Sequence[Quota]) -> list[str]:
    return [quota.key for quota in quotas]
