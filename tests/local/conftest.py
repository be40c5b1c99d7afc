from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.hub import FakeHub
from tests.fakes.model_zoo import Zoo
from tests.local.hub_support import BODY, NAME, REPO, Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Folders, and a hub on loopback with one repository of one model."""
    with FakeHub() as hub:
        hub.add(REPO, {NAME: BODY, "README.md": b"# tiny"})
        yield Place(tmp_path, hub)


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Zoo:
    """Models of many architectures; each is made once in a session, whichever worker asks first."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "zoo"
    folder.mkdir(exist_ok=True)
    return Zoo(folder)
