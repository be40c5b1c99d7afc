from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import uvloop

from tests.providers.support import House, house


@pytest.fixture(scope="session")
def event_loop_policy():
    return uvloop.EventLoopPolicy()


@pytest.fixture
async def home() -> AsyncIterator[House]:
    async with house() as built:
        yield built
