"""Recorded requests: a page of them, filtered and sorted, and one with its decision and its calls."""

from __future__ import annotations

import base64
import binascii
import json
import sqlite3
from typing import Any, Final

import msgspec

from hybridd.contracts import ids
from hybridd.contracts.views import AttemptView, ModelChoice, RequestView
from hybridd.errors import InvalidRequest

MAX_LIMIT: Final = 1000
# What a page can be sorted by: the field of the answer → its column. Absent values sort below all others.
SORTS: Final[dict[str, str]] = {
    "id": "id",
    "at": "at_wall_ns",
    "task": "task",
    "requested": "requested",
    "provider": "provider",
    "model": "model",
    "status": "status",
    "error_code": "coalesce(error_code, '')",
    "stream": "stream",
    "cache": "cache",
    "attempts": "attempts",
    "input_tokens": "coalesce(input_tokens, -1)",
    "output_tokens": "coalesce(output_tokens, -1)",
    "cost_usd": "usd_micro",
    "latency_ms": "latency_us",
    "first_token_ms": "coalesce(first_token_us, -1)",
    "overhead_ms": "coalesce(overhead_us, -1)",
    "tier": "coalesce(tier, '')",
    "client": "coalesce(client, '')",
}
_COLUMNS = (
    "id, at_wall_ns, task, requested, provider, model, status, error_code, stream, cache, attempts, input_tokens,"
    " output_tokens, usd_micro, latency_us, first_token_us, overhead_us, tier, client"
)
# One by one: putting them together for each row took 2.5 times as long over 100,000 rows as looking into each.
_SEARCHED = ("requested", "provider || ':' || model", "task", "error_code", "client", "status")
# A request is recorded with the wall time of its start; its id was made within this of it, or later.
ID_MARGIN_US = 3_600_000_000


class RequestFilter(msgspec.Struct, frozen=True):
    """Which requests. ``status``: a number, ``4xx``/``5xx``, ``ok`` (below 400) or ``failed``. ``q``: text found in
    what was asked for, who answered, task, status, error code, client or id. ``sort``: a field of the answer, ``-`` in
    front for descending. ``since`` and ``until`` are UTC seconds. ``cursor``: ``next`` of the page before."""

    provider: str | None = None
    model: str | None = None
    task: str | None = None
    status: str | int | None = None
    since: float | None = None
    until: float | None = None
    q: str | None = None
    sort: str = "-id"
    limit: int = 50
    cursor: str | None = None


class RequestPage(msgspec.Struct):
    """``next`` is None on the last page."""

    requests: list[RequestView]
    next: str | None


def page(connection: sqlite3.Connection, query: RequestFilter) -> RequestPage:
    """One page, found by its place in the order (never by an offset): rows added meanwhile shift nothing.

    Raises:
        InvalidRequest: an unknown sort field, a bad status, limit or cursor; ``param`` names it.
    """
    field = query.sort.removeprefix("-")
    if field not in SORTS:
        raise InvalidRequest(f"cannot sort by {field!r}; known: {', '.join(SORTS)}", param="sort")
    if not 1 <= query.limit <= MAX_LIMIT:
        raise InvalidRequest(f"limit must be between 1 and {MAX_LIMIT}", param="limit")
    descending = query.sort.startswith("-")
    column = SORTS[field]
    where, parameters = _where(query)
    if query.cursor is not None:
        where.append(f"({column}, id) {'<' if descending else '>'} (?, ?)")
        parameters += _read_cursor(query)
    direction = "DESC" if descending else "ASC"
    order = f"id {direction}" if field == "id" else f"{column} {direction}, id {direction}"
    rows = connection.execute(
        f"SELECT {_COLUMNS}, {column} FROM requests{' WHERE ' if where else ''}{' AND '.join(where)}"
        f" ORDER BY {order} LIMIT ?",
        (*parameters, query.limit + 1),
    ).fetchall()
    more = len(rows) > query.limit
    del rows[query.limit :]
    following = _cursor(query.sort, rows[-1][-1], rows[-1][0]) if more else None
    views = [_view(row) for row in rows]
    _say_fallbacks(connection, {row[0]: view for row, view in zip(rows, views, strict=True)})
    return RequestPage(views, following)


def _say_fallbacks(connection: sqlite3.Connection, views: dict[int, RequestView]) -> None:
    """Why the last candidate that was passed over did not answer, as the live event says it."""
    rows = connection.execute(
        "SELECT request_id, json_extract(choice, '$.rejected[#-1].reason') FROM choices WHERE request_id IN"
        f" ({', '.join('?' * len(views))})",
        list(views),
    )
    for request_id, reason in rows:
        views[request_id].fell_back = reason


def one(connection: sqlite3.Connection, request_id: int) -> RequestView | None:
    """A request with its decision and every call made for it; None when it is not recorded."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM requests WHERE id = ?", (request_id,)).fetchone()
    if row is None:
        return None
    view = _view(row)
    chosen = connection.execute("SELECT choice FROM choices WHERE request_id = ?", (request_id,)).fetchone()
    if chosen is not None:
        view.choice = msgspec.json.decode(chosen[0], type=ModelChoice)
    view.calls = calls_of(connection, request_id, row[14])
    said = connection.execute("SELECT score FROM feedback WHERE request_id = ? ORDER BY id DESC LIMIT 1", (request_id,))
    view.score = next((float(score) for (score,) in said), None)
    return view


def calls_of(connection: sqlite3.Connection, request_id: int, latency_us: int) -> list[AttemptView]:
    """The calls of a request, in order. They were admitted while it ran, so their ids lie within its duration."""
    rows = connection.execute(
        "SELECT id, provider, model, state, admitted_wall_ns, ended_wall_ns, error_code, reported, input_tokens,"
        " output_tokens, usd_micro FROM calls WHERE id > ? AND id < ? AND request_id = ? ORDER BY id LIMIT 100",
        (request_id, request_id + latency_us + 60_000_000, request_id),
    )
    return [
        AttemptView(
            call_id=call,
            candidate=f"{provider}:{model}",
            state=state,
            started=admitted / 1e9,
            duration_ms=max(0, (ended or admitted) - admitted) / 1e6,
            error_code=error,
            input_tokens=tokens_in if reported else None,
            output_tokens=tokens_out if reported else None,
            cost_usd=usd / 1e6,
        )
        for call, provider, model, state, admitted, ended, error, reported, tokens_in, tokens_out, usd in rows
    ]


def _where(query: RequestFilter) -> tuple[list[str], list[Any]]:
    where: list[str] = []
    parameters: list[Any] = []
    for name in ("provider", "model", "task"):
        if (value := getattr(query, name)) is not None:
            where.append(f"{name} = ?")
            parameters.append(value)
    if query.status is not None:
        where.append(_status(str(query.status)))
    if query.since is not None:
        where.append("id >= ? AND at_wall_ns >= ?")
        since_us = _micros("since", query.since)
        parameters += [max(0, since_us - ID_MARGIN_US), since_us * 1000]
    if query.until is not None:
        where.append("at_wall_ns < ?")
        parameters.append(_micros("until", query.until) * 1000)
    if query.q:
        parts = [f"{column} LIKE ? ESCAPE '\\'" for column in _SEARCHED]
        where.append(f"({' OR '.join([*parts, 'id = ?'])})")
        escaped = query.q.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        parameters += [*[f"%{escaped}%"] * len(parts), _id_or_none(query.q)]
    return where, parameters


def _micros(name: str, seconds: float) -> int:
    """Rounded: seconds since 1970 as a float are exact to a quarter of a microsecond, not to the nanosecond."""
    if not 0 <= seconds < 1e11:
        raise InvalidRequest(f"{name} must be UTC seconds since 1970, not {seconds}", param=name)
    return round(seconds * 1e6)


def _status(text: str) -> str:
    text = text.strip().lower()
    if text.isdigit() and len(text) == 3:
        return f"status = {int(text)}"
    if len(text) == 3 and text[0] in "12345" and text[1:] == "xx":
        return f"status / 100 = {text[0]}"
    if text in ("ok", "failed"):
        return f"status {'<' if text == 'ok' else '>='} 400"
    raise InvalidRequest(f"status {text!r} is neither a number nor one of 4xx, 5xx, ok, failed", param="status")


def _id_or_none(text: str) -> int | None:
    try:
        return ids.decode(text)
    except ValueError:
        return None


def _cursor(sort: str, value: Any, request_id: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([sort, value, request_id]).encode()).decode().rstrip("=")


def _read_cursor(query: RequestFilter) -> list[Any]:
    text = query.cursor or ""
    try:
        sort, value, request_id = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, TypeError, binascii.Error):
        sort = value = request_id = None
    if sort != query.sort or type(request_id) is not int or not isinstance(value, int | str):
        raise InvalidRequest("the cursor is not one that this list, sorted like this, has given out", param="cursor")
    return [value, request_id]


def _view(row: tuple[Any, ...]) -> RequestView:
    (
        request_id, at, task, requested, provider, model, status, error_code, stream, cache, attempts, input_tokens,
        output_tokens, usd, latency, first_token, overhead, tier, client,
    ) = row[:19]  # fmt: skip
    return RequestView(
        id=ids.encode(request_id), at=at / 1e9, task=task or None, requested=requested, provider=provider or None,
        model=model or None, status=status, error_code=error_code, stream=bool(stream), cache=cache, attempts=attempts,
        input_tokens=input_tokens, output_tokens=output_tokens, cost_usd=usd / 1e6, latency_ms=latency / 1e3,
        first_token_ms=None if first_token is None else first_token / 1e3,
        overhead_ms=None if overhead is None else overhead / 1e3, tier=tier, client=client,
    )  # fmt: skip
