"""Worker processes that are started while room is made, with the real program."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from hybridd.local import residency_starter
from hybridd.local.residency_starter import Starter
from hybridd.providers.spawn import Child, ProcessPlan, SpawnContext, spawn
from tests.local.residency_support import home

OWN = (sys.executable, "-m", "plugins.llama_cpp")


def process(command: tuple[str, ...] = OWN) -> ProcessPlan:
    return ProcessPlan(
        key="local:m", plugin="llama_cpp", command=command, environment=(), config={}, on_demand=False, idle_stop=None
    )


@pytest.fixture(scope="module")
def event_loop_policy() -> uvloop.EventLoopPolicy:
    return uvloop.EventLoopPolicy()


@pytest.fixture
def context(tmp_path: Path) -> SpawnContext:
    return SpawnContext(socket=tmp_path / "nobody", environ=dict(os.environ))


async def test_it_waits_for_its_turn(context: SpawnContext) -> None:
    """A process started ahead does not connect; it is the one that is started then, and connects at once."""
    starter = Starter()
    await starter.ahead(context, process())
    held = starter._held
    assert held is not None
    await starter.ahead(context, process())
    assert starter._held is held
    child, token = await starter.start(context, process())
    assert child is held
    assert token
    async with asyncio.timeout(20):
        assert await child.exited == 1
    assert any("no daemon answers on" in line for line in child.stderr)
    child.close()
    again, other = await starter.start(context, process())
    assert again is not child
    assert other != token
    again.kill(signal.SIGKILL)
    await again.exited
    again.close()


async def test_one_for_another_gpu_is_of_no_use(context: SpawnContext) -> None:
    """What was started with another environment ends, and a new process with its own token takes its place."""
    starter = Starter()
    await starter.ahead(context, process())
    held = starter._held
    assert held is not None
    moved = msgspec.structs.replace(context, environ={**context.environ, "CUDA_VISIBLE_DEVICES": "GPU-2"})
    child, _ = await starter.start(moved, process())
    assert child is not held
    async with asyncio.timeout(20):
        assert await held.exited < 0
        child.kill(signal.SIGKILL)
        await child.exited
    child.close()


async def test_the_one_that_is_not_needed_ends(context: SpawnContext) -> None:
    """Dropped, the process is gone; a foreign program, which may not know how to wait, is never started ahead."""
    starter = Starter()
    await starter.ahead(context, process((sys.executable, "worker.py")))
    assert not starter.holding
    await starter.ahead(context, process())
    held = starter._held
    assert held is not None
    starter.drop()
    starter.drop()
    async with asyncio.timeout(20):
        assert await held.exited < 0


async def test_a_load_that_makes_room_has_its_process_already(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first model's process is started in its turn, that of the one which replaces it ahead, and no other."""
    held: list[bool] = []

    async def counted(*given: Any, **how: Any) -> Child:
        held.append(how.get("held", False))
        return await spawn(*given, **how)

    monkeypatch.setattr(residency_starter, "spawn", counted)
    monkeypatch.setattr(residency_starter, "_is_ours", lambda process: True)  # the tests' worker knows how to wait, too
    async with home() as house:
        house.model("a")
        house.model("b", seed=1)
        own = msgspec.structs.replace(house.spec(max_loaded=1), command=(sys.executable, "-m", "worker"))
        await house.hub.apply({"local": own})
        first = await house.ask("a")
        second = await house.ask("b")
        assert second["pid"] != first["pid"]
    assert held == [False, True]
