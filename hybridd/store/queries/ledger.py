"""What the ledger asks the rows at start: which calls a crash left open, and the last id given."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from hybridd.store.rows import DispatchRow


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
