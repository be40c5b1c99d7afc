"""Parsing a caller's request."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.errors import InvalidRequest
from hybridd.routing.request import parse, parse_body


def no_header(name: bytes) -> str | None:
    return None


def chat(**body):
    return parse("chat", {"model": "m", "messages": [{"role": "user", "content": "hi"}], **body}, no_header)


def test_the_smaller_of_both_token_bounds_counts():
    """max_tokens and max_completion_tokens both bind."""
    assert chat(max_tokens=50, max_completion_tokens=20).max_tokens == 20
    assert chat().max_tokens is None


def test_content_is_measured_in_bytes_and_images():
    """Text counts in UTF-8 bytes, images by number."""
    parts = [{"type": "text", "text": "é"}, {"type": "image_url", "image_url": {"url": "data:..."}}]
    request = parse("chat", {"model": "m", "messages": [{"role": "user", "content": parts}]}, no_header)
    assert (request.size.text_bytes, request.size.images) == (2, 1)


def test_a_header_names_the_task_and_a_model_prefix_wins():
    """x-hybridd-task is used unless the model itself says task:NAME."""
    headers = {b"x-hybridd-task": "a"}
    messages = [{"role": "user", "content": "hi"}]
    assert parse("chat", {"model": "auto", "messages": messages}, headers.get).task == "a"
    assert parse("chat", {"model": "task:b", "messages": messages}, headers.get).task == "b"


@pytest.mark.parametrize("tier", ["gold", "FREE ", "1"])
def test_an_unknown_tier_is_refused(tier):
    """Only free and premium exist."""
    with pytest.raises(InvalidRequest):
        parse("chat", {"model": "m", "messages": [{"role": "user", "content": "x"}]}, {b"x-hybridd-tier": tier}.get)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 0), ("n", 129), ("n", True), ("max_tokens", True), ("max_tokens", 1.5), ("temperature", 3),
        ("temperature", "hot"), ("top_p", -0.1), ("stream", 1), ("stream_options", {"include_usage": True}),
    ],
)  # fmt: skip
def test_wrong_values_name_their_field(field, value):
    """Each wrong value is a 400 that names the field."""
    with pytest.raises(InvalidRequest) as caught:
        chat(**{field: value})
    assert caught.value.param == field


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_a_clear_error(raw):
    """No body can do anything but parse or be refused with InvalidRequest."""
    try:
        body = parse_body(raw)
    except InvalidRequest:
        return
    assert isinstance(body, dict)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


some_messages = st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": json_values}), max_size=2)
optional_fields = (
    "stream", "stream_options", "max_tokens", "n", "temperature", "user", "tools", "response_format",
)  # fmt: skip


@given(
    st.fixed_dictionaries(
        {"model": json_values, "messages": json_values | some_messages},
        optional=dict.fromkeys(optional_fields, json_values),
    )
)
def test_any_json_is_parsed_or_refused(body):
    """Any JSON in any field parses or is an InvalidRequest; nothing else escapes."""
    body = msgspec.json.decode(msgspec.json.encode(body))
    try:
        request = parse("chat", body, no_header)
    except InvalidRequest:
        return
    assert request.size.text_bytes >= 0


def test_deep_nesting_is_refused():
    """A body nested beyond the parser's depth is a 400, not a crash."""
    with pytest.raises(InvalidRequest):
        parse_body(b"[" * 100_000)
