"""``python -m hybridd.local.plan_child``: plans models that are not on this machine, as a child of the daemon.

It reads one JSON request (:class:`Request`) from its standard input and writes one line: ``{"result":
RepositoryPlan}`` or ``{"error": …}`` (:func:`hybridd.local.child.error_line`). The exit status is 0 after a result.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from hybridd.config import loader
from hybridd.errors import HybriddError
from hybridd.local.child import error_line, read_request
from hybridd.local.named import elsewhere
from hybridd.local.planning import request_of
from hybridd.local.remote_plan import survey
from hybridd.local.types import Goal


class Request(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``repository``: what :func:`hybridd.local.named.elsewhere` takes. ``config``: the configuration file; absent: as
    the daemon finds it."""

    repository: str
    context: int | None = None
    parallel: int | None = None
    goal: Goal | None = None
    config: str | None = None


def _say(**members: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(members) + b"\n")
    sys.stdout.buffer.flush()


def main() -> int:
    """One request from standard input to its answer."""
    try:
        asked = read_request(Request)
        settings = loader.read(loader.find(Path(asked.config) if asked.config else None))
        request = request_of(settings, goal=asked.goal, context=asked.context, parallel=asked.parallel)
        _say(result=survey(elsewhere(asked.repository), settings, request))
    except HybriddError as error:
        _say(error=error_line(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
