"""The rows of the Requests screen: what came by itself, with older pages of the daemon under the same filter and order.

The daemon filters and sorts all that is recorded; here only its pages and the newest requests are held. A filter is
applied to what is held at once, and asked of the daemon as far as its ``q`` can express it: what it returns is a
superset that is filtered again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, takewhile
from typing import Any, Final

from hybridd.client import wire
from hybridd.client.wire import Call
from hybridd.i18n import N_, _, language
from tui.shapes import Request

PAGE = 200
MOST = 10_000
"""Rows held of older pages. Whoever wants to look further back filters."""

_SEARCHED = frozenset({"requested", "provider", "model", "task", "error_code", "client"})
_FIELDS: Final[dict[str, Callable[[Request], object]]] = {
    "id": lambda one: one.id,
    "task": lambda one: one.task,
    "requested": lambda one: one.requested,
    "provider": lambda one: one.provider,
    "model": lambda one: f"{one.provider or ''}:{one.model or ''}",
    "error_code": lambda one: one.error_code,
    "cache": lambda one: one.cache,
    "client": lambda one: one.client,
    "tier": lambda one: one.tier,
    "stream": lambda one: "yes" if one.stream else "no",
    "attempts": lambda one: one.attempts,
}


OUTCOMES: Final = (N_("failed"), N_("cached"), N_("fell back"), N_("ok"))


def outcome(request: Request) -> str:
    """How it ended, in one of :data:`OUTCOMES`."""
    if request.status >= 400:
        return OUTCOMES[0]
    if request.cache == "hit":
        return OUTCOMES[1]
    return OUTCOMES[2] if request.attempts > 1 or request.fell_back else OUTCOMES[3]


def _least(value: float | None) -> float:
    return -1.0 if value is None else value


# The daemon's sort fields; absent values come below all others there.
ORDERS: Final[dict[str, Callable[[Request], Any]]] = {
    "id": lambda one: one.id,
    "at": lambda one: one.at,
    "task": lambda one: one.task or "",
    "requested": lambda one: one.requested,
    "provider": lambda one: one.provider or "",
    "model": lambda one: one.model or "",
    "status": lambda one: one.status,
    "error_code": lambda one: one.error_code or "",
    "stream": lambda one: one.stream,
    "cache": lambda one: one.cache,
    "attempts": lambda one: one.attempts,
    "input_tokens": lambda one: _least(one.input_tokens),
    "output_tokens": lambda one: _least(one.output_tokens),
    "cost_usd": lambda one: one.cost_usd,
    "latency_ms": lambda one: one.latency_ms,
    "first_token_ms": lambda one: _least(one.first_token_ms),
    "overhead_ms": lambda one: _least(one.overhead_ms),
    "tier": lambda one: one.tier or "",
    "client": lambda one: one.client or "",
}


@dataclass(frozen=True, slots=True)
class Query:
    """``words``: each must stand in the text of a row, or is ``field=part``. ``sort``: "" is newest first."""

    words: tuple[str, ...] = ()
    sort: str = ""
    backwards: bool = False

    @property
    def newest_first(self) -> bool:
        return not self.sort

    @property
    def wire_sort(self) -> str:
        return "-id" if not self.sort else f"{'-' if self.backwards else ''}{self.sort}"

    def order(self) -> tuple[Callable[[Request], Any], bool]:
        """The key to sort by and whether downwards; the id decides between equals, as at the daemon."""
        value = ORDERS[self.sort or "id"]
        return (lambda one: (value(one), one.id)), self.backwards if self.sort else True

    def matches(self, request: Request) -> bool:
        return all(_has(request, word) for word in self.words)

    def parameters(self) -> dict[str, Any]:
        """As much of the filter as the daemon can apply."""
        found: dict[str, Any] = {}
        texts: list[str] = []
        for word in self.words:
            name, equals, part = word.partition("=")
            if equals and name == "status":
                if _whole_status(part):
                    found["status"] = part
            elif equals and name in _SEARCHED:
                texts.append(part)
            elif not (equals and name in _FIELDS) and not _may_be_outcome(word):
                texts.append(word)
        longest = max(texts, key=len, default="")
        if longest:
            found["q"] = longest
        return found


def query_of(text: str, sort: str = "", *, backwards: bool = False) -> Query:
    return Query(tuple(text.lower().split()), sort, backwards)


def _has(request: Request, word: str) -> bool:
    name, equals, part = word.partition("=")
    if equals:
        if name == "status":
            return _has_status(request.status, part)
        if name in _FIELDS:
            return part in str(_FIELDS[name](request) or "").lower()
    ended = outcome(request)
    text = (
        f"{request.requested} {request.provider or ''}:{request.model or ''} {request.task or ''} {request.status}"
        f" {request.error_code or ''} {request.client or ''} {request.id} {ended}"
    ).lower()
    return word in text or (language() != "en" and word in _(ended))


def _may_be_outcome(word: str) -> bool:
    """The daemon does not search for how a request ended; what is read in the table can be typed all the same."""
    return len(word) > 1 and any(word in one or word in _(one) for one in OUTCOMES)


def _whole_status(part: str) -> bool:
    return part in {"ok", "failed"} or (
        len(part) == 3 and (part.isdigit() or (part[0] in "12345" and part[1:] == "xx"))
    )


def _has_status(status: int, part: str) -> bool:
    """Every beginning of what may be written counts: it is narrowed while it is typed."""
    if part and part.isalpha():
        return ("ok" if status < 400 else "failed").startswith(part)
    return str(status).startswith(part.rstrip("x"))


@dataclass(slots=True)
class Page:
    """One answer of ``/v1/requests``."""

    rows: Sequence[Request]
    following: str | None


@dataclass(slots=True)
class Listing:
    """``more``: the daemon may have further rows; ``asked``: it has answered for this query. ``generation`` counts the
    queries: an answer to an earlier one is thrown away."""

    query: Query = field(default_factory=Query)
    generation: int = 0
    more: bool = True
    asked: bool = False
    _pages: dict[str, Request] = field(default_factory=dict)
    _last: Request | None = None
    _cursor: str | None = None
    _held: list[Request] = field(default_factory=list)
    _missed: dict[str, Request] = field(default_factory=dict)
    _missed_until: float = 0.0

    def ask(self, query: Query) -> None:
        if query != self.query:
            self.query = query
            self.restart()

    def restart(self) -> None:
        """Forgets the pages."""
        self.generation += 1
        self.more, self.asked = True, False
        self._pages, self._last, self._cursor = {}, None, None

    @property
    def full(self) -> bool:
        return len(self._pages) >= MOST

    def hold(self, held: Iterable[Request], *, at_top: bool) -> None:
        """The newest requests are these now, oldest first. What fell out of them stays while it would leave a gap
        before the pages; without a filter and with the cursor ``at_top``, the pages go instead."""
        before, self._held = self._held, list(held)
        if not self.asked or not before or not self._held or before[0].id == self._held[0].id:
            return
        if at_top and not self.query.words and self.query.newest_first:
            self.restart()
            return
        first = self._held[0].id
        self.keep(takewhile(lambda one: one.id != first, before))

    def keep(self, rows: Iterable[Request]) -> None:
        """These belong between the newest ones and the pages."""
        self._pages |= {one.id: one for one in rows if self.query.matches(one)}

    def miss(self, rows: Sequence[Request], *, whole: bool) -> None:
        """These ended while there was no connection, newest first; not ``whole``: and older ones that are not known."""
        self._missed |= {one.id: one for one in rows}
        if rows and not whole:
            self._missed_until = rows[-1].at
            self.restart()

    def rows(self) -> list[Request]:
        """What matches, in order, as far as it is certain that nothing is missing in between."""
        matches = self.query.matches
        known = {one.id: one for one in chain(self._pages.values(), self._missed.values(), self._held)}
        found = [one for one in known.values() if matches(one)] if self.query.words else list(known.values())
        key, downwards = self.query.order()
        found.sort(key=key, reverse=downwards)
        if self.more and self._last is not None and not self.query.newest_first:
            end = key(self._last)
            found = [one for one in found if (key(one) >= end if downwards else key(one) <= end)]
        return found

    def next_call(self, as_of: float | None = None, limit: int = PAGE) -> Call | None:
        """The query for the following page; None: there is none, or enough is held."""
        if not self.more or self.full:
            return None
        until = as_of
        if self._cursor is None and self.query.newest_first and self._held:
            # Whatever began after the first of these ended has ended later still, and came by itself.
            first = self._held[0]
            until = max(first.at + first.latency_ms / 1000 + 0.001, self._missed_until)
            self._forget_missed(first.at)
        return wire.get(
            "/v1/requests", sort=self.query.wire_sort, limit=limit, cursor=self._cursor, until=until,
            **self.query.parameters(),
        )  # fmt: skip

    def _forget_missed(self, before: float) -> None:
        """The pages have what is older than this."""
        self._missed = {key: one for key, one in self._missed.items() if one.at >= before}

    def take(self, page: Page) -> None:
        """The answer to :meth:`next_call`."""
        self.asked = True
        self._cursor = page.following
        self.more = page.following is not None
        if page.rows:
            self._last = page.rows[-1]
        self.keep(page.rows)

    @property
    def reached(self) -> float | None:
        """How far back the daemon has been searched (UTC seconds)."""
        return self._last.at if self._last is not None else None
