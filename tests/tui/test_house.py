"""The view-models: what any order of events leaves behind."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.tui.strategies import DELTAS, JSON, events, request, snapshot
from tui import deltas as models
from tui.deltas import apply, apply_all
from tui.events import Event, answer
from tui.house import REQUESTS_KEPT, House


def facts(house: House) -> dict[str, Any]:
    """What a snapshot carries."""
    return {name: getattr(house, name) for name in ("providers", "limits", "alerts", "plugins", "host")}


def everything(house: House) -> dict[str, Any]:
    return {**facts(house), "requests": list(house.requests), "jobs": house.jobs, "costs": house.costs}


@given(DELTAS)
def test_told_twice_is_told_once(deltas: list[Any]) -> None:
    """Events that come a second time, with the numbers they had, change nothing and say so."""
    house = House()
    apply_all(house, events(deltas))
    before = repr(everything(house))
    assert apply_all(house, events(deltas)) == set()
    assert repr(everything(house)) == before


@given(DELTAS, snapshot(), DELTAS)
def test_a_snapshot_in_the_middle(before: list[Any], whole: dict[str, Any], after: list[Any]) -> None:
    """What came before a snapshot leaves no trace in what the snapshot holds."""
    at = len(before) + 1
    tail = [Event(at, float(at), "snapshot", whole), *events(after, at + 1)]
    lived, fresh = House(), House()
    apply_all(lived, [*events(before), *tail])
    apply_all(fresh, tail)
    assert facts(lived) == facts(fresh)


@given(DELTAS, st.randoms(use_true_random=False))
def test_order_matters_only_for_the_same_thing(deltas: list[Any], shuffle: random.Random) -> None:
    """Deltas about different things commute: the newest about each decides."""
    lanes: dict[str, list[Any]] = {}
    for kind, data in deltas:
        if kind != "request":
            lanes.setdefault(f"{kind} {data.get('key') or data.get('id')} {data.get('id')}", []).append((kind, data))
    given_order = [delta for delta in deltas if delta[0] != "request"]
    mixed = []
    waiting = [lane[:] for lane in lanes.values()]
    while waiting:
        lane = shuffle.choice(waiting)
        mixed.append(lane.pop(0))
        waiting = [one for one in waiting if one]
    one, other = House(), House()
    apply_all(one, events(given_order))
    apply_all(other, events(mixed))
    assert facts(one) == facts(other)


@given(st.lists(request(), max_size=30), st.lists(request(), max_size=30), st.booleans())
def test_requests_by_event_and_by_query(told: list[Any], asked: list[Any], asked_first: bool) -> None:
    """Each request stands there once, whether it came as an event, in a query's answer, or as both."""
    house = House()
    stream = events([("request", one) for one in told])
    query = answer("requests", {"requests": list({one["id"]: one for one in asked}.values())}, 1.0)
    apply_all(house, [query, *stream] if asked_first else [*stream, query])
    ids = [one.id for one in house.requests]
    assert sorted(ids) == sorted({one["id"] for one in [*told, *asked]})
    assert house.request_ids == set(ids)


@given(st.sampled_from([*models.HANDLERS, "tomorrow"]), JSON)
def test_nonsense_is_counted_and_harmless(kind: str, data: Any) -> None:
    """An event of an unknown kind or shape never raises; what is known stays."""
    house = House()
    apply(house, Event(1, 1.0, "quota", LIMIT))
    apply(house, Event(2, 2.0, kind, data))
    assert house.limits["lab/requests/60s"].used == 3
    if kind == "tomorrow":
        assert house.misread == 1


LIMIT = {
    "key": "lab/requests/60s", "provider": "lab", "account": "lab", "unit": "requests", "window": "60s", "limit": 15,
    "used": 3, "reserved": 1, "remaining": 9, "buffer": 2, "reset": None, "source": "config",
}  # fmt: skip


def usage(total: float, lab: float) -> dict[str, Any]:
    row = {"cost_usd": total, "requests": 7}
    return {"total": row, "providers": [{"provider": "lab", "cost_usd": lab, "requests": 7}]}


def test_costs_count_on_between_two_answers() -> None:
    """Each request adds its cost to its provider and to the total until the daemon's own figure comes."""
    house = House()
    spent = {"id": "req_1", "at": 1.0, "provider": "lab", "cost_usd": 0.25}
    apply_all(house, [answer("today", usage(1.0, 0.5), 1.0), answer("month", usage(3.0, 2.0), 1.0)])
    assert apply(house, Event(1, 2.0, "request", spent)) == {"requests", "rates", "usage"}
    assert (house.costs[""].today, house.costs["lab"].month) == (1.25, 2.25)
    apply(house, answer("today", usage(1.2, 0.7), 3.0))
    assert (house.costs[""].today, house.costs["lab"].today, house.costs["lab"].month) == (1.2, 0.7, 2.25)


def test_only_so_many_requests_are_kept() -> None:
    """The oldest leave, and with them the memory that they were seen."""
    house = House()
    many = REQUESTS_KEPT + 10
    apply_all(house, events([("request", {"id": f"req_{number}", "at": float(number)}) for number in range(many)]))
    assert len(house.requests) == len(house.request_ids) == REQUESTS_KEPT
    assert (house.requests[0].id, house.requests[-1].id) == ("req_10", f"req_{many - 1}")


def test_a_lost_connection_keeps_what_is_known() -> None:
    """Only the connection changes; the age is counted from the daemon's last word."""
    house = House()
    apply(house, Event(1, 100.0, "quota", LIMIT))
    lost = {"state": "lost", "since": 160.0, "attempt": 1, "reason": "gone", "retry_at": 161.0, "ever": True}
    assert apply(house, Event(0, 160.0, "connection", lost)) == {"connection"}
    assert house.stale
    assert (house.seen, house.now, house.limits["lab/requests/60s"].used) == (100.0, 160.0, 3)


def test_alerts_in_the_order_of_their_need() -> None:
    """Open before acknowledged before silenced, critical first, newest first; resolved ones are not live."""
    house = House()
    cases = [(1, "warning", "open"), (2, "critical", "acknowledged"), (3, "critical", "open"), (4, "info", "resolved"),
             (5, "warning", "open")]  # fmt: skip
    for number, severity, state in cases:
        view = {"id": number, "key": str(number), "name": "N", "severity": severity, "state": state, "message": "m",
                "opened_at": float(number), "updated_at": 1.0, "count": 1}  # fmt: skip
        apply(house, Event(number, 1.0, "alert", view))
    assert [alert.id for alert in house.live_alerts()] == [3, 5, 1, 2]
    assert house.open_alerts() == 3


def test_the_worker_of_a_model_that_has_gone_is_forgotten() -> None:
    """Workers of local models come and go; a stopped one is no plugin any more."""
    house = House()
    view = {"name": "local:tiny", "state": "ready", "pid": 7, "restarts": 0, "providers": ["local"], "since": 1.0}
    apply(house, Event(1, 1.0, "plugin", {"key": "local:tiny", "event": "state", "plugin": view}))
    assert "local:tiny" in house.plugins
    apply(
        house, Event(2, 2.0, "plugin", {"key": "local:tiny", "event": "state", "plugin": {**view, "state": "stopped"}})
    )
    assert house.plugins == {}
