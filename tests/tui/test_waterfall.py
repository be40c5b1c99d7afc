"""Where the time of a request went, as bars on one scale."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from hybridd.contracts.views import AttemptView, ModelChoice, Rejected, RequestView
from tui.screens.request_lines import choice_lines, detail_lines, speed
from tui.text import ASCII, RICH, plain
from tui.widgets.waterfall import span, waterfall_lines


def view(**more: Any) -> RequestView:
    fields: dict[str, Any] = {
        "id": "req_0000000000001", "at": 100.0, "task": "chat", "requested": "auto", "provider": "lab", "model": "m1",
        "status": 200, "error_code": None, "stream": False, "cache": "off", "attempts": 1, "input_tokens": 3,
        "output_tokens": 10, "cost_usd": 0.0, "latency_ms": 1000.0, "first_token_ms": None, "overhead_ms": 1.0,
    }  # fmt: skip
    return RequestView(**{**fields, **more})


def call(started: float, duration: float, **more: Any) -> AttemptView:
    return AttemptView(
        **{"call_id": 1, "candidate": "lab:m1", "state": "settled", "started": started, "duration_ms": duration, **more}
    )


@given(
    st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e6), st.integers(0, 200)
)  # fmt: skip
def test_a_bar_stays_on_the_scale(start: float, length: float, whole: float, cells: int) -> None:
    """It begins and ends within the cells there are, and is seen as long as there is a cell."""
    first, size = span(start, length, whole, cells)
    assert first >= 0
    assert first + size <= max(cells, 0)
    assert size >= min(1, cells)


@given(
    st.lists(st.tuples(st.floats(0, 3), st.floats(0, 3000), st.sampled_from(["settled", "new"])), max_size=4),
    st.booleans(), st.none() | st.floats(0, 5000), st.integers(30, 200), st.sampled_from([RICH, ASCII]),
)  # fmt: skip
def test_every_line_fits(
    calls: list[tuple[float, float, str]], stream: bool, first: float | None, width: int, signs: Any
) -> None:
    """Whatever was recorded, no line is wider than the terminal, and without Unicode none leaves ASCII."""
    one = view(
        calls=[call(100 + start, took, state=state) for start, took, state in calls],
        stream=stream,
        first_token_ms=first,
    )
    lines = [plain(line) for line in [*waterfall_lines(one, width, signs), *detail_lines(one, width, signs, 200.0)]]
    assert max(map(cell_len, lines)) <= width
    if signs is ASCII:
        assert "".join(lines).isascii()


def test_waiting_and_receiving_are_told_apart() -> None:
    """A streamed call is ▒ until its first token and ▓ from there; one before it that failed stands left of it."""
    one = view(
        stream=True, first_token_ms=600.0,
        calls=[call(100.0, 200.0, candidate="small:m1", error_code="timeout"), call(100.2, 800.0)],
    )  # fmt: skip
    first, second = (plain(line) for line in waterfall_lines(one, 100, RICH)[1:3])
    assert "▓" not in first
    assert "timeout" in first
    assert first.rindex("▒") < second.index("▒") + 1
    assert abs(second.count("▒") - second.count("▓")) <= 1
    assert "first token 600 ms" in second


def test_nothing_called_is_said() -> None:
    """An answer from the cache has no bar but a sentence."""
    lines = "\n".join(plain(line) for line in waterfall_lines(view(cache="hit", calls=[]), 80, RICH))
    assert "answered from the cache" in lines
    rejected = "\n".join(plain(line) for line in waterfall_lines(view(attempts=0, calls=[]), 80, RICH))
    assert "no call was made" in rejected


def test_calls_that_are_not_known_are_not_denied() -> None:
    """A row of the table or of a recording has no calls to draw; that one was made is not disputed."""
    lines = "\n".join(plain(line) for line in waterfall_lines(view(calls=None, attempts=1), 80, RICH))
    assert "no call was made" not in lines
    assert "not known here" in lines


def test_every_candidate_is_listed_with_its_reason() -> None:
    """Passed over, chosen and not needed, in the order in which they were considered."""
    choice = ModelChoice(
        task="chat", chosen_model="b:1", provider="b", reason="task chat: number 2 of 3 candidates",
        rejected=[Rejected("a:1", "1 of 1 requests/day used", "quota", 3600.0)], candidates=["a:1", "b:1", "c:1"],
    )  # fmt: skip
    lines = [plain(line) for line in choice_lines(choice, 80, RICH, ("answered", "good"))]
    assert lines[1:] == [
        "  1 a:1 passed over (quota): 1 of 1 requests/day used; possible again in 1 h",
        "  2 b:1 answered",
        "  3 c:1 not needed",
    ]


def test_speed_counts_from_the_first_token() -> None:
    """Nine more tokens in the 500 ms after the first one are 18 tokens a second; a cached answer has no speed."""
    assert speed(view(stream=True, first_token_ms=500.0)) == 18.0
    assert speed(view(cache="hit")) is None
    assert speed(view(status=503)) is None
