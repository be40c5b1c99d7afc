"""A removal that the disk refuses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hybridd.api import local_removal
from hybridd.api.endpoints import Call
from hybridd.errors import HybriddError
from hybridd.local import removal
from tests.local.residency_support import home


async def test_what_the_disk_refuses_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the system's reason and the file; the folders are looked at again, and the model is still there."""

    def refuse(*_given: Any) -> None:
        raise PermissionError(13, "Permission denied", "/models/a.gguf")

    monkeypatch.setattr(removal, "remove", refuse)
    async with home() as house:
        house.model("a")
        await house.apply(cache_dir=str(house.directory / "cache"))
        services: Any = SimpleNamespace(residency=house.residency)
        call = Call(services, None, local_removal.RemoveBody("a"), "")
        with pytest.raises(
            HybriddError, match=r"a could not be removed: Permission denied \(/models/a.gguf\)"
        ) as caught:
            await local_removal.remove(call)
        assert caught.value.error_code == "not_removed"
        assert "a" in house.residency.shelf.known
