"""The measuring process: real llama.cpp on a tiny model."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.fakes.model_zoo import make_model

pytest.importorskip("llama_cpp")

from plugins.llama_cpp import calibrate

CANDIDATES = [{"flash_attention": True, "micro_batch": 64}, {"flash_attention": False, "micro_batch": 32}]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("calibrate") / "m.gguf", "llama", context=1024)


class Clock:
    """Ten seconds a look."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 10.0
        return self.now


def asked(model, **changes):
    return {
        "path": str(model),
        "options": {"context": 256, "threads": 1},
        "candidates": CANDIDATES,
        "widths": [1, 4],
        "seconds": 30,
        **changes,
    }


def run(request):
    """Exit status and lines of the process."""
    text = request if isinstance(request, str) else json.dumps(request)
    done = subprocess.run(
        [sys.executable, "-m", "plugins.llama_cpp.calibrate"],
        input=text, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_measures_every_candidate(model):
    """Each candidate has a speed of prompts and one for each width; progress counts up to the result, the last line."""
    code, lines = run(asked(model))
    assert code == 0
    assert [line.get("done") for line in lines[:-1] if line["state"] != "repeating"] == [0, 1, 2]
    result = lines[-1]["result"]
    assert [{key: one[key] for key in ("flash_attention", "micro_batch")} for one in result["measured"]] == CANDIDATES
    assert result["left_out"] == []
    for one in result["measured"]:
        assert one["prefill_per_second"] > 0
        assert set(one["decode_per_second"]) == {"1", "4"}
        assert all(rate > 0 for rate in one["decode_per_second"].values())
        assert one["prefill_spread"] >= 0
        assert set(one["decode_spread"]) == {"1", "4"}
    assert result["threads"] == 1
    assert result["llama_cpp"]
    assert "CPU" in result["build"]


def test_what_differs_in_a_second_round_is_noise():
    """Two rounds become their mean, with the larger of their spreads and of half their difference."""
    first = {"prefill_per_second": 900.0, "prefill_spread": 0.01, "decode_per_second": {"1": 50.0, "4": 80.0},
             "decode_spread": {"1": 0.2, "4": 0.0}, "rounds": 1}  # fmt: skip
    again = {**first, "prefill_per_second": 1100.0, "decode_per_second": {"1": 50.0, "4": 120.0}}
    both = calibrate.together(first, again)
    assert (both["prefill_per_second"], both["prefill_spread"]) == (1000.0, 0.1)
    assert (both["decode_per_second"], both["decode_spread"]) == ({"1": 50.0, "4": 100.0}, {"1": 0.2, "4": 0.2})
    assert both["rounds"] == 2


def test_everything_is_measured_twice_when_there_is_time(model):
    """With time left there is a second round of all; without, one stands as it is."""
    result = calibrate.calibrate(asked(model, seconds=60), lambda _: None)
    assert [one["rounds"] for one in result["measured"]] == [2, 2]


@pytest.mark.parametrize(("seconds", "spread"), [([1.0], 0.0), ([1.0, 1.2], 0.0909), ([1.0, 1.0, 1.0, 1.0, 9.0], 2.0)])
def test_spreads(seconds, spread):
    """Half the range of a few, half the distance of the quartiles of many."""
    assert calibrate.spread_of(seconds) == pytest.approx(spread, rel=1e-2)


def test_time_bounds_the_work(model):
    """When the time is over, what is left is named instead of measured; the first candidate always is."""
    result = calibrate.calibrate(asked(model, seconds=5), lambda _: None, clock=Clock())
    assert len(result["measured"]) == 1
    assert result["left_out"] == [{**CANDIDATES[1], "reason": "no time was left"}]


def test_one_impossible_candidate_leaves_the_others(model):
    """A context that llama.cpp refuses is named with its reason (a quantised V cache without flash attention)."""
    options = {"context": 256, "threads": 1, "type_k": "q8_0", "type_v": "q8_0"}
    result = calibrate.calibrate(asked(model, options=options), lambda _: None)
    assert [one["flash_attention"] for one in result["measured"]] == [True]
    assert [one["flash_attention"] for one in result["left_out"]] == [False]
    assert result["left_out"][0]["reason"]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ("{", "bad_request"),
        ("{}", "bad_request"),
        ({"path": "/nowhere/m.gguf", "options": {}, "candidates": CANDIDATES}, "load_failed"),
        ({"path": "/nowhere/m.gguf", "options": {}, "candidates": []}, "bad_request"),
    ],
)
def test_what_cannot_be_measured_is_one_error(request_, code):
    """A wrong request, and a model that does not load, are one error line with a code, and status 1."""
    status, lines = run(request_)
    assert status == 1
    assert lines[-1]["error"]["code"] == code
    assert lines[-1]["error"]["message"]
