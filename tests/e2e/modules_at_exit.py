"""The real daemon, which writes the names of all its modules into ``HYBRIDD_MODULES_FILE`` when it ends.

Run like the real one: ``python -m tests.e2e.modules_at_exit serve --config FILE``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hybridd import daemon

if __name__ == "__main__":
    status = daemon.main(Path(sys.argv[sys.argv.index("--config") + 1]))
    Path(os.environ["HYBRIDD_MODULES_FILE"]).write_text("\n".join(sorted(sys.modules)), encoding="utf-8")
    sys.exit(status)
