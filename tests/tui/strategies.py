"""Events as a daemon could send them, and things no daemon should send."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tui.events import Event

NAMES = st.sampled_from(["lab", "groq", "local", "specialists"])
STATES = st.sampled_from(["ready", "idle", "cooling", "parked", "retired", "not_configured", "failed", "starting"])
AMOUNT = st.floats(0, 1e6, allow_nan=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def provider(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "name": draw(NAMES), "plugin": "p", "state": draw(STATES), "reason": draw(st.text(max_size=20)), "models": [],
        "account": "a", "since": 1.0,
    }  # fmt: skip


@st.composite
def limit(draw: st.DrawFn) -> dict[str, Any]:
    name, unit = draw(NAMES), draw(st.sampled_from(["requests", "usd", "total_tokens", "concurrent"]))
    whole, used = draw(AMOUNT), draw(AMOUNT)
    return {
        "key": f"{name}/{unit}", "provider": name, "account": name, "unit": unit, "window": "60s", "limit": whole,
        "used": used, "reserved": draw(AMOUNT), "remaining": draw(AMOUNT), "buffer": draw(AMOUNT), "reset": None,
        "source": "config", "drift": draw(st.none() | st.floats(-9, 9)),
        "forecast": draw(st.none() | st.builds(
            lambda at: {"exhausted_at": at, "earliest": at, "latest": None, "per_second": 1.0}, st.floats(0, 2e9))),
    }  # fmt: skip


@st.composite
def alert(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "id": draw(st.integers(1, 4)), "key": "k", "name": "N", "message": draw(st.text(max_size=20)),
        "severity": draw(st.sampled_from(["info", "warning", "critical"])),
        "state": draw(st.sampled_from(["open", "acknowledged", "silenced", "resolved"])), "opened_at": 1.0,
        "updated_at": 2.0, "count": 1,
    }  # fmt: skip


@st.composite
def request(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "id": f"req_{draw(st.integers(0, 9))}", "at": draw(st.floats(0, 100)), "requested": "auto",
        "provider": draw(st.none() | NAMES), "model": "m", "status": draw(st.sampled_from([200, 429, 502])),
        "cost_usd": draw(st.floats(0, 1)), "latency_ms": draw(st.floats(0, 1e6)), "input_tokens": 1,
        "output_tokens": draw(st.none() | st.integers(0, 9)),
    }  # fmt: skip


DELTA: st.SearchStrategy[tuple[str, dict[str, Any]]] = st.one_of(
    provider().map(lambda view: ("provider", {"key": view["name"], "provider": view})),
    limit().map(lambda view: ("quota", view)),
    alert().map(lambda view: ("alert", {"change": "opened", **view})),
    request().map(lambda view: ("request", view)),
    st.just(("host", {"key": "host", "cpu_percent": 3.0})),
    st.sampled_from(["running", "done"]).map(
        lambda state: ("job", {"id": "1", "kind": "pull", "state": state, "started": 1.0})
    ),
)
DELTAS = st.lists(DELTA, max_size=25)


@st.composite
def snapshot(draw: st.DrawFn) -> dict[str, Any]:
    providers = {one["name"]: one for one in draw(st.lists(provider(), max_size=4))}
    limits = {one["key"]: one for one in draw(st.lists(limit(), max_size=5))}
    alerts = {one["id"]: one for one in draw(st.lists(alert(), max_size=3))}
    status = {"version": "1", "pid": 1, "providers": [*providers.values()], "plugins": [], "host": {}}
    return {"status": status, "limits": [*limits.values()], "alerts": [*alerts.values()]}


def events(deltas: list[tuple[str, dict[str, Any]]], first: int = 1) -> list[Event]:
    return [Event(seq, float(seq), kind, data) for seq, (kind, data) in enumerate(deltas, first)]
