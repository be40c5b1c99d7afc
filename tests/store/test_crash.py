"""kill -9 at any moment: whatever was acknowledged is there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from hybridd.store.queries.ledger import last_id, open_calls
from tests.store.rows import opened

ROOT = Path(__file__).resolve().parents[2]

CHILD = """
import asyncio, itertools, sys
from pathlib import Path
from tests.store.rows import dispatch, opened, settle

async def main():
    database = opened(Path(sys.argv[1]))
    numbers = itertools.count(int(sys.argv[2]))

    async def caller():
        while True:
            row = dispatch(next(numbers))
            await database.writer.dispatch(row)
            sys.stdout.write(f"{row.id}\\n")
            sys.stdout.flush()
            database.writer.settle(settle(row))

    await asyncio.gather(*(caller() for _ in range(32)))

asyncio.run(main())
"""


def _killed_after(state: Path, start: int, lines: int) -> set[int]:
    """Run a writing child, kill it hard after ``lines`` acknowledgements; every id it had acknowledged."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(state), str(start)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert child.stdout is not None
    acknowledged = []
    for line in child.stdout:
        acknowledged.append(line)
        if len(acknowledged) == lines:
            child.send_signal(signal.SIGKILL)
    child.wait(10)
    child.stdout.close()
    # The last line may be torn by the kill; it was acknowledged all the same, but cannot be read.
    return {int(line) for line in acknowledged if line.endswith("\n")}


def test_every_acknowledged_dispatch_survives_sigkill(tmp_path: Path) -> None:
    """After each of several hard kills every acknowledged row is in the database, which opens and passes its check."""
    acknowledged: set[int] = set()
    for round_, lines in enumerate((1, 500, 3000)):
        acknowledged |= _killed_after(tmp_path, round_ * 1_000_000, lines)
        database = opened(tmp_path)
        try:
            assert database.unclean
            kept = database.reader.run_now(lambda c: {i for (i,) in c.execute("SELECT id FROM calls")})
            assert acknowledged <= kept
            assert database.reader.run_now(last_id) == max(kept)
            left_open = database.reader.run_now(open_calls)
            assert left_open, "a crash under load leaves calls without an end"
            calls, rolled = database.reader.run_now(
                lambda c: c.execute(
                    "SELECT (SELECT count(*) FROM calls WHERE state = 'settled'), (SELECT sum(calls) FROM rollup_day)"
                ).fetchone()
            )
            assert calls == (rolled or 0), "rollups belong to the same transaction as the settlements they count"
        finally:
            database.close()
