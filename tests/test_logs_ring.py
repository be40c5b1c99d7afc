"""The newest records in memory: what is kept, in which bounds, and how it is told."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hybridd import logs
from hybridd.bus import EventBus
from hybridd.clocks import SystemClock
from hybridd.logs.ring import MOST_BYTES, MOST_RECORDS, RECORD_BYTES, Ring, Wanted
from hybridd.monitor.log_events import MOST_AT_ONCE, LogEvents

KEY = "sk-canary-1234567890abcdef"


def event(message: str = "hello", **more: Any) -> dict[str, Any]:
    return {"at": "2026-11-20T12:00:00Z", "level": "info", "event": message, "logger": "hybridd.test", **more}


def messages(ring: Ring, **wanted: Any) -> list[str]:
    return [view.message for view in Wanted(**wanted).newest_first(ring.all())]


@pytest.fixture
def configured(tmp_path: Path) -> Iterator[None]:
    level = logging.getLogger().level
    fd = os.open(tmp_path / "stderr", os.O_WRONLY | os.O_CREAT)
    logs.ring.clear()
    logs.configure("debug", True, None, None, fd=fd)
    yield
    logs.close()
    logs.ring.clear()
    logging.getLogger().setLevel(level)
    os.close(fd)


def test_the_oldest_make_room() -> None:
    """At most so many records and so many bytes are held, whatever comes; what had to go is counted."""
    ring = Ring()
    for number in range(10_000):
        ring.keep(event(f"number {number}"))
    assert (len(ring), ring.lost) == (MOST_RECORDS, 10_000 - MOST_RECORDS)
    assert messages(ring)[0] == "number 9999"
    for _ in range(1000):
        ring.keep(event("x" * 10_000))
        assert ring.bytes <= MOST_BYTES
    assert ring.bytes == sum(len(one.payload) for one in ring.all())
    assert 100 < len(ring) < MOST_RECORDS
    assert ring.lost == 11_000 - len(ring)


def test_ids_have_no_gaps_and_grow_over_restarts() -> None:
    """A reader can tell from the ids alone whether anything is missing, and which of two runs came later."""
    first = Ring()
    for _ in range(3):
        first.keep(event())
    ids = [one.id for one in first.all()]
    assert ids == list(range(ids[0], ids[0] + 3))
    assert [one.id for one in first.after(ids[0])] == ids[1:]
    assert Ring().newest + 1 > ids[-1]


@pytest.mark.parametrize(
    "more",
    [
        {"exception": "Traceback\n" + "  frame\n" * 20_000 + "ValueError: the last line"},
        {"data": {str(number): "\x01" * 100 for number in range(400)}},
        {f"field {number}" * 30: "\x01" * 4000 for number in range(40)},
        {"provider": "p" * 50_000, "model": "é" * 50_000, "request": "r" * 50_000},
    ],
)
def test_one_record_is_never_too_long(more: dict[str, Any]) -> None:
    """A record beyond 16 KiB is shortened and says so; of a trace the end stays, which names the error."""
    ring = Ring()
    ring.keep(event("m" * 20_000, **more))
    (kept,) = ring.all()
    assert len(kept.payload) <= RECORD_BYTES
    assert kept.view.cut
    assert kept.view.message.startswith("mmm")
    if "exception" in more:
        assert str(kept.view.exception).endswith("ValueError: the last line")


def test_what_no_json_can_hold_is_kept_all_the_same() -> None:
    """Halves of surrogate pairs, numbers without end, infinities and strange objects lose no record."""
    ring = Ring()
    ring.keep(event("half \ud800", big=10**30, text="\udfff"))
    ring.keep(event("infinite", value=math.inf))
    ring.keep({"event": object(), "level": "shouting"})
    views = [one.view for one in ring.all()]
    assert views[0].message == "half \\ud800"
    assert views[0].fields["big"] == str(10**30)
    assert (views[2].level, views[2].component) == ("info", "?")


def test_what_a_record_names() -> None:
    """Provider, model and request come out of the fields; a request's id also out of the message."""
    ring = Ring()
    ring.keep(event("it failed", provider="groq", model="m1", request_id="req_660bb14fe416a", pid=3))
    ring.keep(event("req_660bb14fe416a was cut off"))
    first, second = [one.view for one in ring.all()]
    assert (first.provider, first.model, first.request) == ("groq", "m1", "req_660bb14fe416a")
    assert first.fields == {"pid": 3}
    assert (second.request, second.at) == ("req_660bb14fe416a", 1795176000.0)


def test_filters() -> None:
    """Level and worse, a component with those below it, a text anywhere and in any case, times, older than an id."""
    ring = Ring()
    ring.keep(event("first", level="debug", logger="hybridd"))
    ring.keep(event("second", level="warning", logger="hybridd.plugin.groq", at="2026-11-20T12:00:10Z"))
    ring.keep(event("third", level="error", logger="hybridd.pluginlike", exception="ValueError: Ouch"))
    ring.keep(event("fourth", level="critical", logger="hybridd.plugin", path="/a/B"))
    noon = 1795176000.0
    assert messages(ring) == ["fourth", "third", "second", "first"]
    assert messages(ring, level="error") == ["fourth", "third"]
    assert messages(ring, component="hybridd.plugin") == ["fourth", "second"]
    assert messages(ring, component="hybridd.plug") == []
    assert messages(ring, contains="valueerror: OUCH") == ["third"]
    assert messages(ring, contains="path=/A/b") == ["fourth"]
    assert messages(ring, since=noon + 10) == ["second"]
    assert messages(ring, until=noon + 10) == ["fourth", "third", "first"]
    assert messages(ring, before=ring.all()[2].id) == ["second", "first"]
    assert all(Wanted(component="hybridd").fits(one.view) for one in ring.all())


def test_keys_never_reach_the_ring(configured: None) -> None:
    """A key in a message, a field, a nested value, an exception or another library's record is masked before."""
    log = logs.get_logger("hybridd.test")
    log.info(f"message {KEY}")
    log.warning("fields", api_key="plain words", data={"a": [{"b": KEY}]}, argv=["--api-key", KEY])
    logging.getLogger("foreign").error("positional %s", KEY)
    try:
        raise RuntimeError(f"wrapped {KEY}")
    except RuntimeError:
        log.exception("trace")
    kept = b"\n".join(one.payload for one in logs.ring.all())
    assert len(logs.ring) == 4
    assert KEY.encode() not in kept
    assert b"plain words" not in kept
    assert kept.count(b"[redacted]") >= 5
    assert "RuntimeError: wrapped [redacted]" in str(logs.ring.all()[-1].view.exception)


def test_what_is_below_the_level_is_not_kept(configured: None) -> None:
    """The ring holds what is written, no more: an unwritten debug record costs and keeps nothing."""
    logs.set_level("warning")
    assert logs.level() == "warning"
    log = logs.get_logger("hybridd.test")
    log.info("quiet")
    log.warning("loud")
    assert [one.view.message for one in logs.ring.all()] == ["loud"]


def test_threads_write_at_once(configured: None) -> None:
    """Eight threads log and one reads: every record is there once, in the order of its id."""
    log = logs.get_logger("hybridd.test")

    def write(number: int) -> None:
        for count in range(200):
            log.info("from a thread", number=number, count=count)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        ids = [one.id for one in logs.ring.all()]
        assert ids == sorted(set(ids))
    for thread in threads:
        thread.join()
    assert len(logs.ring) == 1600


class Reader:
    """A subscriber of the bus that takes everything, and what it was told."""

    def __init__(self, bus: EventBus) -> None:
        self._woken = asyncio.Event()
        self.subscription = bus.subscribe(self._woken.set, ["log"])

    async def something(self) -> None:
        async with asyncio.timeout(10):
            await self._woken.wait()
        self._woken.clear()

    @property
    def told(self) -> list[dict[str, Any]]:
        assert not self.subscription.dropped
        return [msgspec.json.decode(msgspec.json.encode(one.data)) for one in self.subscription.drain()]


async def test_a_storm_is_told_in_part_and_counted() -> None:
    """Ten thousand records at once: one at once, the newest fifty a quarter of a second later, and how many not."""
    ring, bus = Ring(), EventBus(SystemClock())
    events = LogEvents(ring, bus)
    events.start()
    reader = Reader(bus)
    ring.keep(event("the first"))
    await reader.something()
    assert [one["message"] for one in reader.told] == ["the first"]
    for number in range(10_000):
        ring.keep(event(f"number {number}"))
    await reader.something()
    told = reader.told
    assert told[0]["left_out"] == 10_000 - MOST_AT_ONCE
    assert told[0]["last"] - told[0]["first"] + 1 == told[0]["left_out"]
    assert [one["id"] for one in told[1:]] == [one.id for one in ring.all()[-MOST_AT_ONCE:]]
    events.stop()


async def test_long_records_are_told_in_less_number() -> None:
    """What is told at once is bounded in bytes as well, and nothing is lost without a word."""
    ring, bus = Ring(), EventBus(SystemClock())
    events = LogEvents(ring, bus)
    events.start()
    reader = Reader(bus)
    for _ in range(20):
        ring.keep(event("x" * 15_000))
    events.stop()
    told = reader.told
    assert told[0]["left_out"] + len(told) - 1 == 20
    assert 1 <= len(told) - 1 <= 4


async def test_without_listeners_nothing_is_read() -> None:
    """Nobody listens: records are kept and not told, not even later."""
    ring, bus = Ring(), EventBus(SystemClock())
    events = LogEvents(ring, bus)
    events.start()
    for _ in range(100):
        ring.keep(event())
    events.flush()
    reader = Reader(bus)
    ring.keep(event("heard"))
    events.stop()
    assert [one.get("message") for one in reader.told] == ["heard"]
    assert bus.seq == 1
