"""A daemon in a hurry: the real one with the plugin side's delays shortened, so that tests of timeouts do not wait.

Run like the real one: ``python -m tests.e2e.hasty serve --config FILE``.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from hybridd import daemon
from hybridd.api import peer, respond
from hybridd.providers import SpawnContext, Timing

TIMING = Timing(
    initialize=1.0,
    start=6.0,
    heartbeat=1.0,
    deadline_grace=0.1,
    cancel=0.3,
    abandon=0.6,
    backoff_first=0.05,
    backoff_max=0.2,
    drain=10.0,
    stop=1.0,
)
BODY_SILENCE_SECONDS = 0.4

if __name__ == "__main__":
    vars(daemon)["SpawnContext"] = functools.partial(SpawnContext, timing=TIMING)
    respond.BODY_SILENCE_SECONDS = BODY_SILENCE_SECONDS
    peer.PeerProtocol.head_seconds = BODY_SILENCE_SECONDS
    sys.exit(daemon.main(Path(sys.argv[sys.argv.index("--config") + 1])))
