"""The decisions of residency: pure, so examples and properties say all of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.local import residency_policy as policy
from hybridd.local.residency_policy import Beat, Resident, asked_keep_alive
from hybridd.local.types import Cause, LoadOptions, Memory, Plan


def plan(layers: int | None, *, context: int = 8192, sequences: int = 4, target: Any = "gpu") -> Plan:
    options = None if layers is None else LoadOptions(gpu_layers=layers, context=context, sequences=sequences)
    return Plan(
        model="new", goal="quality", target=target, options=options, memory=Memory(), layers=32, budget=0, margin=0
    )


def planner(budget: int, residents: Sequence[Resident], *, least: int = 10) -> policy.Planner:
    """A model of 33 layers, a byte each: as many are offloaded as there is room for, at least ``least``."""

    def planned(gone: Sequence[Resident]) -> Plan:
        away = {one.model for one in gone}
        free = budget - sum(one.bytes for one in residents if one.model not in away)
        return plan(min(33, free) if free >= least else None)

    return planned


RESIDENTS = st.lists(
    st.builds(
        Resident,
        model=st.uuids().map(str),
        bytes=st.integers(0, 40),
        idle=st.floats(0, 10_000),
        reload_seconds=st.floats(0, 100),
        busy=st.booleans(),
    ),
    max_size=6,
)


@given(RESIDENTS, st.integers(0, 150))
def test_placement_is_as_good_as_it_gets_and_no_dearer(residents: list[Resident], budget: int) -> None:
    """Nobody with an open call is evicted; the plan is as good as with everybody else gone; nobody leaves without
    need; and whom the call waits for is only asked when nothing fits otherwise."""
    planned = planner(budget, residents)
    placement = policy.place(residents, planned)
    by_name = {one.model: one for one in residents}
    free = [one for one in residents if not one.busy]
    evicted = [by_name[name] for name in placement.evict]
    assert not any(one.busy for one in evicted)
    best = planned(free)
    if best.options is None:
        assert placement.evict == ()
        assert all(by_name[name].busy for name in placement.busy)
        possible = planned(residents).options is not None
        assert bool(placement.busy) == (placement.plan.options is not None) == possible
    else:
        assert placement.busy == ()
        assert policy.as_good(placement.plan, best)
        assert placement.plan == planned(evicted)
        for one in evicted:
            assert not policy.as_good(planned([other for other in evicted if other is not one]), best)


def test_nobody_goes_to_the_cpu_because_another_is_busy_for_a_moment() -> None:
    """Where only the CPU is left beside a busy model, its calls are waited for; where the GPU would not do either way,
    they are not."""

    def planned(gone: Sequence[Resident]) -> Plan:
        return plan(33) if gone else plan(0, target="cpu")

    busy = Resident("a", 1, 0.0, 1.0, busy=True)
    assert policy.place([busy], planned).busy == ("a",)
    only_cpu = policy.place([busy], lambda gone: plan(0, target="cpu"))
    assert (only_cpu.busy, only_cpu.evict, only_cpu.plan.target) == ((), (), "cpu")


def test_the_cheap_and_the_forgotten_leave_first() -> None:
    """Of equals the one that was used longest ago leaves, and of equally old ones the one that loads fastest."""
    old = Resident("old", 20, idle=600.0, reload_seconds=3.0)
    fresh = Resident("fresh", 20, idle=1.0, reload_seconds=3.0)
    quick = Resident("quick", 20, idle=1.0, reload_seconds=0.5)
    for residents, expected in (([fresh, old], "old"), ([fresh, quick], "quick")):
        assert policy.place(residents, planner(53, residents)).evict == (expected,)


def test_an_idle_model_does_not_leave_for_more_context_than_is_needed() -> None:
    """A longer context than is comfortable, or fewer parallel requests, is no reason to unload somebody."""

    def planned(gone: Sequence[Resident]) -> Plan:
        return plan(33, context=131_072, sequences=8) if gone else plan(33, context=16_384, sequences=2)

    assert policy.place([Resident("a", 1, 5.0, 1.0)], planned).evict == ()
    assert not policy.as_good(plan(33, context=2048), plan(33, context=16_384))
    assert not policy.as_good(plan(20), plan(33))
    assert not policy.as_good(plan(0, target="cpu"), plan(33))


@given(st.lists(st.sampled_from(get_args(Cause)), min_size=1, max_size=20), st.integers(0, 20))
def test_every_load_ends(causes: list[Cause], before: int) -> None:
    """Whatever goes wrong in whatever order, a load is tried a handful of times and then pauses for a while that is
    never shorter after more failures."""
    tried = 0
    for count in range(1, len(causes) + 1):
        step = policy.after_failure(causes[:count], before)
        tried = count
        if not step.again:
            assert step.until_changed == (step.delay == 0.0)
            assert policy.after_failure(causes[:count], before + 1).delay >= step.delay
            break
    assert tried <= 4


@pytest.mark.parametrize(
    ("causes", "again", "shrink"),
    [
        (["weights"], True, "weights"),
        (["weights", "weights"], False, ""),
        (["kv"], True, "kv"),
        (["kv", "kv"], True, "kv"),
        (["kv", "kv", "kv"], False, ""),
        (["runtime"], True, ""),
        (["runtime", "runtime"], False, ""),
        (["hung"], True, ""),
        (["hung", "hung"], False, ""),
        (["driver"], False, ""),
        (["bad_file"], False, ""),
    ],
)
def test_retry_rules(causes: list[Cause], again: bool, shrink: str) -> None:
    """Less memory for memory's failures, the same again once for a crash or a hang, nothing for the file and the
    driver; whoever should know is told."""
    step = policy.after_failure(causes)
    assert (step.again, step.shrink) == (again, shrink)
    if causes[-1] == "bad_file":
        assert step.until_changed
    if causes[-1] in ("driver", "bad_file"):
        assert step.alert


@pytest.mark.parametrize(
    ("code", "said", "loading", "cause"),
    [
        (-9, "", True, "weights"),
        (-9, "", False, "runtime"),
        (-7, "", True, "bad_file"),
        (-6, "ggml_abort", False, "runtime"),
        (1, "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 900 MiB: cudaMalloc failed: out of memory", True,
         "weights"),
        (1, "llama_kv_cache: failed to allocate buffer for kv cache", True, "kv"),
        (1, "CUDA error: no CUDA-capable device is detected", True, "driver"),
        (1, "gguf_init_from_file_impl: invalid magic characters", True, "bad_file"),
        (3, "", True, "runtime"),
    ],
)  # fmt: skip
def test_cause_of_death(code: int, said: str, loading: bool, cause: str) -> None:
    """An unexplained end is explained by its signal and its last words."""
    assert policy.cause_of_death(code, said.splitlines(), loading=loading) == cause


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [("5m", 300.0), ("90", 90.0), (0, 0.0), ("0s", 0.0), (-1, policy.FOREVER), ("1.5h", 5400.0), ("250ms", 0.25)],
)
def test_keep_alive(asked: Any, seconds: float) -> None:
    """Durations as people write them; negative is for ever."""
    assert policy.keep_alive_of(asked, 60) == seconds
    assert asked_keep_alive(json.dumps({"keep_alive": asked, "model": "m"}).encode(), 7.0) == seconds


@pytest.mark.parametrize("asked", [True, "soon", "5 weeks", [], {}])
def test_keep_alive_refuses(asked: Any) -> None:
    """What is no duration changes nothing; asked directly, it is an error that says what would be right."""
    with pytest.raises(ValueError, match="5m"):
        policy.keep_alive_of(asked, 60)
    assert asked_keep_alive(json.dumps({"keep_alive": asked}).encode(), 7.0) == 7.0
    assert policy.keep_alive_of(None, None) == policy.FOREVER
    assert asked_keep_alive(b'{"keep_alive": null}', 7.0) == 7.0


@given(st.lists(st.tuples(st.floats(0.1, 10), st.integers(0, 3), st.booleans(), st.booleans()), max_size=40))
def test_a_worker_that_moves_or_answers_idle_never_hangs(looks: list[tuple[float, int, bool, bool]]) -> None:
    """Only silence, or a busy engine whose steps stand still for the whole limit, is a hang."""
    state, now, moved, missed = Beat(), 0.0, 0.0, 0
    steps: int | None = None
    for gap, step, busy, answered in looks:
        now += gap
        state = policy.beat(state, now, {"steps": step, "busy": busy} if answered else None)
        if answered:
            missed = 0
            if not busy or step != steps:
                moved = now
            steps = step
        else:
            missed += 1
        expected = missed >= 2 or now - moved >= 12
        assert (policy.hang(state, now, misses=2, seconds=12) is not None) == expected
