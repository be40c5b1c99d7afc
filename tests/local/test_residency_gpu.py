"""Residency beside a simulated GPU: the budget, memory that comes back late, a driver that goes away."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Collection
from pathlib import Path

import msgspec
import pytest
import uvloop

from hybridd.errors import ProviderError
from hybridd.local.gpus import Gpu
from hybridd.local.machine import MachineFacts, look, simulated
from hybridd.local.residency_ports import Ports, real_ports
from tests.local.residency_support import Home, alive, home

MIB = 1 << 20


@pytest.fixture(scope="module")
def event_loop_policy() -> uvloop.EventLoopPolicy:
    return uvloop.EventLoopPolicy()


class Card:
    """A GPU of ``size`` bytes whose free memory follows from the workers in the journal: each holds ``each`` bytes, and
    one that has died goes on holding them for ``late`` more looks."""

    def __init__(self, size: int, each: int, late: int = 0) -> None:
        self.size, self.each, self.late = size, each, late
        self.house: Home | None = None
        self.gone = ""
        self.log: list[tuple[int, int]] = []
        self._looks: dict[int, int] = {}

    def look(self, own: Collection[int]) -> MachineFacts:
        machine = look()
        if self.gone:
            return msgspec.structs.replace(machine, offload=True, gpu_reason=self.gone)
        held = 0
        assert self.house is not None
        pids = {pid for what, _, pid, _ in self.house.journal() if what == "loaded"}
        for pid in pids:
            if not alive(pid):
                self._looks[pid] = self._looks.get(pid, 0) + 1
            held += self.each if self._looks.get(pid, 0) <= self.late and (alive(pid) or self.late) else 0
        free = self.size - held
        self.log.append((free, len(pids)))
        gpu = Gpu(index=0, name="simulated", total=self.size, free=free, uuid="GPU-7")
        return msgspec.structs.replace(simulated(machine, self.size), gpus=(gpu,))

    @property
    def ports(self) -> Ports:
        return msgspec.structs.replace(real_ports(), look=self.look, margin=lambda *_: 0, record=lambda *_: None)


def environ_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/environ").read_text(encoding="utf-8").split("\0")


async def test_two_models_share_the_card_until_it_is_too_small() -> None:
    """Both are offloaded whole while both fit; under a limit for one, the idle one leaves and the new one is offloaded
    whole in its place, rather than half of it beside the other."""
    card = Card(2000 * MIB, 400 * MIB)
    async with home(card.ports) as house:
        card.house = house
        house.model("a")
        house.model("b", seed=1)
        await house.apply(vram_limit_mb=2000)
        first = await house.ask("a")
        assert first["options"]["gpu_layers"] == 3
        await house.ask("b")
        assert alive(first["pid"])
        worker = house.residency.worker("a")
        assert worker is not None
        one = worker.plan.memory.device.total
        await house.apply(vram_limit_mb=one * 1.5 / MIB)
        await house.until(lambda: not alive(first["pid"]))
        a = await house.ask("a")
        b = await house.ask("b")
        assert (a["options"]["gpu_layers"], b["options"]["gpu_layers"]) == (3, 3)
        assert not alive(a["pid"])


async def test_video_memory_that_comes_back_late_is_waited_for() -> None:
    """The next worker starts when the driver has given the memory of the last one back, not when its process ended."""
    card = Card(500 * MIB, 450 * MIB, late=6)
    async with home(card.ports) as house:
        card.house = house
        house.model("a")
        house.model("b", seed=1)
        await house.apply(vram_limit_mb=500)
        await house.load("a")
        before = len(card.log)
        answer = await house.ask("b")
        assert answer["options"]["gpu_layers"] == 3
        frees = [free for free, _ in card.log[before:]]
        assert frees[0] == 50 * MIB
        assert frees[-1] == 500 * MIB
        assert len(frees) >= 6


async def test_a_lost_gpu_is_not_replaced_by_the_cpu() -> None:
    """When the driver stops answering, loads fail with that reason and an alert; nothing is loaded on the CPU."""
    card = Card(2000 * MIB, 400 * MIB)
    async with home(card.ports) as house:
        card.house = house
        house.model("a")
        await house.apply()
        await house.load("a")
        await house.residency.unload("a")
        card.gone = "the NVIDIA driver hangs: no answer for 2 s"
        with pytest.raises(ProviderError, match=r"driver.*the GPU that was there is gone: the NVIDIA driver hangs"):
            await house.load("a")
        assert len(house.starts("a")) == 1
        assert [(view.name, view.state) for view in house.hub.plugin_views()] == [("local:a", "failed")]


async def test_a_load_that_ends_up_on_the_cpu_is_a_failure() -> None:
    """A worker that reports fewer offloaded layers than planned is ended, and the load is the driver's failure."""
    card = Card(2000 * MIB, 400 * MIB)
    async with home(card.ports) as house:
        card.house = house
        house.model("a", gpu_layers=0)
        await house.apply()
        with pytest.raises(ProviderError, match="3 layers were to be on the GPU and 0 are"):
            await house.load("a")
        assert not any(alive(pid) for pid in house.starts("a"))


async def test_the_worker_sees_the_card_it_was_planned_for() -> None:
    """CUDA_VISIBLE_DEVICES names the planned GPU, the only one it sees; a worker planned for the CPU sees none."""
    card = Card(2000 * MIB, 400 * MIB)
    async with home(card.ports) as house:
        card.house = house
        house.model("a")
        await house.apply()
        pid = await house.load("a")
        assert "CUDA_VISIBLE_DEVICES=GPU-7" in environ_of(pid)
        card.size = 8 * MIB
        await house.residency.unload("a")
        pid = await house.load("a")
        assert "CUDA_VISIBLE_DEVICES=" in environ_of(pid)


@pytest.mark.parametrize("end", ["crash", "unload", "crash in its unload", "failed load"])
async def test_a_dead_workers_video_memory_is_waited_for(end: str) -> None:
    """Whatever a worker died of: the next load starts when its memory is free again, and is offloaded whole, although
    its process was gone long before."""
    card = Card(500 * MIB, 450 * MIB, late=6)
    async with home(card.ports, vram=30.0) as house:  # it comes back after so many looks, however long they take
        card.house = house
        house.model("a")
        house.model("b", seed=1)
        await house.apply(vram_limit_mb=500)
        if end == "failed load":
            house.behave("a", dies_loaded=1)
            with pytest.raises(ProviderError, match="load"):
                await house.load("a")
            [pid, *_] = reversed(house.starts("a"))
        else:
            pid = await house.load("a")
        if "crash" in end:
            os.kill(pid, signal.SIGKILL)
        unloading = asyncio.create_task(house.residency.unload("a")) if "unload" in end else None
        await house.until(lambda: house.residency.leaving.awaited == ["a"])
        assert not alive(pid)
        before = len(card.log)
        loading = asyncio.create_task(house.ask("b"))
        waits = "b: waiting for the memory of a to be free again"
        await house.until(lambda: (running := house.residency.load_of("b")) is not None and running.text == waits)
        answer = await loading
        if unloading is not None:
            await unloading
        assert answer["options"]["gpu_layers"] == 3
        frees = [free for free, _ in card.log[before:]]
        assert (frees[0], frees[-1]) == (50 * MIB, 500 * MIB)


async def test_memory_that_was_back_before_anybody_looked(caplog: pytest.LogCaptureFixture) -> None:
    """A worker that died while it was about to be unloaded: what it held is free already, and nothing is waited for."""
    card = Card(500 * MIB, 450 * MIB)
    async with home(card.ports) as house:
        card.house = house
        house.model("a")
        await house.apply(vram_limit_mb=500)
        pid = await house.load("a")
        os.kill(pid, signal.SIGKILL)
        while alive(pid):  # without a turn of the loop: nobody knows yet
            pass
        await house.residency.unload("a")
        assert "is not back" not in caplog.text


async def test_memory_that_never_comes_back_does_not_stop_the_next_load() -> None:
    """After the time that it may take, the next model is planned with what is free."""
    card = Card(500 * MIB, 480 * MIB, late=10_000)
    async with home(card.ports) as house:
        card.house = house
        house.model("a")
        house.model("b", seed=1)
        await house.apply(vram_limit_mb=500)
        os.kill(await house.load("a"), signal.SIGKILL)
        await house.until(lambda: house.residency.worker("a") is None)
        answer = await house.ask("b")
        assert answer["options"]["gpu_layers"] == 0


class TwoCards(Card):
    """A small card that is free, and beside it the large one on which workers hold ``each`` bytes."""

    def look(self, own: Collection[int]) -> MachineFacts:
        machine = super().look(own)
        [large] = machine.gpus
        small = Gpu(index=0, name="small", total=32 * MIB, free=32 * MIB, uuid="GPU-small")
        return msgspec.structs.replace(machine, gpus=(small, msgspec.structs.replace(large, index=1, name="large")))


async def test_of_two_cards_the_roomier_is_taken_and_given_back() -> None:
    """A model goes to the card with more room, is told in its plan, sees no other; what it gives back when it leaves is
    counted on that card, so that the next one takes its place there instead of going to the processor."""
    card = TwoCards(500 * MIB, 450 * MIB)
    async with home(card.ports) as house:
        card.house = house
        house.model("a")
        house.model("b", seed=1)
        await house.apply(vram_limit_mb=1000)
        pids = [await house.load("a"), await house.load("b")]
        assert not alive(pids[0])
        assert "CUDA_VISIBLE_DEVICES=GPU-7" in environ_of(pids[1])
        worker = house.residency.worker("b")
        assert worker is not None
        assert (worker.plan.gpu, worker.plan.gpu_uuid, worker.plan.target) == ("large", "GPU-7", "gpu")
        assert "Of 2 GPUs it is loaded on large (number 1)" in " ".join(worker.plan.reasons)
        assert any("small" in one.reason for one in worker.plan.rejected)


async def test_who_is_to_leave_leaves_though_nobody_can_look(caplog: pytest.LogCaptureFixture) -> None:
    """The machine cannot be looked at while a worker is unloaded: it ends all the same, and that is said."""

    class Blind(Card):
        blind = False

        def look(self, own: Collection[int]) -> MachineFacts:
            if self.blind:
                raise OSError("no such device")
            return super().look(own)

    card = Blind(2000 * MIB, 400 * MIB)
    async with home(card.ports) as house:
        card.house = house
        house.model("a")
        await house.apply(vram_limit_mb=2000)
        pid = await house.load("a")
        card.blind = True
        assert await house.residency.unload("a")
        assert not alive(pid)
        assert house.residency.workers == []
        card.blind = False
    assert "could not be looked at before a left: no such device" in caplog.text
