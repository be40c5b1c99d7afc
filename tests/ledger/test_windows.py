"""The arithmetic itself: buckets, boundaries, ages, calendar periods."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridd.clocks import NS
from hybridd.errors import ConfigError
from hybridd.ledger.windows import (
    NEVER,
    QUARTER_NS,
    Periods,
    SlidingLog,
    age_ns,
    bucket_ns,
    hold_ns,
    round_up,
    slack_ns,
)

MS = 1_000_000


def wall(text: str, zone: str = "UTC", fold: int = 0) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()) * NS


@pytest.mark.parametrize(
    ("seconds", "bucket", "slack"), [(1, MS, 10 * MS), (10, 10 * MS, 10 * MS), (60, 60 * MS, 60 * MS)]
)
def test_buckets_and_slack(seconds: int, bucket: int, slack: int) -> None:
    """Buckets are window/1000 wide; the slack is that, but at least 10 ms."""
    assert (bucket_ns(seconds), slack_ns(seconds), hold_ns(seconds)) == (bucket, slack, seconds * NS + slack)


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(1, 1000)), max_size=50), st.integers(1, 10**9))
def test_log_forgets_at_the_end_of_the_bucket_and_never_earlier(entries: list[tuple[int, int]], width: int) -> None:
    """At any instant the log holds exactly the amounts whose rounded-up instant has not come."""
    log = SlidingLog(width)
    for until, amount in entries:
        log.add(until, amount)
    held = sum(amount for _, amount in entries)
    for instant in sorted({round_up(until, width) for until, _ in entries}):
        held -= log.expire(instant - 1)
        assert held == sum(amount for until, amount in entries if round_up(until, width) > instant - 1)
        held -= log.expire(instant)
        assert held == sum(amount for until, amount in entries if round_up(until, width) > instant)
    assert log.next == NEVER


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 9)), min_size=1), st.integers(1, 30))
def test_free_at_is_the_first_instant_with_enough(entries: list[tuple[int, int]], wanted: int) -> None:
    """``free_at`` names the earliest instant by which that much has gone, or None."""
    log = SlidingLog(10)
    for until, amount in entries:
        log.add(until, amount)
    ends = sorted({round_up(until, 10) for until, _ in entries})
    enough = [end for end in ends if sum(a for u, a in entries if round_up(u, 10) <= end) >= wanted]
    assert log.free_at(wanted) == (enough[0] if enough else None)


def test_take_back_only_what_is_still_there() -> None:
    """An amount that has already stopped counting cannot be taken back a second time."""
    log = SlidingLog(10)
    log.add(25, 5)
    assert log.take_back(25, 2) == 2
    assert log.expire(30) == 3
    assert log.take_back(25, 2) == 0


def test_age_within_and_across_boots() -> None:
    """Within a boot the boot clock; across boots the wall difference, but never less than the uptime."""
    assert age_ns(same_boot=True, then_boot=70, then_wall=5, now_boot=100, now_wall=9_999) == 30
    assert age_ns(same_boot=False, then_boot=70, then_wall=5_000, now_boot=100, now_wall=9_999) == 4_999
    assert age_ns(same_boot=False, then_boot=70, then_wall=9_950, now_boot=100, now_wall=9_999) == 100
    assert age_ns(same_boot=False, then_boot=70, then_wall=20_000, now_boot=100, now_wall=9_999) == 100


DAYS = [
    ("UTC", "2026-11-20T13:00:00", "2026-11-20T00:00:00", 24),
    ("America/New_York", "2026-03-08T12:00:00", "2026-03-08T00:00:00", 23),
    ("America/New_York", "2026-11-01T12:00:00", "2026-11-01T00:00:00", 25),
    ("America/Sao_Paulo", "2018-11-04T12:00:00", "2018-11-04T01:00:00", 23),  # midnight does not exist that day
    ("America/Sao_Paulo", "2019-02-16T12:00:00", "2019-02-16T00:00:00", 25),  # 24:00 goes back to 23:00
    ("Australia/Lord_Howe", "2026-04-05T12:00:00", "2026-04-05T00:00:00", 24.5),
    ("Asia/Kathmandu", "2026-11-20T13:00:00", "2026-11-20T00:00:00", 24),
]


@pytest.mark.parametrize(("zone", "inside", "start", "hours"), DAYS)
def test_days_on_which_the_clocks_change(zone: str, inside: str, start: str, hours: float) -> None:
    """A day begins at the first instant of its local date and has 23, 24, 24.5 or 25 hours."""
    begin, end = Periods("day", zone).at(wall(inside, zone))
    assert begin == wall(start, zone)
    assert end - begin == hours * 3_600 * NS


def test_a_date_that_a_zone_skipped() -> None:
    """Samoa had no 30 December 2011: the 31st follows the 29th."""
    periods = Periods("day", "Pacific/Apia")
    begin, end = periods.at(wall("2011-12-29T12:00:00", "Pacific/Apia"))
    assert periods.at(end)[0] == end == wall("2011-12-31T00:00:00", "Pacific/Apia")
    assert end - begin == 24 * 3_600 * NS


def test_clocks_that_go_back_over_midnight() -> None:
    """St. John's went from 00:01 back to 23:01: the hour that came again belongs to the new day's partition."""
    zone = "America/St_Johns"
    again = wall("2010-11-06T23:30:00", zone, fold=1)
    periods = Periods("day", zone)
    begin, end = periods.at(again)
    assert begin <= again < end
    assert begin == wall("2010-11-07T00:00:00", zone)


@pytest.mark.parametrize(
    ("zone", "inside", "start", "end"),
    [
        ("UTC", "2026-12-31T23:59:59", "2026-12-01T00:00:00", "2027-01-01T00:00:00"),
        ("America/Sao_Paulo", "2026-02-28T23:59:59", "2026-02-01T00:00:00", "2026-03-01T00:00:00"),
        ("Asia/Tokyo", "2028-02-29T00:00:00", "2028-02-01T00:00:00", "2028-03-01T00:00:00"),
    ],
)
def test_months_in_a_zone(zone: str, inside: str, start: str, end: str) -> None:
    """A month runs from local midnight to local midnight."""
    assert Periods("month", zone).at(wall(inside, zone)) == (wall(start, zone), wall(end, zone))


def test_hours_of_zones_that_are_not_whole_hours_off() -> None:
    """An hour is a local one: Kathmandu's begin a quarter past; Lord Howe's change makes one of 1.5 h."""
    begin, end = Periods("hour", "Asia/Kathmandu").at(wall("2026-11-20T13:20:00"))
    assert (begin, end) == (wall("2026-11-20T13:15:00"), wall("2026-11-20T14:15:00"))
    zone = "Australia/Lord_Howe"
    begin, end = Periods("hour", zone).at(wall("2026-04-05T01:15:00", zone))
    assert end - begin == 5_400 * NS


ZONES = st.sampled_from(
    ["UTC", "America/Sao_Paulo", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia",
     "America/St_Johns", "Africa/Casablanca", "Asia/Tehran", "America/Havana", "Pacific/Chatham"]
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(ZONES, st.sampled_from(["hour", "day", "month"]), st.integers(0, 4_000_000_000))
def test_periods_are_a_partition_on_quarter_hours(zone: str, kind: str, seconds: int) -> None:
    """Every instant lies in exactly one period, neighbours meet, and boundaries are quarter hours of UTC."""
    periods = Periods(kind, zone)  # type: ignore[arg-type]  # one of three literals
    instant = seconds * NS
    begin, end = periods.at(instant)
    assert begin <= instant < end
    fresh = Periods(kind, zone)  # type: ignore[arg-type]  # as above
    assert fresh.at(end - 1) == (begin, end) == fresh.at(begin)
    assert fresh.at(end)[0] == end
    assert fresh.at(begin - 1)[1] == begin
    if seconds > 300_000_000:  # local mean times with odd seconds ended before 1980 in every zone above
        assert begin % QUARTER_NS == 0
        assert end % QUARTER_NS == 0


def test_touched_periods_of_a_long_call() -> None:
    """Every hour with an instant in the closed interval, the one that begins at its last instant included."""
    first = wall("2026-11-20T10:59:59")
    touched = list(Periods("hour", "UTC").touched(first, wall("2026-11-20T13:00:00")))
    assert [begin for begin, _ in touched] == [wall(f"2026-11-20T{hour}:00:00") for hour in (10, 11, 12, 13)]
    assert all(left[1] == right[0] for left, right in pairwise(touched))
    assert len(list(Periods("hour", "UTC").touched(first, wall("2026-11-20T13:00:00") - 1))) == 3


def test_unknown_zone_is_a_configuration_error() -> None:
    """A zone nobody knows is named, with an example of a right one."""
    for zone in ("Mars/Olympus", "", "../etc/passwd"):
        with pytest.raises(ConfigError, match="IANA"):
            Periods("day", zone)


def test_local_reset_is_not_utc() -> None:
    """Midnight in São Paulo is 03:00 UTC."""
    begin, _ = Periods("day", "America/Sao_Paulo").at(wall("2026-11-20T02:59:00"))
    assert begin == wall("2026-11-19T03:00:00")
    assert timedelta(seconds=begin // NS % 86_400) == timedelta(hours=3)
