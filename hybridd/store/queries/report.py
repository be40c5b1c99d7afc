"""Usage, cost and trend from the rollups: the work grows with hours and days, never with calls.

Only grouping by client reads the requests of the period themselves, because no rollup knows clients.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import msgspec

from hybridd.errors import InvalidRequest
from hybridd.store.queries.requests import ID_MARGIN_US

Group = Literal["provider", "model", "task", "client", "day", "hour"]
GROUPS: tuple[Group, ...] = get_args(Group)

_HOUR = 3600
_DAY = 86_400
_SUMMED = (
    "requests", "cache_hits", "failed_requests", "calls", "failed_calls", "input_tokens", "output_tokens", "bytes_down",
    "bytes_up", "usd_micro", "latency_us_sum", "first_token_us_sum", "first_token_count",
)  # fmt: skip
_COLUMNS = ", ".join(f"sum({name})" for name in _SUMMED) + ", max(latency_us_max)"
_REQUESTS = (
    "SELECT provider, model, task, coalesce(client, '') AS client, at_wall_ns / 1000000000 AS at, 1 AS requests,"
    " cache = 'hit' AS cache_hits, status >= 400 AS failed_requests, attempts AS calls, NULL AS failed_calls,"
    " CASE cache WHEN 'hit' THEN 0 ELSE coalesce(input_tokens, 0) END AS input_tokens,"
    " CASE cache WHEN 'hit' THEN 0 ELSE coalesce(output_tokens, 0) END AS output_tokens,"
    " NULL AS bytes_down, NULL AS bytes_up, usd_micro, latency_us AS latency_us_sum, latency_us AS latency_us_max,"
    " coalesce(first_token_us, 0) AS first_token_us_sum, first_token_us IS NOT NULL AS first_token_count"
    " FROM requests WHERE id >= ? AND at_wall_ns >= ? AND at_wall_ns < ?"
)
_TRENDS = {
    "requests": "requests",
    "cost_usd": "cost",
    "input_tokens": "input tokens",
    "output_tokens": "output tokens",
    "latency_ms": "mean latency",
    "failed_requests": "failures",
}


class ReportQuery(msgspec.Struct, frozen=True):
    """What to report. ``since`` and ``until`` are UTC seconds and are widened to whole hours (not by client); without
    ``since`` the last ``days`` days count, without ``until`` everything up to now. ``trend``: compare with the period
    before."""

    group_by: tuple[Group, ...] = ("provider", "model")
    since: float | None = None
    until: float | None = None
    days: float = 30.0
    provider: str | None = None
    model: str | None = None
    task: str | None = None
    trend: bool = True


def report(connection: sqlite3.Connection, query: ReportQuery, now: float) -> dict[str, Any]:
    """``{since, until, group_by, rows, total, previous, trend}``.

    Each row has the fields grouped by (``day`` as 2026-11-20, ``hour`` as 2026-11-20T13:00Z, both UTC) and:
    ``requests, cache_hits, failed_requests, calls, failed_calls, input_tokens, output_tokens, bytes_down, bytes_up,
    cost_usd, latency_ms`` (mean), ``latency_max_ms, first_token_ms`` (mean; None without streams).
    ``previous`` is the total of the equally long period before and ``trend`` maps each main figure to
    ``{now, before, change}`` (``change`` 0.25 is a quarter more, None when there was nothing before) plus a
    ``summary`` sentence.

    By client the period is exact, tokens and money are those of the answers, ``calls`` counts every attempt, and
    ``failed_calls, bytes_down, bytes_up`` are None: requests do not hold them.

    Raises:
        InvalidRequest: an unknown group, or a period that ends before it begins.
    """
    _check(query)
    since, until = _period(query, now)
    read = _rows
    if "client" in query.group_by:
        read = _rows_of_requests
    else:
        since, until = float(since // _HOUR * _HOUR), float(-(-until // _HOUR) * _HOUR)
    filters = {name: getattr(query, name) for name in ("provider", "model", "task") if getattr(query, name)}
    rows = read(connection, since, until, query.group_by, filters)
    total = _one(read(connection, since, until, (), filters))
    answer: dict[str, Any] = {
        "since": since,
        "until": until,
        "group_by": list(query.group_by),
        "rows": rows,
        "total": total,
    }
    if query.trend:
        before = _one(read(connection, since - (until - since), since, (), filters))
        answer["previous"] = before
        answer["trend"] = trend(total, before, until - since)
    return answer


def usage(connection: sqlite3.Connection, query: ReportQuery, now: float) -> dict[str, Any]:
    """The totals of a period and the same by provider: ``{since, until, total, providers}``."""
    grouped = report(connection, msgspec.structs.replace(query, group_by=("provider",), trend=False), now)
    return {
        "since": grouped["since"],
        "until": grouped["until"],
        "total": grouped["total"],
        "providers": grouped["rows"],
    }


def trend(now: Mapping[str, Any], before: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """How the main figures of two equally long periods compare."""
    answer: dict[str, Any] = {}
    said: list[str] = []
    for name, title in _TRENDS.items():
        new, old = now[name] or 0, before[name] or 0
        change = (new - old) / old if old else None
        answer[name] = {"now": new, "before": old, "change": change}
        if change is not None:
            said.append(f"{title} {change:+.0%}")
    length = f"{round(seconds / _DAY, 1):g} days" if seconds >= 2 * _DAY else f"{seconds / _HOUR:g} hours"
    answer["summary"] = f"{', '.join(said)} against the {length} before" if said else f"nothing in the {length} before"
    return answer


def _check(query: ReportQuery) -> None:
    for name in query.group_by:
        if name not in GROUPS:
            raise InvalidRequest(f"cannot group by {name!r}; known: {', '.join(GROUPS)}", param="group_by")
    if len(set(query.group_by)) != len(query.group_by):
        raise InvalidRequest("group_by names a field twice", param="group_by")


def _period(query: ReportQuery, now: float) -> tuple[float, float]:
    end = now if query.until is None else query.until
    start = end - query.days * _DAY if query.since is None else query.since
    for name, value in (("since", start), ("until", end)):
        if not 0 <= value < 1e11:
            raise InvalidRequest(f"{name} must be UTC seconds since 1970, not {value}", param=name)
    if start >= end:
        raise InvalidRequest("the period ends before it begins: 'since' must be earlier than 'until'", param="since")
    return start, end


def _rows(
    connection: sqlite3.Connection, start: float, end: float, groups: Sequence[Group], filters: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Whole days come from ``rollup_day``, the hours around them (or all, grouped by hour) from ``rollup_hour``."""
    since, until = max(int(start), 0), int(end)
    first_day, last_day = -(-since // _DAY), until // _DAY
    if "hour" in groups or first_day >= last_day:
        ranges = [("rollup_hour", since // _HOUR, until // _HOUR, _HOUR)]
    else:
        ranges = [
            ("rollup_day", first_day, last_day, _DAY),
            ("rollup_hour", since // _HOUR, first_day * 24, _HOUR),
            ("rollup_hour", last_day * 24, until // _HOUR, _HOUR),
        ]
    where = "".join(f" AND {name} = ?" for name in filters)
    parts, parameters = [], []
    for table, first, last, seconds in ranges:
        if first < last:
            parts.append(f"SELECT *, period * {seconds} AS at FROM {table} WHERE period >= ? AND period < ?{where}")
            parameters += [first, last, *filters.values()]
    return _grouped(connection, " UNION ALL ".join(parts), parameters, groups)


def _rows_of_requests(
    connection: sqlite3.Connection, start: float, end: float, groups: Sequence[Group], filters: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Each request as a rollup of one. Ids are times: what is older than the period is not read."""
    where = "".join(f" AND {name} = ?" for name in filters)
    earliest = max(0, round(start * 1e6) - ID_MARGIN_US)
    parameters = [earliest, round(start * 1e6) * 1000, round(end * 1e6) * 1000, *filters.values()]
    return _grouped(connection, f"{_REQUESTS}{where}", parameters, groups)


def _grouped(
    connection: sqlite3.Connection, source: str, parameters: Iterable[Any], groups: Sequence[Group]
) -> list[dict[str, Any]]:
    expressions = {"day": f"at / {_DAY}", "hour": f"at / {_HOUR}"}
    keys = [expressions.get(name, name) for name in groups]
    grouped = f" GROUP BY {', '.join(keys)} ORDER BY {', '.join(keys)}" if keys else ""
    found = connection.execute(f"SELECT {', '.join([*keys, _COLUMNS])} FROM ({source}){grouped}", tuple(parameters))
    return [_row(groups, row) for row in found if row[len(groups)] is not None]


def _row(groups: Sequence[Group], values: Sequence[Any]) -> dict[str, Any]:
    row: dict[str, Any] = {name: _label(name, value) for name, value in zip(groups, values, strict=False)}
    (
        requests, cache_hits, failed_requests, calls, failed_calls, input_tokens, output_tokens, bytes_down, bytes_up,
        usd_micro, latency_us, first_token_us, first_tokens, latency_max_us,
    ) = values[len(groups) :]  # fmt: skip
    row |= {
        "requests": requests,
        "cache_hits": cache_hits,
        "failed_requests": failed_requests,
        "calls": calls,
        "failed_calls": failed_calls,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "bytes_down": bytes_down,
        "bytes_up": bytes_up,
        "cost_usd": usd_micro / 1e6,
        "latency_ms": latency_us / requests / 1e3 if requests else None,
        "latency_max_ms": latency_max_us / 1e3 if requests else None,
        "first_token_ms": first_token_us / first_tokens / 1e3 if first_tokens else None,
    }
    return row


def _label(group: Group, value: Any) -> Any:
    if group == "day":
        return datetime.fromtimestamp(value * _DAY, UTC).strftime("%Y-%m-%d")
    if group == "hour":
        return datetime.fromtimestamp(value * _HOUR, UTC).strftime("%Y-%m-%dT%H:%MZ")
    return value or None


def _one(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return rows[0] if rows else _row((), (0,) * (len(_SUMMED) + 1))
