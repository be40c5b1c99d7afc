"""The schema, as SQLModel tables: the one place where a table or a column is declared.

``schema.sql`` (what a fresh database is made from) and ``migrations/`` are held equal to these classes by
``tests/store/test_schema.py``; the daemon itself never imports this module, because importing SQLModel costs a quarter
of a second and 25 MiB. After a change here: ``python -m hybridd.store.migrate --render`` and a new revision.

Conventions: ``*_wall_ns`` are UTC nanoseconds, ``*_boot_ns`` CLOCK_BOOTTIME nanoseconds of the boot named beside them,
``at`` UTC seconds, ``*_us`` microseconds of duration, ``usd_micro`` integer micro-dollars. Tables are STRICT.
"""

from __future__ import annotations

from typing import ClassVar

from sqlalchemy import REAL, Index, Text, text
from sqlmodel import Field, SQLModel

STRICT = {"sqlite_strict": True}
# One B-tree instead of two where the primary key is not a plain integer.
STRICT_KEYED = {"sqlite_strict": True, "sqlite_with_rowid": False}


class Boot(SQLModel, table=True):
    """One boot of the machine: what a stored CLOCK_BOOTTIME figure refers to."""

    __tablename__: ClassVar[str] = "boots"
    __table_args__ = STRICT

    id: int | None = Field(default=None, primary_key=True)
    boot_id: str = Field(sa_type=Text, unique=True)
    first_wall_ns: int
    first_boot_ns: int


class Run(SQLModel, table=True):
    """One run of the daemon. A run without ``stopped_wall_ns`` ended uncleanly (or is the present one)."""

    __tablename__: ClassVar[str] = "runs"
    __table_args__ = STRICT

    id: int | None = Field(default=None, primary_key=True)
    boot: int = Field(foreign_key="boots.id")
    pid: int
    version: str = Field(sa_type=Text)
    started_wall_ns: int
    started_boot_ns: int
    stopped_wall_ns: int | None = None


class Call(SQLModel, table=True):
    """One call to a provider: written as ``dispatched`` before anything is sent, completed when it ends.

    The amounts are the reservation while the call is open and what counts afterwards. ``id`` is microseconds of wall
    time at admission, made monotone: the primary key is the only order and the only index the insert path pays for.
    """

    __tablename__: ClassVar[str] = "calls"
    __table_args__ = (
        # Holds only the open calls (a few hundred at most): recovery finds them without reading the table.
        Index("calls_open", "id", sqlite_where=text("state = 'dispatched'")),
        STRICT,
    )

    id: int = Field(primary_key=True)
    request_id: int
    provider: str = Field(sa_type=Text)
    account: str = Field(sa_type=Text)
    model: str = Field(sa_type=Text)
    task: str = Field(sa_type=Text)
    boot: int
    admitted_boot_ns: int
    admitted_wall_ns: int
    requests: int
    input_tokens: int
    output_tokens: int
    bytes_down: int
    bytes_up: int
    usd_micro: int
    price: str | None = Field(default=None, sa_type=Text)
    state: str = Field(default="dispatched", sa_type=Text, sa_column_kwargs={"server_default": "dispatched"})
    ended_boot: int | None = None
    ended_boot_ns: int | None = None
    ended_wall_ns: int | None = None
    reported: int | None = None
    first_byte_boot_ns: int | None = None
    error_code: str | None = Field(default=None, sa_type=Text)
    failed: int | None = None


class Request(SQLModel, table=True):
    """One finished request of a client. The decision behind it is in ``choices``, its calls in ``calls``."""

    __tablename__: ClassVar[str] = "requests"
    __table_args__ = STRICT

    id: int = Field(primary_key=True)
    at_wall_ns: int
    task: str = Field(sa_type=Text)
    requested: str = Field(sa_type=Text)
    provider: str = Field(sa_type=Text)
    model: str = Field(sa_type=Text)
    status: int
    error_code: str | None = Field(default=None, sa_type=Text)
    stream: int
    cache: str = Field(sa_type=Text)
    attempts: int
    input_tokens: int | None = None
    output_tokens: int | None = None
    usd_micro: int
    latency_us: int
    first_token_us: int | None = None
    overhead_us: int | None = None
    tier: str | None = Field(default=None, sa_type=Text)
    subject: str | None = Field(default=None, sa_type=Text)
    client: str | None = Field(default=None, sa_type=Text)


class Choice(SQLModel, table=True):
    """Why a request went where it went (JSON). Apart from ``requests``, which is scanned and must stay narrow."""

    __tablename__: ClassVar[str] = "choices"
    __table_args__ = STRICT

    request_id: int = Field(primary_key=True)
    choice: str = Field(sa_type=Text)


class Rollup(SQLModel):
    """Sums over ended calls and finished requests of one period, provider, model and task.

    ``calls`` leaves out released ones (nothing was sent); tokens, bytes and money come from calls, the rest from
    requests. ``period`` is hours (``rollup_hour``) or days (``rollup_day``) since the epoch, in UTC, at admission.
    """

    period: int = Field(primary_key=True)
    provider: str = Field(sa_type=Text, primary_key=True)
    model: str = Field(sa_type=Text, primary_key=True)
    task: str = Field(sa_type=Text, primary_key=True)
    requests: int
    cache_hits: int
    failed_requests: int
    calls: int
    failed_calls: int
    input_tokens: int
    output_tokens: int
    bytes_down: int
    bytes_up: int
    usd_micro: int
    latency_us_sum: int
    latency_us_max: int
    first_token_us_sum: int
    first_token_count: int


class RollupHour(Rollup, table=True):
    """Rollup by hour."""

    __tablename__: ClassVar[str] = "rollup_hour"
    __table_args__ = STRICT_KEYED


class RollupDay(Rollup, table=True):
    """Rollup by day."""

    __tablename__: ClassVar[str] = "rollup_day"
    __table_args__ = STRICT_KEYED


class Observation(SQLModel, table=True):
    """The newest figure a provider reported for one quota (JSON in ``data``)."""

    __tablename__: ClassVar[str] = "observations"
    __table_args__ = STRICT_KEYED

    key: str = Field(sa_type=Text, primary_key=True)
    provider: str = Field(sa_type=Text)
    account: str = Field(sa_type=Text)
    as_of_wall_ns: int
    data: str = Field(sa_type=Text)


class ProviderState(SQLModel, table=True):
    """What must outlive a restart about a provider: tombstones, parking, cooling deadlines (JSON in ``data``)."""

    __tablename__: ClassVar[str] = "provider_state"
    __table_args__ = STRICT_KEYED

    provider: str = Field(sa_type=Text, primary_key=True)
    state: str = Field(sa_type=Text)
    reason: str = Field(sa_type=Text)
    since_wall_ns: int
    until_wall_ns: int | None = None
    data: str = Field(sa_type=Text)


class ModelStat(SQLModel, table=True):
    """What was learned about a model: prompt bytes and the tokens the provider counted for them."""

    __tablename__: ClassVar[str] = "model_stats"
    __table_args__ = STRICT_KEYED

    provider: str = Field(sa_type=Text, primary_key=True)
    model: str = Field(sa_type=Text, primary_key=True)
    tokens_per_byte: float = Field(sa_type=REAL)
    samples: int
    updated_wall_ns: int
    data: str = Field(sa_type=Text)


class Alert(SQLModel, table=True):
    """One alert from its opening to its end. At most one per key is not resolved."""

    __tablename__: ClassVar[str] = "alerts"
    __table_args__ = (
        Index("alerts_live", "key", unique=True, sqlite_where=text("state <> 'resolved'")),
        STRICT,
    )

    id: int | None = Field(default=None, primary_key=True)
    key: str = Field(sa_type=Text)
    name: str = Field(sa_type=Text)
    severity: str = Field(sa_type=Text)
    state: str = Field(sa_type=Text)
    message: str = Field(sa_type=Text)
    provider: str | None = Field(default=None, sa_type=Text)
    opened_at: float = Field(sa_type=REAL)
    updated_at: float = Field(sa_type=REAL)
    resolved_at: float | None = Field(default=None, sa_type=REAL)
    acknowledged_at: float | None = Field(default=None, sa_type=REAL)
    count: int
    data: str = Field(sa_type=Text)


class Silence(SQLModel, table=True):
    """Alerts whose key equals ``key`` stay quiet until ``until``."""

    __tablename__: ClassVar[str] = "silences"
    __table_args__ = STRICT_KEYED

    key: str = Field(sa_type=Text, primary_key=True)
    created_at: float = Field(sa_type=REAL)
    until: float = Field(sa_type=REAL)
    reason: str = Field(sa_type=Text)


class Sample(SQLModel, table=True):
    """One point of a series (host, GPU, quota remaining, latency)."""

    __tablename__: ClassVar[str] = "samples"
    __table_args__ = STRICT_KEYED

    name: str = Field(sa_type=Text, primary_key=True)
    at: float = Field(sa_type=REAL, primary_key=True)
    value: float = Field(sa_type=REAL)


class Feedback(SQLModel, table=True):
    """A person's score for an answer, from -1 (wrong) to 1 (perfect)."""

    __tablename__: ClassVar[str] = "feedback"
    __table_args__ = (Index("feedback_request", "request_id"), STRICT)

    id: int | None = Field(default=None, primary_key=True)
    at: float = Field(sa_type=REAL)
    request_id: int | None = None
    score: float = Field(sa_type=REAL)
    subject: str | None = Field(default=None, sa_type=Text)
    comment: str | None = Field(default=None, sa_type=Text)
    data: str = Field(sa_type=Text)


class Probe(SQLModel, table=True):
    """Scratch space: what the writer writes to find out whether a refused disk takes writes again."""

    __tablename__: ClassVar[str] = "probe"
    __table_args__ = STRICT

    id: int = Field(primary_key=True)
    filler: bytes
