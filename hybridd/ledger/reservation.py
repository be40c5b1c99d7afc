"""A call from reservation to settlement, and the settle table as one pure function.

==========================================================  ==========  =====================
ending                                                      requests    tokens, bytes, money
==========================================================  ==========  =====================
refused by us, or ``sent: no``                              0           0
upstream error status                                       counted     reported usage, or 0
success with usage                                          counted     reported usage
success without usage, cut stream, client gone, timeout,    counted     the full reservation
crash
==========================================================  ==========  =====================

An absent figure is not zero, an explicit zero is. A usage reported with an ending of the last row may be partial, so it
can only raise the charge above the reservation, never lower it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from hybridd.contracts.protocol import Sent, Usage
from hybridd.contracts.quotas import Amounts, Price
from hybridd.errors import HybriddError
from hybridd.ledger.prices import cost, micro

if TYPE_CHECKING:
    from hybridd.ledger.admission import Binding
    from hybridd.ledger.counters import Counter

EndingKind = Literal["ok", "upstream_error", "cut", "client_gone", "timeout", "crash", "refused"]
ReservationState = Literal["reserved", "dispatched", "settled", "released", "unknown"]

# Where each unit stands in a vector of amounts: the order of contracts.quotas.UNITS.
REQUESTS, INPUT, OUTPUT, TOTAL, DOWN, UP, USD, CONCURRENT = range(8)
Vector = tuple[int, int, int, int, int, int, int, int]
NOTHING: Vector = (0, 0, 0, 0, 0, 0, 0, 0)


class Refusal(NamedTuple):
    """Why a call may not be made now. ``retry_after`` is seconds; None: waiting does not help.

    ``code``: ``quota`` (no room), ``no_price`` (a money limit binds a model without a price), ``recovering`` (the
    recorded calls are still being read), ``storage_failed`` (the disk refuses writes: nothing may leave unrecorded).
    """

    quota: str | None
    reason: str
    retry_after: float | None
    code: str = "quota"


class QuotaRefused(HybriddError):
    """A limit, or the ledger's own state, forbids the call; ``refusal`` says which and for how long."""

    code = "quota_refused"
    http_status = 429
    type = "rate_limit_error"

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason, retry_after=refusal.retry_after, details=refusal._asdict())
        self.refusal = refusal


class Ending(msgspec.Struct, frozen=True):
    """How a call ended. ``answered``: the end of the provider's answer was seen (absent: it was, for ``ok`` and
    ``upstream_error``). Only then is *now* the last instant at which the provider can have counted the call."""

    kind: EndingKind
    sent: Sent = "yes"
    usage: Usage | None = None
    error_code: str | None = None
    answered: bool | None = None


class Settlement(msgspec.Struct, frozen=True):
    """What the call counts from now on. ``excess``: used beyond the reservation, debt where a quota is full."""

    state: ReservationState
    reported: bool
    vector: Vector
    reserved: Vector

    @property
    def charged(self) -> Amounts:
        return amounts_of(self.vector)

    @property
    def excess(self) -> Amounts:
        beyond = [max(0, used - kept) for used, kept in zip(self.vector, self.reserved, strict=True)]
        return Amounts(*beyond[:TOTAL], *beyond[DOWN:CONCURRENT])

    @property
    def usd_micro(self) -> int:
        """What it cost."""
        return self.vector[USD]


class Reservation:
    """One call. Owned by the ledger; callers read it and hand it back."""

    __slots__ = (
        "account", "admitted_boot_ns", "admitted_wall_ns", "amounts", "binding", "charged", "dispatched_boot_ns",
        "first_byte_boot_ns", "id", "linger_ns", "marks", "model", "price", "provider", "request_id", "state", "task",
        "vector",
    )  # fmt: skip

    def __init__(
        self,
        id: int,  # the column's name
        request_id: int,
        provider: str,
        task: str,
        binding: Binding,
        amounts: Amounts,
        vector: Vector,
        price: Price | None,
        linger_ns: int,
        boot_ns: int,
        wall_ns: int,
    ) -> None:
        self.id = id
        self.request_id = request_id
        self.provider = provider
        self.account = binding.account
        self.model = binding.model
        self.task = task
        self.binding = binding
        self.amounts = amounts
        self.vector = vector
        self.price = price
        self.linger_ns = linger_ns
        self.admitted_boot_ns = boot_ns
        self.admitted_wall_ns = wall_ns
        self.dispatched_boot_ns = boot_ns
        self.first_byte_boot_ns: int | None = None
        self.charged: Vector | None = None
        # (counters, what had ended in each of them) when this call was dispatched: the as-of of what it will report.
        self.marks: tuple[tuple[Counter, ...], list[int]] | None = None
        self.state: ReservationState = "reserved"


def vector_of(amounts: Amounts) -> Vector:
    taken_in, given_out = amounts.input_tokens, amounts.output_tokens
    return (
        amounts.requests, taken_in, given_out, taken_in + given_out, amounts.bytes_down, amounts.bytes_up,
        amounts.usd_micro, 1,
    )  # fmt: skip


def amounts_of(vector: Vector) -> Amounts:
    return Amounts(vector[REQUESTS], vector[INPUT], vector[OUTPUT], vector[DOWN], vector[UP], vector[USD])


def charge(reserved: Vector, price: Price | None, ending: Ending) -> tuple[ReservationState, Vector]:
    """The settle table: the row's state and what counts from now on.

    An upstream status, or a success, proves that the request was sent, whatever ``sent`` claims.
    """
    kind, usage = ending.kind, ending.usage
    if kind == "ok":
        return "settled", reserved if usage is None else _reported(reserved, price, usage)
    if kind == "upstream_error":
        if usage is None:
            return "settled", (reserved[REQUESTS], 0, 0, 0, 0, 0, 0, 1)
        return "settled", _reported(reserved, price, usage)
    if kind == "refused" or ending.sent == "no":
        return "released", NOTHING
    state: ReservationState = "settled" if ending.answered else "unknown"
    if usage is None:
        return state, reserved
    reported = _reported(reserved, price, usage)
    worst = [max(pair) for pair in zip(reserved, reported, strict=True)]
    worst[TOTAL] = worst[INPUT] + worst[OUTPUT]
    if price is not None:  # more tokens in than reserved, and an answer as long as reserved, cost more than either
        worst[USD] = max(worst[USD], cost(price, Amounts(worst[REQUESTS], worst[INPUT], worst[OUTPUT])))
    return state, tuple(worst)  # type: ignore[return-value]  # eight in, eight out


def _reported(reserved: Vector, price: Price | None, usage: Usage) -> Vector:
    taken_in, given_out = usage.input_tokens, usage.output_tokens
    if usage.usd is not None:
        usd = micro(usage.usd)
    elif price is not None:
        usd = cost(price, usage)
    else:
        usd = 0
    down = reserved[DOWN] if usage.bytes_down is None else usage.bytes_down
    up = reserved[UP] if usage.bytes_up is None else usage.bytes_up
    return (reserved[REQUESTS], taken_in, given_out, taken_in + given_out, down, up, usd, 1)
