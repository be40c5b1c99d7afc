"""What is cached and what is not."""

from __future__ import annotations

from hybridd.clocks import ManualClock
from hybridd.contracts.quotas import ModelRef
from hybridd.routing.cache import ResponseCache
from hybridd.routing.request import parse

ONE, TWO = [ModelRef("lab", "m1")], [ModelRef("lab", "m2")]


def request(**body):
    return parse("chat", {"model": "m", "messages": [{"role": "user", "content": "hi"}], **body}, lambda name: None)


def test_only_deterministic_whole_answers_have_a_key():
    """temperature 0 or a seed, and not a stream."""
    key = ResponseCache.key
    assert key(request(), ONE) is None
    assert key(request(temperature=0.7), ONE) is None
    assert key(request(temperature=0, stream=True), ONE) is None
    assert key(request(temperature=0), ONE) is not None
    assert key(request(seed=1), ONE) is not None


def test_the_key_ignores_who_asks_but_not_what_or_where():
    """Another user shares the answer; another prompt, parameter or candidate list does not."""
    key = ResponseCache.key
    base = key(request(temperature=0), ONE)
    assert key(request(temperature=0, user="u"), ONE) == base
    assert key(request(temperature=0, max_tokens=5), ONE) != base
    assert key(request(temperature=0), TWO) != base


def test_entries_expire_and_memory_is_bounded():
    """An old answer is not used; the least recently used go first when memory is full."""
    clock = ManualClock()
    cache = ResponseCache(clock, ttl_seconds=10, max_bytes=1000)
    for number in range(6):
        cache.put(bytes([number]), body=b"x" * 200, provider="lab", model="m", usage=None)
    assert len(cache) == 5
    assert cache.get(b"\x00") is None
    assert cache.get(b"\x05") is not None
    clock.advance(10)
    assert cache.get(b"\x05") is None
    cache.put(b"big", body=b"x" * 900, provider="lab", model="m", usage=None)
    assert cache.get(b"big") is None
