"""The ledger: nothing leaves for a provider without a durable reservation. Runs on the event loop, in memory.

::

    admit ─► reserved ─► dispatch (row on disk) ─► dispatched ─► settle ─► settled | unknown | released
                └── release ─► released

See :mod:`hybridd.ledger.reservation` for the settle table, :mod:`hybridd.ledger.windows` for the arithmetic and
``docs/ledger.md`` for the promise.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import msgspec

from hybridd.bus import EventBus
from hybridd.clocks import NS, Clock
from hybridd.contracts.protocol import Observation
from hybridd.contracts.quotas import Amounts, Price, Quota, Unit
from hybridd.contracts.views import LimitView
from hybridd.errors import StorageError
from hybridd.ledger.admission import Admission
from hybridd.ledger.counters import Counter
from hybridd.ledger.estimate import PromptSize, Ratio, Ratios, input_tokens
from hybridd.ledger.figures import Figures
from hybridd.ledger.lines import dispatch_row, settle_row, unknown_row
from hybridd.ledger.prices import cost
from hybridd.ledger.quotaset import merged
from hybridd.ledger.recovery import Moment, RecoveryReport, ended_groups, stored_ratios
from hybridd.ledger.reservation import (
    NOTHING,
    Ending,
    QuotaRefused,
    Refusal,
    Reservation,
    Settlement,
    charge,
    vector_of,
)
from hybridd.ledger.views import Track, limit_view, stamp
from hybridd.ledger.windows import hold_ns
from hybridd.store.database import Database
from hybridd.store.queries.ledger import last_id, open_calls

HORIZON_SECONDS = 35 * 86_400
"""How far back history is kept for quotas that come later: the longest month, and some."""
RECOVERY_LINGER_SECONDS = 5.0

_RATIO_SQL = (
    "INSERT INTO model_stats (provider, model, tokens_per_byte, samples, updated_wall_ns, data)"
    " VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (provider, model) DO UPDATE SET tokens_per_byte = excluded.tokens_per_byte,"
    " samples = excluded.samples, updated_wall_ns = excluded.updated_wall_ns, data = excluded.data"
)


class Ledger:
    """See the module's docstring. Every method belongs to the event loop's thread.

    Until :meth:`recover` has run, every admission is refused: what was spent is not known yet.
    """

    def __init__(self, database: Database, clock: Clock, bus: EventBus, *, skew_seconds: float = 5.0) -> None:
        self._database = database
        self._writer = database.writer
        self._clock = clock
        self._bus = bus
        self._skew_ns = round(skew_seconds * NS)
        self._horizon_seconds = HORIZON_SECONDS
        self._admission = Admission(self._skew_ns, hold_ns(HORIZON_SECONDS))
        self._figures = Figures(self._admission, database, clock)
        self._ratios = Ratios()
        self._tracks: dict[str, Track] = {}
        self._last_id = 0
        self._recovered = False

    # -- start and configuration -------------------------------------------------------------------------------

    async def recover(self, *, linger_seconds: float = RECOVERY_LINGER_SECONDS) -> RecoveryReport:
        """Rebuilds admission from the rows. Calls that a crash left open become ``unknown`` and count in full, with
        *e* = now + linger: nobody knows when they ended, only that it was before their connection died.

        Raises:
            StorageError: the rows cannot be read or completed; admission stays closed.
        """
        reader, admission = self._database.reader, self._admission
        left_open = await reader.run(open_calls)
        linger = round(linger_seconds * NS)
        end, end_wall = self._clock.boot_ns() + linger, self._clock.wall_ns() + linger
        for row in left_open:
            self._writer.settle(unknown_row(row, self._database.boot, end, end_wall))
        await self._writer.barrier()
        now = Moment(self._database.boot, self._clock.boot_ns(), self._clock.wall_ns())
        longest = max([HORIZON_SECONDS, *(c.quota.window.seconds or 0 for c in admission.counters.values())])
        self._horizon_seconds, admission.horizon_ns = longest, hold_ns(longest)
        admission.forget_past()
        groups = await reader.run_to_the_end(ended_groups, now, self._skew_ns, admission.horizon_ns)
        for group in groups:
            history = admission.history(group.account, group.model)
            end, begin = now.boot_ns - group.youngest_ns, now.boot_ns - group.oldest_ns
            history.load(end, begin, group.quarter, group.vector)
        self._last_id = max(self._last_id, await reader.run(last_id))
        for provider, model, data in await reader.run(stored_ratios):
            self._ratios.load(provider, model, msgspec.json.decode(data, type=Ratio))
        self._recovered = True
        admission.rebuild(self._clock.boot_ns(), self._clock.wall_ns())
        observations = await self._figures.load()
        return RecoveryReport(groups=len(groups), unknown=len(left_open), observations=observations)

    def configure(self, quotas: Sequence[Quota], accounts: Collection[str] | None = None) -> None:
        """Replaces the whole set of configured and plugin quotas; learned ones stay while they are needed.

        ``accounts``: those that still exist; what was learned of others is forgotten (None: nothing is).

        Open calls and history count against new and changed quotas at once.

        Raises:
            ConfigError: a quota names an unknown time zone; nothing is changed then.
        """
        now, wall = self._clock.boot_ns(), self._clock.wall_ns()
        wanted = merged(quotas)
        self._admission.configure(wanted, now, wall, keep=lambda c: self._figures.keeps(c, wanted, now, accounts))
        self._figures.configured(wanted)
        keys = {counter.quota.key for counter in self._admission.counters.values()}
        self._tracks = {key: track for key, track in self._tracks.items() if key in keys}

    @property
    def horizon_seconds(self) -> int:
        """How far back history is held: a rolling window longer than this needs a restart to see all of its past."""
        return self._horizon_seconds

    @property
    def quotas(self) -> list[Quota]:
        """Every quota in force, learned ones included."""
        return [counter.quota for counter in self._admission.counters.values()]

    # -- questions ---------------------------------------------------------------------------------------------

    def refusal(self, account: str, model: str, amounts: Amounts, *, priced: bool | None = None) -> Refusal | None:
        """Why a call of these amounts would be refused now, or None. ``priced``: whether the model has a price (None:
        the caller does not say, so a money limit is only compared with the amount)."""
        closed = self._closed()
        if closed is not None:
            return closed
        binding = self._admission.binding(account, model)
        if priced is False and binding.has_usd:
            return self._admission.no_price(binding)
        now, wall = self._clock.boot_ns(), self._clock.wall_ns()
        return self._admission.explain(binding, vector_of(amounts), now, wall)

    def room(self, account: str, model: str, unit: Unit) -> int | None:
        """The smallest remaining amount over the quotas of that unit that bind the model; None: unlimited."""
        now, wall = self._clock.boot_ns(), self._clock.wall_ns()
        counters = self._admission.binding(account, model).counters
        return min((c.room(now, wall) for c in counters if c.quota.unit == unit), default=None)

    def limits(self) -> list[LimitView]:
        """Every quota now, with its forecast."""
        now, wall = self._clock.boot_ns(), self._clock.wall_ns()
        counters = sorted(self._admission.counters.values(), key=_key_of)
        return [limit_view(counter, self._sampled(counter, now), now, wall) for counter in counters]

    def estimate_input(self, provider: str, model: str, size: PromptSize) -> int:
        """Tokens a prompt may be, by what was learned about the model."""
        return input_tokens(size, self._ratios.of(provider, model))

    def learn(self, provider: str, model: str, size: PromptSize, tokens: int) -> None:
        """A provider counted ``tokens`` for a prompt of that size."""
        self._ratios.learn(provider, model, size, tokens)

    def new_request_id(self) -> int:
        """Microseconds of wall time, made monotone over calls, requests and restarts."""
        self._last_id = max(self._last_id + 1, self._clock.wall_ns() // 1000)
        return self._last_id

    # -- the life of a call ------------------------------------------------------------------------------------

    def admit(
        self,
        *,
        request_id: int,
        provider: str,
        account: str,
        model: str,
        task: str,
        amounts: Amounts,
        price: Price | None,
        linger_seconds: float,
    ) -> Reservation:
        """Reserves ``amounts`` (money at least at the price) against every quota that binds, or against none.

        ``linger_seconds``: how long after a connection was closed without an answer the provider may still receive the
        call (0 on loopback).

        Raises:
            QuotaRefused: with the reason, the quota and the waiting time.
        """
        closed = self._closed()
        if closed is not None:
            raise QuotaRefused(closed)
        binding = self._admission.binding(account, model)
        if price is not None:
            needed = cost(price, amounts)
            if needed > amounts.usd_micro:
                amounts = msgspec.structs.replace(amounts, usd_micro=needed)
        elif binding.has_usd:
            raise QuotaRefused(self._admission.no_price(binding))
        now, wall = self._clock.boot_ns(), self._clock.wall_ns()
        vector = vector_of(amounts)
        if self._admission.blocked(binding, vector, now, wall):
            refusal = self._admission.explain(binding, vector, now, wall)
            assert refusal is not None
            raise QuotaRefused(refusal)
        call_id = self._last_id + 1
        micros = wall // 1000
        self._last_id = call_id = max(call_id, micros)
        call = Reservation(
            call_id, request_id, provider, task, binding, amounts, vector, price, round(linger_seconds * NS), now, wall
        )
        self._admission.take(call)
        return call

    async def dispatch(self, call: Reservation) -> None:
        """The one durable step: returns when the row is on the disk. Only then may anything be sent.

        Raises:
            StorageError: the row could not be written; the reservation is released.
        """
        now, counters = self._clock.boot_ns(), call.binding.counters
        call.dispatched_boot_ns = now
        call.marks = counters, [counter.mark(now) for counter in counters]
        written = self._writer.dispatch(dispatch_row(call, self._database.boot))
        call.state = "dispatched"
        try:
            await written
        except StorageError:
            self._free(call)
            raise
        except BaseException:
            self.release(call)  # the row may be on the disk by now; nothing was sent
            raise

    def first_byte(self, call: Reservation) -> None:
        """The answer has begun: from here on quotas counted by arrival hold the call for one window only."""
        if call.first_byte_boot_ns is None and call.charged is None:
            call.first_byte_boot_ns = now = self._clock.boot_ns()
            for counter in call.binding.counters:
                counter.first_byte(call.vector[counter.unit], now)

    def release(self, call: Reservation) -> None:
        """The call was never sent. Harmless when it has ended already."""
        if call.charged is not None:
            return
        if call.state == "reserved":
            self._free(call)
        else:
            self.settle(call, Ending(kind="refused", sent="no", answered=True))

    def settle(self, call: Reservation, ending: Ending) -> Settlement:
        """Replaces the reservation by what the settle table says. A second ending of the same call changes nothing."""
        if call.charged is not None:
            return Settlement(call.state, False, call.charged, call.vector)
        if call.state == "reserved":
            self._free(call)
            return Settlement("released", False, NOTHING, call.vector)
        now, wall = self._clock.boot_ns(), self._clock.wall_ns()
        state, charged = charge(call.vector, call.price, ending)
        answered = ending.kind in ("ok", "upstream_error") if ending.answered is None else ending.answered
        linger = 0 if answered or state == "released" else call.linger_ns
        end, end_wall = now + linger, wall + linger
        self._admission.end(call, charged, end, now, end_wall)
        call.charged, call.state = charged, state
        self._writer.settle(settle_row(call, self._database.boot, state, charged, end, end_wall, ending))
        return Settlement(state, ending.usage is not None, charged, call.vector)

    # -- what providers say ------------------------------------------------------------------------------------

    def observe(
        self,
        provider: str,
        account: str,
        model: str | None,
        observations: Iterable[Observation],
        *,
        as_of: Reservation | None,
        as_of_boot_ns: int | None = None,
    ) -> None:
        """Takes in figures that a provider reported. ``as_of``: the call whose answer carried them. Without one they
        are as of ``as_of_boot_ns`` (when a probe was sent), or of now."""
        self._figures.observe(provider, account, model, observations, as_of, as_of_boot_ns)

    def flush_events(self) -> None:
        """Publishes quotas that changed (only when somebody listens), samples their pace, writes what is waiting.
        Called by a timer of the owner, about four times a second."""
        now, wall = self._clock.boot_ns(), self._clock.wall_ns()
        wanted = self._bus.wanted("quota")
        for counter in self._admission.counters.values():
            track = self._sampled(counter, now)
            if wanted:
                changed = stamp(counter, now, wall)
                if changed != track.stamp:
                    track.stamp = changed
                    self._bus.publish("quota", msgspec.to_builtins(limit_view(counter, track, now, wall)))
        self._figures.flush()
        for provider, model, ratio in self._ratios.take_unwritten():
            data = msgspec.json.encode(ratio).decode()
            self._writer.execute(_RATIO_SQL, (provider, model, ratio.mean, ratio.samples, wall, data))

    # -- inside ------------------------------------------------------------------------------------------------

    def _closed(self) -> Refusal | None:
        if not self._recovered:
            reason = "the recorded calls are still being read, so what is left of the limits is not known yet"
            return Refusal(None, reason, 1.0, "recovering")
        failed = self._writer.failed
        if failed is not None:
            reason = f"the database cannot be written ({failed}), and nothing may leave unrecorded"
            return Refusal(None, reason, 5.0, "storage_failed")
        return None

    def _free(self, call: Reservation) -> None:
        """Gives the reservation back: nothing was sent, nothing (that counts) was written."""
        now, wall = self._clock.boot_ns(), self._clock.wall_ns()
        self._admission.end(call, NOTHING, now, now, wall)
        call.charged, call.state = NOTHING, "released"

    def _sampled(self, counter: Counter, now: int) -> Track:
        track = self._tracks.get(counter.quota.key)
        if track is None:
            track = self._tracks[counter.quota.key] = Track()
        track.sample(counter, now)
        return track


def _key_of(counter: Counter) -> str:
    return counter.quota.key
