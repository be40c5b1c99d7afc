"""The bench's arithmetic and its table."""

import pytest

from scripts.bench_parts import report


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1), (0.01, 1), (0.5, 50), (0.505, 51), (0.99, 99), (0.991, 100), (1.0, 100)]
)
def test_percentile_is_the_nearest_rank(share, expected):
    """Of 1..100 in any order the percentile is the smallest value that covers the share."""
    assert report.percentile([*range(51, 101), *range(1, 51)], share) == expected


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 1.1), ([1.0], -0.1)])
def test_percentile_refuses_what_it_cannot_answer(values, share):
    """No values, or a share outside 0..1, is an error and not a number."""
    with pytest.raises(ValueError):
        report.percentile(values, share)


def test_median():
    """The middle value, or the mean of the two in the middle; nothing has no median."""
    assert report.median([3, 1, 2]) == 2
    assert report.median([4, 1, 2, 3]) == 2.5
    with pytest.raises(ValueError):
        report.median([])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.62913, "0.629"), (1.0, "1"), (12.345, "12.3"), (150, "150"), (7699.6, "7,700"), (None, "-")],
)
def test_numbers_have_three_digits(value, text):
    """Figures are printed with three significant digits and thousands apart."""
    assert report.number(value) == text


def test_verdicts():
    """A figure at its limit has met it, one past it has not."""
    assert report.at_most("g", "n", 1.0, 1.0, "ms").verdict == "met"
    assert report.at_most("g", "n", 1.001, 1.0, "ms").verdict == "missed"
    assert report.at_least("g", "n", 0.6, 0.6, "x").verdict == "met"
    assert report.at_least("g", "n", 0.599, 0.6, "x").verdict == "missed"


def test_table_and_summary():
    """Columns are aligned, each group has one heading, and the summary names what was not met."""
    figures = [
        report.at_most("calls", "added p50", 0.629, 1.0, "ms", detail="over direct"),
        report.at_least("calls", "ratio", 0.5, 0.6, "of the control"),
        report.failed("idle", "memory", "no daemon"),
        report.context("idle", "threads", 4),
    ]
    lines = report.table(figures).splitlines()
    assert [line for line in lines if not line.startswith(" ")] == ["calls", "idle"]
    shown = [line for line in lines if line.startswith(" ")]
    assert len({line.index(word) for line, word in zip(shown, ["target", "≤ 1 ms", "≥ 0.6"], strict=False)}) == 1
    assert shown[1].split() == ["added", "p50", "0.629", "ms", "≤", "1", "ms", "met", "over", "direct"]
    assert report.summary(figures) == "1 of 3 targets met; not met: calls: ratio; idle: memory."
    assert report.summary(figures[:1]) == "1 of 1 targets met."
