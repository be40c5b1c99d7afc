"""Figures, times, bars and tables are pure functions."""

from __future__ import annotations

import time
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.cli import output, text
from hybridd.cli.commands import doctor, requests
from hybridd.cli.doctor.finding import Finding
from hybridd.contracts.when import parse_duration, parse_when

amounts = st.floats(0, 1e9, allow_nan=False)


@given(amounts, amounts, amounts, st.floats(0, 1e9, allow_nan=False), st.integers(4, 60), st.booleans())
def test_a_bar_always_has_its_length(
    used: float, held: float, buffer: float, limit: float, cells: int, rich: bool
) -> None:
    """Whatever the figures, a bar has exactly its number of cells, from its alphabet, in its order."""
    bar = text.bar(used, held, buffer, limit, cells, rich=rich)
    symbols = "▓▒─░" if rich else "#=-."
    assert len(bar) == cells
    assert list(bar) == sorted(bar, key=symbols.index)


@pytest.mark.parametrize(
    ("figures", "bar"),
    [
        ((0, 0, 0, 10), "----------"),
        ((5, 0, 0, 10), "#####-----"),
        ((3, 2, 1, 10), "###==----."),
        ((10, 0, 1, 10), "##########"),
        ((0.01, 0, 0, 10), "#---------"),
        ((9.99, 0, 0, 10), "#########-"),
        ((20, 5, 1, 10), "##########"),
        ((0, 0, 0, 0), ".........."),
    ],
)
def test_bars_show_the_first_use_and_the_last_rest(figures: tuple[float, ...], bar: str) -> None:
    """Used, reserved, free and buffer in proportion; a part that is not zero is never invisible."""
    assert text.bar(*figures, 10, rich=False) == bar  # type: ignore[arg-type, misc]  # four floats


@pytest.mark.parametrize(
    ("given_text", "seconds"),
    [("90", 90), ("30s", 30), ("2h", 7200), ("1d12h", 129_600), ("1w", 604_800), ("1.5h", 5400), (" 2 H ", 7200)],
)
def test_durations(given_text: str, seconds: float) -> None:
    """Plain seconds and combinations of units."""
    assert parse_duration(given_text) == seconds


@pytest.mark.parametrize("given_text", ["", "0", "-5s", "2x", "h", "1e9999", "nan", "99999999999d"])
def test_wrong_durations_are_refused(given_text: str) -> None:
    """Anything else is a ValueError."""
    with pytest.raises(ValueError):
        parse_duration(given_text)


def test_moments() -> None:
    """A duration is that long ago; dates and ISO times are themselves."""
    assert parse_when("2h", 10_000) == 2800
    assert parse_when("2026-11-01", 0, local=True) == datetime(2026, 11, 1).timestamp()
    assert parse_when("2026-11-01T08:30:00+00:00", 0) == 1_793_521_800
    with pytest.raises(ValueError, match="neither a duration"):
        parse_when("yesterday", 0)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (-5, "0 s"),
        (45, "45 s"),
        (90, "1 min 30 s"),
        (720, "12 min"),
        (11_100, "3 h 5 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_spans(seconds: float | None, shown: str) -> None:
    """Two units at most."""
    assert text.span(seconds) == shown


@pytest.mark.parametrize(
    ("usd", "shown"), [(0, "$0.00"), (0.0000125, "$0.000013"), (0.005, "$0.005"), (1234.5, "$1,234.50"), (None, "-")]
)
def test_money(usd: float | None, shown: str) -> None:
    """Cents, and more places below a cent."""
    assert text.money(usd) == shown


def test_tables_wrap_and_lose_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A table fits the terminal by wrapping its flexible column and loses no word; wide characters count two."""
    monkeypatch.setenv("COLUMNS", "40")
    words = " ".join(f"word{number}" for number in range(20))
    output.table([output.Column("A"), output.Column("TEXT", flexible=True)], [("日本", words), ("x", "short")])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(text.width, lines)) <= 40
    assert " ".join(line[2:].strip() for line in lines[1:-1]).split()[-20:] == words.split()
    assert lines[1].startswith("日本  word0")
    assert lines[-1] == "x     short"


@pytest.mark.parametrize("module", ["requests", "doctor"])
def test_lists_fit_80_columns(module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The widest usual row of recorded requests, and long findings, fit 80 columns and lose no word."""
    monkeypatch.setenv("COLUMNS", "80")
    if module == "doctor":
        doctor._show([Finding("provider github_models", "warning", "word " * 40, "do " * 40)])
    else:
        row = {
            "id": "req_660bae5fabfc4", "at": time.time() - 59 * 60, "task": "sentiment_analysis", "stream": True,
            "provider": "specialists", "model": "sentiment", "status": 503, "error_code": "no_feasible_provider",
            "latency_ms": 12345.0, "cost_usd": 0.000019,
        }  # fmt: skip
        canned: Any = SimpleNamespace(send=lambda call: {"requests": [row], "next": None})
        requests.cli.callback(canned, False, *[None] * 6, 20, None, None, None)  # type: ignore[misc]
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    if module == "doctor":
        assert sum(line.split().count("word") for line in lines) == 40
    else:
        task = slice(lines[0].index("TASK"), lines[0].index("ANSWERED"))
        assert "".join(line[task].strip() for line in lines[1:]) == "sentiment_analysis"


def test_select_puts_missing_values_last() -> None:
    """Sorting by a key that some rows lack keeps those rows, at the end, in both directions."""
    rows: list[dict[str, Any]] = [{"a": None}, {"a": 2}, {"a": 1}, {"a": "x"}]
    assert [row["a"] for row in output.select(rows, None, "a")] == [1, 2, "x", None]
    assert [row["a"] for row in output.select(rows, None, "-a")] == ["x", 2, 1, None]
    assert output.select([], None, "anything") == []
