"""Rows for tests: one line instead of eighteen fields."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from hybridd.clocks import ManualClock
from hybridd.store.database import Database
from hybridd.store.rows import DispatchRow, RequestRow, SettleRow

T0_US = 1_790_000_000_000_000
"""Wall time of the first test row, in microseconds: 2026-09-21T14:13:20Z."""


def dispatch(number: int = 0, **fields: Any) -> DispatchRow:
    """A call admitted ``number`` microseconds after T0."""
    at = T0_US + number
    row = DispatchRow(
        id=at, request_id=at - 1, provider="lab", account="lab", model="m1", task="chat", boot=1,
        admitted_boot_ns=number * 1000, admitted_wall_ns=at * 1000, requests=1, input_tokens=100, output_tokens=200,
        bytes_down=0, bytes_up=0, usd_micro=500, price=None,
    )  # fmt: skip
    return row._replace(**fields)


def settle(row: DispatchRow, **fields: Any) -> SettleRow:
    """The end of a call, one second after its admission, as the provider reported it."""
    ended = SettleRow(
        state="settled", ended_boot=row.boot, ended_boot_ns=row.admitted_boot_ns + 10**9,
        ended_wall_ns=row.admitted_wall_ns + 10**9, requests=1, input_tokens=90, output_tokens=50, bytes_down=0,
        bytes_up=0, usd_micro=300, reported=1, first_byte_boot_ns=None, error_code=None, id=row.id,
        provider=row.provider, model=row.model, task=row.task, failed=0,
    )  # fmt: skip
    return ended._replace(**fields)


def request(number: int = 0, **fields: Any) -> RequestRow:
    """A finished request that started ``number`` microseconds after T0."""
    at = T0_US + number
    row = RequestRow(
        id=at, at_wall_ns=at * 1000, task="chat", requested="auto", provider="lab", model="m1", status=200,
        error_code=None, stream=0, cache="miss", attempts=1, input_tokens=90, output_tokens=50, usd_micro=300,
        latency_us=1_000_000, first_token_us=None, overhead_us=400, tier=None, subject=None, client="test",
        choice='{"task":"chat","chosen_model":"m1","provider":"lab","reason":"first","rejected":[],"candidates":[]}',
    )  # fmt: skip
    return row._replace(**fields)


def opened(folder: Path, clock: ManualClock | None = None) -> Database:
    return Database.open(folder, clock=clock or ManualClock())


async def within(seconds: float, awaitable: Any) -> Any:
    return await asyncio.wait_for(awaitable, seconds)
