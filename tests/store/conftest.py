from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridd.store.database import Database
from tests.store.rows import opened


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = opened(tmp_path / "state")
    yield found
    found.close()
