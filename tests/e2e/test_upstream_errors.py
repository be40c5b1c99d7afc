"""Everything an upstream may answer: what the caller gets, what the ledger charged, who rests, who is asked next.

Each case has providers of its own on one daemon and one fake upstream, so that no case sees another one's cooldown:
``<case>`` is asked whole, ``<case>-s`` streaming, ``<case>-f`` first in a task whose fallback is ``spare:s1``.
"""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple

import pytest

from tests.e2e.support import PRICED, QUOTAS, error_of, provider_of, recorded, until, used
from tests.fakes.upstream import SENTENCE, FakeUpstream, rule
from tests.house import House, lab

WAIT = 0.6  # the providers' timeout in seconds
MOST_TOKENS = 50


class Case(NamedTuple):
    """What an answer means.

    ``charge``: what is counted: ``request`` alone, ``all`` that was reserved, or the ``usage`` the answer reports.
    ``rest``: who rests afterwards: nobody, the ``model`` (cooling), or the provider (``parked``, ``retired``).
    ``retry``: bounds of Retry-After in seconds. ``fallback``: whether another provider may be asked.
    ``cut_stream``: the stream had begun, so that its caller gets a 200 that ends with the error (None: it depends on
    how the bytes arrive).
    """

    behaviour: dict[str, Any]
    status: int
    code: str
    kind: str
    charge: str = "request"
    rest: str = ""
    retry: tuple[float, float] | None = None
    fallback: bool = True
    cut_stream: bool | None = False


def limited(preset: str, low: float, high: float | None = None) -> Case:
    """A 429 with a hint in one of its many forms."""
    bounds = (low, low if high is None else high)
    return Case({"preset": preset}, 429, "upstream_rate_limited", "rate_limited", rest="model", retry=bounds)


def broken(behaviour: dict[str, Any], *, cut_stream: bool | None = False) -> Case:
    """A 200 that is none: it may have cost everything that was reserved."""
    return Case(behaviour, 502, "upstream_bad_response", "bad_response", charge="all", cut_stream=cut_stream)


CASES: dict[str, Case] = {
    # statuses alone
    "400": Case({"status": 400}, 400, "scripted", "bad_request", fallback=False),
    "401": Case({"preset": "openai_401"}, 502, "upstream_auth", "auth", rest="parked"),
    "402": Case({"preset": "hf_402"}, 502, "upstream_payment", "payment", rest="parked"),
    "403": Case({"status": 403}, 502, "upstream_forbidden", "forbidden", rest="parked"),
    "403-sunset": Case({"preset": "github_retired_403"}, 502, "upstream_gone", "gone", rest="retired"),
    "404": Case({"preset": "openai_model_not_found"}, 404, "model_not_found", "not_found"),
    "408": Case({"status": 408}, 504, "upstream_timeout", "timeout"),
    "409": Case({"status": 409}, 409, "upstream_conflict", "conflict", fallback=False),
    "410": Case({"preset": "github_brownout_410"}, 502, "upstream_gone", "gone", rest="retired"),
    "413": Case({"status": 413}, 413, "scripted", "too_large"),
    "422": Case({"status": 422}, 400, "scripted", "bad_request", fallback=False),
    "context": Case({"preset": "openai_context_length"}, 413, "context_length_exceeded", "too_large"),
    "429": Case({"status": 429}, 429, "upstream_rate_limited", "rate_limited", rest="model", retry=(1, 3)),
    "429-quota": Case({"preset": "openai_insufficient_quota"}, 502, "upstream_payment", "payment", rest="parked"),
    "500": Case({"status": 500}, 503, "upstream_unavailable", "unavailable"),
    "502": Case({"preset": "gateway_502_html"}, 503, "upstream_unavailable", "unavailable"),
    "503": Case({"preset": "overloaded_503"}, 503, "upstream_overloaded", "overloaded"),
    "504": Case({"status": 504}, 504, "upstream_timeout", "timeout"),
    "529": Case({"status": 529}, 503, "upstream_overloaded", "overloaded"),
    "418": Case({"status": 418}, 400, "scripted", "bad_request", fallback=False),
    "599": Case({"status": 599}, 503, "upstream_unavailable", "unavailable"),
    "307": Case({"redirect": "http://127.0.0.1:1/v1"}, 502, "upstream_bad_response", "bad_response"),
    # every form of the hint
    "github-429": limited("github_429", 5631),
    "hf-429": limited("hf_429", 55),
    "reset-headers": limited("openai_429_reset_headers", 360),
    "cerebras-429": limited("cerebras_429", 33012),
    "hint-seconds": limited("retry_after_seconds", 30),
    "hint-date": limited("retry_after_date", 29, 30),
    "hint-negative": limited("retry_after_negative", 1, 3),
    "hint-absurd": limited("retry_after_absurd", 31 * 86400),
    "retryinfo": limited("google_retryinfo", 17),
    "retryinfo-array": limited("google_retryinfo_array", 2),
    "body-snake": limited("body_retry_after", 30),
    "body-camel": limited("body_retryAfter", 30),
    "body-seconds": limited("body_retry_after_seconds", 30),
    "prose-again": limited("prose_retry", 8),
    "prose-after": limited("prose_retry_after", 30),
    "prose-wait": limited("prose_wait", 5631),
    "prose-days": limited("prose_days", 6 * 86400),
    # answers that are none
    "html": broken({"html": True}),
    "bad-json": broken({"invalid_json": True}, cut_stream=True),
    "bad-utf8": broken({"invalid_utf8": True}, cut_stream=True),
    "empty": broken({"body": ""}),
    "no-choices": broken({"body": {}}),
    "an-array": broken({"body": []}),
    "not-http": broken({"chunked_garbage": True}, cut_stream=None),
    "error-in-200": Case(
        {"body": {"error": {"message": "boom", "type": "server_error"}}},
        503, "upstream_unavailable", "unavailable", charge="all",
    ),
    "error-in-stream": Case(
        {"sse_error_midstream": True}, 503, "upstream_unavailable", "unavailable", charge="all", cut_stream=True
    ),
    # nothing at all
    "closed": Case({"cut_after_bytes": 0}, 503, "upstream_unavailable", "unavailable", charge="all"),
    "reset": Case({"cut_after_bytes": 0, "reset": True}, 503, "upstream_unavailable", "unavailable", charge="all"),
    "silent": Case({"hang": True}, 504, "upstream_timeout", "timeout", charge="all"),
    "half-silent": Case({"hang_after_bytes": 300}, 504, "upstream_timeout", "timeout", charge="all"),
    # usage that lies or is missing: the answer is fine, the charge is what was reserved
    "usage-none": Case({"no_usage": True}, 200, "", "", charge="all"),
    "usage-negative": Case({"usage": {"prompt_tokens": -5, "completion_tokens": -1}}, 200, "", "", charge="all"),
    "usage-absurd": Case({"usage": {"prompt_tokens": 10**30, "completion_tokens": 1}}, 200, "", "", charge="all"),
    "usage-text": Case({"usage": {"prompt_tokens": "many"}}, 200, "", "", charge="all"),
    "usage-zero": Case({"usage": {"prompt_tokens": 0, "completion_tokens": 0}}, 200, "", "", charge="request"),
    "usage-true": Case({}, 200, "", "", charge="usage"),
}  # fmt: skip
FAILING = {name: case for name, case in CASES.items() if case.status != 200}
# Cut at every 97th byte, and at the edges of headers, first event and end; prime, so that no framing hides.
CUTS = [1, 15, 16, 17, *range(40, 2600, 97)]


@pytest.fixture(scope="module")
def upstream():
    with FakeUpstream() as fake:
        fake.script([rule(case.behaviour, model=f"{name}*") for name, case in _longest_first(CASES)])
        for size in CUTS:
            fake.add({"cut_after_bytes": size, "chunks": 9}, model=f"cut{size}.")
        yield fake


def _longest_first(cases: dict[str, Case]) -> list[tuple[str, Case]]:
    """``429-quota`` must not be taken for ``429``."""
    return sorted(((f"{name}.", case) for name, case in cases.items()), key=lambda item: -len(item[0]))


@pytest.fixture(scope="module")
def house(upstream):
    def provider(model: str) -> dict[str, Any]:
        return lab(upstream.base_url, models={model: PRICED}, quotas=QUOTAS, timeout_seconds=WAIT)

    providers = {f"c{name}{kind}": provider(f"{name}.") for name in CASES for kind in ("", "-s", "-f")}
    providers |= {f"cut{size}": provider(f"cut{size}.") for size in CUTS}
    providers["spare"] = provider("s1")
    tasks = {f"t{name}": [f"c{name}-f:{name}.", "spare:s1"] for name in FAILING}
    with House({"providers": providers, "tasks": tasks}) as running:
        yield running


def check_charge(house: House, provider: str, charge: str) -> None:
    """GET /v1/limits shows exactly what the settle table says, and nothing stays reserved."""
    figures = used(house, provider)
    tokens, dollars = figures["total_tokens"][0], figures["usd"][0]
    assert all(reserved == 0 for _, reserved in figures.values())
    assert figures["concurrent"] == (0, 0)
    if charge == "request":
        assert (tokens, dollars) == (0, 0)
    elif charge == "usage":
        assert tokens == 2 + len(SENTENCE.split())
    else:
        assert tokens > MOST_TOKENS, "the estimate of the prompt and all of max_tokens"
    assert dollars == pytest.approx(tokens / 1e6)


def check_rest(house: House, provider: str, case: Case) -> None:
    view = provider_of(house, provider)
    (model,) = view["models"]
    if case.rest == "model":
        assert (view["state"], model["state"]) == ("cooling", "cooling")
        assert case.retry is not None
        assert case.retry[0] - 10 <= model["until"] - time.time() <= case.retry[1]
    elif case.rest:
        assert view["state"] == case.rest
        assert view["reason"]
        assert (view["until"] is None) == (case.rest == "retired")
    else:
        assert (view["state"], model["state"]) == ("ready", "ready"), "one failure alone benches nobody"


@pytest.mark.parametrize("name", [name for name in CASES if name != "error-in-stream"])
def test_a_whole_answer(house, name):
    """Status, code, Retry-After, charge and rest are what the failure means."""
    case, provider = CASES[name], f"c{name}"
    answer = house.chat(f"{provider}:{name}.", max_tokens=MOST_TOKENS)
    assert answer.status_code == case.status, answer.text
    (call,) = recorded(house, answer)["calls"]
    if case.status != 200:
        error = error_of(answer)
        assert error["code"] == case.code
        assert error["message"].startswith(f"{provider}:{name}.: ")
        assert call["error_code"] == case.kind
    retry = answer.headers.get("retry-after")
    if case.retry is None:
        assert retry is None
    else:
        assert case.retry[0] <= int(retry) <= case.retry[1]
    assert call["state"] == ("unknown" if case.charge == "all" and case.status != 200 else "settled")
    check_charge(house, provider, case.charge)
    if name != "reset-headers":  # there the provider's own figure says that all 60 are used
        assert used(house, provider)["requests"] == (1, 0)
    check_rest(house, provider, case)


@pytest.mark.parametrize("name", CASES)
def test_a_stream(house, name):
    """Before the first event a stream fails like a whole answer; after it, with an error event and without [DONE]."""
    case, provider = CASES[name], f"c{name}-s"
    answer = house.chat(f"{provider}:{name}.", max_tokens=MOST_TOKENS, stream=True)
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    if case.status == 200:
        assert answer.status_code == 200
        assert lines[-1] == "[DONE]"
    elif case.cut_stream or (case.cut_stream is None and answer.status_code == 200):
        assert answer.status_code == 200
        assert "[DONE]" not in lines
        assert json.loads(lines[-1])["error"]["code"] == case.code
    else:
        assert answer.status_code == case.status, answer.text
        assert error_of(answer)["code"] == case.code
    record = recorded(house, answer)
    assert record["status"] == case.status
    check_charge(house, provider, case.charge)


@pytest.mark.parametrize("name", [name for name in FAILING if name != "error-in-stream"])
def test_the_next_provider_is_asked(house, upstream, name):
    """What may work elsewhere is tried elsewhere, once, and recorded; the caller's own mistake is not."""
    case = FAILING[name]
    answer = house.chat(f"task:t{name}", max_tokens=MOST_TOKENS)
    record = recorded(house, answer)
    assert record["calls"][0]["error_code"] == case.kind
    if case.fallback:
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-hybridd-provider"] == "spare"
        assert [call["candidate"] for call in record["calls"]] == [f"c{name}-f:{name}.", "spare:s1"]
        assert record["choice"]["rejected"][0]["candidate"] == f"c{name}-f:{name}."
    else:
        assert answer.status_code == case.status
        assert len(record["calls"]) == 1


@pytest.mark.parametrize("size", CUTS)
def test_a_stream_cut_anywhere(house, size):
    """Wherever the stream breaks, the caller is told, never shown [DONE], and the reservation is charged."""
    answer = house.chat(f"cut{size}:cut{size}.", max_tokens=MOST_TOKENS, stream=True)
    record = recorded(house, answer)
    whole = answer.status_code == 200 and answer.text.endswith("data: [DONE]\n\n")
    if whole:  # everything that matters had arrived: each choice had given its finish_reason
        assert record["status"] == 200
        assert '"finish_reason":"stop"' in answer.text
        return
    if answer.status_code == 200:
        assert "[DONE]" not in answer.text
        last = answer.text.rstrip("\n").split("\n\n")[-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "upstream_bad_response"
    else:
        assert answer.status_code in (502, 503)
    assert record["calls"][0]["state"] == "unknown"
    check_charge(house, f"cut{size}", "all")


def test_a_resting_provider_is_not_asked_again(house, upstream):
    """While it rests nothing is sent, and the refusal says why and until when."""
    first = house.chat("chint-seconds:hint-seconds.")
    before = upstream.count(60, model="hint-seconds.").total
    again = house.chat("chint-seconds:hint-seconds.")
    assert again.status_code == 429
    error = error_of(again)
    assert error["code"] == "rate_limit_exceeded"
    assert 1 <= int(again.headers["retry-after"]) <= 30
    (rejected,) = error["details"]
    assert rejected["candidate"] == "chint-seconds:hint-seconds."
    assert upstream.count(60, model="hint-seconds.").total == before, first.text


def test_a_retired_provider_is_never_asked_again(house, upstream):
    """A tombstone is a 503 without Retry-After, shows in the status and has one clear alert."""
    house.chat("c410:410.")
    before = upstream.count(60, model="410.").total
    again = house.chat("c410:410.")
    assert (again.status_code, error_of(again)["code"]) == (503, "no_feasible_provider")
    assert "retry-after" not in again.headers
    assert upstream.count(60, model="410.").total == before
    alerts = until(lambda: [one for one in house.http.get("/v1/alerts").json()["alerts"] if one["provider"] == "c410"])
    assert [one["name"] for one in alerts] == ["ProviderRetired"]
    assert not [model for model in house.http.get("/v1/models").json()["data"] if model["owned_by"] == "c410"]


def test_repeated_failures_bench_a_provider(house, upstream):
    """The second failure in a row cools the whole provider, and says for how long."""
    for _ in range(2):
        answer = house.chat("c529:529.")
    assert answer.status_code == 503
    assert 1 <= int(answer.headers["retry-after"]) <= 3
    assert provider_of(house, "c529")["state"] == "cooling"


def test_a_redirect_is_never_followed(house, upstream):
    """The key could leak to another host: the upstream sees one request and its target none."""
    upstream.clear_log()
    house.chat("c307-s:307.")
    assert [arrival.status for arrival in upstream.log()] == [307]


def test_the_daemon_is_unharmed(house):
    """After all of this nothing is in flight, and no error was logged."""
    status = house.http.get("/v1/status").json()
    assert (status["in_flight"], status["waiting"], status["storage"]) == (0, 0, None)
    assert house.chat("spare:s1").status_code == 200
    assert '"unhandled error"' not in house.log
    assert "Traceback" not in house.log
