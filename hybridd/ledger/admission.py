"""Admission in memory: every quota that binds a call, all of them together or none.

This is the one interface that would become counter rows inside a transaction if several machines shared an account.
Nothing here awaits; the event loop is the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hybridd.clocks import NS
from hybridd.contracts.quotas import Quota
from hybridd.ledger.counters import Counter
from hybridd.ledger.history import History
from hybridd.ledger.kinds import make_counter
from hybridd.ledger.reservation import USD, Refusal, Reservation, Vector
from hybridd.ledger.text import amount_text, wait_text

Identity = tuple[str, str]
MAX_BINDINGS = 10_000
"""(account, model) pairs remembered; callers choose model names, so this must not grow for ever."""


class Binding:
    """The counters that bind one (account, model), found once. Calls keep a reference, so a reload reaches them."""

    __slots__ = ("account", "counters", "has_usd", "history", "model", "price", "price_text")

    def __init__(self, account: str, model: str, history: History) -> None:
        self.account = account
        self.model = model
        self.history = history
        self.counters: tuple[Counter, ...] = ()
        self.has_usd = False
        # the last price seen and its stored form: it hardly ever changes
        self.price: object = None
        self.price_text: str | None = None

    def binds(self, counter: Counter) -> bool:
        return counter.quota.binds(self.account, self.model)


class Admission:
    def __init__(self, skew_ns: int, horizon_ns: int) -> None:
        self.skew_ns = skew_ns
        self.horizon_ns = horizon_ns
        self.counters: dict[Identity, Counter] = {}
        self.histories: dict[tuple[str, str], History] = {}
        self.open: dict[int, Reservation] = {}
        self._bindings: dict[tuple[str, str], Binding] = {}

    # -- the hot path ------------------------------------------------------------------------------------------

    def binding(self, account: str, model: str) -> Binding:
        try:
            return self._bindings[account, model]
        except KeyError:
            return self._bind(account, model)

    def blocked(self, binding: Binding, vector: Vector, now: int, wall: int) -> bool:
        """Whether any quota has no room. An amount of zero needs no room: a free model passes a spent budget."""
        for counter in binding.counters:
            need = vector[counter.unit]
            if need and not counter.fits(need, now, wall):
                return True
        return False

    def take(self, call: Reservation) -> None:
        vector = call.vector
        for counter in call.binding.counters:
            need = vector[counter.unit]
            counter.hold += need
            counter.total += need
        self.open[call.id] = call

    def end(self, call: Reservation, charged: Vector, end: int, now: int, end_wall: int) -> None:
        """Replaces the reservation by what the call counts from now on. ``end`` and ``end_wall`` are *e*."""
        del self.open[call.id]
        vector, binding = call.vector, call.binding
        for counter in binding.counters:
            unit = counter.unit
            counter.end(vector[unit], charged[unit], end, now, call, end_wall)
        if charged[-1]:
            admitted = call.admitted_wall_ns
            last = (admitted if admitted > end_wall else end_wall) + self.skew_ns  # hot path
            binding.history.add(end, last, charged, now)

    # -- refusals ----------------------------------------------------------------------------------------------

    def explain(self, binding: Binding, vector: Vector, now: int, wall: int) -> Refusal | None:
        """The quota that keeps the call waiting longest, or None when there is room."""
        worst: tuple[float, Counter, int | None] | None = None
        for counter in binding.counters:
            need = vector[counter.unit]
            if not need or counter.fits(need, now, wall):
                continue
            wait = counter.wait(need, now, wall)
            rank = float("inf") if wait is None else float(wait)
            if worst is None or rank > worst[0]:
                worst = rank, counter, wait
        if worst is None:
            return None
        _, counter, wait = worst
        return self._refusal(counter, vector[counter.unit], wait, now, wall)

    def _refusal(self, counter: Counter, need: int, wait: int | None, now: int, wall: int) -> Refusal:
        quota = counter.quota
        if wait is None:
            reason = (
                f"{quota.key}: the call needs {amount_text(quota.unit, need)}, "
                f"more than the whole limit of {amount_text(quota.unit, max(0, counter.cap))}"
            )
            return Refusal(quota.key, reason, None)
        whose = "the provider reports" if need > counter.theirs(now) else "the limit leaves"
        reason = (
            f"{quota.key}: {whose} {amount_text(quota.unit, counter.room(now, wall))} "
            f"and the call needs {amount_text(quota.unit, need)}; room {wait_text(wait)}"
        )
        return Refusal(quota.key, reason, max(0, wait) / NS)

    def no_price(self, binding: Binding) -> Refusal:
        quota = next(counter.quota for counter in binding.counters if counter.unit == USD)
        reason = f"{quota.key}: a money limit binds {binding.model}, which has no price, so its cost cannot be bounded"
        return Refusal(quota.key, reason, None, "no_price")

    # -- the set of quotas -------------------------------------------------------------------------------------

    def configure(self, quotas: Iterable[Quota], now: int, wall: int, keep: Callable[[Counter], bool]) -> None:
        """Replaces the set of quotas. A counter whose meaning is unchanged goes on with its log (its limit and buffer
        may change); a new one is built from history and the open calls. ``keep``: counters to keep all the same.

        All new counters are made before anything is replaced, so an error (an unknown zone) changes nothing.
        """
        wanted = {identity(quota): quota for quota in quotas}
        fresh = {
            name: self._counter_with_past(quota, now, wall)
            for name, quota in wanted.items()
            if name not in self.counters
        }
        kept = {name: counter for name, counter in self.counters.items() if name in wanted or keep(counter)}
        for name, counter in kept.items():
            if name in wanted:
                counter.set_quota(wanted[name])
        self.counters = kept | fresh
        self._rebind()

    def add(self, quota: Quota, now: int, wall: int) -> Counter:
        """One more quota (a learned one)."""
        counter = self._counter_with_past(quota, now, wall)
        self.counters[identity(quota)] = counter
        self._rebind()
        return counter

    def rebuild(self, now: int, wall: int) -> None:
        """Makes every counter anew from history: after the rows were read."""
        quotas = [counter.quota for counter in self.counters.values()]
        self.counters = {identity(quota): self._counter_with_past(quota, now, wall) for quota in quotas}
        self._rebind()

    def forget_past(self) -> None:
        """Before the rows are read. The bindings go too: each holds the history it was made with."""
        self.histories.clear()
        self._bindings.clear()

    def history(self, account: str, model: str) -> History:
        history = self.histories.get((account, model))
        if history is None:
            history = self.histories[account, model] = History(self.horizon_ns)
        return history

    def histories_of(self, quota: Quota) -> list[History]:
        return [history for (account, model), history in self.histories.items() if quota.binds(account, model)]

    def _counter_with_past(self, quota: Quota, now: int, wall: int) -> Counter:
        counter = make_counter(quota, self.skew_ns)
        counter.rebuild(self.histories_of(quota), now, wall)
        for call in self.open.values():
            if quota.binds(call.account, call.model):
                counter.adopt(call.vector[counter.unit], call, now)
        return counter

    def _bind(self, account: str, model: str) -> Binding:
        if len(self._bindings) >= MAX_BINDINGS:
            self._forget_idle()
        binding = self._bindings[account, model] = Binding(account, model, self.history(account, model))
        self._fill(binding)
        return binding

    def _fill(self, binding: Binding) -> None:
        bound = (c for c in self.counters.values() if c.quota.binds(binding.account, binding.model))
        binding.counters = tuple(bound)
        binding.has_usd = any(counter.unit == USD for counter in binding.counters)

    def _rebind(self) -> None:
        for binding in self._bindings.values():
            self._fill(binding)

    def _forget_idle(self) -> None:
        """Drops pairs that never ended a call and have none open (made-up model names)."""
        busy = {(call.account, call.model) for call in self.open.values()}
        for key, binding in list(self._bindings.items()):
            if key not in busy and not binding.history.ends and not binding.history.recent:
                del self._bindings[key]
                self.histories.pop(key, None)


def identity(quota: Quota) -> Identity:
    """What makes two quotas the same count. The limit and the buffer do not."""
    return quota.key, quota.counted
