"""Bodies, stream events, usage figures and model lists: what is read, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hybridd.plugin import CallFailure, Usage
from plugins.openai_compatible import answers, catalogue, usage

CHOICES = '"choices":[{"index":0,"message":{"content":"h\u00e9"},"finish_reason":"stop"}]'


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}, (3, 4, 0)),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, (0, 0, 0)),
        ({"prompt_tokens": 5, "total_tokens": 5}, (5, 0, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 30}, (5, 25, 0)),
        ({"input_tokens": 3, "output_tokens": 4}, (3, 4, 0)),
        ({"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 6}}, (9, 1, 6)),
        ({"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 60}}, (9, 1, 9)),
        ({"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 4}, (9, 1, 4)),
        ({"prompt_tokens": 3.0, "completion_tokens": "4"}, (3, 4, 0)),
        ({"prompt_tokens": 3, "completion_tokens": 4, "prompt_tokens_details": "x", "other": [1]}, (3, 4, 0)),
        ({"prompt_tokens": -3, "completion_tokens": 4}, None),
        ({"prompt_tokens": 3, "completion_tokens": -4}, None),
        ({"prompt_tokens": 3}, None),
        ({"total_tokens": 7}, None),
        ({"prompt_tokens": 10**15, "completion_tokens": 1}, None),
        ({"prompt_tokens": 3.5, "completion_tokens": 1}, None),
        ({}, None),
        (None, None),
        ("many", None),
        ([1], None),
    ],
)
def test_usage(reported: Any, expected: tuple[int, int, int] | None) -> None:
    """Figures that can be told are; an absent or impossible one makes the usage unknown, never zero."""
    body = f'{{{CHOICES},"usage":{json.dumps(reported)}}}'.encode()
    _, found = answers.whole(body, "choices")
    wanted = expected and Usage(input_tokens=expected[0], output_tokens=expected[1], cached_input_tokens=expected[2])
    assert found == wanted
    assert usage.tolerant(reported) == wanted


def test_cost_is_kept() -> None:
    """A host that says what the call cost is believed in dollars; a negative cost is left out."""
    told = {"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.0025}
    assert usage.tolerant(told) == Usage(input_tokens=1, output_tokens=1, usd=0.0025)
    assert usage.tolerant({**told, "cost": -1}) == Usage(input_tokens=1, output_tokens=1)


def test_body_passes_untouched() -> None:
    """The body that goes on is the bytes that came (a byte order mark aside)."""
    body = f'{{ {CHOICES} ,\n "x":[1.50] }}'.encode()
    assert answers.whole(body, "choices")[0] == body
    assert answers.whole(b"\xef\xbb\xbf" + body, "choices")[0] == body


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty body"),
        (b"  \n", "empty body"),
        (b"<!DOCTYPE html><title>Sign in</title>", "HTML page, no JSON: Sign in"),
        (b'{"choices":[', "not valid JSON"),
        (b'{"choices":[]} trailing', "not valid JSON"),
        (b"[" * 5000 + b"]" * 5000, "not valid JSON"),
        (b"[]", "JSON list"),
        (b'"text"', "JSON str"),
        (b"{}", "no list 'choices'"),
        (b'{"choices":{}}', "no list 'choices'"),
        (b'{"choices":null}', "no list 'choices'"),
        (b'{"choices":[],"usage":"\xff"}', "not valid JSON"),
    ],
)
def test_unusable_bodies(body: bytes, words: str) -> None:
    """A 200 whose body is no answer is a bad response that says what it is instead."""
    with pytest.raises(CallFailure) as caught:
        answers.whole(body, "choices")
    assert words in caught.value.message
    assert (caught.value.error.kind, caught.value.error.sent) == ("bad_response", "yes")


def test_error_in_a_200() -> None:
    """An error member makes a 200 a failure; a null one does not."""
    with pytest.raises(answers.InBandError) as caught:
        answers.whole(b'{"error":{"message":"quota"}}', "choices")
    assert caught.value.error == {"message": "quota"}
    assert answers.whole(b'{"choices":[],"error":null}', "choices")[1] is None


@pytest.mark.parametrize(
    ("raw", "options"),
    [
        (b'{"model":"m","stream":true}', {"include_usage": True}),
        (b' {"model":"m","stream":true} \n', {"include_usage": True}),
        (b'{"stream":true,"stream_options":{"include_usage":true}}', {"include_usage": True}),
        (b'{"stream":true,"stream_options":{"include_usage":false,"x":1}}', {"include_usage": True, "x": 1}),
        (b'{"stream":true,"stream_options":null}', {"include_usage": True}),
        (b'{"stream":true,"stream_options":"what"}', {"include_usage": True}),
        (b'{"model":"m"}', {"include_usage": True}),
        (b'{"stream":true,"messages":[{"content":"\\"stream_options\\" is a word"}]}', {"include_usage": True}),
    ],
)
def test_asking_for_usage(raw: bytes, options: dict[str, Any]) -> None:
    """Every streaming request asks for usage, once, and nothing else of it changes."""
    sent = json.loads(answers.asking_for_usage(raw))
    assert sent["stream_options"] == options
    assert sent["stream"] is True
    before = json.loads(raw)
    assert {**before, "stream": True, "stream_options": options} == sent


def test_asking_refuses_what_is_no_request() -> None:
    """A body that is no JSON object never leaves."""
    for raw in (b"", b"[]", b"{", b'"x"'):
        with pytest.raises(CallFailure) as caught:
            answers.asking_for_usage(raw)
        assert (caught.value.error.kind, caught.value.error.sent) == ("bad_request", "no")


def test_stream_state() -> None:
    """A stream is finished when every choice that was begun has a finish reason; usage is the last one told."""
    state = answers.StreamState()
    state.accept(b'{"choices":[{"index":0,"delta":{}},{"index":1,"delta":{}}],"usage":null}')
    state.accept(b'{"choices":[{"index":0,"finish_reason":"stop"}]}')
    assert state.finished is False
    state.accept(b'{"choices":[{"index":1,"finish_reason":"length"}]}')
    assert bool(state.finished)
    state.accept(b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}')
    assert state.usage == Usage(input_tokens=3, output_tokens=4)


def test_stream_state_of_odd_events() -> None:
    """Members of strange types do not end a stream; broken JSON, other values and bad UTF-8 do."""
    state = answers.StreamState()
    state.accept(b'{"choices":[{"index":"0","finish_reason":7},"x"],"usage":{"prompt_tokens":"x"}}')
    assert state.finished
    for event in (b'{"choices":[', b"[]", b"1", b'{"x":"\xff"}', b'{"a":1}{"b":2}'):
        with pytest.raises(CallFailure, match=r"stream|answer"):
            state.accept(event)


def test_configured_models_win() -> None:
    """The configuration's figures stand; the host fills in what is open, adds its own models and end dates."""
    own = catalogue.configured({"m1": {"context": 8192, "tasks": ["t"], "price": {"input_per_million_usd": 0.15}}})
    host = catalogue.listed(
        {"data": [{"id": "m1", "context_length": 99, "max_completion_tokens": 7, "shutdown_date": "2026-12-31"},
                  {"id": "m2", "shutdown_date": None}]}
    )  # fmt: skip
    first, second = catalogue.merged(own, host)
    assert (first.id, first.context, first.max_output, first.shutdown_date) == ("m1", 8192, 7, "2026-12-31")
    assert first.price is not None
    assert first.price.input_per_million_usd == 0.15
    assert (second.id, second.shutdown_date, second.context) == ("m2", None, None)
    again, _ = catalogue.merged(catalogue.configured({"m1": {}}), host)
    assert again.context == 99


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        ([{"id": "openai/gpt-4.1-mini", "limits": {"max_input_tokens": 8000}}], ["openai/gpt-4.1-mini"]),
        ({"data": [{"id": "a"}, {"id": "a"}, {"id": ""}, {"id": 3}, "b", None, {"id": "x" * 513}]}, ["a", "b"]),
        ({"models": [{"name": "models/gemini"}]}, ["gemini"]),
        ({"data": []}, []),
    ],
)
def test_lists_of_every_shape(body: Any, ids: list[str]) -> None:
    """Bare arrays and wrapped ones are read; entries without a usable name are passed over."""
    assert [model.id for model in catalogue.listed(body)] == ids


def test_listed_prices_and_refusals() -> None:
    """Prices for one token become prices for a million; "it depends" is no price; what is no list is refused."""
    [model] = catalogue.listed([{"id": "a", "pricing": {"prompt": "0.00000015", "completion": "0.0000006"}}])
    assert model.price is not None
    assert (model.price.input_per_million_usd, model.price.output_per_million_usd) == (0.15, 0.6)
    assert catalogue.listed([{"id": "a", "pricing": {"prompt": "-1", "completion": "-1"}}])[0].price is None
    for body in ({}, {"data": "x"}, "x", None, 3):
        with pytest.raises(ValueError, match="not a model list"):
            catalogue.listed(body)
