"""The alert rules, as pure functions of plain values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.config.presets import HUB_DOWNLOADS, HUB_UPLOADS
from hybridd.config.settings import AlertThresholds
from hybridd.contracts.views import LimitView
from hybridd.monitor import rules
from hybridd.monitor.conditions import Condition, Facts, clock_time, duration
from hybridd.monitor.rules import warning_line
from tests.monitor.helpers import NOW, forecast, limit, plugin, provider, quota

UNITS = ["requests", "input_tokens", "output_tokens", "total_tokens", "bytes_down", "bytes_up", "usd"]


def evaluate(held: frozenset[str] = frozenset(), **facts: Any) -> list[Condition]:
    return rules.evaluate(Facts(now=NOW, thresholds=facts.pop("thresholds", AlertThresholds()), **facts), held)


def names(conditions: list[Condition]) -> list[str]:
    return [condition.name for condition in conditions]


@pytest.mark.parametrize(
    ("limit_", "buffer", "unit", "line"),
    [
        (5000, 100, "requests", 100),  # left = 200 = twice the buffer
        (15, 1, "requests", 1),
        (15, 0, "requests", 1),
        (1000, 0, "requests", 100),
        (5, 0, "requests", 1),
        (1, 0, "requests", 0),  # the first call uses it up; warned right then
        (2, 1, "requests", 0),
        (10, 10, "requests", 0),
        (10, 8, "requests", 1),  # 16 left would be more than there is: warned once anything is used
        (6000, 0, "total_tokens", 600),
        (6000, 100, "total_tokens", 600),  # one call takes hundreds: a buffer of 100 would be too late
        (5_000_000, 0, "usd", 500_000),
        (5, 0, "concurrent", -1),
        (0, 0, "requests", 0),
    ],
)
def test_warning_lines(limit_: int, buffer: int, unit: Any, line: int) -> None:
    """The line is one buffer above the point of refusal, or a tenth of the limit and at least one."""
    assert warning_line(quota(limit_, buffer=buffer, unit=unit)) == line


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.sampled_from(UNITS))
def test_a_line_never_warns_of_an_untouched_quota_and_never_after_a_refusal(limit_: int, extra: int, unit: Any) -> None:
    """For every limit and buffer, the line lies between nothing and one less than what may be admitted in all."""
    buffer = min(extra, limit_)
    line = warning_line(quota(limit_, buffer=buffer, unit=unit))
    assert 0 <= line <= max(0, limit_ - buffer - 1)


@given(st.integers(1, 300), st.integers(0, 300))
def test_draining_one_by_one_always_warns_before_the_first_refusal(limit_: int, extra: int) -> None:
    """However a quota of requests is set up, taking one at a time meets the warning before the refusal."""
    buffer = min(extra, limit_ - 1)
    remaining, warned_at, admitted = limit_ - buffer, None, 0
    assert rules.quota_low(limit(remaining, limit=float(limit_), buffer=float(buffer)), NOW) is None
    while remaining > 0:
        remaining, admitted = remaining - 1, admitted + 1
        view = limit(remaining, limit=float(limit_), buffer=float(buffer))
        if warned_at is None and rules.quota_low(view, NOW) is not None:
            warned_at = admitted
    assert warned_at is not None
    if buffer and 2 * buffer < limit_:
        assert limit_ - warned_at == 2 * buffer


@given(st.floats(0, 1000), st.floats(0, 1000))
def test_what_opens_is_held_and_a_held_alert_ends_only_clear_of_the_line(first: float, second: float) -> None:
    """Holding never ends where opening would begin: the two lines are apart."""
    opens, holds = limit(first), limit(second)
    if rules.quota_low(opens, NOW) is not None:
        assert rules.quota_low(opens, NOW, held=True) is not None
    if rules.quota_low(holds, NOW, held=True) is None:
        assert second > 125


def test_the_warning_is_a_plain_sentence() -> None:
    """Provider, what is left, of how much, the buffer and when it returns are all in the text."""
    view = limit(90, limit=5000.0, buffer=100.0, window="3600s", provider="github_models", reset=NOW + 1800)
    condition = rules.quota_low(view, NOW)
    assert condition is not None
    assert condition.message == (
        "github_models may use only 90 of 5,000 requests/hour more, keeping a buffer of 100; capacity returns at "
        "14:43 UTC."
    )
    assert (condition.key, condition.severity) == ("quota_low:groq/requests/day", "warning")
    assert condition.data["remaining"] == 90


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"remaining": 0.0}, "groq has no requests/day left: further calls are refused."),
        (
            {"remaining": 0.0, "buffer": 1000.0},
            "groq can admit nothing: its buffer holds back all of its 1,000 requests.",
        ),
        (
            {"remaining": 0.4, "limit": 5.0, "unit": "usd", "window": "month"},
            "groq may use only $0.40 of $5.00/month more.",
        ),
        (
            {"remaining": 4e8, "limit": 5e9, "unit": "bytes_up", "models": ["m"]},
            "groq may use only 400 MB of 5.0 GB of upload/day more for m.",
        ),
    ],
)
def test_other_warnings(changes: dict[str, Any], text: str) -> None:
    """An empty quota, one eaten by its buffer, money and bytes each read naturally."""
    condition = rules.quota_low(limit(**changes), NOW)
    assert condition is not None
    assert condition.message == text


def test_a_pace_is_not_an_allowance() -> None:
    """Concurrent slots in use are no warning."""
    assert evaluate(limits=[limit(0, unit="concurrent", window="none", limit=5.0)]) == []


def test_a_forecast_before_the_reset_warns() -> None:
    """The sentence says when it runs out and how long before its reset."""
    view = limit(500, unit="total_tokens", forecast=forecast(NOW + 3 * 3600), reset=NOW + 10 * 3600)
    (condition,) = evaluate(limits=[view])
    assert condition.message == "groq total_tokens/day runs out at 17:13 UTC, 7 h before its reset, at the recent pace."
    assert condition.name == "QuotaForecast"


@pytest.mark.parametrize(
    "changes",
    [
        {"forecast": None},
        {"forecast": forecast(None)},
        {"forecast": forecast(NOW + 100), "window": "60s"},
        {"forecast": forecast(NOW + 9.9 * 3600), "reset": NOW + 10 * 3600},
        {"forecast": forecast(NOW + 11 * 3600), "reset": NOW + 10 * 3600},
    ],
)
def test_no_forecast_alert(changes: dict[str, Any]) -> None:
    """None known, a short window, or an end that comes with or after the reset: nothing to say."""
    assert evaluate(limits=[limit(500, **changes)]) == []


def test_a_forecast_is_held_until_it_reaches_the_reset() -> None:
    """Between the margin and the reset an open alert stays, a new one does not open."""
    view = limit(500, forecast=forecast(NOW + 9.9 * 3600), reset=NOW + 10 * 3600)
    key = "quota_forecast:groq/requests/day"
    assert names(evaluate(frozenset({key}), limits=[view])) == ["QuotaForecast"]


@pytest.mark.parametrize(
    ("drift", "held", "expected"), [(99, False, 0), (100, False, 1), (80, False, 0), (80, True, 1), (-500, True, 0)]
)
def test_drift(drift: float, held: bool, expected: int) -> None:
    """A tenth of the limit counted by others warns; three quarters of that hold; less than we count never does."""
    keys = frozenset({"quota_drift:groq/requests/day"}) if held else frozenset()
    found = evaluate(keys, limits=[limit(500, drift=float(drift))])
    assert len(found) == expected
    if found:
        assert "something else spends this account" in found[0].message


def test_small_drift_of_a_small_limit_is_rounding() -> None:
    """Two requests off on a limit of fifteen are calls in flight, not another user."""
    assert evaluate(limits=[limit(10, limit=15.0, drift=2.0)]) == []
    assert names(evaluate(limits=[limit(10, limit=15.0, drift=3.0)])) == ["QuotaDrift"]


def test_debt() -> None:
    """Debt is named with its amount."""
    (condition,) = evaluate(limits=[limit(500, unit="total_tokens", debt=1200.0)])
    assert condition.name == "QuotaDebt"
    assert "1,200 tokens in debt" in condition.message


@pytest.mark.parametrize("state", ["disabled", "retired", "not_configured"])
def test_quotas_of_unused_providers_are_quiet(state: str) -> None:
    """What is not used cannot run out."""
    found = evaluate(limits=[limit(0)], providers=[provider("groq", state)])
    assert "QuotaLow" not in names(found)


def test_a_retired_provider_is_one_clear_alert() -> None:
    """It names the tasks that lost their first choice and what each falls to."""
    (condition,) = evaluate(
        providers=[
            provider("github_models", "retired", "410 Gone since 2026-07-30"),
            provider("off", "disabled"),
            provider("groq"),
        ],
        tasks={
            "code_generation": ["github_models:copilot-chat", "off:x", "groq:*"],
            "alone": ["github_models:gpt-4o-mini"],
            "other": ["groq:m", "github_models:x"],
            "empty": [],
        },
        limits=[limit(0, provider="github_models")],
    )
    assert (condition.name, condition.severity) == ("ProviderRetired", "critical")
    assert condition.message == (
        "github_models was retired by its host and is not tried again (410 Gone since 2026-07-30). Tasks that lost "
        "their first choice: code_generation (now groq:*), alone (nothing is left)."
    )
    assert condition.data["tasks"] == {"code_generation": "groq:*", "alone": None}


def test_parked_and_failed_providers() -> None:
    """Parking warns; a failure is critical; a failed plugin speaks for its providers."""
    found = evaluate(
        providers=[provider("a", "parked", "401 unauthorized."), provider("b", "failed", "x"), provider("c", "failed")],
        plugins=[plugin("p", "failed", providers=["c"], reason="exited with 1"), plugin("q", "ready")],
    )
    assert [(c.name, c.severity, c.key) for c in found] == [
        ("PluginFailed", "critical", "plugin_failed:p"),
        ("ProviderParked", "warning", "provider_parked:a"),
        ("ProviderFailed", "critical", "provider_failed:b"),
    ]
    assert found[0].message == "The plugin p (c) has failed and is not restarted for now: exited with 1."
    assert found[1].message == "a is parked until you act (key or payment): 401 unauthorized."


@pytest.mark.parametrize(
    "state", ["ready", "starting", "idle", "cooling", "not_configured", "disabled", "disconnected"]
)
def test_ordinary_states_are_no_alert(state: str) -> None:
    """Cooling, idle or not configured is a state, not a problem."""
    assert evaluate(providers=[provider("a", state)]) == []


def github(used: float, **changes: Any) -> LimitView:
    return limit(
        5000 - 100 - used, key="gh", provider="github_models", limit=5000.0, buffer=100.0, used=used, **changes
    )


def hub_view(model: str, unit: str, limit_: float, left: float) -> LimitView:
    return limit(
        left,
        key=model,
        provider="hugging_face",
        unit=unit,
        limit=limit_,
        used=limit_ - left,
        models=[model],
        window="month",
    )


def test_github_threshold_counts_what_is_really_left() -> None:
    """Fewer than 100 of the 5,000 left, by our count or by GitHub's own figure."""
    assert "GithubRequestsLow" not in names(evaluate(limits=[github(4900)]))
    assert "GithubRequestsLow" in names(evaluate(limits=[github(4901)]))
    assert "GithubRequestsLow" in names(evaluate(limits=[github(10, observed_remaining=99.0)]))
    held = frozenset({"threshold:GithubRequestsLow:gh"})
    assert "GithubRequestsLow" in names(evaluate(held, limits=[github(4895)]))
    assert "GithubRequestsLow" not in names(evaluate(held, limits=[github(4800)]))
    assert evaluate(limits=[github(4999)], providers=[provider("github_models", "disabled")]) == []


def test_hub_thresholds() -> None:
    """Fewer than 1,000 downloads or 500 MB of uploads left warn, with or without a key, at the configured figures."""
    quiet = [hub_view(HUB_DOWNLOADS, "requests", 10_000, 9000), hub_view(HUB_UPLOADS, "bytes_up", 5e9, 4e9)]
    low = [hub_view(HUB_DOWNLOADS, "requests", 10_000, 999), hub_view(HUB_UPLOADS, "bytes_up", 5e9, 499e6)]
    keyless = [provider("hugging_face", "not_configured")]
    assert evaluate(limits=quiet) == []
    assert {"HfDownloadsLow", "HfUploadsLow"} <= set(names(evaluate(limits=low, providers=keyless)))
    lower = AlertThresholds(hf_downloads=9001, hf_uploads_mb=4001)
    assert names(evaluate(limits=quiet, thresholds=lower)) == ["HfDownloadsLow", "HfUploadsLow"]
    message = next(c for c in evaluate(limits=low) if c.name == "HfUploadsLow").message
    assert message == "499 MB of Hugging Face uploads are left, fewer than the 500 you asked to be warned at."


def test_latency_and_money() -> None:
    """Above 180 s of median latency and above $5 in an hour warn; a tenth below the line an open alert ends."""
    assert evaluate(local_latency_seconds=180.0, usd_last_hour=5.0) == []
    assert names(evaluate(local_latency_seconds=181.0, usd_last_hour=5.01)) == ["LocalLatencyHigh", "SpendHigh"]
    held = frozenset({"local_latency", "spend"})
    assert names(evaluate(held, local_latency_seconds=170.0, usd_last_hour=4.6)) == ["LocalLatencyHigh", "SpendHigh"]
    assert evaluate(held, local_latency_seconds=161.0, usd_last_hour=4.4) == []


def test_a_disk_that_refuses_is_critical() -> None:
    """The reason is in the sentence."""
    (condition,) = evaluate(storage_failed="No space left on device")
    assert condition.severity == "critical"
    assert condition.message == (
        "The disk refuses writes, so no call is sent to any provider: No space left on device."
    )


def test_times_and_durations() -> None:
    """Short forms for people; another day carries its date."""
    assert clock_time(NOW, NOW) == "14:13 UTC"
    assert clock_time(NOW + 86_400, NOW) == "2026-09-22 14:13 UTC"
    assert [duration(s) for s in (45, 61, 3600, 7 * 3600, 86_400, 3 * 86_400)] == [
        "45 s",
        "1 min",
        "1 h",
        "7 h",
        "24 h",
        "3 days",
    ]
