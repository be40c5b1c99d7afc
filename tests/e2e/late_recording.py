"""The negative control of the crash harness: a daemon that records a call after it ended instead of before it is sent.

Run like the real one: ``python -m tests.e2e.late_recording --config FILE``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hybridd import daemon
from hybridd.ledger import Ending, Ledger, Reservation, Settlement

_durable_dispatch = Ledger.dispatch
_settle = Ledger.settle


async def _skip(self: Ledger, reservation: Reservation) -> None:
    """Nothing is written before the call: what a gateway that counts afterwards does."""
    self.mark_dispatched(reservation)


def _record_late(self: Ledger, reservation: Reservation, ending: Ending) -> Settlement:
    self.write_dispatch(reservation)
    return _settle(self, reservation, ending)


if __name__ == "__main__":
    Ledger.dispatch = _skip  # type: ignore[method-assign]  # the fault this control injects
    Ledger.settle = _record_late  # type: ignore[method-assign]  # the fault this control injects
    sys.exit(daemon.main(Path(sys.argv[sys.argv.index("--config") + 1])))
