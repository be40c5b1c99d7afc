"""Plans as rows, bars and data."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hybridd.local import plan_view as view
from hybridd.local.plan import Request, plan
from hybridd.local.plan_view import Bar, Part
from tests.local.test_plan import GIB, LARGE, MIB, MIDDLE, SMALL, gpu_of, machine_with

CARD = machine_with(gpu_of(4 * GIB, free=3 * GIB, used_by_others=GIB))


def test_how_well_it_fits_is_one_word() -> None:
    """All layers on the GPU, some, none, or not at all."""
    assert view.fit(plan(SMALL, CARD)) == "gpu"
    assert view.fit(plan(LARGE, CARD)) == "partly"
    assert view.fit(plan(SMALL, machine_with())) == "memory"
    nothing = plan(LARGE, machine_with(ram=2 * GIB))
    assert view.fit(nothing) == "no"
    assert ("Result", "it does not fit") in view.rows(nothing, LARGE)
    assert (view.layers_text(nothing), view.context_text(nothing)) == ("32 on the processor", "-")


def test_rows_say_what_was_planned() -> None:
    """Layers as blocks (llama.cpp counts the output layer too), the context by how it is shared."""
    made = plan(LARGE, CARD)
    assert made.options is not None
    rows = dict(view.rows(made, LARGE))
    assert rows["Layers"] == f"{made.options.gpu_layers - 1} of 32 on the GPU, and the output layer"
    assert rows["Context"].endswith(f"shared by up to {made.options.sequences} sequences")
    each = plan(SMALL, CARD, Request(context=2_048, parallel=3))
    assert view.context_text(each) == "2,048 tokens for each of 3 sequences"
    assert view.context_text(plan(SMALL, CARD, Request(context=2_048, parallel=1))) == "2,048 tokens"


def test_a_bar_holds_everything_once() -> None:
    """What is in use, each part, what is kept free and what is left make up the card and the memory."""
    made = plan(LARGE, CARD, Request(vram_limit=2 * GIB), margin=64 * MIB)
    card, memory = view.bars(made, CARD)
    assert (card.total, card.missing) == (4 * GIB, 0)
    sizes = dict(card.parts)
    assert sizes["in use"] == GIB
    assert sizes["kept free"] == GIB + 64 * MIB
    assert sizes["weights"] == made.memory.device.weights
    assert sum(size for _, size in card.parts) == 4 * GIB
    assert sum(size for _, size in memory.parts) == CARD.ram_total


def test_what_does_not_fit_is_missing() -> None:
    """A plan without a solution shows by how much, and no negative part."""
    machine = machine_with(ram=2 * GIB)
    (memory,) = view.bars(plan(LARGE, machine), machine)
    assert memory.missing > 0
    assert all(part.size >= 0 for part in memory.parts)


def test_a_gpu_that_shares_memory_has_one_bar() -> None:
    """Its memory is the host's; a second bar would count it twice."""
    machine = machine_with(gpu_of(16 * GIB, free=12 * GIB, unified=True))
    assert len(view.bars(plan(SMALL, machine), machine)) == 1


def test_the_bar_of_the_gpu_that_is_used() -> None:
    """Of two cards with one name the bar is that of the plan's."""
    machine = machine_with(gpu_of(2 * GIB), gpu_of(8 * GIB, index=1))
    made = plan(MIDDLE, machine)
    assert view.bars(made, machine)[0].total == 8 * GIB


@given(st.lists(st.integers(0, 10_000), min_size=9, max_size=9), st.integers(20, 200), st.booleans())
def test_a_bar_has_the_width_it_was_given(sizes: list[int], cells: int, rich: bool) -> None:
    """Exactly so many columns, and at least one for each part that is there."""
    names = ("in use", "weights", "KV cache", "state", "compute", "runtime", "other parts", "kept free", "free")
    bar = Bar("any", sum(sizes), tuple(Part(name, size) for name, size in zip(names, sizes, strict=True)))
    drawn = view.draw(bar, cells, rich=rich)
    if sum(sizes):
        assert len(drawn) == cells
    assert len(set(drawn)) == sum(size > 0 for size in sizes)
    assert drawn.isascii() or rich
    assert len(view.legend(bar, rich=rich)) == sum(size > 0 for size in sizes)


def test_the_table_adds_up() -> None:
    """The last row is the sum of those above; parts that there are not are left out."""
    made = plan(LARGE, CARD)
    rows = view.memory_rows(made)
    assert rows[-1] == ("total", made.memory.device.total, made.memory.host.total)
    assert sum(row[1] for row in rows[:-1]) == made.memory.device.total
    assert "other parts" not in [row[0] for row in rows]


@pytest.mark.parametrize("facts", [SMALL, replace(SMALL, kind="projector", layers=())])
def test_the_data_are_json(facts: object) -> None:
    """Plan, totals, bars, facts and machine, as JSON takes them."""
    assert isinstance(facts, type(SMALL))
    data = json.loads(json.dumps(view.as_data(plan(facts, CARD), facts, CARD)))
    assert data["fit"] in {"gpu", "no"}
    assert data["facts"]["layers"] == len(facts.layers)
    assert data["machine"]["gpus"][0]["total"] == 4 * GIB
    assert set(data["totals"]) == {"device", "host"}
