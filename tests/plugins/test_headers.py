"""Rate-limit headers of each dialect to observations."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.plugin import Observation
from plugins.openai_compatible import headers

NOW = 1_795_000_000.0


def seen(given_headers: dict[str, str], dialect: str = "openai") -> dict[tuple[str, str | None], Observation]:
    return {(one.unit, one.window): one for one in headers.observe(given_headers, dialect, NOW)}


OPENAI = {
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-limit-tokens": "150000",
    "x-ratelimit-remaining-requests": "59",
    "x-ratelimit-remaining-tokens": "149984",
    "x-ratelimit-reset-requests": "1s",
    "x-ratelimit-reset-tokens": "6m0s",
}


def test_openai() -> None:
    """OpenAI names units but no windows; resets are Go durations."""
    observed = seen(OPENAI)
    assert observed[("requests", None)] == Observation(
        unit="requests", remaining=59, limit=60, window=None, reset_ms=1000, source="header"
    )
    assert observed[("total_tokens", None)].reset_ms == 360_000
    assert len(observed) == 2


def test_groq() -> None:
    """Groq's figures look like OpenAI's, but are documented as requests a day and tokens a minute."""
    assert set(seen(OPENAI, "groq")) == {("requests", "86400s"), ("total_tokens", "60s")}


def test_cerebras() -> None:
    """Cerebras puts the window into the name and the reset into plain seconds."""
    observed = seen(
        {
            "x-ratelimit-limit-requests-day": "14400",
            "x-ratelimit-remaining-requests-day": "0",
            "x-ratelimit-reset-requests-day": "33011.382867",
            "X-RateLimit-Limit-Tokens-Minute": "60000",
            "X-RateLimit-Remaining-Tokens-Minute": "60000",
            "X-RateLimit-Reset-Tokens-Minute": "11.38",
        },
        "cerebras",
    )
    assert observed[("requests", "86400s")].remaining == 0
    assert observed[("requests", "86400s")].reset_ms == 33_011_383
    assert observed[("total_tokens", "60s")].limit == 60_000


def test_anthropic() -> None:
    """Anthropic has its own prefix, units for input and output, and RFC 3339 resets."""
    observed = seen(
        {
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "49",
            "anthropic-ratelimit-requests-reset": "2026-11-18T11:07:20Z",
            "anthropic-ratelimit-input-tokens-limit": "30000",
            "anthropic-ratelimit-input-tokens-remaining": "29000",
            "anthropic-ratelimit-output-tokens-remaining": "8000",
        },
        "anthropic",
    )
    assert observed[("requests", None)].reset_ms == (1795000040 - 1795000000) * 1000
    assert observed[("input_tokens", None)].remaining == 29_000
    assert observed[("output_tokens", None)].limit is None


def test_github() -> None:
    """GitHub's unsuffixed headers are requests an hour with an epoch reset; figures of other resources are not ours."""
    core = {
        "x-ratelimit-limit": "5000",
        "x-ratelimit-remaining": "4999",
        "x-ratelimit-reset": str(int(NOW) + 90),
        "x-ratelimit-used": "1",
        "x-ratelimit-resource": "core",
    }
    assert seen(core, "github")[("requests", "3600s")].reset_ms == 90_000
    assert seen({**core, "x-ratelimit-resource": "search"}, "github") == {}


def test_epoch_milliseconds() -> None:
    """OpenRouter gives the reset as epoch milliseconds."""
    observed = seen(
        {"X-RateLimit-Limit": "20", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str((int(NOW) + 60) * 1000)},
        "openrouter",
    )
    assert observed[("requests", None)].reset_ms == 60_000


def test_hub() -> None:
    """The Hub's two headers belong together by bucket: remaining and reset in one, quota and window in the other."""
    observed = seen(
        {"ratelimit": '"api";r=489;t=55', "ratelimit-policy": '"fixed window";"api";q=500;w=300'}, "hugging_face"
    )
    assert observed == {
        ("requests", "300s"): Observation(
            unit="requests", remaining=489, limit=500, window="300s", reset_ms=55_000, source="header"
        )
    }


@pytest.mark.parametrize(
    ("value", "remaining"), [("-3", 0), ("-1", None), ("12.0", 12), ("1,200", 1200), ("abc", None), ("inf", None)]
)
def test_strange_figures(value: str, remaining: float | None) -> None:
    """A negative remainder is nothing left, Azure's -1 not known; what is no number is left out."""
    [observed] = headers.observe({"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": value}, "", NOW)
    assert observed.remaining == remaining


@pytest.mark.parametrize("limit", ["0", "-1"])
def test_no_limit(limit: str) -> None:
    """Gateways that write "no limit" as 0 or -1 do not look like used-up ones."""
    given_headers = {"x-ratelimit-limit-requests": limit, "x-ratelimit-remaining-requests": limit}
    assert headers.observe(given_headers, "openai", NOW) == []


def test_nothing_to_see() -> None:
    """Answers without such headers, or with a reset alone, give no observation."""
    assert headers.observe({"content-type": "application/json", "date": "x"}, "openai", NOW) == []
    assert headers.observe({"x-ratelimit-reset-requests": "1s"}, "openai", NOW) == []
    assert headers.observe({"x-ratelimit-limit-moonbeams": "1"}, "openai", NOW) == []


def test_github_sentence() -> None:
    """GitHub's 429 text is an observation of a used-up limit, bound to the model where it says so."""
    text = "Rate limit of 50 per 86400s exceeded for UserByModelByDay. Please wait 5631 seconds before retrying."
    [observed] = headers.from_text(text, "gpt-4o", NOW)
    assert observed == Observation(
        unit="requests", remaining=0, limit=50, window="86400s", reset_ms=5_631_000, models=["gpt-4o"], source="body"
    )
    [concurrent] = headers.from_text("Rate limit of 2 per 0s exceeded for UserConcurrentRequests.", "m", NOW)
    assert (concurrent.unit, concurrent.window, concurrent.models) == ("concurrent", None, None)
    assert headers.from_text("no such sentence", "m", NOW) == []


def test_exhausted_wait() -> None:
    """Of several used-up limits the one that resets last decides; limits with room left do not count."""
    used_up = [
        headers.make("requests", limit=1, remaining=0, window=None, reset=5),
        headers.make("total_tokens", limit=1, remaining=0, window=None, reset=60),
        headers.make("requests", limit=9, remaining=8, window="86400s", reset=9999),
    ]
    assert headers.exhausted_wait(used_up) == 60
    assert headers.exhausted_wait(used_up[2:]) is None


words = st.text(string.ascii_lowercase + string.digits + '-";=,.: ', max_size=40)


@given(st.dictionaries(words.map(lambda name: "x-ratelimit-" + name), words, max_size=5), words, words)
def test_never_fails(given_headers: dict[str, str], state: str, policy: str) -> None:
    """Whatever the headers hold, observations are made of finite, non-negative figures."""
    for one in headers.observe({**given_headers, "ratelimit": state, "ratelimit-policy": policy}, "openai", NOW):
        assert all(figure is None or 0 <= figure < 1e16 for figure in (one.limit, one.remaining, one.reset_ms))
