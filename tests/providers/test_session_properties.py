"""Whatever a plugin sends: no exception reaches the daemon, and every call ends exactly once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from hybridd.bus import EventBus
from hybridd.clocks import ManualClock
from hybridd.contracts import protocol as wire
from hybridd.providers import Hub, Peer, SpawnContext

CALLS = 3


class Sink:
    """A link that keeps what it is given."""

    buffered = 0

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed: list[tuple[int, str]] = []

    def send(self, text: bytes) -> None:
        self.sent.append(text)

    def close(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))


ids = st.one_of(st.integers(-1, CALLS + 2), st.text(max_size=3), st.none())
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
usage = st.fixed_dictionaries({"inputTokens": st.integers(-2, 9), "outputTokens": st.integers(-1, 9)})
results = st.fixed_dictionaries({}, optional={"body": json_values, "usage": usage, "details": json_values})
errors = st.fixed_dictionaries(
    {"code": st.integers(-33000, 5), "message": st.text(max_size=5)},
    optional={"data": st.fixed_dictionaries({"kind": st.sampled_from(["auth", "odd", "internal"])}) | json_values},
)
chunks = st.fixed_dictionaries(
    {"id": st.integers(-1, CALLS + 1), "seq": st.integers(0, 3)},
    optional={"events": st.lists(st.dictionaries(st.text(max_size=3), scalars, max_size=2) | scalars, max_size=3)},
)
envelopes = st.one_of(
    st.fixed_dictionaries({"id": ids, "result": results}),
    st.fixed_dictionaries({"id": ids, "error": errors}),
    st.fixed_dictionaries({"method": st.just("stream/chunk"), "params": chunks}),
    st.fixed_dictionaries(
        {"method": st.sampled_from([*wire.METHODS, "x"])}, optional={"id": ids, "params": json_values}
    ),
    st.fixed_dictionaries({"id": ids, "result": results, "error": errors}),
)
frames = st.one_of(
    envelopes.map(lambda message: msgspec.json.encode({"jsonrpc": "2.0", **message})),
    st.binary(max_size=40),
    json_values.map(msgspec.json.encode),
)
local = st.sampled_from(["cancel", "grant", "deadline", "lost"])


@pytest.fixture(scope="module")
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(frames | local, max_size=12))
def test_every_call_ends_exactly_once(loop, script):
    """Any sequence of frames, cancels, grants and deadlines ends every call once and raises nothing."""
    loop.run_until_complete(play(script))


async def play(script):
    clock = ManualClock()
    hub = Hub(clock=clock, bus=EventBus(clock), spawn=SpawnContext(socket=Path("/s")), rng=random.Random(0))
    link = Sink()
    session = hub.accept(link, Peer(pid=0, uid=0, gid=0))
    hello = {"protocolVersions": ["1"], "plugin": {"name": "p"}, "instanceId": "i"}
    session.on_message(msgspec.json.encode({"id": 1, "method": "initialize", "params": hello}))
    session.on_message(msgspec.json.encode({"id": 2, "method": "provider/register", "params": {"provider": "p"}}))
    endings: Counter[int] = Counter()
    delivered: list[Raw] = []
    calls = []
    for number in range(CALLS):
        params = wire.Generate("p", "m", Raw(b"{}"), stream=number == 0, credit=30)
        deadline = asyncio.get_running_loop().time() + 60
        call = hub.start_call(
            "p", "generate", params, deadline=deadline, on_events=delivered.extend if number == 0 else None
        )
        call.add_done_callback(lambda call: endings.update([call.id]))
        calls.append(call)
    for step in script:
        act(session, calls, step)
    session.on_lost("the end")
    assert dict(endings) == {call.id: 1 for call in calls}
    assert hub.providers["p"].in_flight == 0
    assert session.calls == {}
    assert all(bytes(event).startswith(b"{") for event in delivered)
    assert len(link.closed) <= 1


def act(session, calls, step):
    if isinstance(step, bytes):
        session.on_message(step)
    elif step == "cancel":
        calls[1].cancel("test")
    elif step == "grant":
        calls[0].grant(1000)
    elif step == "deadline":
        session._overdue(calls[2])
    else:
        session.on_lost("lost")
