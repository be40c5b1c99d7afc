"""``/v1/logs``: what the daemon has logged lately."""

from __future__ import annotations

import asyncio
from itertools import islice

import msgspec

from hybridd import logs
from hybridd.api.endpoints import Call, Endpoint
from hybridd.contracts.views import LEVELS, LogPage, LogView
from hybridd.contracts.when import parse_when
from hybridd.errors import InvalidRequest
from hybridd.logs.ring import Wanted

MOST = 1000
LONGEST_TEXT = 1000


class LogsQuery(msgspec.Struct, forbid_unknown_fields=True):
    """``level``: this one and worse. ``component``: its whole name, or the beginning up to a dot. ``contains``: a text
    anywhere in the record. Times: ``15m`` (ago), UTC seconds or ISO. ``before``: ``next`` of the page before, or the id
    of a record: only older ones."""

    level: str | None = None
    component: str | None = None
    contains: str | None = None
    since: str | None = None
    until: str | None = None
    before: int | None = None
    limit: int = 100


async def page(call: Call) -> LogPage:
    query: LogsQuery = call.query
    if query.level is not None and query.level not in LEVELS:
        raise InvalidRequest(f"'level' is one of {', '.join(LEVELS)}, not '{query.level}'.", param="level")
    if not 1 <= query.limit <= MOST:
        raise InvalidRequest(f"'limit' must be between 1 and {MOST:,}, not {query.limit}.", param="limit")
    if query.before is not None and not 1 <= query.before < 2**63:
        raise InvalidRequest(f"'before' is the id of a record, not {query.before}.", param="before")
    for name in ("component", "contains"):
        if len(getattr(query, name) or "") > LONGEST_TEXT:
            raise InvalidRequest(f"'{name}' must not be longer than {LONGEST_TEXT:,} characters.", param=name)
    now = call.services.clock.wall_ns() / 1e9
    wanted = Wanted(
        query.level, query.component, query.contains, _moment("since", query.since, now),
        _moment("until", query.until, now), query.before,
    )  # fmt: skip
    # Two thousand records of 2 MiB take some milliseconds, which belong to the calls on the loop.
    return await asyncio.to_thread(_page, wanted, query.limit)


def _page(wanted: Wanted, limit: int) -> LogPage:
    lost, records = logs.ring.lost, logs.ring.all()
    found: list[LogView] = list(islice(wanted.newest_first(records), limit + 1))
    following = found[limit - 1].id if len(found) > limit else None
    return LogPage(
        logs=found[:limit],
        next=following,
        level=logs.level(),
        kept=len(records),
        lost=lost,
        first=records[0].id if records else None,
        oldest=records[0].at if records else None,
    )


def _moment(name: str, text: str | None, now: float) -> float | None:
    try:
        return parse_when(text, now) if text is not None else None
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"'{name}': {error}.", param=name) from None


ENDPOINTS = [
    Endpoint("GET", "/v1/logs", "What the daemon has logged since it started, newest first", page, LogPage,
             query=LogsQuery),
]  # fmt: skip
