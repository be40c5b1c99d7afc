"""What was measured is kept, found again only where it holds, and chosen from without being fooled by noise."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.errors import StateError
from hybridd.local import calibration
from hybridd.local.calibration import Calibration, Measured
from hybridd.local.facts import facts_of
from hybridd.local.gguf import open_model
from hybridd.local.machine import MachineFacts
from hybridd.local.plan import Request, plan
from tests.fakes.model_zoo import make_model

GIB = 1 << 30
MACHINE = MachineFacts(ram_total=16 * GIB, ram_available=12 * GIB, cores=2, physical_cores=2, machine_id="here")


def measured(flash=True, micro_batch=512, prefill=1000.0, decode=None):
    return Measured(flash, micro_batch, prefill, decode or {1: 100.0, 2: 150.0, 4: 190.0, 8: 195.0})


def made(**changes):
    fields = {
        "machine": "here",
        "model": "m",
        "bytes": 10,
        "gpu_layers": 0,
        "llama_cpp": "1",
        "at": 0.0,
        "flash_attention": True,
        "micro_batch": 512,
        "sequences": 8,
        "measured": [measured()],
    }
    return Calibration(**{**fields, **changes})


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    path = make_model(tmp_path_factory.mktemp("calibration") / "m.gguf", "llama", context=8192)
    return facts_of(open_model(path), "m", str(path))


def test_a_small_difference_is_noise():
    """Another candidate is chosen only when it is more than 3 % faster; otherwise the plan's own stays."""
    own = measured()
    assert calibration.judge([own, measured(micro_batch=256, prefill=1010.0)]).chosen is own
    faster = measured(micro_batch=128, prefill=1200.0)
    assert calibration.judge([own, faster]).chosen is faster
    slower_answers = measured(flash=False, prefill=1100.0, decode={1: 80.0})
    assert calibration.judge([own, slower_answers]).chosen is own


def test_a_difference_within_the_spread_is_chance():
    """What repetitions differ by is not taken for a gain: the plan's own choice stays, and the share is told."""
    own = measured(decode={1: 1e9})
    faster = msgspec.structs.replace(own, micro_batch=128, prefill_per_second=1200.0)
    verdict = calibration.judge([own, faster])
    assert (verdict.chosen, verdict.noise) == (faster, 0.03)
    assert verdict.gain == pytest.approx(1 / 6, rel=1e-3)
    shaky = [msgspec.structs.replace(one, prefill_spread=0.1) for one in (own, faster)]
    verdict = calibration.judge(shaky)
    assert (verdict.chosen, verdict.fastest) == (shaky[0], shaky[1])
    assert verdict.noise == pytest.approx(0.2, rel=1e-3)


def test_a_width_within_the_spread_is_as_good_as_a_wider_one():
    """Four sequences at 90 % of what eight do are enough when the figures vary by more than is missing."""
    decode = {1: 100.0, 4: 180.0, 8: 200.0}
    assert calibration.width(measured(decode=decode)) == 8
    assert calibration.width(msgspec.structs.replace(measured(decode=decode), decode_spread={4: 0.1})) == 4


@given(st.lists(st.tuples(st.floats(1, 1e6), st.floats(1, 1e6)), min_size=1, max_size=12))
def test_the_choice_is_never_clearly_beaten(speeds):
    """No candidate answers the measured request in 3 % less time than the chosen one."""
    found = [measured(micro_batch=64 + i, prefill=p, decode={1: d}) for i, (p, d) in enumerate(speeds)]
    chosen = calibration.judge(found).chosen
    assert chosen.seconds() <= min(one.seconds() for one in found) / 0.97 + 1e-9


@pytest.mark.parametrize(
    ("decode", "width"),
    [
        ({1: 100.0, 2: 150.0, 4: 190.0, 8: 195.0}, 4),
        ({1: 100.0, 2: 60.0, 4: 80.0, 8: 90.0}, 1),
        ({1: 100.0, 2: 190.0, 4: 370.0, 8: 700.0}, 8),
    ],
)
def test_the_width_is_the_narrowest_that_is_fast(decode, width):
    """The fewest sequences with 95 % of the highest throughput; where batches are slower than one sequence, one."""
    assert calibration.width(measured(decode=decode)) == width


def test_found_only_where_it_holds(tmp_path, facts):
    """A finding of another machine, file, version or offload is not found; the newest of the right ones is."""
    file = tmp_path / "c.json"
    own = {"model": facts.id, "bytes": facts.bytes}
    for changes in ({"machine": "there"}, {"bytes": 11}, {"llama_cpp": "2"}, {"gpu_layers": 3, "micro_batch": 64}, {}):
        calibration.store(made(**{**own, **changes}), file)
    calibration.store(made(**own, at=5.0), file)
    findings = calibration.read(file)
    assert len(findings) == 5 - 1  # the same machine, model, version and offload: the later one replaced two

    def find(**wanted):
        return calibration.find(findings, **{"machine": "here", "facts": facts, "version": "1", **wanted})

    assert find(gpu_layers=0).at == 5.0
    assert find(gpu_layers=3).micro_batch == 64
    assert find(gpu_layers=7) is None
    assert find(machine="nowhere") is None
    assert find(version="3") is None
    assert find(facts=msgspec.structs.replace(facts, bytes=12)) is None


def test_a_broken_file_is_not_an_empty_one(tmp_path):
    """No file is no finding; one that cannot be read is an error that names it, and nothing overwrites it."""
    file = tmp_path / "c.json"
    assert calibration.read(file) == []
    file.write_text("{")
    with pytest.raises(StateError, match=r"c\.json"):
        calibration.read(file)
    with pytest.raises(StateError, match=r"c\.json"):
        calibration.store(made(), file)
    assert file.read_text() == "{"


def test_candidates_stay_within_the_plan(facts):
    """The plan's own setting comes first, none is named twice, and with little memory the wide batches are left out."""
    roomy = plan(facts, MACHINE, Request(context=4096, parallel=1))
    assert roomy.options is not None
    wide = calibration.candidates(facts, roomy)
    first = {"flash_attention": roomy.options.flash_attention, "micro_batch": roomy.options.micro_batch}
    assert wide[0] == first
    assert len({tuple(one.items()) for one in wide}) == len(wide)
    assert {one["flash_attention"] for one in wide} == {True, False}
    tight = msgspec.structs.replace(roomy, budget=calibration.side(roomy.memory, roomy))
    few = calibration.candidates(facts, tight)
    assert few[0] == first
    assert max(one["micro_batch"] for one in few) < max(one["micro_batch"] for one in wide)


def test_a_quantised_v_cache_needs_flash_attention(facts):
    """With a quantised V cache no candidate is without flash attention."""
    made_plan = plan(facts, MACHINE, Request(context=4096, parallel=1, kv="q8_0"))
    assert {one["flash_attention"] for one in calibration.candidates(facts, made_plan)} == {True}
