"""People's scores for answers."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from hybridd.contracts import ids
from hybridd.errors import InvalidRequest

MAX_LIMIT = 1000


class FeedbackView(msgspec.Struct):
    """``score`` runs from -1 (wrong) to 1 (perfect); ``at`` is UTC seconds."""

    id: int
    at: float
    request_id: str | None
    score: float
    subject: str | None = None
    comment: str | None = None
    data: dict[str, Any] = {}


def add(
    connection: sqlite3.Connection,
    *,
    at: float,
    score: float,
    request_id: int | None = None,
    subject: str | None = None,
    comment: str | None = None,
    data: dict[str, Any] | None = None,
) -> int:
    """Store one score (inside ``writer.call``); its id."""
    row = connection.execute(
        "INSERT INTO feedback (at, request_id, score, subject, comment, data) VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
        (at, request_id, score, subject, comment, msgspec.json.encode(data or {}).decode()),
    ).fetchall()
    return int(row[0][0])


def page(
    connection: sqlite3.Connection,
    *,
    request_id: int | None = None,
    since: float | None = None,
    before_id: int | None = None,
    limit: int = 100,
) -> list[FeedbackView]:
    """Scores, newest first; ``before_id`` continues a list.

    Raises:
        InvalidRequest: a bad limit.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidRequest(f"limit must be between 1 and {MAX_LIMIT}", param="limit")
    where, parameters = ["1"], []
    for condition, value in (("request_id = ?", request_id), ("at >= ?", since), ("id < ?", before_id)):
        if value is not None:
            where.append(condition)
            parameters.append(value)
    rows = connection.execute(
        f"SELECT id, at, request_id, score, subject, comment, data FROM feedback WHERE {' AND '.join(where)}"
        " ORDER BY id DESC LIMIT ?",
        (*parameters, limit),
    )
    return [
        FeedbackView(
            number, at, None if about is None else ids.encode(about), score, subject, comment, msgspec.json.decode(data)
        )
        for number, at, about, score, subject, comment, data in rows
    ]
