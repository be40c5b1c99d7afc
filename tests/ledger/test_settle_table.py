"""Every row of the settle table, in memory, in the limits and in the database."""

from __future__ import annotations

import pytest

from hybridd.contracts.protocol import Usage
from hybridd.contracts.quotas import Amounts, Price
from hybridd.ledger import Ending, QuotaRefused
from hybridd.ledger.reservation import EndingKind
from tests.ledger.conftest import Build
from tests.ledger.support import quota

RESERVED = Amounts(1, 100, 200, 1_000, 500, 900)
PRICE = Price(input_per_million=1_000_000, output_per_million=2_000_000)  # 1 and 2 micro-dollars a token
USAGE = Usage(10, 20)
ZERO = Usage(0, 0, bytes_down=0, bytes_up=0)

FULL = ("settled", 1, 100, 200, 1_000, 500, 900)
UNKNOWN = ("unknown", 1, 100, 200, 1_000, 500, 900)
FREE = ("released", 0, 0, 0, 0, 0, 0)
ERROR = ("settled", 1, 0, 0, 0, 0, 0)
REPORTED = ("settled", 1, 10, 20, 1_000, 500, 50)

TABLE: list[tuple[str, Ending, tuple[object, ...]]] = [
    ("refused by us", Ending(kind="refused", sent="no"), FREE),
    ("sent: no, cut", Ending(kind="cut", sent="no"), FREE),
    ("sent: no, timeout", Ending(kind="timeout", sent="no"), FREE),
    ("sent: no, client gone", Ending(kind="client_gone", sent="no"), FREE),
    ("upstream error without usage", Ending(kind="upstream_error"), ERROR),
    ("upstream error with usage", Ending(kind="upstream_error", usage=USAGE), REPORTED),
    ("upstream error with an explicit zero", Ending(kind="upstream_error", usage=ZERO), ERROR),
    ("an upstream status proves it was sent", Ending(kind="upstream_error", sent="no"), ERROR),
    ("success with usage", Ending(kind="ok", usage=USAGE), REPORTED),
    ("success with an explicit zero", Ending(kind="ok", usage=ZERO), ERROR),
    ("success without usage", Ending(kind="ok"), FULL),
    ("success that claims not to have been sent", Ending(kind="ok", sent="no"), FULL),
    ("cut stream", Ending(kind="cut"), UNKNOWN),
    ("cut stream, maybe sent", Ending(kind="cut", sent="maybe"), UNKNOWN),
    ("cut stream with partial usage", Ending(kind="cut", usage=USAGE), UNKNOWN),
    ("cut stream with more usage than reserved", Ending(kind="cut", usage=Usage(300, 20)),
     ("unknown", 1, 300, 200, 1_000, 500, 900)),
    ("cut stream whose prompt alone cost more", Ending(kind="cut", usage=Usage(700, 20)),
     ("unknown", 1, 700, 200, 1_000, 500, 1_100)),
    ("client gone", Ending(kind="client_gone"), UNKNOWN),
    ("timeout", Ending(kind="timeout", sent="maybe"), UNKNOWN),
    ("crash", Ending(kind="crash", sent="maybe"), UNKNOWN),
    ("garbled answer whose end was seen", Ending(kind="cut", answered=True), FULL),
    ("money reported by the provider", Ending(kind="ok", usage=Usage(10, 20, usd=0.000_123_4)),
     ("settled", 1, 10, 20, 1_000, 500, 124)),
    ("no money, said explicitly", Ending(kind="ok", usage=Usage(10, 20, usd=0.0)),
     ("settled", 1, 10, 20, 1_000, 500, 0)),
    ("bytes said explicitly", Ending(kind="ok", usage=Usage(10, 20, bytes_down=7, bytes_up=0)),
     ("settled", 1, 10, 20, 7, 0, 50)),
]  # fmt: skip
COLUMNS = ("state", "requests", "input_tokens", "output_tokens", "bytes_down", "bytes_up", "usd_micro")


@pytest.mark.parametrize(("ending", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
async def test_ending_charges_what_the_table_says(house: Build, ending: Ending, expected: tuple[object, ...]) -> None:
    """The row, the settlement and the used part of every quota agree with the settle table."""
    it = await house(
        quota("requests", 9, "60s"), quota("total_tokens", 9_000, "60s"), quota("input_tokens", 9_000, "day"),
        quota("output_tokens", 9_000, "60s"), quota("bytes_down", 9_000, "60s"), quota("bytes_up", 9_000, "60s"),
        quota("usd", 9_000, "month"),
    )  # fmt: skip
    call = await it.sent(RESERVED, price=PRICE, linger=0)
    held = await it.row(call)
    assert [held[name] for name in COLUMNS] == ["dispatched", 1, 100, 200, 1_000, 500, 900]
    it.clock.advance(1)

    settlement = it.ledger.settle(call, ending)

    row = await it.row(call)
    assert tuple(row[name] for name in COLUMNS) == expected
    assert row["reported"] == (ending.usage is not None)
    assert row["failed"] == (ending.kind != "ok")
    charged = settlement.charged
    assert (settlement.state, charged.requests, charged.input_tokens, charged.usd_micro) == (
        expected[0], expected[1], expected[2], expected[6],
    )  # fmt: skip
    used = {view.unit: view.used for view in it.ledger.limits()}
    _, requests, taken_in, given_out, down, up, usd = expected
    assert isinstance(taken_in, int)
    assert isinstance(given_out, int)
    assert isinstance(usd, int)
    assert used == {
        "requests": requests, "total_tokens": taken_in + given_out, "input_tokens": taken_in,
        "output_tokens": given_out, "bytes_down": down, "bytes_up": up, "usd": usd / 1e6,
    }  # fmt: skip
    assert all(view.reserved == 0 for view in it.ledger.limits())


@pytest.mark.parametrize("kind", ["cut", "client_gone", "timeout", "crash"])
async def test_without_an_answer_the_call_ends_after_its_linger(house: Build, kind: EndingKind) -> None:
    """e is the closing of the connection plus the linger, for the row and for open calls alike."""
    it = await house(quota("concurrent", 1))
    call = await it.sent(linger=5)
    it.ledger.settle(call, Ending(kind=kind))
    row = await it.row(call)
    assert row["ended_boot_ns"] == it.clock.boot_ns() + 5_000_000_000
    assert row["ended_wall_ns"] == it.clock.wall_ns() + 5_000_000_000
    it.clock.advance(4.999_999_999)
    with pytest.raises(QuotaRefused) as refused:
        it.admit()
    assert refused.value.retry_after == pytest.approx(1e-9)
    it.clock.advance(0.000_000_001)
    it.admit()


@pytest.mark.parametrize(
    "ending", [Ending(kind="ok"), Ending(kind="upstream_error"), Ending(kind="cut", sent="no")], ids=lambda e: e.kind
)
async def test_an_answer_or_nothing_sent_ends_the_call_at_once(house: Build, ending: Ending) -> None:
    """No linger when the end of the answer was seen, or when nothing was sent."""
    it = await house(quota("concurrent", 1))
    call = await it.sent(linger=5)
    it.ledger.settle(call, ending)
    it.admit()


async def test_a_second_ending_changes_nothing(house: Build) -> None:
    """The first ending stands, whatever follows."""
    it = await house(quota("requests", 2, "60s"))
    call = await it.sent()
    first = it.ledger.settle(call, Ending(kind="ok", usage=USAGE))
    second = it.ledger.settle(call, Ending(kind="cut", sent="no"))
    it.ledger.release(call)
    assert first.charged == second.charged
    assert it.view().used == 1
    assert (await it.row(call))["state"] == "settled"


async def test_released_before_dispatch_leaves_no_trace(house: Build) -> None:
    """A reservation that was given back frees everything and writes nothing."""
    it = await house(quota("requests", 1, "60s"), quota("concurrent", 1), quota("requests", 1, "day"))
    call = it.admit()
    it.ledger.release(call)
    it.ledger.release(call)
    assert [view.remaining for view in it.ledger.limits()] == [1, 1, 1]
    assert await it.row(call) == {}


async def test_excess_is_debt_that_blocks_until_drained(house: Build) -> None:
    """Usage beyond the reservation is charged, reported as debt, and blocks until the window has drained it."""
    it = await house(quota("total_tokens", 1_000, "60s"))
    call = await it.sent(Amounts(1, 400, 400))
    settlement = it.ledger.settle(call, Ending(kind="ok", usage=Usage(400, 1_400)))
    assert settlement.excess.output_tokens == 1_000
    view = it.view()
    assert (view.used, view.remaining, view.debt) == (1_800, 0, 800)
    refusal = it.ledger.refusal("acc", "m1", Amounts(1, 1, 0))
    assert refusal is not None
    assert refusal.retry_after is not None
    it.clock.advance(refusal.retry_after)
    assert it.ledger.refusal("acc", "m1", Amounts(1, 1, 0)) is None
    assert it.view().debt == 0


async def test_usage_below_the_reservation_frees_the_rest(house: Build) -> None:
    """What was reserved and not used can be reserved again at once."""
    it = await house(quota("total_tokens", 1_000, "60s"))
    call = await it.sent(Amounts(1, 500, 500))
    assert it.view().remaining == 0
    it.ledger.settle(call, Ending(kind="ok", usage=Usage(100, 50)))
    assert it.view().remaining == 850
