"""The ledger's side of observations: taking them in, keeping them on disk, restoring them after a restart."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable

import msgspec

from hybridd.clocks import NS, Clock
from hybridd.contracts.protocol import Observation
from hybridd.contracts.quotas import Quota
from hybridd.ledger.admission import Admission, identity
from hybridd.ledger.counters import Counter
from hybridd.ledger.observations import Figure, apply, in_unit, learned_quota, match
from hybridd.ledger.recovery import charged_calls, stored_observations
from hybridd.ledger.reservation import Reservation, Vector
from hybridd.ledger.windows import age_ns
from hybridd.store.database import Database
from hybridd.store.queries.state import delete_observation

MOST_LEARNED = 1_000
"""Limits that nobody configured, kept at most: far more than any account has. What is reported beyond is ignored."""
WRITE_EVERY_NS = NS
"""A busy provider reports with every answer; the newest figure reaches the disk once a second."""
_log = logging.getLogger("hybridd.ledger")
_SQL = (
    "INSERT INTO observations (key, provider, account, as_of_wall_ns, data) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (key) DO UPDATE SET provider = excluded.provider, account = excluded.account,"
    " as_of_wall_ns = excluded.as_of_wall_ns, data = excluded.data"
)


class Stored(msgspec.Struct, frozen=True):
    """A figure on disk. ``boot`` is the row id of the boot that its boot instants belong to."""

    quota: Quota
    learned: bool
    figure: Figure
    boot: int


class Figures:
    def __init__(self, admission: Admission, database: Database, clock: Clock) -> None:
        self._admission = admission
        self._database = database
        self._clock = clock
        # quotas that only observations made known: while one is believed or nothing configured takes its place
        self._learned: set[str] = set()
        self._full = False
        self._unwritten: dict[str, Stored] = {}
        self._written_at: dict[str, int] = {}
        # restored figures of quotas that nobody has configured yet (a plugin may still register them)
        self._waiting: dict[str, tuple[Figure, Vector | None]] = {}

    def observe(
        self,
        provider: str,
        account: str,
        model: str | None,
        observations: Iterable[Observation],
        call: Reservation | None,
        as_of_boot_ns: int | None,
    ) -> None:
        now, wall = self._clock.boot_ns(), self._clock.wall_ns()
        as_of = as_of_boot_ns if as_of_boot_ns is not None else now
        if call is not None:
            as_of = call.dispatched_boot_ns
        for observation in observations:
            counter = match(self._binding_counters(account, model), observation)
            if counter is None:
                quota = learned_quota(provider, account, observation)
                if quota is None or not self._may_learn(quota):
                    continue
                counter = self._admission.counters.get(identity(quota)) or self._admission.add(quota, now, wall)
                self._learned.add(quota.key)
            figure = Figure(
                remaining=in_unit(observation.unit, observation.remaining),
                limit=in_unit(observation.unit, observation.limit),
                until=None if observation.reset_ms is None else now + observation.reset_ms * (NS // 1000),
                as_of=as_of,
                as_of_wall=wall - (now - as_of),
                at_wall=wall,
                carrier=0 if call is None else call.id,
            )
            if apply(self._admission, counter, figure, call, now, wall):
                if counter.quota.key in self._learned and figure.limit is not None and figure.limit >= 0:
                    counter.set_quota(msgspec.structs.replace(counter.quota, limit=figure.limit))
                self._keep(counter, figure, now)

    def _may_learn(self, quota: Quota) -> bool:
        if quota.key in self._learned or len(self._learned) < MOST_LEARNED:
            return True
        if not self._full:
            self._full = True
            _log.warning("%d limits were learned from reports; others, as %s, are ignored", MOST_LEARNED, quota.key)
        return False

    def configured(self, wanted: list[Quota]) -> None:
        """The set of quotas was replaced: what is configured is not learned any more."""
        self._learned -= {quota.key for quota in wanted}
        self.attach_waiting()

    def keeps(self, counter: Counter, wanted: list[Quota], now: int, accounts: Collection[str] | None = None) -> bool:
        """Whether a quota that is not configured stays: a learned one, unless its account has gone (from ``accounts``,
        when they are given) or a configured quota of the same unit now stands for it and nothing reported is in
        force."""
        quota = counter.quota
        if quota.key not in self._learned:
            return False
        if accounts is not None and quota.account not in accounts:
            self._learned.discard(quota.key)
            self._unwritten.pop(quota.key, None)
            self._database.writer.execute(*delete_observation(quota.key))
            return False
        observed = counter.observed
        if observed is not None and not observed.assumed and now < observed.until:
            return True
        return not any(other.account == quota.account and other.unit == quota.unit for other in wanted)

    def flush(self) -> None:
        """Writes the newest figure of every quota that has one not written yet."""
        unwritten, self._unwritten = self._unwritten, {}
        for key, stored in unwritten.items():
            self._write(key, stored)

    async def load(self) -> int:
        """Restores the figures on disk; returns how many. Needs the rebuilt counters and histories."""
        reader = self._database.reader
        rows = [msgspec.json.decode(data, type=Stored) for _, data in await reader.run(stored_observations)]
        carriers = await reader.run(charged_calls, [row.figure.carrier for row in rows if row.figure.carrier])
        now, wall = self._clock.boot_ns(), self._clock.wall_ns()
        for row in rows:
            figure = self._in_this_boot(row, now, wall)
            if row.learned:
                self._learned.add(row.quota.key)
                if identity(row.quota) not in self._admission.counters:
                    self._admission.add(row.quota, now, wall)
            carrier = carriers.get(figure.carrier)
            own = carrier[2] if carrier is not None and row.quota.binds(carrier[0], carrier[1]) else None
            self._waiting[row.quota.key] = figure, own
        self.attach_waiting()
        return len(rows)

    def attach_waiting(self) -> None:
        """Gives restored figures to counters that have come into being."""
        if not self._waiting:
            return
        now, wall = self._clock.boot_ns(), self._clock.wall_ns()
        for counter in self._admission.counters.values():
            waiting = self._waiting.pop(counter.quota.key, None)
            if waiting is None:
                continue
            figure, own = waiting
            over = figure.until is not None and figure.until <= now
            if over:
                figure = msgspec.structs.replace(figure, remaining=None)
            apply(self._admission, counter, figure, None, now, wall)
            if own is not None and not over and counter.observed is not None:
                counter.observed.base += own[counter.unit]

    def _binding_counters(self, account: str, model: str | None) -> Iterable[Counter]:
        if model is not None:
            return self._admission.binding(account, model).counters
        return [counter for counter in self._admission.counters.values() if counter.quota.account == account]

    def _keep(self, counter: Counter, figure: Figure, now: int) -> None:
        quota = counter.quota
        observed = counter.observed
        if observed is not None and figure.remaining is not None:
            figure = msgspec.structs.replace(figure, until=observed.until)
        stored = Stored(quota, quota.key in self._learned, figure, self._database.boot)
        last = self._written_at.get(quota.key)
        if last is None or now - last >= WRITE_EVERY_NS:
            self._unwritten.pop(quota.key, None)
            self._written_at[quota.key] = now
            self._write(quota.key, stored)
        else:
            self._unwritten[quota.key] = stored

    def _write(self, key: str, stored: Stored) -> None:
        quota = stored.quota
        data = msgspec.json.encode(stored).decode()
        row = (key, quota.provider or quota.account, quota.account, stored.figure.as_of_wall, data)
        self._database.writer.execute(_SQL, row)

    def _in_this_boot(self, row: Stored, now: int, wall: int) -> Figure:
        """Its instants on the present boot's clock."""
        figure = row.figure
        same = row.boot == self._database.boot
        age = age_ns(same_boot=same, then_boot=figure.as_of, then_wall=figure.as_of_wall, now_boot=now, now_wall=wall)
        until = figure.until
        if until is not None and not same:
            until = now + (figure.as_of_wall + (until - figure.as_of)) - wall
        return msgspec.structs.replace(figure, as_of=now - age, until=until)
