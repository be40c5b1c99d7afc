"""One request through the whole house: socket, router, ledger, plugin process, fake upstream, and back."""

from __future__ import annotations

import json

import httpx
import openai
import pytest

from tests.fakes.upstream import SENTENCE, FakeUpstream, rule
from tests.house import House, lab


@pytest.fixture(scope="module")
def upstream():
    with FakeUpstream() as fake:
        yield fake


@pytest.fixture(scope="module")
def house(upstream):
    config = {
        "providers": {
            "lab": lab(upstream.base_url, quotas=[{"unit": "total_tokens", "window": "60s", "limit": 1_000_000}]),
            "suffixed": lab(
                upstream.base_url,
                models={"org/m": {"context": 8192}},
                quotas=[{"unit": "requests", "window": "3600s", "limit": 1, "model": "org/m"}],
            ),
            "spare": lab(upstream.base_url, models={"s1": {"context": 8192}}),
        },
        "tasks": {
            "text_generation": ["lab:m1", "spare:s1"],
            "code_generation": {
                "candidates": ["spare:s1"],
                "system_prompt": "Write code.",
                "temperature": 0.5,
                "max_tokens": 77,
            },
        },
    }
    with House(config) as running:
        yield running


@pytest.fixture(autouse=True)
def _clean(upstream):
    upstream.reset()


@pytest.fixture
def sdk(house):
    client = openai.OpenAI(
        api_key="unused", base_url="http://hybridd/v1", max_retries=0,
        # openai 3 names httpx2 in its types; at run time httpx, the project's own client library, serves as well.
        http_client=httpx.Client(transport=httpx.HTTPTransport(uds=str(house.socket))),  # type: ignore[arg-type]  # see above
    )  # fmt: skip
    with client:
        yield client


def test_a_named_model_answers_and_says_who_it_was(house, upstream):
    """The upstream's answer comes back whole, with the routing headers beside it."""
    answer = house.chat("lab:m1")
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == SENTENCE
    assert answer.headers["x-hybridd-provider"] == "lab"
    assert answer.headers["x-hybridd-model"] == "m1"
    assert answer.headers["x-hybridd-cache"] == "off"
    assert float(answer.headers["x-hybridd-overhead-ms"]) >= 0
    assert answer.headers["x-hybridd-max-tokens"] == "1024"
    (arrival,) = upstream.log(bodies=True)
    sent = arrival.body
    assert sent["model"] == "m1"
    assert sent["max_tokens"] == 1024


def test_the_openai_client_works_unmodified(sdk):
    """Chat, streaming and usage arrive as the official client expects them."""
    whole = sdk.chat.completions.create(model="lab:m1", messages=[{"role": "user", "content": "hi"}])
    assert whole.choices[0].message.content == SENTENCE
    assert whole.usage is not None
    chunks = list(
        sdk.chat.completions.create(model="lab:m1", messages=[{"role": "user", "content": "hi"}], stream=True)
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == SENTENCE
    assert all(chunk.choices for chunk in chunks)
    with_usage = list(
        sdk.chat.completions.create(
            model="lab:m1",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert with_usage[-1].choices == []
    assert with_usage[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_tools_pass_through(sdk, upstream):
    """Tool definitions reach the provider and tool calls come back, streamed or not."""
    upstream.script([rule({"tool_calls": [{"name": "weather", "arguments": {"city": "Recife"}}]})])
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    for stream in (False, True):
        answer = sdk.chat.completions.create(
            model="lab:m1", messages=[{"role": "user", "content": "weather?"}], tools=tools, stream=stream
        )
        if stream:
            names = [
                c.choices[0].delta.tool_calls[0].function.name
                for c in answer
                if c.choices and c.choices[0].delta.tool_calls
            ]
            assert names[0] == "weather"
        else:
            assert answer.choices[0].message.tool_calls[0].function.name == "weather"
    assert upstream.log(bodies=True)[-1].body["tools"] == tools


def test_a_failing_provider_is_passed_over(house, upstream):
    """A 500 from the first candidate leads to the second, and the reason is kept."""
    upstream.script([rule({"status": 500}, times=1, model="m1")])
    answer = house.chat("task:text_generation", headers={"x-hybridd-explain": "1"})
    assert answer.status_code == 200
    assert answer.headers["x-hybridd-provider"] == "spare"
    choice = answer.json()["hybridd"]["model_choice"]
    assert choice["chosen_model"] == "spare:s1"
    assert choice["rejected"][0]["candidate"] == "lab:m1"
    why = house.http.get(f"/v1/requests/{answer.headers['x-hybridd-request-id']}").json()
    assert why["choice"]["rejected"][0]["candidate"] == "lab:m1"
    assert [call["candidate"] for call in why["calls"]] == ["lab:m1", "spare:s1"]


def test_task_defaults_reach_the_provider(house, upstream):
    """A task's system prompt, temperature and max_tokens are used when the caller gives none."""
    assert house.chat("task:code_generation").status_code == 200
    sent = upstream.log(bodies=True)[-1].body
    assert sent["messages"][0] == {"role": "system", "content": "Write code."}
    assert sent["temperature"] == 0.5
    assert sent["max_tokens"] == 77


def test_the_specialist_answers_offline(house):
    """Sentiment is answered by the embedded model, without any provider."""
    answer = house.chat("task:sentiment_analysis", "Este produto é incrível!")
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-hybridd-provider"] == "specialists"
    assert answer.json()["choices"][0]["message"]["content"] == "positive"


def test_embeddings_pass_through(sdk):
    """Embeddings of an OpenAI-compatible host come back as the official client expects them."""
    answer = sdk.embeddings.create(model="lab:m1", input=["one", "two"])
    assert len(answer.data) == 2


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b"{", 400, "invalid_json", None),
        (b"[]", 400, "invalid_json", None),
        (b'{"model":"lab:m1","messages":[{"role":"user","content":"\xff"}]}', 400, "invalid_utf8", None),
        (b'{"messages":[]}', 400, "invalid_request", "model"),
        (b'{"model":"lab:m1"}', 400, "invalid_request", "messages"),
        (
            b'{"model":"lab:m1","messages":[{"role":"user","content":"x"}],"max_tokens":-1}',
            400,
            "invalid_request",
            "max_tokens",
        ),
        (
            b'{"model":"lab:m1","messages":[{"role":"user","content":"x"}],"max_tokens":"9"}',
            400,
            "invalid_request",
            "max_tokens",
        ),
        (b'{"model":"lab:m1","messages":[{"role":"user","content":7}]}', 400, "invalid_request", "messages[0].content"),
        (
            b'{"model":"lab:m1","messages":[{"role":"user","content":"x"}],"stream":"yes"}',
            400,
            "invalid_request",
            "stream",
        ),
        (b'{"model":"nope","messages":[{"role":"user","content":"x"}]}', 404, "model_not_found", "model"),
        (b'{"model":"lab:nope","messages":[{"role":"user","content":"x"}]}', 404, "model_not_found", "model"),
        (b'{"model":"task:nope","messages":[{"role":"user","content":"x"}]}', 404, "task_not_found", "model"),
    ],
)
def test_bad_requests_are_named(house, upstream, body, status, code, param):
    """What is wrong is answered with a stable code and the field's name, and nothing is sent."""
    answer = house.http.post("/v1/chat/completions", content=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (code, param)
    assert upstream.log() == []


def test_a_body_over_the_cap_is_refused(house):
    """50 MB of prompt is a 413, from the length alone."""
    answer = house.http.post("/v1/chat/completions", content=b"x" * 50_000_000)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"


def test_a_browser_is_refused(house):
    """Whatever names an Origin gets a 403."""
    answer = house.http.get("/v1/status", headers={"origin": "http://evil.example"})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "origin_refused"


def test_a_stream_that_breaks_ends_with_an_error_event(house, upstream):
    """After the first token there is no fallback: the stream's last event is the error, and no [DONE] follows."""
    upstream.script([rule({"chunks": 50, "cut_after_bytes": 4000})])
    with house.http.stream(
        "POST",
        "/v1/chat/completions",
        json={"model": "task:text_generation", "stream": True, "messages": [{"role": "user", "content": "x y z"}]},
    ) as answer:
        assert answer.status_code == 200
        lines = [line for line in answer.iter_lines() if line]
    assert "error" in json.loads(lines[-1].removeprefix("data: "))
    assert "data: [DONE]" not in lines


def test_a_suffix_does_not_escape_a_models_limit(house, upstream):
    """``org/m:host`` is sent as it is and counts as ``org/m``."""
    assert house.chat("suffixed:org/m:host").status_code == 200
    assert upstream.log(bodies=True)[-1].body["model"] == "org/m:host"
    refused = house.chat("suffixed:org/m:other")
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize("depth", [500, 900, 950, 990, 2000])
def test_a_deeply_nested_body_costs_nothing(house, depth):
    """However deep the body, the caller gets an answer or a 400, and no reservation is left behind."""
    text = '{"model":"lab:m1","messages":[{"role":"user","content":"x"}],"metadata":' + "[" * depth + "]" * depth + "}"
    answer = house.http.post("/v1/chat/completions", content=text)
    assert answer.status_code in (200, 400), answer.text
    limits = house.http.get("/v1/limits?provider=lab").json()["limits"]
    assert [limit["reserved"] for limit in limits] == [0] * len(limits)
