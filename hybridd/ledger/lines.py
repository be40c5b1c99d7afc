"""The rows a call leaves in the database."""

from __future__ import annotations

from hybridd.ledger.prices import snapshot
from hybridd.ledger.reservation import (
    DOWN,
    INPUT,
    OUTPUT,
    REQUESTS,
    UP,
    USD,
    Ending,
    Reservation,
    ReservationState,
    Vector,
)
from hybridd.store.rows import DispatchRow, SettleRow


def dispatch_row(call: Reservation, boot: int) -> DispatchRow:
    """The row written before anything is sent: the full reservation, and the price as it is now."""
    amounts, binding = call.amounts, call.binding
    if binding.price is not call.price:
        binding.price, binding.price_text = call.price, snapshot(call.price)
    return DispatchRow(
        call.id, call.request_id, call.provider, call.account, call.model, call.task, boot, call.admitted_boot_ns,
        call.admitted_wall_ns, amounts.requests, amounts.input_tokens, amounts.output_tokens, amounts.bytes_down,
        amounts.bytes_up, amounts.usd_micro, binding.price_text,
    )  # fmt: skip


def settle_row(
    call: Reservation, boot: int, state: ReservationState, charged: Vector, end: int, end_wall: int, ending: Ending
) -> SettleRow:
    """How the call ended; ``end`` and ``end_wall`` are *e*."""
    return SettleRow(
        state, boot, end, end_wall, charged[REQUESTS], charged[INPUT], charged[OUTPUT], charged[DOWN], charged[UP],
        charged[USD], ending.usage is not None, call.first_byte_boot_ns, ending.error_code, call.id, call.provider,
        call.model, call.task, ending.kind != "ok",
    )  # fmt: skip


def unknown_row(row: DispatchRow, boot: int, end: int, end_wall: int) -> SettleRow:
    """The end of a call that a crash left open: it counts in full."""
    return SettleRow(
        "unknown", boot, end, end_wall, row.requests, row.input_tokens, row.output_tokens, row.bytes_down, row.bytes_up,
        row.usd_micro, 0, None, "crash", row.id, row.provider, row.model, row.task, 1,
    )  # fmt: skip
