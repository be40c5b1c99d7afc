"""The margin that is learned from loads, and where loads are remembered."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.errors import StateError
from hybridd.local import residuals
from hybridd.local.residuals import FIRST_MARGIN, LEAST_MARGIN, Residual, compared, margin, read, store
from hybridd.local.types import LoadOptions, Memory, MemoryUse

MIB = 2**20


def residual(short: int, *, machine: str = "desk", model: str = "m", at: float = 1.0, device: bool = False) -> Residual:
    """A load that took ``short`` bytes more than predicted."""
    base = 1024 * MIB
    predicted, measured = MemoryUse(compute=base), MemoryUse(compute=base + short)
    sides = (
        (Memory(device=predicted), Memory(device=measured))
        if device
        else (Memory(host=predicted), Memory(host=measured))
    )
    return Residual(
        machine=machine, model=model, at=at, options=LoadOptions(gpu_layers=9 if device else 0),
        predicted=sides[0], measured=sides[1],
    )  # fmt: skip


def test_one_bad_load_among_many_good_ones_is_not_forgotten() -> None:
    """Forty good loads would make the mean and its spread small; the worst one still counts whole."""
    loads = [residual(0)] * 40 + [residual(700 * MIB)]
    assert margin(loads, machine="desk", model="m") == 700 * MIB


@given(st.lists(st.integers(-2000 * MIB, 2000 * MIB), max_size=40))
def test_the_margin_is_never_below_the_worst_that_was_seen(shorts: list[int]) -> None:
    """Whatever was learned, the same load would fit again."""
    assert margin([residual(short) for short in shorts], machine="desk", model="m") >= max(shorts, default=0)


def test_the_margin_shrinks_with_experience() -> None:
    """Every good load gives up a part of the first margin, down to the least one."""
    known = [margin([residual(0)] * count, machine="desk", model="m") for count in range(8)]
    assert known[0] == FIRST_MARGIN
    assert known == sorted(known, reverse=True)
    assert known[-1] == LEAST_MARGIN


def test_other_models_of_the_machine_speak_until_there_are_enough_loads() -> None:
    """A model never loaded is trusted no more than its neighbours; its own loads decide later."""
    others = [residual(200 * MIB, model="other")] * 5
    assert margin(others, machine="desk", model="m") >= 200 * MIB
    assert margin([*others, *[residual(0)] * 5], machine="desk", model="m") == LEAST_MARGIN


def test_another_machines_loads_say_nothing() -> None:
    """Drivers differ: only loads of this machine count."""
    assert margin([residual(500 * MIB, machine="laptop")], machine="desk", model="m") == FIRST_MARGIN


def test_the_worse_side_counts() -> None:
    """A load that fits the host and not the GPU was short on the GPU."""
    assert residual(30 * MIB, device=True).short == 30 * MIB
    assert residual(-30 * MIB).short == -30 * MIB


def test_what_cannot_be_measured_is_not_compared() -> None:
    """llama.cpp does not log the process around its buffers; that part is no error of the prediction."""
    predicted = Memory(host=MemoryUse(weights=10, compute=5, runtime=90))
    measured = Memory(host=MemoryUse(weights=10, compute=6))
    told, same = compared(predicted, measured)
    assert (told.host.total, same.host.total) == (15, 16)


def test_loads_are_remembered_in_order(tmp_path: Path) -> None:
    """What was stored is read again, whole."""
    file = tmp_path / "deep" / "loads.json"
    written = [residual(at * MIB, at=float(at)) for at in range(3)]
    for one in written:
        store(one, file)
    assert read(file) == written
    assert file.stat().st_mode & 0o077 == 0


def test_the_file_stays_small_and_keeps_the_worst(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old loads leave, but never the worst one of a model."""
    monkeypatch.setattr(residuals, "_MOST", 20)
    file = tmp_path / "loads.json"
    store(residual(900 * MIB, at=0.0), file)
    for at in range(1, 60):
        store(residual(0, at=float(at), model=f"m{at % 3}" if at % 2 else "m"), file)
    kept = read(file)
    assert len(kept) <= 20
    assert max(one.short for one in kept) == 900 * MIB
    assert kept[-1].at == 59.0


def test_a_broken_file_is_not_an_empty_one(tmp_path: Path) -> None:
    """Margins that were learned are not thrown away silently: reading and storing say what is wrong."""
    file = tmp_path / "loads.json"
    file.write_text('{"residuals": 7}')
    with pytest.raises(StateError, match=r"loads\.json"):
        read(file)
    with pytest.raises(StateError, match=r"loads\.json"):
        store(residual(0), file)
    assert file.read_text() == '{"residuals": 7}'


def test_no_file_is_no_experience(tmp_path: Path) -> None:
    """Before the first load there is nothing to read."""
    assert read(tmp_path / "none.json") == []


def test_two_processes_lose_nothing(tmp_path: Path) -> None:
    """Writers wait for each other: of two processes with eight loads each all sixteen are there."""
    file = tmp_path / "loads.json"
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.starmap(_store_eight, [(file, 0), (file, 8)])
    assert sorted(one.at for one in read(file)) == [float(at) for at in range(16)]


def _store_eight(file: Path, first: int) -> None:
    for at in range(first, first + 8):
        store(residual(0, at=float(at), model=f"m{first}"), file)
