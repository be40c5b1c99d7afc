"""Error answers to typed failures."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.plugin import CallFailure
from plugins.openai_compatible import classify, text
from tests.fakes.upstream import PRESETS

NOW = 1_795_000_000.0
KEY = "canary-7f3a9c1e5b"
GITHUB_429 = "Rate limit of 50 per 86400s exceeded for UserByModelByDay. Please wait 5631 seconds before retrying."


def fail(status: int, body: Any = b"", headers: dict[str, str] | None = None, **more: Any) -> CallFailure:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return classify.failure(status, headers or {}, raw, now=NOW, secrets=(KEY,), **more)


def error(message: str = "no", **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "bad_request"), (401, "auth"), (402, "payment"), (403, "forbidden"), (404, "not_found"),
        (405, "unsupported"), (408, "timeout"), (409, "conflict"), (410, "gone"), (413, "too_large"),
        (415, "unsupported"), (418, "bad_request"), (422, "bad_request"), (429, "rate_limited"), (498, "overloaded"),
        (500, "unavailable"), (501, "unsupported"), (502, "unavailable"), (503, "unavailable"), (504, "timeout"),
        (529, "overloaded"), (599, "unavailable"), (301, "bad_response"), (307, "bad_response"), (999, "unavailable"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "body", [b"", b"<html><title>x</title></html>", b'{"error":{"message":"no"}}', b"\xff\xfe{", b"[]"]
)
def test_status_alone(status: int, kind: str, body: bytes) -> None:
    """Each status has its kind whatever the body holds; an answered request was sent."""
    failure = fail(status, body)
    assert (failure.error.kind, failure.error.sent, failure.error.status) == (kind, "yes", status)
    assert failure.error.permanent is (kind == "gone")
    assert 0 < len(failure.message) <= text.MAX_MESSAGE


@pytest.mark.parametrize(
    ("status", "body", "headers", "kind"),
    [
        (429, error(code="insufficient_quota", type="insufficient_quota"), {}, "payment"),
        (429, error("You exceeded your current quota", code=429, status="RESOURCE_EXHAUSTED"), {}, "rate_limited"),
        (403, {"error": "You have exceeded your monthly included credits for Inference Providers."}, {}, "payment"),
        (400, error("Your credit balance is too low to access the API.", type="invalid_request_error"), {}, "payment"),
        (402, {"error": "You have exceeded your monthly included credits"}, {}, "payment"),
        (400, error("This model's maximum context length is 8192", code="context_length_exceeded"), {}, "too_large"),
        (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"}}, {},
         "too_large"),
        (400, error("API key not valid.", code=400, details=[{"reason": "API_KEY_INVALID"}]), {}, "auth"),
        (400, error(code="model_decommissioned"), {}, "not_found"),
        (403, b"", {"sunset": "Thu, 30 Jul 2026 00:00:00 GMT", "deprecation": "@1777939200"}, "gone"),
        (403, b"", {"deprecation": "@1777939200"}, "forbidden"),
        (403, {"message": "API rate limit exceeded for user"}, {}, "rate_limited"),
        (403, {"message": "You have exceeded a secondary rate limit"}, {"retry-after": "60"}, "rate_limited"),
        (403, {"message": "Resource not accessible"}, {"x-ratelimit-remaining": "10"}, "forbidden"),
        (410, error("temporarily unavailable", code="github_models_retirement_brownout"), {}, "gone"),
        (503, error("The engine is currently overloaded."), {}, "overloaded"),
        (503, error("Model too busy, unable to get response"), {}, "overloaded"),
        (422, {"detail": [{"loc": ["body", "messages"], "msg": "field required"}]}, {}, "bad_request"),
    ],
)  # fmt: skip
def test_what_the_body_adds(status: int, body: Any, headers: dict[str, str], kind: str) -> None:
    """Where hosts misuse a status, the body or a header corrects it."""
    assert fail(status, body, headers).error.kind == kind


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (error("bad thing", type="t", code="c"), "bad thing", "c"),
        (error("bad thing", type="t", code=None), "bad thing", "t"),
        ({"error": "bad thing"}, "bad thing", None),
        ({"error": "invalid_grant", "error_description": "bad thing"}, "bad thing", None),
        ([{"error": {"code": 400, "message": "bad thing", "status": "INVALID_ARGUMENT"}}], "bad thing", "INVALID_ARGUMENT"),  # noqa: E501  # one row
        ({"message": "bad thing", "type": "t", "code": "c"}, "bad thing", "c"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "bad thing"}}, "bad thing", "overloaded_error"),  # noqa: E501  # one row
        ({"detail": "bad thing"}, "bad thing", None),
        ({"detail": [{"loc": ["body", "x"], "msg": "bad thing"}]}, "body.x: bad thing", None),
        ({"errors": [{"message": "bad thing", "code": 7003}]}, "bad thing", None),
        ({"object": "error", "message": "bad thing", "type": "BadRequestError", "code": 400}, "bad thing",
         "BadRequestError"),
        ("bad thing", "bad thing", None),
        (b"bad thing\r\n\r\nin plain text", "bad thing in plain text", None),
        (b"<html><head><title>502 Bad Gateway</title></head><body>x</body></html>", "an HTML page: 502 Bad Gateway", None),  # noqa: E501  # one row
        (b"<html><body><h1>Oh &amp; no</h1><script>evil()</script></body></html>", "an HTML page: Oh & no", None),
        (error(""), '{"error": {"message": ""}}', None),
        (b"", "Bad Request", None),
    ],
)  # fmt: skip
def test_every_error_shape(body: Any, message: str, code: str | None) -> None:
    """The message and the code are found in every shape the hosts use."""
    failure = fail(400, body)
    assert failure.message.endswith(message)
    assert failure.error.upstream_code == code


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_of_the_fake_upstream(name: str) -> None:
    """Every recorded provider answer that waits says how long; those with nothing to believe say nothing."""
    told = PRESETS[name](None, NOW)
    if "body" in told and told["body"] == "":
        told = {**told, "body": b""}
    failure = fail(told["status"], told.get("body", b""), {k: str(v) for k, v in told.get("headers", {}).items()})
    expected = {
        "github_429": 5631, "hf_429": 55, "openai_429_reset_headers": 360, "cerebras_429": 33011.383,
        "retry_after_seconds": 30, "retry_after_date": 30, "retry_after_absurd": 31 * 86400, "google_retryinfo": 17,
        "google_retryinfo_array": 1.5, "body_retry_after": 30, "body_retryAfter": 30, "body_retry_after_seconds": 30,
        "prose_retry": 7.66, "prose_retry_after": 30, "prose_wait": 5631, "prose_days": 6 * 86400,
    }.get(name)  # fmt: skip
    wait = failure.error.retry_after_ms
    assert (None if wait is None else wait / 1000) == (None if expected is None else pytest.approx(expected, abs=1.0))


def test_github_429() -> None:
    """GitHub's 429 carries its limit as an observation for that model, and the wait."""
    failure = fail(429, error(GITHUB_429, code="RateLimitReached"), {"retry-after": "5631"}, model="gpt-4o")
    assert failure.error.kind == "rate_limited"
    assert failure.error.retry_after_ms == 5_631_000
    [observed] = failure.error.observations
    assert (observed.window, observed.limit, observed.remaining, observed.models) == ("86400s", 50, 0, ["gpt-4o"])


def test_deprecation_buries_only_at_github() -> None:
    """A 403 with a deprecation header alone is GitHub's retirement; of another host it is only an announcement."""
    headers = {"deprecation": "@1777939200"}
    assert fail(403, b"", headers, dialect="github_models").error.permanent
    assert not fail(403, b"", headers).error.permanent


def test_sunset_is_told() -> None:
    """A retirement with an empty body still says since when."""
    assert "retired since Thu, 30 Jul 2026" in fail(403, b"", {"sunset": "Thu, 30 Jul 2026 00:00:00 GMT"}).message


@pytest.mark.parametrize(
    "echo",
    [
        f"Incorrect API key provided: {KEY}.",
        f"key {KEY[:4]}\u200b x {KEY}",
        "Incorrect API key provided: sk-proj-abcdefgh12345678.",
        "Incorrect API key provided: sk-ab*********xyz1.",
        "token hf_abcdefghijklmnop is wrong",
        "Authorization: Bearer abcdefghijklmnop1234567890",
        "ghp_abcdefghijklmnop1234 and github_pat_11ABCDEFG0abcdefg",
        "AIzaSyA1234567890abcdefghijklmnop",
        "see https://user:hunter2password@example.org/x",
    ],
)
def test_keys_are_never_echoed(echo: str) -> None:
    """A key that the host repeats, plain or half masked, in message or code, does not reach our message."""
    for body in (error(echo, code=echo), {"error": echo}, echo.encode(), f"<title>{echo}</title>".encode()):
        failure = fail(401, body)
        told = f"{failure.message} {failure.error.upstream_code}"
        for secret in (KEY, "sk-proj", "sk-ab", "xyz1", "hf_abc", "abcdefghijklmnop", "ghp_", "AIza", "hunter2"):
            assert secret not in told


def test_a_key_across_the_reading_limit() -> None:
    """Redaction comes before shortening: no half of a key is left at the cut."""
    failure = fail(400, (" " * 8180 + KEY).encode())
    assert KEY[:6] not in failure.message


def test_message_is_one_bounded_line() -> None:
    """Line breaks, escape sequences and text direction marks are gone, and the length is bounded."""
    failure = fail(400, error("a\nb\x1b[31mc\u202ed" + "x" * 5000))
    assert len(failure.message) <= text.MAX_MESSAGE
    assert not set("\n\x1b\u202e") & set(failure.message)


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ({"message": "x", "code": 429}, "rate_limited"),
        ({"message": "x", "code": 502}, "unavailable"),
        ({"message": "x", "code": "503"}, "unavailable"),
        ({"message": "x", "type": "server_error"}, "unavailable"),
        ({"message": "x", "code": "insufficient_quota"}, "payment"),
        ({"message": "x", "type": "rate_limit_error"}, "rate_limited"),
        ({"message": "x", "type": "overloaded_error"}, "overloaded"),
        ({"message": "x", "code": "context_length_exceeded"}, "too_large"),
        ({"message": "x", "type": "invalid_request_error"}, "bad_request"),
        ("the model runner has crashed", "unavailable"),
        (True, "unavailable"),
    ],
)
def test_errors_inside_a_200(told: Any, kind: str) -> None:
    """An error object in a stream or a body of status 200 is classified by what it says."""
    failure = classify.in_band(told, now=NOW)
    assert (failure.error.kind, failure.error.sent) == (kind, "yes")


@given(
    st.integers(300, 600),
    st.binary(max_size=200) | st.text(max_size=50).map(lambda t: json.dumps({"error": t}).encode()),
)
def test_never_fails(status: int, body: bytes) -> None:
    """Whatever bytes an error carries, there is a failure with a printable message."""
    failure = fail(status, body)
    assert failure.message.isprintable()
    assert len(failure.message) <= text.MAX_MESSAGE
