"""The whole ledger on a real SQLite file against the slow model, step by step, through crashes and clock changes."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hybridd.clocks import NS, ManualClock
from hybridd.contracts.protocol import Observation, Usage
from hybridd.contracts.quotas import Amounts, Quota
from hybridd.ledger import Ending, QuotaRefused, Reservation
from hybridd.ledger.reservation import EndingKind
from hybridd.store.rows import SettleRow
from tests.ledger.model import Call, Model
from tests.ledger.support import House, quota
from tests.ledger.test_windows import wall

LINGER = 5


def sets_of_quotas() -> st.SearchStrategy[list[Quota]]:
    minute = st.builds(
        lambda limit, buffer, counted: quota("requests", limit, "60s", buffer=buffer, counted=counted),
        st.integers(2, 5), st.integers(0, 1), st.sampled_from(["end", "arrival"]),
    )  # fmt: skip
    one = st.one_of(
        minute, minute,
        st.builds(lambda n: quota("total_tokens", n, "60s"), st.integers(50, 120)),
        st.builds(lambda n: quota("requests", n, "hour"), st.integers(3, 9)),
        st.builds(lambda n: quota("total_tokens", n, "hour", "Asia/Kathmandu"), st.integers(100, 200)),
        st.builds(lambda n: quota("concurrent", n), st.integers(1, 3)),
        st.builds(lambda n: quota("requests", n, "60s", models=["m1"]), st.integers(1, 3)),
    )  # fmt: skip
    return st.lists(one, max_size=4, unique_by=lambda q: q.key)


class LedgerMachine(RuleBasedStateMachine):
    """Settlements wait in ``unwritten`` until the disk has them: a crash loses those that it has not."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory(prefix="hybridd-machine-")
        self.pairs: list[tuple[Reservation, Call]] = []
        self.unwritten: list[SettleRow] = []
        self.write: Callable[[SettleRow], None]
        self.offset = 0

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    @initialize(quotas=sets_of_quotas())
    def start(self, quotas: list[Quota]) -> None:
        self.clock = ManualClock(wall_ns=wall("2026-11-20T10:40:00"))
        self.house = House(Path(self.folder.name) / "state", quotas, self.clock)
        self.run(self.house.start())
        self.model = Model(self.clock)
        self.model.configure(quotas)
        self.hold_settlements()

    def hold_settlements(self) -> None:
        writer: Any = self.house.database.writer
        self.write = writer.settle
        writer.settle = self.unwritten.append

    def teardown(self) -> None:
        if hasattr(self, "house"):
            self.house.close()
        self.loop.close()
        self.folder.cleanup()

    def some(self, data: st.DataObject, *states: str) -> tuple[Reservation, Call] | None:
        fitting = [pair for pair in self.pairs if pair[0].state in states]
        return data.draw(st.sampled_from(fitting)) if fitting else None

    # -- rules -------------------------------------------------------------------------------------------------

    @rule(model=st.sampled_from(["m1", "m2"]), tokens=st.sampled_from([0, 10, 50]), send=st.booleans())
    def admit(self, model: str, tokens: int, send: bool) -> None:
        expected = self.model.fits(model, 1, tokens)
        amounts = Amounts(1, tokens, 0)
        dry = self.house.ledger.refusal("acc", model, amounts)
        assert (dry is None) is expected
        try:
            call = self.house.admit(amounts, model=model, price=None, linger=LINGER)
        except QuotaRefused as refused:
            assert not expected
            self.check_wait(refused.refusal.retry_after, model, tokens)
            return
        assert expected
        record = Call(model, 1, tokens, self.clock.wall_ns())
        self.model.calls.append(record)
        self.pairs.append((call, record))
        if send:
            self.dispatch_pair(call, record)

    def check_wait(self, wait: float | None, model: str, tokens: int) -> None:
        """An instant before it is over the call is still refused; when it is over it fits, unless calls are open."""
        if wait is None:
            return
        later = round(wait * NS)
        if not any(call.end is None for call in self.model.calls):
            assert self.model.fits(model, 1, tokens, later)
            assert later == 0 or not self.model.fits(model, 1, tokens, later - 1)

    def dispatch_pair(self, call: Reservation, record: Call) -> None:
        record.dispatched = self.clock.boot_ns()
        record.contained = self.model.ended()
        record.counters = list(self.model.counters.values())
        self.run(self.house.ledger.dispatch(call))

    @rule(data=st.data())
    def dispatch(self, data: st.DataObject) -> None:
        pair = self.some(data, "reserved")
        if pair:
            self.dispatch_pair(*pair)

    @rule(data=st.data())
    def first_byte(self, data: st.DataObject) -> None:
        pair = self.some(data, "dispatched")
        if pair:
            self.house.ledger.first_byte(pair[0])
            pair[1].first_byte = pair[1].first_byte or self.clock.boot_ns()

    @rule(
        data=st.data(),
        kind=st.sampled_from(["ok", "upstream_error", "cut", "client_gone", "timeout", "crash", "refused"]),
        sent=st.sampled_from(["no", "maybe", "yes"]),
        usage=st.sampled_from([None, 0, 5, 70]),
    )
    def settle(self, data: st.DataObject, kind: EndingKind, sent: Any, usage: int | None) -> None:
        pair = self.some(data, "dispatched")
        if not pair:
            return
        call, record = pair
        reported = None if usage is None else Usage(usage, 0)
        self.house.ledger.settle(call, Ending(kind=kind, sent=sent, usage=reported))
        answered = kind in ("ok", "upstream_error")
        if kind == "refused" or (sent == "no" and not answered):
            self.model.end(record, (0, 0), 0)
        elif answered:
            nothing_said = 0 if kind == "upstream_error" else record.tokens
            self.model.end(record, (1, nothing_said if usage is None else usage), 0)
        else:
            self.model.end(record, (1, max(record.tokens, usage or 0)), LINGER * NS)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        pair = self.some(data, "reserved", "dispatched")
        if pair:
            self.house.ledger.release(pair[0])
            self.model.end(pair[1], (0, 0), 0)

    @rule(data=st.data(), remaining=st.integers(0, 6), reset=st.sampled_from([1, 20, 90]))
    def observe(self, data: st.DataObject, remaining: int, reset: int) -> None:
        counters = [c for c in self.model.counters.values() if c.quota.key == "acc/requests/60s"]
        pair = self.some(data, "dispatched", "settled", "unknown")
        if not pair or not counters or pair[1] not in self.model.calls:
            return
        call, record = pair
        said = Observation("requests", remaining=remaining, window="60s", reset_ms=reset * 1000)
        # Named for no model of its own: the account's quota is meant, not the pool's.
        self.house.ledger.observe("lab", "acc", "m2", [said], as_of=call)
        self.house.ledger.flush_events()
        self.model.observe(counters[0], remaining, reset * NS, record)

    @rule(quotas=sets_of_quotas())
    def reconfigure(self, quotas: list[Quota]) -> None:
        self.house.quotas = quotas
        self.house.ledger.configure(quotas)
        self.model.configure(quotas)

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, 5.0, 20.0, 41.0, 60.0, 61.0, 900.0, 3_600.0]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(minutes=st.integers(-20, 20))
    def set_the_wall_clock(self, minutes: int) -> None:
        self.clock.set_wall(self.clock.wall_ns() + (minutes - self.offset) * 60 * NS)
        self.offset = minutes

    @rule()
    def settlements_reach_the_disk(self) -> None:
        for row in self.unwritten:
            self.write(row)
        self.unwritten.clear()

    @rule(crash=st.booleans(), reboot=st.booleans(), quotas=sets_of_quotas())
    def restart(self, crash: bool, reboot: bool, quotas: list[Quota]) -> None:
        if not crash:
            self.settlements_reach_the_disk()
        lost_ids = {row.id for row in self.unwritten}
        lost = {id(record) for call, record in self.pairs if call.id in lost_ids}
        self.unwritten.clear()
        self.pairs.clear()
        self.house.database.close()
        if reboot:
            self.model.boot += 1
            self.clock.reboot(f"boot-{self.model.boot}", downtime_seconds=30, uptime_seconds=4)
        self.run(self.house.restart(quotas))
        self.model.restart(lost, quotas, LINGER * NS)
        self.hold_settlements()

    @invariant()
    def views_agree(self) -> None:
        if not hasattr(self, "model"):
            return
        views = self.house.ledger.limits()
        shown = {view.key: (view.used + view.reserved, view.remaining) for view in views}
        assert shown == self.model.describe()


LedgerMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLedgerMachine = LedgerMachine.TestCase
