"""Prices, estimates and forecasts: plain values in, plain values out."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.contracts.protocol import Usage
from hybridd.contracts.quotas import Amounts, Price
from hybridd.ledger.estimate import PromptSize, Ratio, input_tokens, longest_prompt, prompt_size
from hybridd.ledger.forecast import forecast, pace
from hybridd.ledger.prices import cost, micro, snapshot
from hybridd.ledger.text import amount_text, wait_text

MINI = Price(input_per_million=150_000, output_per_million=600_000, cached_input_per_million=75_000)


@pytest.mark.parametrize(
    ("price", "used", "expected"),
    [
        (MINI, Usage(1_000_000, 0), 150_000),
        (MINI, Usage(0, 1_000_000), 600_000),
        (MINI, Usage(1, 0), 1),  # rounded up, never free
        (MINI, Usage(1_000_000, 0, cached_input_tokens=400_000), 90_000 + 30_000),
        (MINI, Usage(10, 0, cached_input_tokens=1_000_000), 1),  # more cached than given is a lie: clamped
        (Price(150_000, 600_000), Usage(1_000_000, 0, cached_input_tokens=400_000), 150_000),  # no cached price
        (Price(per_request=2_000), Usage(5, 5), 2_000),
        (Price(per_request=2_000), Amounts(3, 0, 0), 6_000),
        (Price(), Usage(10**9, 10**9), 0),
    ],
)
def test_cost(price: Price, used: Usage | Amounts, expected: int) -> None:
    """Integer micro-dollars, rounded up once; cached tokens at their own price."""
    assert cost(price, used) == expected


@given(st.integers(0, 10**8), st.integers(0, 10**8), st.integers(0, 10**9), st.integers(0, 10**9))
def test_cost_is_the_exact_sum_rounded_up(taken_in: int, given_out: int, price_in: int, price_out: int) -> None:
    """Never below the exact cost, never a micro-dollar above; what is reserved bounds what is used."""
    price = Price(price_in, price_out)
    exact = taken_in * price_in + given_out * price_out
    charged = cost(price, Usage(taken_in, given_out))
    assert exact <= charged * 1_000_000 < exact + 1_000_000
    assert charged == cost(price, Amounts(1, taken_in, given_out))


def test_a_published_price_off_by_a_thousand_would_show() -> None:
    """0.15 dollars a million tokens: 1,000 tokens cost 150 micro-dollars, not 150,000."""
    assert cost(Price(input_per_million=150_000), Usage(1_000, 0)) == 150


@pytest.mark.parametrize(
    ("usd", "expected"), [(0.0, 0), (0.1 + 0.2, 300_000), (0.0000001, 1), (1e-12, 0), (5.0, 5_000_000)]
)
def test_micro_rounds_up_but_not_for_binary_dust(usd: float, expected: int) -> None:
    """Dollars become whole micro-dollars, up; less than a thousandth of one is dust."""
    assert micro(usd) == expected


def test_snapshot_is_what_the_price_was() -> None:
    """The price is stored with the call as JSON; no price is no text."""
    assert snapshot(None) is None
    assert snapshot(Price(1, 2, as_of="2026-11-20")) is not None


BODY = {"messages": [{"role": "system", "content": "Seja breve."}, {"role": "user", "content": "Olá, você!"}]}


def test_prompt_size_counts_utf8_bytes() -> None:
    """Bytes, not characters: accents weigh two."""
    assert prompt_size(BODY) == PromptSize(len(b"Seja breve.") + len("Olá, você!".encode()), 2)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"prompt": "abc"}, PromptSize(3, 1)),
        ({"prompt": ["abc", "de"]}, PromptSize(5, 2)),
        ({"input": [1, 2, 3]}, PromptSize(12, 1)),
        ({"input": [[1, 2], [3]]}, PromptSize(12, 2)),
        ({"messages": [{"content": [{"type": "text", "text": "ab"}, {"type": "image_url"}]}]}, PromptSize(2, 1, 1)),
        ({"messages": [{"tool_calls": [{"a": 1}]}]}, PromptSize(9, 1)),
        ({"messages": "nonsense"}, PromptSize(0, 8)),
        ({"messages": [{"content": "x"}], "tools": [{"b": 2}]}, PromptSize(10, 1)),
        ({}, PromptSize(0, 1)),
    ],
)
def test_prompt_shapes(body: dict[str, object], expected: PromptSize) -> None:
    """Every shape of prompt weighs something sensible; wrong shapes do not raise."""
    assert prompt_size(body) == expected


def test_the_longest_prompt_of_many() -> None:
    """Of several prompts the heaviest is weighed; a list of token ids is one prompt, and so is a chat."""
    assert longest_prompt({"input": ["a", "a" * 30, "aa"]}) == PromptSize(30, 1)
    assert longest_prompt({"prompt": [[1, 2], [3]]}) == PromptSize(8, 1)
    assert longest_prompt({"input": [1, 2, 3]}) == PromptSize(12, 1)
    assert longest_prompt(BODY) == prompt_size(BODY)


def test_ratio_starts_high_and_learns() -> None:
    """Before anything is known the estimate leans high; five samples bring it to mean + 2 standard deviations."""
    size = PromptSize(1_000, 1)
    ratio = Ratio()
    assert input_tokens(size, ratio) == input_tokens(size) == 408
    for count in range(1, 6):
        ratio = ratio.learn(size, 258)
        assert (ratio.upper == pytest.approx(0.25)) is (count == 5)
    assert input_tokens(size, ratio) == 258


def test_ratio_covers_almost_every_prompt_of_a_noisy_model() -> None:
    """With prompts whose density varies by 10 %, at least 95 of 100 estimates are not exceeded."""
    rng = random.Random(7)
    ratio, covered = Ratio(), 0
    for n in range(300):
        size = PromptSize(rng.randrange(200, 4_000))
        tokens = round(size.text_bytes * rng.gauss(0.27, 0.027)) + 8
        if n >= 200:
            covered += input_tokens(size, ratio) >= tokens
        ratio = ratio.learn(size, tokens)
    assert covered >= 95


def test_images_and_tiny_prompts_teach_nothing() -> None:
    """Their tokens say little about text."""
    ratio = Ratio()
    assert ratio.learn(PromptSize(1_000, 1, 1), 2_000) is ratio
    assert ratio.learn(PromptSize(3), 12) is ratio
    assert ratio.learn(PromptSize(1_000), 0) is ratio


def steady(rate: float, seconds: int) -> list[tuple[float, float]]:
    return [(float(t), rate * t) for t in range(seconds + 1)]


def test_forecast_of_a_steady_pace() -> None:
    """2 a second and 100 left: 50 s, with a narrow interval."""
    found = forecast(1_000.0, 100, steady(2, 60))
    assert found is not None
    assert found.exhausted_at == pytest.approx(1_050)
    assert found.per_second == 2
    assert found.earliest is not None
    assert found.latest is not None
    assert 1_049 < found.earliest <= 1_050 <= found.latest < 1_051


def test_forecast_stops_at_the_reset() -> None:
    """What runs out only after the reset does not run out."""
    found = forecast(0.0, 100, steady(2, 60), reset_in=49)
    assert found is not None
    assert found.exhausted_at is None


def test_forecast_knows_what_returns() -> None:
    """60 come back after 20 s, so 100 left at 2 a second last 80 s."""
    found = forecast(0.0, 100, steady(2, 60), returns=[(20, 60)])
    assert found is not None
    assert found.exhausted_at == pytest.approx(80)
    late = forecast(0.0, 100, steady(2, 60), returns=[(60, 60)])  # too late to help
    assert late is not None
    assert late.exhausted_at == pytest.approx(50)


def test_no_pace_no_forecast() -> None:
    """Nothing used, one lone burst, or a single sample say nothing."""
    assert forecast(0.0, 10, []) is None
    assert forecast(0.0, 10, [(0, 0), (10, 0)]) is None
    assert forecast(0.0, 10, [(0, 0), (10, 5), (20, 5)]) is None


def test_the_interval_holds_what_it_promises() -> None:
    """Of many simulated Poisson streams of calls of varied size, about 80 % run out inside the interval."""
    rng = random.Random(11)
    inside = told = 0
    for _ in range(400):
        samples, used = [(0.0, 0.0)], 0.0
        for second in range(1, 121):
            used += sum(rng.randrange(1, 400) for _ in range(_poisson(rng, 0.5)))
            samples.append((float(second), used))
        found = forecast(120.0, 10_000, samples)
        if found is None:
            continue
        left, at = 10_000.0, 120.0
        while left > 0:
            at += rng.expovariate(0.5)
            left -= rng.randrange(1, 400)
        told += 1
        assert found.earliest is not None
        inside += found.earliest <= at <= (found.latest or float("inf"))
    assert told > 390
    assert 0.74 <= inside / told <= 0.87


def _poisson(rng: random.Random, mean: float) -> int:
    count, left = 0, rng.expovariate(1)
    while left < mean:
        count += 1
        left += rng.expovariate(1)
    return count


def test_dispersion_is_per_amount() -> None:
    """Calls of 100 units each are 100 times as uncertain as calls of one."""
    rng = random.Random(3)
    counts = [_poisson(rng, 1.0) for _ in range(200)]

    def cumulated(size: int) -> list[tuple[float, float]]:
        total, samples = 0, [(0.0, 0.0)]
        for second, count in enumerate(counts):
            total += count * size
            samples.append((second + 1.0, float(total)))
        return samples

    one, hundred = pace(cumulated(1)), pace(cumulated(100))
    assert one is not None
    assert hundred is not None
    assert hundred.dispersion == pytest.approx(100 * one.dispersion)


def test_texts() -> None:
    """Amounts and waits as people read them."""
    assert amount_text("requests", 1) == "1 request"
    assert amount_text("total_tokens", 6_000) == "6,000 tokens"
    assert amount_text("usd", 2_100) == "$0.0021"
    assert [wait_text(seconds * 10**9) for seconds in (0, 5, 600, 9_000, 400_000)] == [
        "in 0 s", "in 5 s", "in 10 min", "in 2 h 30 min", "in 4 days 15 h",
    ]  # fmt: skip


def test_one_absurd_figure_does_not_shut_a_model_out() -> None:
    """A host that claims 410,000 tokens for 200 bytes teaches at most what any tokenizer could need."""
    size = PromptSize(200)
    learned = Ratio().learn(size, 410_000)
    assert input_tokens(size, learned) <= 2 * 200
