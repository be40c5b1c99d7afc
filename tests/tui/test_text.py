"""Text of fixed width: figures that do not jump, bars that add up."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from tui import text
from tui.text import ASCII, RICH, bar, fit, fit_line, parts, plain, plain_letters, spark, wrap

AMOUNT = st.floats(0, 1e13, allow_nan=False)


@given(st.text(), st.integers(0, 60), st.sampled_from(["left", "right", "centre"]))
def test_fit_is_exact(given_text: str, width: int, align: text.Align) -> None:
    """Whatever the text holds (wide, combining, control characters), it takes just that many columns of one line."""
    made = fit(given_text, width, align)
    assert cell_len(made) == width
    assert not any(ord(character) < 32 for character in made)


@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp", "M"]), max_size=20),
                          st.sampled_from(["", "dim"])), max_size=5), st.integers(1, 40))  # fmt: skip
def test_fit_line_is_exact(line: list[tuple[str, str]], width: int) -> None:
    """Styled pieces are cut and padded like one text."""
    assert cell_len(plain(fit_line(line, width))) == width


@given(AMOUNT, AMOUNT, AMOUNT, st.floats(0.001, 1e13), st.integers(1, 40), st.sampled_from([RICH, ASCII]))
def test_a_bar_has_its_width(
    used: float, held: float, kept: float, whole: float, cells: int, signs: text.Glyphs
) -> None:
    """Every bar is as long as asked for, and what is used shows."""
    line = bar(used, held, kept, whole, cells, signs)
    assert len(plain(line)) == cells
    if used > 0 and cells >= 4:
        assert signs.used in plain(line)


@given(st.floats(0, 100), st.floats(0, 100), st.integers(5, 40))
def test_a_bar_never_goes_backwards_when_use_grows(used: float, more: float, cells: int) -> None:
    """More use never shows as less."""

    def length(amount: float) -> int:
        return plain(bar(amount, 0, 0, 200, cells, RICH)).count(RICH.used)

    assert length(used) <= length(used + more)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=6), st.integers(0, 50))
def test_parts_share_out_everything(amounts: list[float], cells: int) -> None:
    """No cell is lost or made, none is negative."""
    made = parts(amounts, sum(amounts), cells)
    assert sum(made) == cells
    assert min(made) >= 0


@given(st.lists(st.none() | st.floats(0, 1e6), max_size=40))
def test_a_sparkline_has_a_column_for_each_value(values: list[float | None]) -> None:
    """One column each; a gap where nothing is known; anything above zero stands above the ground line."""
    made = spark(values, RICH)
    assert len(made) == len(values)
    for value, sign in zip(values, made, strict=True):
        assert (sign == " ") == (value is None)
        assert value is None or (sign != RICH.spark[0]) == (value > 0)


@given(st.floats(0, 9.9e14))
def test_figures_stay_within_their_columns(value: float) -> None:
    """A figure's room is known before the figure is."""
    assert len(text.count(value)) <= 5
    if value < 1e9:
        assert len(text.milliseconds(value)) <= 11
        assert len(text.age(value)) <= 8


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "-"), (0, "0"), (9, "9"), (2.5, "2.50"), (4999, "4,999"), (12_345, "12.3k"), (1_500_000, "1.50M")],
)
def test_counts(value: float | None, expected: str) -> None:
    """Whole below ten thousand, three figures above."""
    assert text.count(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "-"), (0, "$0.00"), (0.02, "$0.02"), (0.0012, "$0.0012"), (1e-6, "<$.0001"), (1204.4, "$1,204")],
)
def test_money(value: float | None, expected: str) -> None:
    """Cents; less than a cent is not shown as nothing."""
    assert text.money(value) == expected


def test_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time today, a weekday this week, a day this month, a date beyond."""
    noon = 1_795_176_000.0
    day = 86_400.0
    assert text.moment(noon + 60, noon) == text.clock(noon + 60)[:5]
    assert len(text.moment(noon + 3 * day, noon).split()) == 2
    assert text.moment(noon + 12 * day, noon).startswith("on the ")
    assert text.moment(noon + 90 * day, noon).count("-") == 2


@given(st.text(st.characters(codec="ascii"), max_size=200), st.integers(5, 60))
def test_wrap_keeps_within_the_width(given_text: str, width: int) -> None:
    """No line is wider, and no word is lost unless it is longer than a line."""
    lines = wrap(given_text, width)
    assert all(cell_len(line) <= width for line in lines)
    words = text.clean(given_text).split()
    if all(len(word) <= width for word in words):
        assert " ".join(lines).split() == words


@given(st.text())
def test_ascii_means_ascii(given_text: str) -> None:
    """In a terminal without Unicode nothing else is written."""
    assert ASCII.of(given_text).isascii()
    assert RICH.of(given_text) == given_text


@given(st.text())
@example("日本Ａ é ▞ e\u0301 ½")
def test_plain_letters_keep_the_width(given_text: str) -> None:
    """--ascii: nothing else is left and no column moves."""
    plainer = plain_letters(given_text)
    assert plainer.isascii()
    assert cell_len(plainer) == sum(map(cell_len, given_text))


def test_plain_letters() -> None:
    """--ascii: an accent goes, what has no letter beneath is a question mark for each of its columns."""
    assert plain_letters("previsão ñ Ü") == "previsao n U"
    assert ASCII.of("à espera… → 2×") == "a espera... -> 2x"
