"""The answers that clients are told of are those that the daemon gives."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hybridd.api import local, snapshot
from hybridd.client import types
from hybridd.contracts import views
from hybridd.local import jobs, residency_views


@pytest.mark.parametrize(
    ("told", "given"),
    [
        (types.Status, snapshot.Status),
        (types.LocalModel, residency_views.LocalModel),
        (types.LocalModelDetails, local.LocalModelDetails),
        (types.Resident, residency_views.ResidentView),
        (types.Job, jobs.Job),
        (types.LogRecord, views.LogView),
        (types.LogPage, views.LogPage),
    ],
    ids=lambda kind: kind.__name__,
)
def test_every_member_is_told(told: Any, given: type[msgspec.Struct]) -> None:
    """A member that an answer has gained or lost is not forgotten in the type that callers check their code with."""
    assert set(told.__annotations__) == set(given.__struct_fields__)
