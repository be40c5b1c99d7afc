"""The plot of a quota: what it draws, and what holds for every series, size and terminal."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tui.periods import resets
from tui.text import ASCII, RICH, plain
from tui.widgets.plot import GUTTER, Fan, Plot, draw, spans

BEGIN, END = 1_795_000_000.0, 1_795_003_600.0
POINTS = st.lists(st.tuples(st.floats(BEGIN - 900, END + 900), st.floats(-5, 500)), max_size=40)
SIZES = st.tuples(st.integers(20, 120), st.integers(4, 30))


def body(made: Plot, width: int, height: int, signs=RICH) -> list[str]:
    """What stands right of the axis, without the two lines below."""
    return [plain(line)[GUTTER:] for line in draw(made, width, height, signs)[:-2]]


def dots(line: str) -> bool:
    return any(0x2800 < ord(sign) <= 0x28FF for sign in line)


@given(POINTS, SIZES, st.sampled_from([RICH, ASCII]), st.floats(0, 400), st.floats(BEGIN, END))
def test_it_always_fills_exactly_its_room(points, size, signs, top, now) -> None:
    """Whatever the series holds, every line is as wide as asked, and ASCII is ASCII."""
    fan = Fan(now, top / 2, now + 60, now + 90, None)
    made = draw(Plot(points, BEGIN, END, top, 600, [now], fan, now), size[0], size[1], signs, ("100", "0"))
    assert len(made) == max(3, size[1])
    assert {cell_len(plain(line)) for line in made} == {size[0]}
    if signs is ASCII:
        assert "".join(map(plain, made)).isascii()


@given(POINTS, st.integers(1, 200))
def test_every_sample_is_within_the_span_of_its_column(points, columns) -> None:
    """Nothing between two columns is lost: each value lies between the lowest and highest of where it belongs."""
    found = spans(Plot(points, BEGIN, END, 500, 600), columns)
    width = (END - BEGIN) / columns
    for at, value in points:
        column = int((at - BEGIN) / width)
        if BEGIN < at < END and abs(at - (BEGIN + round((at - BEGIN) / width) * width)) > 1e-3:
            span = found[column]
            assert span is not None
            assert span[0] <= value <= span[1]


@given(st.floats(0, 100), SIZES)
def test_a_value_that_does_not_move_is_one_level_line(value, size) -> None:
    """A constant has dots in one row of cells, in every column."""
    lines = body(Plot([(BEGIN, value)], BEGIN, END, 100, 1e6), *size)
    drawn = [line for line in lines if dots(line)]
    assert len(drawn) == 1
    assert all(sign != " " for sign in drawn[0])


def test_where_nothing_was_recorded_is_a_gap() -> None:
    """A value stands for ``hold`` seconds and no longer; after the present nothing is drawn."""
    found = spans(Plot([(BEGIN, 5), (BEGIN + 1800, 3)], BEGIN, END, 10, 600, now=BEGIN + 2100), 12)
    assert found == [(5, 5), (5, 5), (5, 5), None, None, None, (3, 3), (3, 3), None, None, None, None]


def test_a_fall_is_drawn_from_where_it_was() -> None:
    """A drop within one column is a vertical line, not a hole."""
    lines = body(Plot([(BEGIN, 100), (BEGIN + 1801, 0)], BEGIN, END, 100, 1e6), 40 + GUTTER, 12)
    assert all(dots(line) for line in lines)


def test_the_forecast_narrows_to_its_interval_and_resets_are_marked() -> None:
    """The band runs from what remains to zero between the earliest and the latest time; the axis marks resets."""
    now = BEGIN + 1200
    fan = Fan(now, 80, now + 900, now + 1200, now + 1800)
    made = draw(
        Plot([(BEGIN, 80)], BEGIN, END, 100, 1e6, [BEGIN + 600], fan, now), 72 + GUTTER, 12, ASCII, ("100", "0")
    )
    text = [plain(line) for line in made]
    assert text[0].startswith("    100|")
    bottom = text[9][GUTTER:]
    assert bottom.index(":") == pytest.approx(72 * (1200 + 900 * 0.9) / 3600, abs=2)
    assert len(bottom.rstrip()) == pytest.approx(72 * 3000 / 3600, abs=2)
    assert all(":" not in line[: GUTTER + 23] for line in text[3:9])
    assert text[10][GUTTER + 12] == "^"
    assert text[1][GUTTER + 12] == "|"
    assert "now" in text[11]


def test_resets_are_the_beginnings_of_the_periods_in_the_quotas_zone() -> None:
    """Days begin at local midnight, also where the clock changes; rolling windows have no resets."""
    zone = ZoneInfo("Europe/Berlin")
    begin = datetime(2026, 10, 24, 12, tzinfo=zone).timestamp()
    days = resets("day", "Europe/Berlin", begin, begin + 3 * 86_400)
    assert [datetime.fromtimestamp(at, zone).strftime("%d %H:%M") for at in days] == [
        "25 00:00",
        "26 00:00",
        "27 00:00",
    ]
    assert days[1] - days[0] == 25 * 3600
    months = resets(
        "month", "UTC", datetime(2026, 11, 20, tzinfo=UTC).timestamp(), datetime(2027, 2, 2, tzinfo=UTC).timestamp()
    )
    assert [datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d") for at in months] == [
        "2026-12-01",
        "2027-01-01",
        "2027-02-01",
    ]
    assert len(resets("hour", "Asia/Kolkata", begin, begin + 86_400)) == 24
    assert resets("60s", "UTC", begin, begin + 86_400) == []
    assert resets("day", "Not/AZone", begin, begin + 86_400) == []
    assert resets("hour", "UTC", begin, begin + 400 * 3600) == []


@given(st.sampled_from(["hour", "day", "month"]), st.sampled_from(["UTC", "America/Sao_Paulo", "Asia/Kolkata"]),
       st.floats(1.5e9, 1.9e9), st.floats(1, 90 * 86_400))  # fmt: skip
def test_resets_lie_in_the_period_in_order(window, zone, begin, length) -> None:
    """Strictly rising, none outside."""
    found = resets(window, zone, begin, begin + length, most=10_000)
    assert found == sorted(set(found))
    assert all(begin <= at < begin + length for at in found)
