"""Residency beside a simulated GPU: the budget, memory that comes back late, a driver that goes away."""

from __future__ import annotations

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
