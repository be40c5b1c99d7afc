"""The rows that cross from the ledger and the router to the writer thread.

Plain tuples: the hot path binds them as they are.

All times ``*_boot_ns`` are CLOCK_BOOTTIME nanoseconds of the boot numbered ``boot``; ``*_wall_ns`` are UTC nanoseconds.
"""

from __future__ import annotations

from typing import NamedTuple


class DispatchRow(NamedTuple):
    """A call that is about to be sent: the one durable step. Amounts are the full reservation."""

    id: int
    request_id: int
    provider: str
    account: str
    model: str
    task: str
    boot: int
    admitted_boot_ns: int
    admitted_wall_ns: int
    requests: int
    input_tokens: int
    output_tokens: int
    bytes_down: int
    bytes_up: int
    usd_micro: int
    price: str | None


class SettleRow(NamedTuple):
    """How the call ended. Amounts are what counts from now on (zero when nothing was sent).

    ``ended_*`` is *e*, linger included. ``state`` is ``settled``, ``released`` or ``unknown``. ``reported`` is 1 when
    the provider reported usage.
    """

    state: str
    ended_boot: int
    ended_boot_ns: int
    ended_wall_ns: int
    requests: int
    input_tokens: int
    output_tokens: int
    bytes_down: int
    bytes_up: int
    usd_micro: int
    reported: int
    first_byte_boot_ns: int | None
    error_code: str | None
    id: int
    provider: str
    model: str
    task: str
    failed: int


class RequestRow(NamedTuple):
    """One finished request: what was asked, what was chosen and why (``choice`` is JSON), how it went."""

    id: int
    at_wall_ns: int
    task: str
    requested: str
    provider: str
    model: str
    status: int
    error_code: str | None
    stream: int
    cache: str
    attempts: int
    input_tokens: int | None
    output_tokens: int | None
    usd_micro: int
    latency_us: int
    first_token_us: int | None
    overhead_us: int | None
    tier: str | None
    subject: str | None
    client: str | None
    choice: str
