from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.canned import CannedDaemon, serving


@pytest.fixture
def canned(tmp_path: Path) -> Iterator[CannedDaemon]:
    with serving(tmp_path / "d.sock") as daemon:
        yield daemon
