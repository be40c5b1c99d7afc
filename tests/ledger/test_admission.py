"""Admission: exactness at the boundaries, all quotas or none, waiting times, refusals, pools."""

from __future__ import annotations

import asyncio

import pytest

from hybridd.clocks import ManualClock
from hybridd.contracts.protocol import Usage
from hybridd.contracts.quotas import Amounts, Price
from hybridd.errors import ConfigError
from hybridd.ledger import Ending, Ledger, QuotaRefused, Refusal
from tests.ledger.conftest import Build
from tests.ledger.support import OK, ONE, PRICE, House, quota
from tests.ledger.test_windows import wall

NS_STEP = 0.000_000_001


def refused(it: House, amounts: Amounts = ONE, **more: object) -> Refusal:
    with pytest.raises(QuotaRefused) as caught:
        it.admit(amounts, **more)  # type: ignore[arg-type]  # passed through
    assert it.ledger.refusal("acc", "m1", amounts) is not None or more
    return caught.value.refusal


@pytest.mark.parametrize("unit_window", [("requests", "60s"), ("requests", "day"), ("concurrent", None)])
async def test_exactly_n_are_admitted(house: Build, unit_window: tuple[str, str | None]) -> None:
    """N are admitted, N + 1 is refused."""
    it = await house(quota(unit_window[0], 7, unit_window[1]))  # type: ignore[arg-type]  # a unit
    assert it.admitted() == 7


async def test_a_burst_of_parallel_callers_cannot_share_one_place(house: Build) -> None:
    """Fifty callers at once, five places: five dispatch."""
    it = await house(quota("requests", 5, "60s"))

    async def caller() -> int:
        try:
            await it.ledger.dispatch(it.admit())
        except QuotaRefused:
            return 0
        return 1

    assert sum(await asyncio.gather(*(caller() for _ in range(50)))) == 5


async def test_buffer_is_kept_free(house: Build) -> None:
    """Own traffic stops at limit - buffer, in every kind of window."""
    it = await house(quota("requests", 10, "60s", buffer=3))
    assert it.admitted() == 7
    assert (it.view().limit, it.view().remaining, it.view().buffer) == (10, 0, 3)


async def test_rolling_amount_is_freed_at_e_plus_window_plus_slack(house: Build) -> None:
    """A call of one second in a 60 s window counts for 61.06 s, to the nanosecond, and not one longer."""
    it = await house(quota("requests", 1, "60s"))
    call = await it.sent()
    it.clock.advance(1)
    it.ledger.settle(call, OK)
    it.clock.advance(60.06 - NS_STEP)
    wait = refused(it).retry_after
    assert wait is not None
    bucket = 0.06
    assert 0 < wait <= bucket  # rounded up to the end of its bucket
    it.clock.advance(wait - NS_STEP)
    refused(it)
    it.clock.advance(NS_STEP)
    it.admit()


async def test_an_open_call_counts_however_long_it_takes(house: Build) -> None:
    """A stream of ten windows' length still holds its place."""
    it = await house(quota("requests", 1, "60s"))
    await it.sent()
    it.clock.advance(600)
    wait = refused(it).retry_after
    assert wait == pytest.approx(60.06, abs=0.06)  # if it ended this instant


@pytest.mark.parametrize(
    ("needs", "expected"), [(10, 30.0), (40, 30.0), (41, 50.0), (100, 50.0)], ids=["one", "first", "both", "all"]
)
async def test_retry_after_is_read_from_the_log(house: Build, needs: int, expected: float) -> None:
    """The wait is until just enough of what is logged has expired: then it is admitted, an instant earlier not."""
    it = await house(quota("input_tokens", 100, "60s"))
    for tokens in (40, 60):
        await it.done(Amounts(1, tokens), Usage(tokens, 0))
        it.clock.advance(20)
    it.clock.advance(-10)
    amounts = Amounts(1, needs)
    wait = refused(it, amounts).retry_after
    assert wait == pytest.approx(expected, abs=0.13)
    assert wait is not None
    it.clock.advance(wait - NS_STEP)
    refused(it, amounts)
    it.clock.advance(NS_STEP)
    it.admit(amounts)


async def test_more_than_the_limit_never_fits(house: Build) -> None:
    """A call larger than the whole limit is refused for good, with both figures in the reason."""
    it = await house(quota("total_tokens", 6_000, "60s"))
    refusal = refused(it, Amounts(1, 5_000, 1_001))
    assert refusal.retry_after is None
    assert "6,001 tokens" in refusal.reason
    assert "6,000 tokens" in refusal.reason


async def test_all_quotas_or_none(house: Build) -> None:
    """A refused call takes nothing from the quotas that had room, and the longest wait is told."""
    it = await house(quota("requests", 5, "60s"), quota("requests", 1, "3600s"), quota("concurrent", 3))
    await it.done()
    refusal = refused(it)
    assert refusal.quota == "acc/requests/3600s"
    assert refusal.retry_after == pytest.approx(3_603.6, abs=3.6)
    assert {view.key: view.remaining for view in it.ledger.limits()} == {
        "acc/requests/60s": 4, "acc/requests/3600s": 0, "acc/concurrent/none": 3,
    }  # fmt: skip


async def test_pools_models_and_accounts(house: Build) -> None:
    """A pool is shared by its models, a model's quota binds it alone, another account is not bound at all."""
    it = await house(
        quota("requests", 3, "60s", models=["m1", "m2"]), quota("requests", 2, "60s", models=["m1"]),
        quota("requests", 6, "60s"),
    )  # fmt: skip
    assert it.admitted(model="m1") == 2
    assert it.admitted(model="m2") == 1
    assert it.admitted(model="m3") == 3
    assert it.admitted(20, account="other") == 20


async def test_money_needs_a_price(house: Build) -> None:
    """A money limit refuses a model without a price, with its own code; a free model passes even a spent budget."""
    it = await house(quota("usd", 1_000, "month"))
    refusal = refused(it, price=None)
    assert (refusal.code, refusal.retry_after) == ("no_price", None)
    dry = it.ledger.refusal("acc", "m1", ONE, priced=False)
    assert dry is not None
    assert dry.code == "no_price"
    await it.done(Amounts(1, 0, 0, usd_micro=1_000))
    assert refused(it, Amounts(1, 1_000, 0, usd_micro=150)).quota == "acc/usd/month"
    it.admit(Amounts(1, 1_000, 1_000), price=Price())


async def test_money_is_reserved_at_the_price_at_least(house: Build) -> None:
    """A caller who forgets to work out the cost still reserves it, rounded up."""
    it = await house(quota("usd", 1_000_000, "month"))
    call = it.admit(Amounts(1, 1, 1), price=PRICE)
    assert call.amounts.usd_micro == 1
    assert it.view().reserved == 0.000_001


async def test_room_is_the_smallest_remaining(house: Build) -> None:
    """``room`` is per unit; None means no quota of that unit binds."""
    it = await house(quota("total_tokens", 6_000, "60s"), quota("total_tokens", 500, "day", models=["m1"]))
    assert it.ledger.room("acc", "m1", "total_tokens") == 500
    assert it.ledger.room("acc", "m2", "total_tokens") == 6_000
    assert it.ledger.room("acc", "m1", "usd") is None


async def test_arrival_counted_window_is_freed_after_the_first_byte(house: Build) -> None:
    """15 per 60 s with 30 s answers: counted by arrival the place is free 60.06 s after the first byte, not the end."""
    it = await house(quota("requests", 1, "60s", counted="arrival"))
    call = await it.sent()
    it.clock.advance(1)
    it.ledger.first_byte(call)
    it.clock.advance(30)
    assert refused(it).retry_after == pytest.approx(30.06, abs=0.06)
    it.ledger.settle(call, OK)
    assert refused(it).retry_after == pytest.approx(30.06, abs=0.06)
    it.clock.advance(30.12)
    it.admit()


async def test_arrival_counted_tokens_follow_the_usage(house: Build) -> None:
    """Less usage frees the rest at settlement, more is charged from the end of the call."""
    it = await house(quota("total_tokens", 100, "60s", counted="arrival"))
    call = await it.sent(Amounts(1, 40, 40))
    it.ledger.first_byte(call)
    it.ledger.settle(call, Ending(kind="ok", usage=Usage(10, 10)))
    assert it.view().used == 20
    late = await it.sent(Amounts(1, 10, 10))
    it.ledger.first_byte(late)
    it.clock.advance(61)
    it.ledger.settle(late, Ending(kind="ok", usage=Usage(10, 40)))
    assert it.view().used == 30


async def test_calendar_debits_every_period_the_call_may_touch(house: Build) -> None:
    """A call within the skew of the hour's end counts in both hours; one well inside in its own."""
    clock = ManualClock(wall_ns=wall("2026-11-20T10:59:54"))
    it = await house(quota("requests", 2, "hour"), clock=clock)
    await it.done()
    it.clock.advance(1)  # 10:59:55: e + skew is 11:00:00, which is in the next hour
    await it.done()
    assert refused(it).retry_after == 10.0  # 11:00:05: admission - skew is past the hour's end
    it.clock.advance(10)
    assert it.admitted() == 1


async def test_calendar_counts_open_calls_in_the_present_period(house: Build) -> None:
    """A call that began in the last hour and is still open counts in this one."""
    it = await house(quota("requests", 1, "hour"), clock=ManualClock(wall_ns=wall("2026-11-20T10:30:00")))
    call = await it.sent()
    it.clock.advance(3_600)
    assert refused(it).retry_after == 1_805.0
    it.ledger.settle(call, OK)
    assert refused(it).retry_after == 1_805.0
    it.clock.advance(1_805)
    it.admit()


async def test_calendar_survives_a_clock_that_steps_back(house: Build) -> None:
    """A call from 10:59 to 11:10 counts in both hours, also when the clock is then set back into the first."""
    it = await house(quota("requests", 1, "hour"), clock=ManualClock(wall_ns=wall("2026-11-20T10:59:00")))
    call = await it.sent()
    it.clock.advance(660)
    it.ledger.settle(call, OK)
    assert it.view().used == 1
    it.clock.set_wall(wall("2026-11-20T10:50:00"))
    assert it.view().used == 1
    refused(it)


async def test_month_resets_at_local_midnight(house: Build) -> None:
    """A monthly quota in São Paulo comes back at 03:00 UTC plus the skew, with a fresh count."""
    clock = ManualClock(wall_ns=wall("2026-11-30T12:00:00"))
    it = await house(quota("usd", 5_000_000, "month", "America/Sao_Paulo"), clock=clock)
    await it.done(Amounts(1, 0, 0, usd_micro=5_000_000))
    view = it.view()
    assert (view.used, view.remaining, view.reset) == (5.0, 0, wall("2026-12-01T03:00:00") / 1e9)
    assert refused(it, Amounts(1, 0, 0, usd_micro=1)).retry_after == 15 * 3_600 + 5
    it.clock.advance(15 * 3_600 + 5)
    assert it.view().used == 0
    it.admit(Amounts(1, 0, 0, usd_micro=5_000_000))


async def test_day_of_25_hours(house: Build) -> None:
    """On the day the clocks go back the daily quota lasts 25 hours."""
    clock = ManualClock(wall_ns=wall("2026-11-01T00:10:00", "America/New_York"))
    it = await house(quota("requests", 1, "day", "America/New_York"), clock=clock)
    await it.done()
    assert refused(it).retry_after == 25 * 3_600 - 600 + 5


async def test_nothing_is_admitted_before_recovery(house: Build) -> None:
    """Until the rows are read the ledger refuses, and says so."""
    it = await house(quota("requests", 1, "60s"))
    it.ledger = Ledger(it.database, it.clock, it.bus)
    assert refused(it).code == "recovering"
    await it.ledger.recover()
    it.admit()


async def test_unknown_zone_changes_nothing(house: Build) -> None:
    """A set of quotas with an unknown zone is refused as a whole."""
    it = await house(quota("requests", 1, "60s"))
    with pytest.raises(ConfigError):
        it.ledger.configure([quota("requests", 9, "60s"), quota("requests", 1, "day", "Mars/Olympus")])
    assert [q.limit for q in it.ledger.quotas] == [1]


async def test_ids_grow_even_when_the_clock_steps_back(house: Build) -> None:
    """Ids are microseconds made monotone, over calls, requests and restarts."""
    it = await house()
    first = it.ledger.new_request_id()
    assert first == it.clock.wall_ns() // 1000
    it.clock.set_wall(it.clock.wall_ns() - 10**12)
    call = await it.sent()
    assert call.id > call.request_id > first
    await it.restart()
    assert it.ledger.new_request_id() > call.id
