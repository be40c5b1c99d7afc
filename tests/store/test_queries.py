"""Reports, pages of requests, history, alerts, feedback, remembered state."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from typing import Any

import pytest

from hybridd.contracts import ids
from hybridd.contracts.views import AlertView
from hybridd.errors import InvalidRequest
from hybridd.store.database import Database
from hybridd.store.queries import alerts, feedback, samples, state
from hybridd.store.queries.report import ReportQuery, report, usage
from hybridd.store.queries.requests import SORTS, RequestFilter, one, page
from tests.store.rows import T0_US, dispatch, request, settle, within

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
T0 = T0_US / 1e6


async def _record(database: Database, number: int, *, ended: dict[str, Any] | None = None, **fields: Any) -> None:
    """One request with one settled call."""
    names = {name: fields[name] for name in ("provider", "model", "task") if name in fields}
    row = dispatch(number + 1, request_id=T0_US + number, **names)
    await within(5, database.writer.dispatch(row))
    database.writer.settle(settle(row, **(ended or {})))
    database.writer.request(request(number, **fields))


async def test_report_groups_filters_and_totals(database: Database) -> None:
    """Rows are summed by the fields asked for, narrowed by the filters, with money in dollars and mean latency."""
    await _record(database, 0, latency_us=1_000_000, ended={"usd_micro": 100})
    await _record(database, 10, latency_us=3_000_000, status=502, ended={"usd_micro": 200, "failed": 1})
    await _record(database, 20, provider="other", model="m2", cache="hit", first_token_us=5_000)
    now = T0 + 60
    found = await database.reader.run(report, ReportQuery(group_by=("provider",), days=1), now)
    by = {row["provider"]: row for row in found["rows"]}
    assert by["lab"] == {
        "provider": "lab", "requests": 2, "cache_hits": 0, "failed_requests": 1, "calls": 2, "failed_calls": 1,
        "input_tokens": 180, "output_tokens": 100, "bytes_down": 0, "bytes_up": 0, "cost_usd": pytest.approx(0.0003),
        "latency_ms": 2000.0, "latency_max_ms": 3000.0, "first_token_ms": None,
    }  # fmt: skip
    assert by["other"]["cache_hits"] == 1
    assert by["other"]["first_token_ms"] == 5.0
    assert found["total"]["requests"] == 3
    only = await database.reader.run(report, ReportQuery(model="m2", days=1), now)
    assert [row["model"] for row in only["rows"]] == ["m2"]
    assert only["total"]["requests"] == 1
    assert (await database.reader.run(usage, ReportQuery(days=1), now))["total"] == found["total"]


async def test_report_by_day_and_hour_adds_whole_days_and_edge_hours(database: Database) -> None:
    """A period that begins and ends within a day counts exactly its hours, by day as well as by hour."""
    for hour in range(72):
        await _record(database, hour * HOUR_US)
    since, until = T0 + 5 * 3600, T0 + 60 * 3600
    by_day = await database.reader.run(report, ReportQuery(group_by=("day",), since=since, until=until), T0)
    by_hour = await database.reader.run(report, ReportQuery(group_by=("hour",), since=since, until=until), T0)
    # T0 is 14:13:20: from 19:00 of the first day to 03:00 of the fourth, both hours included.
    assert [(row["day"], row["requests"]) for row in by_day["rows"]] == [
        ("2026-09-21", 5), ("2026-09-22", 24), ("2026-09-23", 24), ("2026-09-24", 3),
    ]  # fmt: skip
    assert by_day["total"] == by_hour["total"]
    assert by_hour["rows"][0]["hour"] == "2026-09-21T19:00Z"
    assert len(by_hour["rows"]) == 56


async def test_report_by_client_is_exact_and_leaves_out_what_the_cache_answered(database: Database) -> None:
    """By client the period is not widened, a hit used no tokens, and what requests do not hold is None."""
    await _record(database, 0, client="early")
    await _record(database, 60_000_000, client="ci", status=502, attempts=2)
    await _record(database, 61_000_000, client="ci", cache="hit", usd_micro=0)
    await _record(database, 62_000_000, client=None, task="code", first_token_us=4_000)
    await _record(database, 120_000_000, client="late")
    query = ReportQuery(group_by=("client", "task"), since=T0 + 60, until=T0 + 120)
    found = await database.reader.run(report, query, T0)
    assert (found["since"], found["until"]) == (T0 + 60, T0 + 120)
    assert found["previous"]["requests"] == 1
    by = {(row["client"], row["task"]): row for row in found["rows"]}
    assert set(by) == {("ci", "chat"), (None, "code")}
    assert by["ci", "chat"] == {
        "client": "ci", "task": "chat", "requests": 2, "cache_hits": 1, "failed_requests": 1, "calls": 3,
        "failed_calls": None, "input_tokens": 90, "output_tokens": 50, "bytes_down": None, "bytes_up": None,
        "cost_usd": pytest.approx(0.0003), "latency_ms": 1000.0, "latency_max_ms": 1000.0, "first_token_ms": None,
    }  # fmt: skip
    assert by[None, "code"]["first_token_ms"] == 4.0
    assert found["total"]["requests"] == 3
    nothing = await database.reader.run(report, ReportQuery(group_by=("client",), until=T0 - 60), T0)
    assert nothing["rows"] == []
    assert nothing["total"]["requests"] == 0


async def test_report_trend_compares_with_the_period_before(database: Database) -> None:
    """Three requests today against two yesterday is half more, and is said in a sentence."""
    for number in (0, HOUR_US, DAY_US, DAY_US + HOUR_US, DAY_US + 2 * HOUR_US):
        await _record(database, number)
    found = await database.reader.run(report, ReportQuery(since=T0 + 86_400 - 3600, until=T0 + 2 * 86_400 - 3600), T0)
    assert found["trend"]["requests"] == {"now": 3, "before": 2, "change": 0.5}
    assert "requests +50%" in found["trend"]["summary"]
    nothing = await database.reader.run(report, ReportQuery(since=1e6, until=2e6), T0)
    assert nothing["rows"] == []
    assert nothing["total"]["requests"] == 0
    assert nothing["trend"]["requests"]["change"] is None


@pytest.mark.parametrize(
    ("query", "param"),
    [
        (ReportQuery(group_by=("colour",)), "group_by"),  # type: ignore[arg-type]  # the point of the test
        (ReportQuery(group_by=("day", "day")), "group_by"),
        (ReportQuery(since=5.0, until=5.0), "since"),
        (ReportQuery(since=-5.0), "since"),
        (ReportQuery(until=float("nan")), "since"),
    ],
)
async def test_a_bad_report_names_the_parameter(database: Database, query: ReportQuery, param: str) -> None:
    """Nonsense is refused as the caller's mistake."""
    with pytest.raises(InvalidRequest) as caught:
        await database.reader.run(report, query, T0)
    assert caught.value.param == param


async def _twenty(database: Database) -> None:
    for number in range(20):
        database.writer.request(
            request(
                number * 1000,
                provider="lab" if number % 2 else "other", latency_us=(number * 7 % 5) * 1000,
                first_token_us=None if number % 3 else number, status=200 if number % 4 else 429,
                requested=f"m_{number}%", error_code=None if number % 4 else "rate_limited",
            )
        )  # fmt: skip
    await within(5, database.writer.barrier())


@pytest.mark.parametrize("sort", [sign + field for field in SORTS for sign in ("", "-")])
async def test_pages_in_any_order_are_complete_and_sorted(database: Database, sort: str) -> None:
    """Following the cursors visits every request exactly once, in the order of one large page, for every column."""
    await _twenty(database)
    whole = await database.reader.run(page, RequestFilter(sort=sort, limit=1000))
    assert len(whole.requests) == 20
    assert whole.next is None
    visited, cursor = [], None
    while True:
        part = await database.reader.run(page, RequestFilter(sort=sort, limit=7, cursor=cursor))
        visited += [view.id for view in part.requests]
        cursor = part.next
        if cursor is None:
            break
    assert visited == [view.id for view in whole.requests]
    values = [getattr(view, sort.removeprefix("-")) for view in whole.requests]
    assert values == sorted(values, key=lambda v: (v is not None, v), reverse=sort.startswith("-"))


async def test_a_page_is_not_shifted_by_newer_requests(database: Database) -> None:
    """Requests recorded between two pages do not repeat or hide any."""
    await _twenty(database)
    first = await database.reader.run(page, RequestFilter(limit=5))
    database.writer.request(request(10**6))
    second = await database.reader.run(page, RequestFilter(limit=5, cursor=first.next))
    numbers = [ids.decode(view.id) - T0_US for view in first.requests + second.requests]
    assert numbers == [number * 1000 for number in range(19, 9, -1)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (RequestFilter(provider="lab"), 10),
        (RequestFilter(provider="lab", model="m9"), 0),
        (RequestFilter(task="chat", limit=1000), 20),
        (RequestFilter(status=429), 5),
        (RequestFilter(status="4xx"), 5),
        (RequestFilter(status="failed"), 5),
        (RequestFilter(status="ok"), 15),
        (RequestFilter(since=T0 + 0.010), 10),
        (RequestFilter(until=T0 + 0.010), 10),
        (RequestFilter(since=T0 + 0.005, until=T0 + 0.008), 3),
        (RequestFilter(q="RATE_LIMITED"), 5),
        (RequestFilter(q="m_1%"), 1),
        (RequestFilter(q="other:m1"), 10),
        (RequestFilter(q="429"), 5),
        (RequestFilter(q=ids.encode(T0_US + 3000)), 1),
        (RequestFilter(q="nothing like it"), 0),
    ],
)
async def test_filters(database: Database, query: RequestFilter, expected: int) -> None:
    """Each filter keeps exactly the requests it describes; text is taken literally."""
    await _twenty(database)
    assert len((await database.reader.run(page, query)).requests) == expected


@pytest.mark.parametrize(
    ("query", "param"),
    [
        (RequestFilter(sort="colour"), "sort"),
        (RequestFilter(sort="--id"), "sort"),
        (RequestFilter(limit=0), "limit"),
        (RequestFilter(limit=100_000), "limit"),
        (RequestFilter(status="fine"), "status"),
        (RequestFilter(since=float("nan")), "since"),
        (RequestFilter(until=-1.0), "until"),
        (RequestFilter(cursor="garbage"), "cursor"),
        (RequestFilter(cursor="W10"), "cursor"),
        (RequestFilter(cursor="IiI"), "cursor"),
    ],
)
async def test_bad_filters_name_the_parameter(database: Database, query: RequestFilter, param: str) -> None:
    """Nonsense is refused as the caller's mistake, also a cursor from a differently sorted list."""
    with pytest.raises(InvalidRequest) as caught:
        await database.reader.run(page, query)
    assert caught.value.param == param


async def test_a_cursor_belongs_to_its_order(database: Database) -> None:
    """The cursor of one order is refused by another instead of skipping rows."""
    await _twenty(database)
    first = await database.reader.run(page, RequestFilter(sort="at", limit=3))
    with pytest.raises(InvalidRequest, match="cursor"):
        await database.reader.run(page, RequestFilter(sort="-at", limit=3, cursor=first.next))


async def test_one_request_is_explained(database: Database) -> None:
    """A single request comes with its decision and its own calls only, in order."""
    lost = dispatch(5, request_id=T0_US, provider="first")
    won = dispatch(9, request_id=T0_US)
    foreign = dispatch(7, request_id=T0_US + 1)
    for row in (lost, foreign, won):
        await database.writer.dispatch(row)
    database.writer.settle(settle(lost, failed=1, error_code="rate_limited", reported=0))
    database.writer.request(request(0))
    view = await database.reader.run(one, T0_US)
    assert view is not None
    assert view.id == ids.encode(T0_US)
    assert view.choice is not None
    assert view.choice.chosen_model == "m1"
    assert view.calls is not None
    assert [(c.candidate, c.state, c.error_code, c.input_tokens) for c in view.calls] == [
        ("first:m1", "settled", "rate_limited", None), ("lab:m1", "dispatched", None, None),
    ]  # fmt: skip
    assert view.calls[0].duration_ms == 1000.0
    assert await database.reader.run(one, 12) is None


async def test_history_averages_steps(database: Database) -> None:
    """Points are means of their steps, oldest first; steps without samples are left out."""
    rows = [("cpu", T0 + second, float(second)) for second in range(10)] + [("gpu", T0, 5.0)]
    await database.writer.call(lambda c: samples.insert(c, rows))
    found = await database.reader.run(samples.history, "cpu", T0, T0 + 20, 5.0, now=T0)
    assert found == {
        "series": "cpu", "since": T0, "until": T0 + 20, "step": 5.0, "points": [[T0, 2.0], [T0 + 5, 7.0]]
    }  # fmt: skip
    assert await database.reader.run(samples.names) == ["cpu", "gpu"]
    assert await database.reader.run(samples.latest, "cpu") == (T0 + 9, 9.0)
    assert await database.reader.run(samples.latest, "none") is None
    default = await database.reader.run(samples.history, "gpu", now=T0 + 1)
    assert [value for _, value in default["points"]] == [5.0]
    for since, until, step in ((T0, T0, 1.0), (T0, T0 + 1, 0.0), (T0, T0 + 1e6, 1.0)):
        with pytest.raises(InvalidRequest):
            await database.reader.run(samples.history, "cpu", since, until, step, now=T0)


async def test_alerts_and_silences(database: Database) -> None:
    """An alert is kept through its states, listed newest first, and found again after a restart."""
    first = AlertView(
        id=1, key="low/lab", name="LowQuota", severity="warning", state="open", message="12 left", opened_at=1.0,
        updated_at=1.0, count=1, provider="lab", data={"left": 12},
    )  # fmt: skip
    second = AlertView(
        id=2, key="disk", name="Disk", severity="critical", state="open", message="full", opened_at=2.0, updated_at=2.0,
        count=1,
    )  # fmt: skip
    database.writer.execute(*alerts.save(first))
    database.writer.execute(*alerts.save(second, 2.5))
    database.writer.execute(*alerts.save_silence(alerts.Silence("low/lab", 1.0, 99.0, "known")))
    listed = await database.reader.run(alerts.page)
    assert [(view.id, view.silenced_until) for view in listed] == [(2, None), (1, 99.0)]
    assert listed[1].data == {"left": 12}
    second.state, second.resolved_at = "resolved", 3.0
    database.writer.execute(*alerts.save(second))
    assert [s.view.id for s in await database.reader.run(alerts.stored)] == [1]
    assert [s.view.id for s in await database.reader.run(lambda c: alerts.stored(c, resolved_since=3.0))] == [1, 2]
    resolved = await database.reader.run(lambda c: alerts.page(c, state="resolved"))
    assert [view.id for view in resolved] == [2]
    assert await database.reader.run(alerts.next_id) == 3
    found = await database.reader.run(alerts.one, 1)
    assert found is not None
    assert found.view.message == "12 left"
    assert await database.reader.run(lambda c: alerts.silences(c, now=100.0)) == []
    database.writer.execute(*alerts.delete_silence("low/lab"))
    assert await database.reader.run(alerts.silences) == []
    with pytest.raises(InvalidRequest):
        await database.reader.run(alerts.page, state="loud")
    with pytest.raises(InvalidRequest):
        await database.reader.run(alerts.page, limit=0)


async def test_feedback(database: Database) -> None:
    """Scores come back newest first, filtered by request."""
    first = await database.writer.call(lambda c: feedback.add(c, at=1.0, score=1.0, request_id=T0_US, comment="good"))
    second = await database.writer.call(lambda c: feedback.add(c, at=2.0, score=-0.5, data={"lang": "pt"}))
    listed = await database.reader.run(feedback.page)
    assert [(view.id, view.score) for view in listed] == [(second, -0.5), (first, 1.0)]
    about = await database.reader.run(lambda c: feedback.page(c, request_id=T0_US))
    assert [(view.request_id, view.comment) for view in about] == [(ids.encode(T0_US), "good")]


async def test_a_request_has_its_last_score(database: Database) -> None:
    """Only the newest of several, and none where nobody has said anything."""
    await _record(database, 0)
    number = T0_US
    before = await database.reader.run(one, number)
    assert before is not None
    assert before.score is None
    await database.writer.call(lambda c: feedback.add(c, at=1.0, score=1.0, request_id=number))
    await database.writer.call(lambda c: feedback.add(c, at=1.0, score=-0.5, request_id=number))
    after = await database.reader.run(one, number)
    assert after is not None
    assert after.score == -0.5


async def test_remembered_state(database: Database) -> None:
    """Rests, observations and learned ratios come back as saved; an older observation never replaces a newer one."""
    rest = state.ProviderStateRow("lab", "cooling", "429", 1, 2)
    new, old = (state.ObservationRow("k", "lab", "lab", at, f'{{"at":{at}}}') for at in (9, 3))
    stat = state.ModelStatRow("lab", "m1", 0.25, 3, 1)
    for statement in (
        state.save_provider_state(rest), state.save_observation(new), state.save_observation(old),
        state.save_model_stat(stat),
    ):  # fmt: skip
        database.writer.execute(*statement)
    assert await database.reader.run(state.provider_states) == [rest]
    assert await database.reader.run(state.observations) == [new]
    assert await database.reader.run(state.model_stats) == [stat]
    database.writer.execute(*state.delete_provider_state("lab"))
    database.writer.execute(*state.delete_observation("k"))
    assert await database.reader.run(state.provider_states) == []
    assert await database.reader.run(state.observations) == []


async def test_what_a_start_needs_is_read_however_long_it_takes(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time limit would keep a daemon with a long history from ever starting again; only a stop ends such a read."""
    import hybridd.store.reader as module
    from hybridd.errors import StorageError

    monkeypatch.setattr(module, "QUERY_SECONDS", 0.01)
    counted = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?) SELECT count(*) FROM n"
    slow = 500_000
    with pytest.raises(StorageError, match="took longer"):
        await database.reader.run(lambda c: c.execute(counted, (slow,)).fetchone())
    assert await database.reader.run_to_the_end(lambda c: c.execute(counted, (slow,)).fetchone()) == (slow,)
    begun = threading.Event()

    def endless(connection: sqlite3.Connection) -> None:
        begun.set()
        connection.execute(counted, (-1,)).fetchone()

    reading = asyncio.ensure_future(database.reader.run_to_the_end(endless))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    database.close()
    with pytest.raises(StorageError, match="interrupted"):
        await within(5, reading)


async def test_reading_goes_on_while_a_long_query_runs_out_of_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A query past its time is given up with a clear error, and the next one works."""
    import hybridd.store.reader as module
    from hybridd.errors import StorageError

    monkeypatch.setattr(module, "QUERY_SECONDS", 0.05)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(StorageError, match="took longer"):
        await within(10, database.reader.run(lambda c: c.execute(endless).fetchone()))
    assert await within(5, asyncio.ensure_future(database.reader.run(lambda c: c.execute("SELECT 1").fetchone()))) == (
        1,
    )
    with pytest.raises(Exception, match="readonly"):
        await database.reader.run(lambda c: c.execute("DELETE FROM calls"))


@pytest.mark.parametrize("number", [0, 1, T0_US, 2**52, 2**63 - 1])
def test_request_ids_round_trip(number: int) -> None:
    """The text form gives the number back, whatever the case, and sorts like it."""
    text = ids.encode(number)
    assert text.startswith("req_")
    assert len(text) >= 17
    assert ids.decode(f" {text.upper()} ") == number


@pytest.mark.parametrize(
    "text", ["", "req_", "req_12", "req_zzzzzzzzzzzzz", "1790000000000000", "req_ffffffffffffffff"]
)
def test_what_is_no_request_id(text: str) -> None:
    """Anything else is refused with a sentence."""
    with pytest.raises(ValueError, match="is not a request id"):
        ids.decode(text)
    with pytest.raises(ValueError, match="outside"):
        ids.encode(-1)
