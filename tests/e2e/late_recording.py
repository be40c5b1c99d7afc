"""The negative control of the crash harness: a daemon that records a call after it ended instead of before it is sent.

Run like the real one: ``python -m tests.e2e.late_recording --config FILE``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hybridd import daemon
from hybridd.ledger import Ending, Ledger, Reservation, Settlement
from hybridd.ledger.lines import dispatch_row

_settle = Ledger.settle


async def _skip(self: Ledger, call: Reservation) -> None:
    """Nothing is written before the call: what a gateway that counts afterwards does."""
    counters = call.binding.counters
    call.marks = counters, [counter.mark(call.admitted_boot_ns) for counter in counters]
    call.state = "dispatched"


def _record_late(self: Ledger, call: Reservation, ending: Ending) -> Settlement:
    self._writer.dispatch(dispatch_row(call, self._database.boot))
    return _settle(self, call, ending)


if __name__ == "__main__":
    Ledger.dispatch = _skip  # type: ignore[method-assign]  # the fault this control injects
    Ledger.settle = _record_late  # type: ignore[method-assign]  # the fault this control injects
    sys.exit(daemon.main(Path(sys.argv[sys.argv.index("--config") + 1])))
