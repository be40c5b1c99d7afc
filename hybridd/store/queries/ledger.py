"""What the ledger needs to rebuild admission from the rows at start, or when a quota is added.

Every function reads ``calls`` by ranges of its primary key. Ids are microseconds of wall time at admission, made
monotone, so a period of time is a range of ids, widened by the longest call (a call that ended inside the period may
have been admitted before it) and by how far the wall clock was seen to step since.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from hybridd.store.rows import DispatchRow

# No call lives longer than this: the upper bound of `timeout_seconds` and of every deadline.
LONGEST_CALL_SECONDS = 24 * 3600.0


class EndedCalls(NamedTuple):
    """Ended calls that count, one or several of the same account and model.

    Several are coalesced only when asked for: amounts are then sums, ``ended_*`` and ``first_byte_boot_ns`` the latest
    and ``admitted_wall_ns`` the earliest, so that nothing expires too early. ``boot`` is the row id of the boot that
    ``ended_boot_ns`` and ``first_byte_boot_ns`` belong to. ``first_byte_boot_ns`` is None when any of them has none.
    """

    account: str
    model: str
    boot: int
    ended_boot_ns: int
    ended_wall_ns: int
    admitted_wall_ns: int
    first_byte_boot_ns: int | None
    requests: int
    input_tokens: int
    output_tokens: int
    bytes_down: int
    bytes_up: int
    usd_micro: int


class CalendarSum(NamedTuple):
    """What one account and model used in a period."""

    account: str
    model: str
    requests: int
    input_tokens: int
    output_tokens: int
    bytes_down: int
    bytes_up: int
    usd_micro: int


class BootRow(NamedTuple):
    """A boot of the machine, with a pair of readings of both clocks taken early in it."""

    id: int
    boot_id: str
    first_wall_ns: int
    first_boot_ns: int


def boots(connection: sqlite3.Connection) -> dict[int, BootRow]:
    """Every recorded boot by its row id."""
    rows = connection.execute("SELECT id, boot_id, first_wall_ns, first_boot_ns FROM boots ORDER BY id")
    return {row[0]: BootRow(*row) for row in rows}


def last_id(connection: sqlite3.Connection) -> int:
    """The highest id ever given to a call or request that was recorded; 0 for none. New ids must lie above it."""
    (value,) = connection.execute(
        "SELECT max(coalesce((SELECT max(id) FROM calls), 0), coalesce((SELECT max(id) FROM requests), 0))"
    ).fetchone()
    return int(value)


def open_calls(connection: sqlite3.Connection) -> list[DispatchRow]:
    """Calls still ``dispatched``, oldest first: after a start, those that a crash left without an end."""
    columns = ", ".join(DispatchRow._fields)
    rows = connection.execute(f"SELECT {columns} FROM calls WHERE state = 'dispatched' ORDER BY id")
    return [DispatchRow(*row) for row in rows]


def _lowest_id(connection: sqlite3.Connection, wall_ns: int, longest_seconds: float) -> int:
    """Below this id no call can have ended at or after ``wall_ns`` of today's wall clock.

    When the wall clock was set forward during the present boot, ids from before that step are too small by the step;
    the runs of this boot hold both clocks and so tell how large it was.
    """
    row = connection.execute(
        "SELECT max(started_wall_ns - started_boot_ns) - min(started_wall_ns - started_boot_ns)"
        " FROM runs WHERE boot = (SELECT boot FROM runs ORDER BY id DESC LIMIT 1)"
    ).fetchone()
    stepped_ns = int(row[0] or 0)
    return max(0, (wall_ns - stepped_ns) // 1000 - round(longest_seconds * 1e6))


def ended_since(
    connection: sqlite3.Connection,
    wall_ns_cutoff: int,
    *,
    boot: int | None = None,
    boot_ns_cutoff: int | None = None,
    bucket_ns: int = 0,
    longest_seconds: float = LONGEST_CALL_SECONDS,
) -> Iterator[EndedCalls]:
    """Calls that ended at or after the cut-off and count for something.

    Args:
        wall_ns_cutoff: UTC nanoseconds; decides for calls of other boots (and for all when ``boot`` is None).
        boot, boot_ns_cutoff: the present boot; its calls are taken by the boot clock *or* the wall clock, whichever
            still holds them, so that a stepped wall clock loses none.
        bucket_ns: coalesce calls of the same account, model and boot whose ends fall into the same bucket of this many
            nanoseconds; 0 yields one row for each call.
        longest_seconds: bound of a call's duration, for the range of ids.

    The rows are streamed: consume them before the connection is used for anything else.
    """
    lowest = _lowest_id(connection, wall_ns_cutoff, longest_seconds)
    parameters = {"low": lowest, "wall": wall_ns_cutoff, "boot": boot, "tick": boot_ns_cutoff, "bucket": bucket_ns}
    where = (
        "WHERE id >= :low AND state NOT IN ('dispatched', 'released')"
        " AND (ended_wall_ns >= :wall OR (ended_boot = :boot AND ended_boot_ns >= :tick))"
    )
    if bucket_ns <= 0:
        sql = (
            "SELECT account, model, ended_boot, ended_boot_ns, ended_wall_ns, admitted_wall_ns,"
            " CASE WHEN boot = ended_boot THEN first_byte_boot_ns END,"
            f" requests, input_tokens, output_tokens, bytes_down, bytes_up, usd_micro FROM calls {where} ORDER BY id"
        )
    else:
        sql = (
            "SELECT account, model, ended_boot, max(ended_boot_ns), max(ended_wall_ns), min(admitted_wall_ns),"
            " CASE WHEN count(first_byte_boot_ns) = count(*) AND min(boot = ended_boot)"
            " THEN max(first_byte_boot_ns) END,"
            " sum(requests), sum(input_tokens), sum(output_tokens), sum(bytes_down), sum(bytes_up), sum(usd_micro)"
            f" FROM calls {where} GROUP BY account, model, ended_boot, ended_boot_ns / :bucket"
        )
    for row in connection.execute(sql, parameters):
        yield EndedCalls(*row)


def calendar_sums(
    connection: sqlite3.Connection,
    start_wall_ns: int,
    end_wall_ns: int,
    *,
    skew_ns: int = 0,
    longest_seconds: float = LONGEST_CALL_SECONDS,
) -> list[CalendarSum]:
    """Sums of ended calls that touch ``[start, end)`` with ``[admission - skew, e + skew]``, by account and model.

    Calls still open are not in it: the ledger holds those itself.
    """
    lowest = _lowest_id(connection, start_wall_ns - skew_ns, longest_seconds)
    rows = connection.execute(
        "SELECT account, model, sum(requests), sum(input_tokens), sum(output_tokens), sum(bytes_down),"
        " sum(bytes_up), sum(usd_micro) FROM calls"
        " WHERE id >= ? AND state NOT IN ('dispatched', 'released')"
        " AND ended_wall_ns >= ? AND admitted_wall_ns < ? GROUP BY account, model",
        (lowest, start_wall_ns - skew_ns, end_wall_ns + skew_ns),
    )
    return [CalendarSum(*row) for row in rows]
