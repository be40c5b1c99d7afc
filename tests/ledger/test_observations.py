"""What providers report: as-of ordering, subtraction, expiry, drift, learned quotas, persistence."""

from __future__ import annotations

from typing import Any

import pytest

from hybridd.contracts.protocol import Observation, Usage
from hybridd.contracts.quotas import Amounts
from hybridd.ledger import Ending, Reservation
from hybridd.ledger.figures import MOST_LEARNED
from tests.ledger.conftest import Build
from tests.ledger.support import OK, House, quota


def said(remaining: float | None, **more: Any) -> Observation:
    return Observation(more.pop("unit", "requests"), remaining=remaining, **more)


def observe(it: House, observation: Observation, call: Reservation | None = None, model: str | None = "m1") -> None:
    it.ledger.observe("lab", "acc", model, [observation], as_of=call)


async def test_the_carrying_call_is_not_subtracted_twice(house: Build) -> None:
    """The figure that came with a call's answer already contains that call, before and after it is settled."""
    for observed_first in (True, False):
        it = await house(quota("requests", 100, "60s"))
        call = await it.sent()
        if observed_first:
            observe(it, said(9), call)
            assert it.view().remaining == 9
            it.ledger.settle(call, OK)
        else:
            it.ledger.settle(call, OK)
            observe(it, said(9), call)
        assert it.view().remaining == 9
        assert it.admitted() == 9


async def test_the_carrying_calls_own_usage_stays_out(house: Build) -> None:
    """A carrier that used more or less than it reserved does not move the provider's figure."""
    it = await house(quota("total_tokens", 10_000, "60s"))
    call = await it.sent(Amounts(1, 100, 100))
    observe(it, said(500, unit="total_tokens"), call)
    it.ledger.settle(call, Ending(kind="ok", usage=Usage(100, 900)))
    assert it.view().remaining == 500


async def test_calls_open_or_admitted_after_as_of_are_subtracted(house: Build) -> None:
    """Ended before as-of: contained. Open at as-of or admitted later: not, ended meanwhile or not."""
    it = await house(quota("requests", 100, "60s"))
    await it.done()
    still_open = await it.sent()
    ended_later = await it.sent()
    it.clock.advance(1)
    carrier = await it.sent()
    it.clock.advance(1)
    later = await it.sent()
    it.ledger.settle(ended_later, OK)
    it.ledger.settle(carrier, OK)
    observe(it, said(50), carrier)
    assert it.view().remaining == 47
    it.ledger.settle(later, Ending(kind="cut", sent="no"))
    assert it.view().remaining == 48
    it.ledger.settle(still_open, OK)
    assert it.view().remaining == 48
    await it.done()
    assert it.view().remaining == 47


async def test_a_lingering_call_is_still_open_at_as_of(house: Build) -> None:
    """A cut call may reach the provider until its linger is over: a figure of that time may lack it."""
    it = await house(quota("requests", 100, "60s"))
    cut = await it.sent(linger=5)
    it.ledger.settle(cut, Ending(kind="cut"))
    it.clock.advance(4)
    early = await it.done()
    observe(it, said(50), early)
    assert it.view().remaining == 49
    it.clock.advance(1)
    late = await it.done()
    observe(it, said(50), late)
    assert it.view().remaining == 50


async def test_an_older_as_of_is_ignored(house: Build) -> None:
    """Answers overtake each other: the figure of the call dispatched last wins."""
    it = await house(quota("requests", 100, "60s"))
    first = await it.sent()
    it.clock.advance(1)
    second = await it.sent()
    it.ledger.settle(second, OK)
    it.ledger.settle(first, OK)
    observe(it, said(10), second)
    observe(it, said(99), first)
    assert it.view().observed_remaining == 10
    observe(it, said(3), second)  # the same call may say more, at its end
    assert it.view().observed_remaining == 3


async def test_a_figure_is_forgotten_at_its_reset(house: Build) -> None:
    """Until the reset it blocks, with exactly that waiting time; then our own count rules alone."""
    it = await house(quota("requests", 100, "60s"))
    call = await it.done()
    observe(it, said(0, reset_ms=7_000), call)
    refusal = it.ledger.refusal("acc", "m1", Amounts())
    assert refusal is not None
    assert refusal.retry_after == 7.0
    assert "provider reports" in refusal.reason
    it.clock.advance(7)
    assert it.view().remaining == 99
    assert it.view().observed_remaining is None


async def test_an_absurd_reset_is_bounded_by_the_window(house: Build) -> None:
    """A minute's window cannot be blocked for a year by one header."""
    it = await house(quota("requests", 100, "60s"))
    observe(it, said(0, reset_ms=365 * 86_400_000, window="60s"))
    refusal = it.ledger.refusal("acc", "m1", Amounts())
    assert refusal is not None
    assert refusal.retry_after == pytest.approx(60.06)


async def test_the_more_pessimistic_figure_rules(house: Build) -> None:
    """Their larger figure does not widen ours, their smaller one narrows it, the buffer stays free in both."""
    it = await house(quota("requests", 10, "60s", buffer=2))
    observe(it, said(100))
    assert it.view().remaining == 8
    observe(it, said(5))
    assert it.view().remaining == 3
    assert it.admitted() == 3


async def test_drift_is_their_used_minus_ours(house: Build) -> None:
    """Something else spends the account: 40 used by their figure, 1 by ours."""
    it = await house(quota("requests", 100, "60s"))
    call = await it.done()
    observe(it, said(60, limit=100), call)
    view = it.view()
    assert (view.drift, view.used, view.observed_remaining) == (39, 1, 60)
    assert view.observed_at == it.clock.wall_ns() / 1e9


async def test_drift_ends_with_the_figure_it_came_from(house: Build) -> None:
    """A day later nobody knows what else spends the account; the view changed, so its listeners are told."""
    it = await house(quota("requests", 100, "60s"))
    reader = it.bus.subscribe(lambda: None, ["quota"])
    observe(it, said(60, limit=100, reset_ms=7_000), await it.done())
    it.ledger.flush_events()
    (event,) = reader.drain()
    assert (event.data["drift"], event.data["remaining"]) == (39, 60)
    it.clock.advance(7)
    it.ledger.flush_events()
    (event,) = reader.drain()
    assert (event.data["drift"], event.data["remaining"]) == (None, 99)
    it.ledger.flush_events()
    assert reader.drain() == []


async def test_a_plugin_cannot_make_limits_without_end(house: Build, caplog: pytest.LogCaptureFixture) -> None:
    """Each new set of models would be one more limit to keep, to store and to check at every call."""
    it = await house(quota("requests", 100, "60s"))
    for number in range(MOST_LEARNED + 5):
        observe(it, said(1, limit=1, models=[f"x{number}"]), model=None)
    assert len(it.ledger.limits()) == 1 + MOST_LEARNED
    assert caplog.text.count("are ignored") == 1
    it.clock.advance(1)
    observe(it, said(1, limit=7, models=["x0"]), model=None)
    assert it.view("/x0").limit == 7


async def test_a_smaller_reported_limit_is_respected(house: Build) -> None:
    """The smaller of the configured and the reported limit rules; a larger report changes nothing."""
    it = await house(quota("requests", 100, "60s"))
    observe(it, said(None, limit=5))
    assert (it.view().limit, it.view().remaining) == (5, 5)
    it.clock.advance(1)
    observe(it, said(None, limit=1_000))
    assert it.view().limit == 100


async def test_an_unknown_limit_becomes_a_learned_quota(house: Build) -> None:
    """A header about a limit nobody configured is a quota from then on, with the calls already made counted in it."""
    it = await house()
    await it.done()
    it.clock.advance(0.1)
    call = await it.done()
    observe(it, said(1, limit=3, window="60s"), call)
    view = it.view()
    assert (view.key, view.source, view.limit, view.used, view.remaining) == ("acc/requests/60s", "header", 3, 2, 1)
    assert it.admitted() == 1


async def test_a_limit_learned_from_a_call_that_is_still_open(house: Build) -> None:
    """Headers come before the end of a stream: the call that carried them is in their figure, others open are not."""
    it = await house()
    await it.sent()
    carrier = await it.sent()
    observe(it, said(5, limit=10, window="60s"), carrier)
    assert it.view().remaining == 4
    it.ledger.settle(carrier, OK)
    assert it.view().remaining == 4


async def test_a_learned_quota_follows_its_reports(house: Build) -> None:
    """The account was upgraded: a larger limit is believed for a learned quota; a configured set keeps it."""
    it = await house()
    observe(it, said(1, limit=3, window="60s"))
    it.clock.advance(1)
    observe(it, said(30, limit=30, window="60s"))
    assert it.view().limit == 30
    it.ledger.configure([quota("concurrent", 1)])
    assert {q.key for q in it.ledger.quotas} == {"acc/requests/60s", "acc/concurrent/none"}


async def test_what_was_learned_of_a_removed_account_is_forgotten(house: Build) -> None:
    """With the account gone its learned limit goes too; with the account still there it stays."""
    it = await house()
    observe(it, said(1, limit=3, window="60s"))
    it.ledger.configure([], {"acc"})
    assert [q.key for q in it.ledger.quotas] == ["acc/requests/60s"]
    it.ledger.configure([], {"other"})
    assert it.ledger.quotas == []
    it.ledger.configure([], {"acc"})
    assert it.ledger.quotas == []


async def test_a_configured_quota_takes_a_learned_ones_place(house: Build) -> None:
    """Once the user says it, the quota is theirs and goes when they remove it."""
    it = await house()
    observe(it, said(1, limit=3, window="60s"))
    it.ledger.configure([quota("requests", 10, "60s")])
    assert [q.source for q in it.ledger.quotas] == ["config"]
    it.ledger.configure([])
    assert it.ledger.quotas == []


async def test_a_limit_without_a_window_is_driven_by_reports(house: Build) -> None:
    """Remaining counts down between reports; after the reset at most the limit goes through until the next report."""
    it = await house()
    call = await it.done()
    observe(it, said(2, limit=10, reset_ms=30_000), call)
    assert it.admitted() == 2
    refusal = it.ledger.refusal("acc", "m1", Amounts())
    assert refusal is not None
    assert refusal.retry_after == 30.0
    it.clock.advance(30)
    assert it.admitted() == 8  # ten, less the two still open


async def test_remaining_without_limit_or_quota_is_no_quota(house: Build) -> None:
    """A figure that names no limit cannot become a quota; nonsense is passed over."""
    it = await house()
    for observation in (
        said(3),
        said(None),
        said(3, limit=float("nan")),
        said(3, limit=float("inf")),
        said(1, limit=-5),
    ):
        observe(it, observation)
    assert it.ledger.limits() == []


MATCHING: list[tuple[str, Observation, str]] = [
    ("the window named", said(1, window="86400s"), "acc/requests/day"),
    ("the window named, as long", said(1, window="day"), "acc/requests/day"),
    ("the very limit", said(1, limit=150), "acc/requests/day"),
    ("the shortest that can hold the reset", said(1, reset_ms=50_000), "acc/requests/60s"),
    ("a reset beyond the minute", said(1, reset_ms=5_000_000), "acc/requests/day"),
    ("a month of another length", said(1, window="2592000s"), "acc/requests/month"),
    ("a pool by its models", said(1, models=["m2", "m1"]), "acc/requests/60s/m1,m2"),
]


@pytest.mark.parametrize(("observation", "key"), [row[1:] for row in MATCHING], ids=[row[0] for row in MATCHING])
async def test_which_quota_a_figure_speaks_of(house: Build, observation: Observation, key: str) -> None:
    """A window, a limit, a reset or a set of models identify the quota."""
    it = await house(
        quota("requests", 15, "60s"), quota("requests", 150, "day"), quota("requests", 3_000, "month"),
        quota("requests", 9, "60s", models=["m1", "m2"]), quota("total_tokens", 150, "60s"),
    )  # fmt: skip
    observe(it, observation, model="m3" if observation.models is None else "m1")
    assert [view.key for view in it.ledger.limits() if view.observed_remaining is not None] == [key]


async def test_money_is_reported_in_dollars(house: Build) -> None:
    """Remaining credit in dollars becomes micro-dollars, rounded down."""
    it = await house(quota("usd", 5_000_000, "month"))
    observe(it, said(0.0000019, unit="usd"))
    assert it.view().remaining == 0.000001


async def test_open_calls_only_take_a_limit_from_reports(house: Build) -> None:
    """A count of free slots is stale when it arrives; the number of slots is not."""
    it = await house(quota("concurrent", 5))
    observe(it, said(0, unit="concurrent", limit=2))
    assert it.admitted() == 2


async def test_figures_without_a_call_are_as_of_now_or_of_the_probe(house: Build) -> None:
    """A probe sent before a call ended cannot contain that call for sure; a figure of now does."""
    it = await house(quota("requests", 100, "60s"))
    sent_at = it.clock.boot_ns()
    it.clock.advance(1)
    await it.done()
    it.ledger.observe("lab", "acc", None, [said(50)], as_of=None, as_of_boot_ns=sent_at)
    assert it.view().remaining == 49
    observe(it, said(50))
    assert it.view().remaining == 50


async def test_figures_survive_a_restart(house: Build) -> None:
    """After a restart the figure, its reset, its drift's base and the learned quota are as before."""
    it = await house(quota("requests", 100, "60s"))
    first = await it.done()
    it.clock.advance(1)
    call = await it.sent()
    it.clock.advance(1)
    it.ledger.settle(call, OK)
    observe(it, said(10, reset_ms=40_000), call)
    observe(it, said(700, limit=1_000, unit="total_tokens", window="day"), call)
    it.clock.advance(1)
    await it.done()
    await it.restart()
    assert first.charged is not None
    assert it.report.observations == 2
    assert it.view("requests").remaining == 9
    learned = it.view("total_tokens")
    assert (learned.source, learned.remaining, learned.observed_remaining) == ("header", 700, 700)
    it.clock.advance(38)
    assert it.view("requests").observed_remaining == 10
    it.clock.advance(1)
    assert it.view("requests").observed_remaining is None


async def test_a_busy_quotas_figures_reach_the_disk_once_a_second(house: Build) -> None:
    """The newest figure is written by the timer when it came too soon after the last one."""
    it = await house(quota("requests", 100, "60s"))
    observe(it, said(50))
    observe(it, said(40))
    it.ledger.flush_events()
    await it.restart()
    assert it.view().observed_remaining == 40


async def test_figures_of_a_plugins_quota_wait_for_it(house: Build) -> None:
    """A figure restored before its plugin has registered its quota is attached when it does."""
    it = await house(quota("requests", 100, "60s"))
    observe(it, said(10))
    await it.restart([])
    assert it.ledger.limits() == []
    it.ledger.configure([quota("requests", 100, "60s", source="plugin")])
    assert it.view().remaining == 10


async def test_figures_across_a_reboot(house: Build) -> None:
    """The reset goes on by the wall clock when the machine was restarted."""
    it = await house(quota("requests", 100, "3600s"))
    call = await it.done()
    observe(it, said(10, reset_ms=600_000), call)
    it.clock.reboot("boot-2", downtime_seconds=100)
    await it.restart()
    refusal = it.ledger.refusal("acc", "m1", Amounts(requests=11))
    assert refusal is not None
    assert refusal.retry_after == 500.0
