"""The dashboard's figures: lag is counted from the event to the paint that shows it."""

from __future__ import annotations

import pytest

from scripts.bench_parts.tui_terminal import Paints


def test_lag_is_of_every_event_to_the_first_paint_that_shows_it_or_a_newer_one() -> None:
    """Events that one paint shows together wait differently long; a paint without news counts for nothing."""
    sent = [10.0, 10.1, 10.2, 10.3]
    paints = Paints()
    paints(10.15, b"\x1b[38;5;1mlab:m0000001\x1b[0m lab:m0000000")
    paints(10.2, b"lab:m0000001")
    paints(10.5, b"lab:m0000003 lab:m0000002")
    assert paints.lags(sent, 0) == [pytest.approx(one) for one in (0.15, 0.05, 0.3, 0.2)]
    assert paints.lags(sent, 2) == [pytest.approx(one) for one in (0.3, 0.2)]


def test_a_number_that_comes_in_two_pieces_is_read_when_it_is_whole() -> None:
    """Output is read as it comes: the cut goes through anything."""
    paints = Paints()
    paints(1.0, b"lab:m00000")
    assert paints.seen == []
    paints(2.0, b"07 and so on")
    assert paints.seen == [(2.0, 7)]


def test_events_that_were_never_shown_have_no_lag() -> None:
    """The caller sees that they are missing."""
    paints = Paints()
    paints(2.0, b"lab:m0000000")
    assert len(paints.lags([1.0, 1.5], 0)) == 1
