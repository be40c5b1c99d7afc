"""Retry hints: every form of providers.md, and what must not be believed."""

from __future__ import annotations

import math
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.openai_compatible import hints

NOW = 1_795_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30.0),
        ("0", 0.0),
        ("1.5", 1.5),
        (" 30 ", 30.0),
        ("17s", 17.0),
        ("6m0s", 360.0),
        ("12ms", 0.012),
        ("1h2m3.5s", 3723.5),
        ("2m59.56s", 179.56),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", None),
        ("2026-11-18T15:06:45Z", 1795014405.0 - NOW),
        ("2026-11-18T17:06:45+02:00", 1795014405.0 - NOW),
        ("2026-11-18T15:06:45.5", 1795014405.5 - NOW),
        (str(int(NOW) + 60), 60.0),
        (str((int(NOW) + 60) * 1000), 60.0),
        ("99999999999", hints.MAX_SECONDS),
        ("9" * 400, hints.MAX_SECONDS),
        ("9999h", hints.MAX_SECONDS),
        ("-5", None),
        ("-5s", None),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("1e9", None),
        ("Wed, 99 Nov 2026 00:00:00 GMT", None),
    ],
)
def test_header_forms(text: str, seconds: float | None) -> None:
    """Each form of Retry-After is understood; negative, past and meaningless ones are none, absurd ones bounded."""
    assert hints.from_headers({"retry-after": text}, NOW) == (None if seconds is None else pytest.approx(seconds))


def test_milliseconds_header_wins() -> None:
    """retry-after-ms is finer than retry-after and read first."""
    assert hints.from_headers({"retry-after-ms": "1500", "retry-after": "2"}, NOW) == 1.5


def test_date_is_compared_with_the_hosts_own_clock() -> None:
    """A date counts from the answer's Date header, so a local clock that is an hour wrong does no harm."""
    served = {"retry-after": formatdate(NOW + 30, usegmt=True), "date": formatdate(NOW, usegmt=True)}
    assert hints.from_headers(served, NOW - 3600) == 30.0


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ({"retry_after": 30}, 30.0),
        ({"retryAfter": "45"}, 45.0),
        ({"error": {"retry_after_seconds": 7.5}}, 7.5),
        ({"error": {"metadata": {"retry_after_ms": 250}}}, 0.25),
        ({"error": {"details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17s"}]}}, 17.0),
        ([{"error": {"details": [{"retryDelay": "1.5s"}]}}], 1.5),
        ({"error": {"details": [{"retryDelay": {"seconds": 3, "nanos": 500000000}}]}}, 3.5),
        ({"error": {"resets_at": NOW + 60}}, 60.0),
        ({"error": "Model is loading", "estimated_time": 20.0}, 20.0),
        ({"retry_after": 5, "error": {"retry_after": 60}}, 60.0),
        ({"retry_after": -5}, None),
        ({"retry_after": True}, None),
        ({"retry_after": None}, None),
        ({"retry_after": 10**400}, hints.MAX_SECONDS),
        ({"retry_after": 10**12}, hints.MAX_SECONDS),
        ({"resets_at": 30}, None),
        ({"message": "no hint"}, None),
        ("text", None),
        (None, None),
    ],
)
def test_body_fields(body: object, seconds: float | None) -> None:
    """Structured fields are found wherever they stand; the longest of several wins."""
    assert hints.from_body(body, NOW) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Rate limit reached for gpt-4 on tokens per min (TPM): Limit 10000. Please try again in 7.66s.", 7.66),
        ("Please try again in 6m0s. Visit https://x to learn more.", 360.0),
        ("Please try again in 1h2m3.5s", 3723.5),
        ("try again in 20 seconds", 20.0),
        ("Please try again in 12ms.", 0.012),
        ("Please retry in 34.074824224s.", 34.074824224),
        ("Too many requests, retry after 30 seconds.", 30.0),
        ("Retry-After: 30", 30.0),
        ("retry after 30", 30.0),
        (
            "Rate limit of 50 per 86400s exceeded for UserByModelByDay. Please wait 5631 seconds before retrying.",
            5631.0,
        ),
        ("Please wait 5,631 seconds", 5631.0),
        ("please wait for 2 minutes and 30 seconds", 150.0),
        ("wait 1 hour, 5 minutes", 3900.0),
        ("Monthly limit reached. Resets in 6 days.", 6 * 86400.0),
        ("Your limit resets in 3 hours", 10800.0),
        ("resets at 2026-11-18T15:06:45Z.", 1795014405.0 - NOW),
        ("Please try again after 2026-11-18 15:06:45 UTC", 1795014405.0 - NOW),
        ("Try again in a minute", 60.0),
        ("try again in an hour", 3600.0),
        ("Resets in 400 days", hints.MAX_SECONDS),
        ("Your quota resets on 2026-11-20. Upgrade", 1795132800.0 - NOW),
        ("resets at 10:30", None),
        ("please wait -5 seconds", None),
        ("try again in 3 attempts", None),
        ("try again later", None),
        ("the model waits for no one", None),
        ("limit 50 per 60s exceeded", None),
        ("", None),
    ],
)
def test_prose(text: str, seconds: float | None) -> None:
    """The quoted sentences of real providers are understood, and nothing else is taken for a wait."""
    assert hints.from_prose(text, NOW) == (None if seconds is None else pytest.approx(seconds))


def test_order_of_sources() -> None:
    """The header is believed before the body, the body before prose; a useless one falls to the next."""
    body, prose = {"retry_after": 20}, "try again in 30s"
    assert hints.retry_after({"retry-after": "10"}, body, prose, NOW) == 10
    assert hints.retry_after({"retry-after": "-1"}, body, prose, NOW) == 20
    assert hints.retry_after({}, {}, prose, NOW) == 30
    assert hints.retry_after({}, None, "no", NOW) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(
            st.sampled_from(["retry_after", "retryDelay", "resets_at", "error", "x"]), children, max_size=4
        )
    ),
    max_leaves=12,
)


@given(st.text(max_size=80), json_values)
def test_never_fails_and_never_leaves_the_bounds(text: str, body: object) -> None:
    """Whatever a host writes, the hint is None or a number from 0 to 31 days."""
    headers = {"retry-after": text, "retry-after-ms": text, "date": text}
    for seconds in (
        hints.from_headers(headers, NOW),
        hints.from_body(body, NOW),
        hints.from_prose("try again in " + text, NOW),
        hints.from_prose("wait " + text, NOW),
    ):
        assert seconds is None or (math.isfinite(seconds) and 0 <= seconds <= hints.MAX_SECONDS)


def test_long_text_is_read_in_bounded_time() -> None:
    """A megabyte of almost-matches costs no noticeable time (the scan is bounded, no pattern backtracks)."""
    assert hints.from_prose("try again in " * 100_000, NOW) is None
    assert hints.from_prose("wait " + "1," * 500_000, NOW) in (None, 1.0)
    assert hints.from_prose("retry after" + " " * 500_000, NOW) is None
