"""The rows of the Requests screen: the daemon's filter and order, applied here to what is held."""

from __future__ import annotations

import random
import time
from collections import deque
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tui.listing import ORDERS, Listing, Page, Query, query_of
from tui.shapes import Request


def made(number: int, **more: Any) -> Request:
    fields: dict[str, Any] = {
        "id": f"req_{number:013x}", "at": 1_790_000_000.0 + number, "requested": "auto", "status": 200,
        "provider": "lab", "model": "m1", "task": "chat", "latency_ms": 5.0,
    }  # fmt: skip
    return Request(**{**fields, **more})


requests = st.builds(
    lambda number, provider, status, latency, tokens: made(
        number, provider=provider, status=status, latency_ms=latency, input_tokens=tokens,
        error_code="timeout" if status >= 400 else None,
    ),
    st.integers(0, 10_000), st.sampled_from(["lab", "groq", None]), st.sampled_from([200, 429, 503]),
    st.floats(0, 3_000_000), st.none() | st.integers(0, 50),
)  # fmt: skip
queries = st.builds(
    Query,
    st.lists(st.sampled_from(["lab", "groq", "status=4xx", "status=ok", "timeout", "provider=gr", "chat"]), max_size=2)
    .map(tuple),
    st.sampled_from(["", *ORDERS]),
    st.booleans(),
)  # fmt: skip


def daemon(rows: list[Request], query: Query, cursor: str | None, limit: int, until: float | None) -> Page:
    """What the daemon would answer: exactly its order, and a superset of the filter."""
    key, downwards = query.order()
    found = [one for one in rows if until is None or one.at < until]
    found.sort(key=key, reverse=downwards)
    start = int(cursor or 0)
    more = start + limit < len(found)
    return Page(found[start : start + limit], str(start + limit) if more else None)


@settings(max_examples=150, deadline=None)
@given(st.lists(requests, unique_by=lambda one: one.id, max_size=60), queries, st.integers(0, 60), st.integers(1, 20))
def test_pages_and_held_rows_make_the_daemons_order(
    recorded: list[Request], query: Query, held: int, limit: int
) -> None:
    """At every moment the rows are a beginning of the daemon's whole answer, and with the last page all of it."""
    recorded.sort(key=lambda one: one.at + one.latency_ms / 1000)
    newest = recorded[len(recorded) - min(held, len(recorded)) :]
    key, downwards = query.order()
    whole = sorted((one for one in recorded if query.matches(one)), key=key, reverse=downwards)
    listing = Listing()
    listing.ask(query)
    listing.hold(newest, at_top=True)
    cursor, until = None, None
    while (call := listing.next_call(limit=limit)) is not None:
        asked = parse_qs(urlsplit(call.path).query)
        until = float(asked["until"][0]) if "until" in asked else None
        page = daemon(recorded, query, cursor, limit, until)
        cursor = page.following
        listing.take(page)
        rows = listing.rows()
        if not query.newest_first:
            assert rows == whole[: len(rows)]
    assert listing.rows() == whole


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("groq", 1), ("GROQ m1", 1), ("provider=lab status=ok", 1), ("status=5", 1), ("status=failed", 2),
        ("status=4xx", 1), ("model=groq:m1", 1), ("timeout", 1), ("stream=yes", 0), ("nothing=here", 0),
        ("req_0000000000002", 1), ("", 3), ("failed", 2), ("fail timeout", 1), ("503", 1), ("cached", 0), ("ok", 1),
    ],
)  # fmt: skip
def test_words_and_fields_filter(text: str, number: int) -> None:
    """Every word stands in the row's text, or in the field it names."""
    rows = [
        made(1),
        made(2, provider="groq", status=503, error_code="timeout"),
        made(3, provider=None, model=None, status=429),
    ]
    query = query_of(text)
    assert sum(map(query.matches, rows)) == number


def test_the_daemon_is_asked_for_as_much_of_a_filter_as_it_knows() -> None:
    """The longest text becomes ``q``, a whole status ``status``; what is half typed is left to us."""
    assert query_of("lab timeout status=5xx").parameters() == {"q": "timeout", "status": "5xx"}
    assert query_of("status=5").parameters() == {}
    assert query_of("provider=gro id=req_1").parameters() == {"q": "gro"}
    assert query_of("a=b").parameters() == {"q": "a=b"}
    assert query_of("fail lab").parameters() == {"q": "lab"}, "it would pass over failed requests of another text"
    assert query_of("cached").parameters() == {}


def test_rows_that_fall_out_of_the_newest_leave_no_gap() -> None:
    """With pages loaded and the cursor below, what is pushed out of the bounded deque stays in the list."""
    recorded = [made(number) for number in range(40)]
    held: deque[Request] = deque(recorded[20:30], maxlen=10)
    listing = Listing()
    listing.hold(held, at_top=False)
    listing.take(daemon(recorded[:30], listing.query, None, 12, recorded[20].at + 0.01))
    for one in recorded[30:]:
        held.append(one)
        listing.hold(held, at_top=False)
    numbers = [int(one.id[4:], 16) for one in listing.rows()]
    assert numbers == list(range(39, 39 - len(numbers), -1))
    assert len(numbers) == 31


def test_at_the_top_pages_are_let_go() -> None:
    """Somebody who follows holds no more than the newest requests, however long it goes on."""
    held: deque[Request] = deque([made(number) for number in range(100, 110)], maxlen=10)
    listing = Listing()
    listing.hold(held, at_top=True)
    listing.take(Page([made(number) for number in range(99, 50, -1)], "x"))
    for number in range(110, 200):
        held.append(made(number))
        listing.hold(held, at_top=True)
    assert len(listing.rows()) == 10
    assert listing.more


def test_what_was_missed_while_disconnected_is_put_in_between() -> None:
    """The rows of the gap stand where they belong, and paging goes on below them."""
    listing = Listing()
    listing.hold([made(1), made(2), made(9)], at_top=True)
    listing.miss([made(number) for number in (9, 8, 7)], whole=False)
    assert [int(one.id[4:], 16) for one in listing.rows()] == [9, 8, 7, 2, 1]
    call = listing.next_call()
    assert call is not None
    assert float(parse_qs(urlsplit(call.path).query)["until"][0]) == made(7).at


def test_a_filter_over_everything_held_takes_no_time() -> None:
    """5,000 live rows and 10,000 of older pages are filtered and sorted in less than 100 ms."""
    chance = random.Random(4)
    rows = [
        made(number, provider=chance.choice(["lab", "groq", "small"]), latency_ms=chance.random() * 1000)
        for number in range(15_000)
    ]
    listing = Listing()
    listing.hold(rows[10_000:], at_top=False)
    listing.take(Page(rows[:10_000][::-1], None))
    best = 1.0
    for query in (query_of("groq status=ok"), query_of("groq", "latency_ms", backwards=True), query_of("")):
        listing.query = query
        began = time.perf_counter()
        found = listing.rows()
        best = min(best, time.perf_counter() - began)
        assert len(found) > 4000
    assert best < 0.1


def test_every_order_is_one_of_the_daemons() -> None:
    """The names the screen sorts by are exactly those that the daemon sorts by."""
    from hybridd.store.queries.requests import SORTS

    assert set(ORDERS) == set(SORTS)


def test_a_recorded_request_is_a_request() -> None:
    """The daemon's answer has every field of the rows, under the same names."""
    from hybridd.contracts.views import RequestView

    assert set(Request.__struct_fields__) <= set(RequestView.__struct_fields__)
    assert msgspec.convert({"id": "a", "at": 1.0}, Request).status == 0
