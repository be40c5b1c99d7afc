"""What the stream does not say, asked once after connecting and again after events that may have changed it.

Nothing polls: without events nothing is asked. Answers come back as events (:func:`tui.events.answer`), so that a
recording holds them too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from hybridd.client import wire
from hybridd.client.wire import Call
from tui.events import Event

RECENT = 200
LEAST_SECONDS = {"today": 20.0, "month": 20.0, "requests": 1.0, "alerts": 1.0, "resident": 1.0, "jobs": 1.0,
                 "library": 1.0}  # fmt: skip
"""At most one query of a name in so many seconds. Costs are counted up by each request; the daemon's own figure only
corrects them."""

ON_DEMAND = frozenset({"library"})
"""Asked by the screen that shows it: the daemon looks into its folders for it."""

_LOCAL = frozenset({"local", "llama_cpp"})


def _midnight(now: float) -> datetime:
    return datetime.fromtimestamp(now).replace(hour=0, minute=0, second=0, microsecond=0)


QUERIES: dict[str, Callable[[float], Call]] = {
    "requests": lambda now: wire.get("/v1/requests", limit=RECENT),
    "alerts": lambda now: wire.get("/v1/alerts", state="live"),
    "resident": lambda now: wire.get("/v1/local/resident"),
    "jobs": lambda now: wire.get("/v1/local/jobs"),
    "library": lambda now: wire.get("/v1/local/models"),
    "today": lambda now: wire.get("/v1/usage", since=_midnight(now).timestamp()),
    "month": lambda now: wire.get("/v1/usage", since=_midnight(now).replace(day=1).timestamp()),
}


BURN_HISTORY_SECONDS = 3600.0
BURN_STEP_SECONDS = 60.0


def burn(key: str, now: float) -> Call:
    """What remained of a quota in the last hour, minute by minute; its answer is named ``burn``."""
    series = f"quota.{key}.remaining"
    return wire.get("/v1/history", series=series, since=now - BURN_HISTORY_SECONDS, step=BURN_STEP_SECONDS)


def wanted_after(events: Iterable[Event]) -> set[str]:
    """The queries whose answers these events may have made old."""
    wanted: set[str] = set()
    for event in events:
        if event.kind == "snapshot":
            return set(QUERIES) - ON_DEMAND
        if event.kind == "request":
            wanted |= {"today", "month"}
        elif event.kind in {"provider", "plugin"} and str(event.data.get("key", "")).partition(":")[0] in _LOCAL:
            wanted.add("resident")
    return wanted
