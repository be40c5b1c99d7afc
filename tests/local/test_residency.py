"""The owner of loaded models, with workers that are real processes: loads, evictions, failures, ends."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
import uvloop

from hybridd.errors import DeadlineExceeded, ProviderError
from hybridd.local.residency_views import listing, residents
from hybridd.providers import CallFailed
from tests.local.residency_support import alive, home


@pytest.fixture(scope="module")
def event_loop_policy() -> uvloop.EventLoopPolicy:
    return uvloop.EventLoopPolicy()


async def test_one_load_for_many_callers() -> None:
    """Twenty callers of an unloaded model cause one load, wait for it together, and are all answered by it."""
    async with home() as house:
        house.model("a", steps=5, seconds=0.3)
        await house.apply()
        answers = await asyncio.gather(*(house.ask("a", f"n{number}") for number in range(20)))
        assert len({answer["pid"] for answer in answers}) == 1
        assert house.starts("a") == [answers[0]["pid"]]
        assert house.hub.providers["local"].state == "ready"
        assert house.hub.providers["local"].in_flight == 0


async def test_models_share_memory_when_they_fit_and_swap_when_not() -> None:
    """Two models stay loaded together; with room for one, the old one's process is gone before the new one starts."""
    async with home() as house:
        house.model("a")
        house.model("b", seed=1)
        await house.apply()
        first, second = await house.load("a"), await house.load("b")
        assert alive(first)
        assert alive(second)
        await house.apply(max_loaded=1)
        await house.residency.unload("b")
        third = await house.load("b")
        assert not alive(first)
        assert alive(third)
        ended = next(at for what, name, pid, at in house.journal() if (what, pid) == ("stop", first))
        began = next(at for what, name, pid, at in house.journal() if (what, pid) == ("start", third))
        assert ended < began


async def test_a_busy_model_is_waited_for() -> None:
    """Nothing is evicted from under a call: the other load waits until the call has ended, and then has its turn."""
    async with home() as house:
        house.model("a")
        house.model("b", seed=1)
        await house.apply(max_loaded=1)
        first = await house.load("a")
        call = house.generate("a", "slow 20")
        second = await house.load("b")
        assert call.done()
        assert (await call.result()).body
        assert not alive(first)
        assert alive(second)


async def test_a_busy_model_outlasts_the_deadline() -> None:
    """A caller whose deadline passes while a busy model is waited for gets an error that says so; the busy one stays,
    and goes on taking calls."""
    async with home() as house:
        house.model("a")
        house.model("b", seed=1)
        await house.apply(max_loaded=1)
        first = await house.load("a")
        call = house.generate("a", "slow 60")
        with pytest.raises(DeadlineExceeded, match="waiting for the calls of a to end"):
            await house.load("b", timeout=0.4)
        assert not call.done()
        await house.until(lambda: house.hub.connected("local", "a"))
        assert (await house.ask("a"))["pid"] == first
        assert house.starts("b") == []


async def test_killed_in_a_call() -> None:
    """kill -9 of a worker fails its calls at once with a typed error; the next call loads the model again."""
    async with home() as house:
        house.model("a")
        await house.apply()
        pid = await house.load("a")
        call = house.generate("a", "slow 200")
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(CallFailed) as caught:
            await asyncio.wait_for(call.result(), 5)
        assert (caught.value.error.kind, caught.value.error.sent) == ("unavailable", "maybe")
        assert caught.value.owner_gone is not None
        await asyncio.wait_for(caught.value.owner_gone, 5)
        again = await house.ask("a")
        assert again["pid"] != pid
        assert house.hub.providers["local"].in_flight == 0


async def test_the_speed_is_told_while_a_call_is_open() -> None:
    """As the worker says it, every few seconds; nothing is said of a worker that answers nobody."""
    async with home() as house:
        house.model("a")
        await house.apply()
        await house.load("a")
        assert residents(house.residency)[0].tokens_per_second is None
        call = house.generate("a", "slow 60")
        await house.until(lambda: residents(house.residency)[0].tokens_per_second == 41.5)
        await call.result()
        await house.until(lambda: residents(house.residency)[0].tokens_per_second is None)


@pytest.mark.parametrize("how", ["stopped", "freeze", "stuck"])
async def test_hang_is_noticed_and_replaced(how: str) -> None:
    """A worker that is stopped (SIGSTOP), whose loop does not turn, or that makes no decoding step while a call is open
    is killed, its call fails with that reason, and the next call gets a new one."""
    async with home() as house:
        house.model("a")
        await house.apply()
        pid = await house.load("a")
        call = house.generate("a", "slow 500" if how == "stopped" else how)
        if how == "stopped":
            os.kill(pid, signal.SIGSTOP)
        with pytest.raises(CallFailed, match=r"did not answer|no decoding step|heartbeats missed"):
            await asyncio.wait_for(call.result(), 8)
        assert "ready" not in [one.state for one in residents(house.residency)]
        assert "ready" not in [one.state for one in await listing(house.residency)]
        await house.until(lambda: not alive(pid))
        await house.until(lambda: house.residency.pause("a"))
        pause = house.residency.pause("a")
        assert pause is not None
        assert (pause.cause, "hung" in pause.reason) == ("hung", False)
        assert (await house.ask("a"))["pid"] != pid


async def test_a_long_call_is_no_hang() -> None:
    """A call that takes many times the limit is left alone as long as it makes steps."""
    async with home() as house:
        house.model("a")
        await house.apply()
        pid = await house.load("a")
        assert (await house.ask("a", "slow 80"))["pid"] == pid


async def test_a_slow_load_is_no_hang_and_a_silent_one_is() -> None:
    """No deadline ends a load that goes on telling its progress; one that says nothing is killed, tried once more, and
    then given up with that reason."""
    async with home() as house:
        house.model("slow", steps=6, seconds=1.2)
        house.model("mute", seed=1, silent=30)
        await house.apply()
        await house.load("slow")
        with pytest.raises(ProviderError, match=r"hung.*no progress for 0.7 s"):
            await house.load("mute")
        assert len(house.starts("mute")) == 2
        assert not any(alive(pid) for pid in house.starts("mute"))


async def test_bad_file_is_not_tried_again_until_it_changes() -> None:
    """A worker that calls its file bad is believed: no second attempt, an alert, and a new one once the file is
    another."""
    async with home() as house:
        path = house.model("a", fail="bad_file", says="tensor 3 is missing")
        await house.apply()
        for _ in range(3):
            with pytest.raises(ProviderError, match="tensor 3 is missing; tried again when its file changes"):
                await house.load("a")
        assert len(house.starts("a")) == 1
        [view] = [one for one in house.hub.plugin_views() if one.name == "local:a"]
        assert (view.state, view.reason) == ("failed", "tensor 3 is missing")
        house.behave("a")
        os.utime(path, ns=(1, 1))
        await house.load("a")
        assert len(house.starts("a")) == 2


async def test_a_broken_file_is_never_given_to_a_worker() -> None:
    """What the reader rejects is refused with its reason, and no process is started for it; mended, it is loaded."""
    async with home() as house:
        path = house.model("a")
        whole = path.read_bytes()
        path.write_bytes(whole[:20_000])
        await house.apply()
        with pytest.raises(ProviderError, match="bad_file"):
            await house.load("a")
        assert house.starts("a") == []
        path.write_bytes(whole)
        await house.load("a")


@pytest.mark.parametrize(
    ("how", "attempts", "cause"),
    [
        ({"fail": "kv", "says": "no room for the cache"}, 3, "kv"),
        ({"fail": "weights", "says": "no room"}, 2, "weights"),
        ({"exit": 3, "says": "went wrong"}, 2, "runtime"),
        ({"exit": 1, "says": "CUDA error: unknown error"}, 1, "driver"),
        ({"exit": 1, "says": "cudaMalloc failed: out of memory"}, 2, "weights"),
    ],
)
async def test_each_cause_has_its_own_retries(how: dict, attempts: int, cause: str) -> None:
    """How often a load is tried follows from why it failed; then it pauses, with the reason and when it goes on."""
    async with home() as house:
        house.model("a", **how)
        await house.apply()
        with pytest.raises(ProviderError, match=rf"\({cause}\).*{how['says']}.*tried again in") as caught:
            await house.load("a")
        assert len(house.starts("a")) == attempts
        assert caught.value.retry_after is not None
        with pytest.raises(ProviderError, match="tried again in"):
            await house.load("a")
        assert len(house.starts("a")) == attempts


async def test_less_is_asked_for_after_the_cache_did_not_fit() -> None:
    """After a failure of the KV cache the next attempt has a smaller context, and it is the one that counts."""
    async with home() as house:
        house.model("a", fail="kv", once=True)
        await house.apply(context=256, parallel=4)
        answer = await house.ask("a")
        assert answer["options"]["context"] // (1 if answer["options"]["unified"] else 4) <= 128 * 4
        assert answer["options"]["sequences"] == 2


async def test_keep_alive() -> None:
    """An idle model leaves after its keep-alive; a request's own keep_alive wins; its process is gone then."""
    async with home() as house:
        house.model("a")
        house.model("b", seed=1)
        house.model("c", seed=2)
        await house.apply(idle_stop_seconds=0.3, models={"b": {"keep_alive_seconds": 60}})
        a, b, c = await house.load("a"), await house.load("b"), await house.load("c")
        await house.ask("c", keep_alive="60s")
        await house.until(lambda: not alive(a))
        assert alive(b)
        assert alive(c)
        await house.ask("c", keep_alive=0)
        await house.until(lambda: not alive(c))
        assert house.hub.providers["local"].state == "ready"


async def test_a_reload_keeps_what_did_not_change() -> None:
    """A new configuration replaces the workers it concerns and no other; those without a file or when disabled go."""
    async with home() as house:
        house.model("a")
        house.model("b", seed=1)
        await house.apply()
        a, b = await house.load("a"), await house.load("b")
        await house.apply(models={"b": {"context": 128}}, idle_stop_seconds=300)
        await house.until(lambda: not alive(b))
        assert await house.load("a") == a
        answer = await house.ask("b")
        assert answer["pid"] != b
        assert house.hub.providers["local"].models["b"].context == answer["options"]["context"]
        await house.apply(enabled=False)
        await house.until(lambda: not alive(a))


async def test_unload_ends_a_load() -> None:
    """A model that is unloaded while it is being loaded is not loaded: its process is gone when the unload returns,
    those who waited are told so, and nothing is held against the model."""
    async with home() as house:
        house.model("a", steps=100, seconds=20)
        await house.apply()
        waiting = asyncio.create_task(house.load("a"))
        await house.until(lambda: house.starts("a"))
        assert await house.residency.unload("a")
        with pytest.raises(ProviderError, match="given up: it was unloaded") as caught:
            await waiting
        assert caught.value.error_code == "not_loaded"
        [pid] = house.starts("a")
        assert not alive(pid)
        assert house.residency.pause("a") is None
        assert not await house.residency.unload("a")


async def test_a_reload_in_a_load(caplog: pytest.LogCaptureFixture) -> None:
    """A configuration that concerns a model while it is being loaded begins its load anew, as it is wanted now: for
    those who wait it is one load, and no failure."""
    async with home() as house:
        house.model("a", steps=100, seconds=20)
        await house.apply()
        waiting = asyncio.create_task(house.load("a"))
        await house.until(lambda: house.starts("a"))
        house.model("a")
        await house.apply(models={"a": {"context": 128}})
        pid = await waiting
        first, second = house.starts("a")
        assert (alive(first), pid) == (False, second)
        assert (await house.ask("a"))["options"]["context"] == 128
        assert house.residency.pause("a") is None
        assert "failed" not in caplog.text


async def test_what_an_unloaded_model_takes() -> None:
    """Before its load a model has the context that is configured, also a longer one than it was trained for."""
    async with home() as house:
        house.model("a")
        await house.apply(models={"a": {"context": 1000}})
        await house.until(lambda: "a" in house.hub.providers["local"].models)
        await house.residency.scan()
        assert house.hub.providers["local"].models["a"].context == 1000


async def test_a_new_file_is_found_when_asked_for() -> None:
    """A file that appears later is known to the next look, and gone with its file."""
    async with home() as house:
        await house.apply()
        await house.until(lambda: house.hub.providers["local"].state == "not_configured")
        assert str(house.folder) in house.hub.providers["local"].reason
        house.model("late")
        assert await house.hub.look_again("local", "late") or "late" in house.residency.shelf.known
        await house.load("late")
        with pytest.raises(ProviderError, match="no local model 'nope'; there are: late"):
            await house.load("nope")


async def test_close_ends_everything() -> None:
    """The end of the hub ends loaded and loading workers alike."""
    async with home() as house:
        house.model("a")
        house.model("b", seed=1, steps=100, seconds=20)
        await house.apply()
        first = await house.load("a")
        loading = asyncio.create_task(house.load("b"))
        await house.until(lambda: house.starts("b"))
        await house.hub.close(1.0)
        assert not alive(first)
        assert not alive(house.starts("b")[0])
        with pytest.raises((ProviderError, asyncio.CancelledError)):
            await loading
