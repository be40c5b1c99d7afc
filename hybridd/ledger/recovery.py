"""Reading the rows at start: what ended, what a crash left open, what providers had said.

Runs in the reader's thread; returns plain values. The sums are made by SQLite, in groups that never span more than a
thousandth of their age (10 ms when young), so that a month of calls costs one pass and a few thousand groups.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

import msgspec

from hybridd.clocks import NS
from hybridd.ledger.reservation import Vector
from hybridd.ledger.windows import QUARTER_NS

_MS = 1_000_000
# (age in seconds below which, width of a group): the width is at most a thousandth of the age, or 10 ms. The number
# of groups is what costs: a million calls in a month over five models read in 1.4 s (2.1 s with decades alone).
_GROUPS = (
    (20, 10 * _MS), (100, 20 * _MS), (300, 100 * _MS), (1_000, 300 * _MS), (3_000, NS), (10_000, 3 * NS),
    (30_000, 10 * NS), (100_000, 30 * NS), (300_000, 100 * NS), (900_000, 300 * NS),
)  # fmt: skip
_DAY_US = 86_400 * 1_000_000


class RecoveryReport(msgspec.Struct, frozen=True):
    """What recovery found: groups of ended calls read, calls a crash left open (counted in full), figures restored."""

    groups: int
    unknown: int
    observations: int


class EndedGroup(NamedTuple):
    account: str
    model: str
    oldest_ns: int
    youngest_ns: int
    quarter: int
    vector: Vector


class Moment(NamedTuple):
    """Now, and the boot it belongs to (row id in ``boots``)."""

    boot: int
    boot_ns: int
    wall_ns: int


def ended_groups(connection: sqlite3.Connection, now: Moment, skew_ns: int, horizon_ns: int) -> list[EndedGroup]:
    """Ended calls that count for something, not older than the horizon. ``*_ns`` are ages: negative while lingering.

    The age of a call of an earlier boot is the wall difference, but never less than the machine has been up.
    """
    rows = connection.execute(
        f"""
        WITH ended AS (
          SELECT account, model, requests, input_tokens, output_tokens, bytes_down, bytes_up, usd_micro,
                 CASE WHEN ended_boot = :boot THEN :tick - ended_boot_ns
                      ELSE max(:wall - ended_wall_ns, :tick) END AS age,
                 (max(admitted_wall_ns, ended_wall_ns) + :skew) / {QUARTER_NS} AS quarter
          FROM calls WHERE id >= :low AND state IN ('settled', 'unknown')
        )
        SELECT account, model, max(age), min(age), quarter, sum(requests), sum(input_tokens), sum(output_tokens),
               sum(bytes_down), sum(bytes_up), sum(usd_micro), count(*)
        FROM ended WHERE age <= :horizon GROUP BY account, model, quarter, {_group_of_age()}
        """,
        {
            "boot": now.boot, "tick": now.boot_ns, "wall": now.wall_ns, "skew": skew_ns, "horizon": horizon_ns,
            "low": _lowest_id(connection, now, horizon_ns),
        },
    )  # fmt: skip
    groups = []
    for account, model, oldest, youngest, quarter, calls, tokens_in, tokens_out, down, up, usd, count in rows:
        vector = (calls, tokens_in, tokens_out, tokens_in + tokens_out, down, up, usd, count)
        groups.append(EndedGroup(account, model, oldest, youngest, quarter, vector))
    return groups


def charged_calls(connection: sqlite3.Connection, ids: list[int]) -> dict[int, tuple[str, str, Vector]]:
    """(account, model, amounts) of calls by id; ids that are not recorded are left out."""
    found = {}
    for call in ids:
        row = connection.execute(
            "SELECT account, model, requests, input_tokens, output_tokens, bytes_down, bytes_up, usd_micro, state"
            " FROM calls WHERE id = ?",
            (call,),
        ).fetchone()
        if row is not None:
            account, model, calls, tokens_in, tokens_out, down, up, usd, state = row
            count = 0 if state == "released" else 1
            found[call] = account, model, (calls, tokens_in, tokens_out, tokens_in + tokens_out, down, up, usd, count)
    return found


def stored_observations(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """(quota key, JSON) of every figure on record."""
    return connection.execute("SELECT key, data FROM observations ORDER BY key").fetchall()


def stored_ratios(connection: sqlite3.Connection) -> list[tuple[str, str, str]]:
    """(provider, model, JSON) of every learned token ratio."""
    return connection.execute("SELECT provider, model, data FROM model_stats").fetchall()


def _lowest_id(connection: sqlite3.Connection, now: Moment, horizon_ns: int) -> int:
    """Below this id nothing can count: ids are microseconds of wall time at admission, a call lasts a day at most.

    A wall clock set forward during this boot makes earlier ids look older than they are. Ids grow with boot time too,
    so one look at the row just below tells; then everything is read and the age decides.
    """
    low = (now.wall_ns - horizon_ns) // 1000 - _DAY_US
    below = connection.execute(
        "SELECT boot, admitted_boot_ns FROM calls WHERE id < ? ORDER BY id DESC LIMIT 1", (low,)
    ).fetchone()
    if below is not None and below[0] == now.boot and now.boot_ns - below[1] <= horizon_ns:
        return 0
    return max(0, low)


def _group_of_age() -> str:
    """SQL that numbers the groups; the ranges of ages get number ranges that never meet. The oldest are grouped by
    their quarter of an hour alone, which is a thousandth of 900,000 s."""
    cases = " ".join(
        f"WHEN age < {below * NS} THEN {at * 1_000_000} + age / {width}" for at, (below, width) in enumerate(_GROUPS)
    )
    return f"CASE {cases} ELSE {len(_GROUPS) * 1_000_000} END"
