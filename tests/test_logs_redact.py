"""The redactor alone: shapes, names, nesting, and what must stay readable."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.logs import redactor as module
from hybridd.logs.redactor import (
    MASK,
    forget_secrets,
    redact,
    redact_value,
    register_secret,
    sensitive_name,
    suspicious,
)

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlLWNhbmFyeQ"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIcanarycanary\n-----END RSA PRIVATE KEY-----"

# (text, the part that must be gone)
LEAKS = [
    ("key sk-proj-Canary1234567890 was refused", "Canary1234567890"),
    ("sk-ant-api03-Canary_12-34", "Canary_12"),
    ("sk_live_Canary123456", "Canary123456"),
    ("ghp_Canary1234567890", "Canary1234567890"),
    ("gho_Canary1234567890", "Canary1234567890"),
    ("github_pat_11CANARY_abcdef123", "CANARY_abcdef123"),
    ("hf_CanaryCanaryCanaryCanary", "CanaryCanary"),
    ("hf_canarycanarycanarycanary", "canarycanary"),
    ("gsk_Canary1234567890", "Canary1234567890"),
    ("Bearer canary-12345", "canary-12345"),
    ("bearer  canary.abc=", "canary.abc"),
    ("Authorization: Bearer canary-value", "canary-value"),
    ("authorization: Token canary-value", "canary-value"),
    ("authorization=canary-value", "canary-value"),
    ('{"authorization": "Bearer canary-value"}', "canary-value"),
    ("{'Authorization': 'Basic Y2FuYXJ5OmNhbmFyeQ=='}", "Y2FuYXJ5OmNhbmFyeQ"),
    ("[(b'authorization', b'Bearer canary-value')]", "canary-value"),
    ("api_key=canary-value", "canary-value"),
    ("api-key: canary-value", "canary-value"),
    ('"apiKey": "canary-value"', "canary-value"),
    ("x-api-key: canary-value", "canary-value"),
    ("HYBRIDD_PLUGIN_TOKEN=canary123value", "canary123value"),
    ("OPENAI_API_KEY=canaryvalue", "canaryvalue"),
    ("access_token=canaryvalue&x=1", "canaryvalue"),
    ("--password canary99", "canary99"),
    ("https://user:canary@host/path", "canary"),
    ("https://canary-key@host/path", "canary-key"),
    ("https://host/v1?key=canary&x=1", "canary"),
    ("https://host/v1?x=1&token=canary", "canary"),
    ("AKIAIOSFODNN7CANARY", "IOSFODNN7CANARY"),
    ("aws_secret_access_key = wJalrXUtnFEMIcanary", "wJalrXUtnFEMIcanary"),
    ("AIzaSyCanary1234567890", "SyCanary1234567890"),
    (JWT, "c2lnbmF0dXJlLWNhbmFyeQ"),
    (PEM, "MIIcanarycanary"),
    ("cookie: session=canaryvalue", "canaryvalue"),
    ("X-Amz-Signature=canaryvalue", "canaryvalue"),
]

HARMLESS = [
    "time to first token: 35 ms, max_tokens=100, total_tokens: 5",
    "hf_downloads 1000 hf_uploads_mb 500",
    "task-completed for disk-usage on /dev/sda1",
    "groq/total_tokens/86400s key='groq/requests/60s' count=3",
    "a secret sauce, a basic plan, a private matter",
    "plugin openai_compatible of provider groq: 12 tokens/s",
    "https://api.groq.com/openai/v1/chat/completions?limit=3",
    "2026-11-20T18:44:00Z ready at /run/user/1000/hybridd/hybridd.sock",
]


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    forget_secrets()
    yield
    forget_secrets()


@pytest.mark.parametrize(("text", "secret"), LEAKS)
def test_key_shapes_leave_no_trace(text: str, secret: str) -> None:
    """Anything shaped like a key is masked, wherever in a sentence it stands."""
    for around in ("{}", "before {} after", "upstream said: '{}'", "line\n{}\nline"):
        masked = redact(around.format(text))
        assert secret not in masked
        assert MASK in masked


@pytest.mark.parametrize("text", HARMLESS)
def test_ordinary_sentences_stay_whole(text: str) -> None:
    """Words that only resemble key names are not touched."""
    assert redact(text) == text


@given(st.text(max_size=200), st.sampled_from(LEAKS), st.text(max_size=200))
def test_the_cheap_test_never_hides_a_key_from_the_patterns(before: str, leak: tuple[str, str], after: str) -> None:
    """Whatever the patterns would change is announced by `suspicious`."""
    text = before + leak[0] + after
    slow = text
    for pattern, replacement in module._SHAPES:
        slow = pattern.sub(replacement, slow)
    if slow != text:
        assert suspicious(text)


@given(st.text(alphabet=st.sampled_from("abk_-=:\"' skhtoenapirB.0123@?&/,"), max_size=80))
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    """The mask itself is not taken for a key."""
    assert redact(redact(text)) == redact(text)


def test_registered_values_go_in_every_form() -> None:
    """A registered key is masked as it is, URL-quoted, JSON-escaped, in a repr, and in base64."""
    value = 'my"weird\\key/with+odd=chars'
    assert register_secret(value)
    import base64
    import json
    from urllib.parse import quote

    for form in (
        value,
        quote(value, safe=""),
        json.dumps(value),
        repr(value),
        base64.b64encode(value.encode()).decode(),
    ):
        masked = redact(f"seen: {form} there")
        assert MASK in masked
        assert "weird" not in masked
        assert "bXkid2V" not in masked


def test_each_line_of_a_registered_block_goes() -> None:
    """A multi-line secret is masked line by line too, because logs split lines."""
    register_secret("first-secret-line\nsecond-secret-line")
    assert redact("x second-secret-line y") == f"x {MASK} y"


def test_a_secret_too_short_to_mask_says_so() -> None:
    """A value under six characters is refused, because masking it would tear holes into words."""
    assert register_secret("abc") is False
    assert register_secret(None) is False
    assert redact("abc") == "abc"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("authorization", True), ("Proxy-Authorization", True), ("X-API-Key", True), ("apiKey", True),
        ("GROQ_API_KEY", True), ("client_secret", True), ("password", True), ("Set-Cookie", True), ("token", True),
        ("accessToken", True),
        ("max_tokens", False), ("input_tokens", False), ("key", False), ("tokens", False), ("secretary", False),
        ("first_token_ms", False),
    ],
)  # fmt: skip
def test_sensitive_names(name: str, expected: bool) -> None:
    """Names of headers and settings that carry keys are known in every spelling; counts of tokens are not."""
    assert sensitive_name(name) is expected


class _Broken:
    def __repr__(self) -> str:
        raise RuntimeError("canary-in-repr")


class _Leaky:
    def __repr__(self) -> str:
        return "<Leaky api_key='canary-value'>"


def test_nested_data_is_masked_at_every_depth() -> None:
    """Mappings, sequences, bytes, exceptions, objects, header pairs and command lines are all walked."""
    deep: dict[str, Any] = {"api_key": "canary-value"}
    for _ in range(20):
        deep = {"inner": [deep]}
    data = {
        "headers": [("authorization", "canary-value"), (b"x-api-key", b"canary-value")],
        "nested": {"list": [{"token": "canary-value"}], "plain": "ok"},
        "deep": deep,
        "raw": b"api_key=canary-value",
        "error": ValueError("Bearer canary-value"),
        "object": _Leaky(),
        "broken": _Broken(),
        "argv": ["prog", "--api-key", "canary-value"],
        "sk-Canary-value-as-a-name": 1,
        "set": {"password=canary-value"},
    }
    masked = redact_value(data)
    assert "anary-v" not in repr(masked)
    assert "canary-in-repr" not in repr(masked)
    assert masked["nested"]["plain"] == "ok"


def test_key_references_stay_readable() -> None:
    """Where a key is found is not a secret; a key in its place is."""
    assert redact_value({"api_key": {"env": "GROQ_API_KEY"}}) == {"api_key": {"env": "GROQ_API_KEY"}}
    assert redact_value({"api_key": {"value": "canary"}}) == {"api_key": MASK}
    assert redact_value({"token": 17, "password": None}) == {"token": 17, "password": None}


def test_long_texts_are_cut_without_showing_half_a_key() -> None:
    """A key that lies across the cut is not shown in part."""
    for offset in range(-60, 60, 7):
        for edge in (module.LONGEST_TEXT, module.LONGEST_TEXT + module._OVERLAP):
            text = "x " * ((edge + offset) // 2) + "sk-Canary1234567890123456789" + " y" * 20_000
            masked = redact(text)
            assert "Canary" not in masked
            assert len(masked) < module.LONGEST_TEXT + 100
            assert masked.endswith("more characters)")


def test_masking_that_shortens_the_text_does_not_uncover_half_a_key() -> None:
    """What masking frees is not filled with the unchecked end of the first cut."""
    register_secret("correct horse battery staple")
    start = "sk-" + "A" * 8000 + " "
    edge = module.LONGEST_TEXT + module._OVERLAP
    text = start + "." * (edge - len(start) - 13) + "correct horse battery staple" + "." * 50_000
    assert "correct" not in redact(text)


@pytest.mark.parametrize(
    "unit",
    ["eyJ-", "token=", "secret ", "sk-", "authorization: ", "bearer ", "://", "-----BEGIN A", " ", 'token"', "ab-"],
)
def test_hostile_text_costs_linear_time(unit: str) -> None:
    """No text of the longest kind holds the loop: every pattern is linear."""
    text = ("authorization: " if unit == "ab-" else "") + unit * 20_000
    redact(text)
    started = time.perf_counter()
    redact(text)
    assert time.perf_counter() - started < 0.25
