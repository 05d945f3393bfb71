"""Windows for automatic rollouts, by a zone's clock and over its changes."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops.config.catalog.spec import DAYS, Window
from llmops.triggers.windows import is_open, next_opening

BERLIN = "Europe/Berlin"
ZONES = (BERLIN, "UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Chatham")


def window(start: str, end: str, *days: str) -> Window:
    return Window.model_validate({"start": start, "end": end} | ({"days": days} if days else {}))


def local(text: str, zone: str = BERLIN, fold: int = 0) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)


@pytest.mark.parametrize(
    ("rule", "now", "expected"),
    [
        (window("02:00", "05:00"), "2026-11-25T01:59:59", False),
        (window("02:00", "05:00"), "2026-11-25T02:00", True),
        (window("02:00", "05:00"), "2026-11-25T04:59:59", True),
        (window("02:00", "05:00"), "2026-11-25T05:00", False),
        # Over midnight: the day is that of the start.
        (window("22:00", "03:00", "fri"), "2026-11-27T23:00", True),
        (window("22:00", "03:00", "fri"), "2026-11-28T02:59", True),
        (window("22:00", "03:00", "fri"), "2026-11-28T22:30", False),
        (window("22:00", "03:00", "fri"), "2026-11-27T02:00", False),
        # A day long.
        (window("06:00", "06:00", "sat"), "2026-11-28T06:00", True),
        (window("06:00", "06:00", "sat"), "2026-11-29T05:59", True),
        (window("06:00", "06:00", "sat"), "2026-11-29T06:00", False),
    ],
)
def test_a_window(rule: Window, now: str, expected: bool) -> None:
    assert is_open([rule], BERLIN, local(now)) is expected


def test_without_windows_it_is_always_open() -> None:
    assert is_open([], BERLIN, local("2026-11-25T01:00"))
    assert next_opening([], BERLIN, local("2026-11-25T01:00")) is None


def test_the_clock_of_the_zone_counts() -> None:
    rule, now = [window("02:00", "05:00")], dt.datetime(2026, 7, 1, 0, 30, tzinfo=dt.UTC)
    assert is_open(rule, BERLIN, now)
    assert not is_open(rule, "UTC", now)


def test_the_next_opening() -> None:
    rules = [window("02:00", "05:00", "sun"), window("22:00", "23:00", "fri")]
    assert next_opening(rules, BERLIN, local("2026-11-25T12:00")) == local("2026-11-27T22:00")
    assert next_opening(rules, BERLIN, local("2026-11-27T22:00")) == local("2026-11-29T02:00")
    assert next_opening([window("12:00", "13:00", "wed")], BERLIN, local("2026-11-25T12:00")) == local(
        "2026-12-02T12:00"
    )


def test_an_hour_that_comes_twice_is_open_twice() -> None:
    # On 2026-10-25 in Berlin, 02:00 to 03:00 comes twice.
    rule = [window("02:00", "02:30")]
    for fold in (0, 1):
        assert is_open(rule, BERLIN, local("2026-10-25T02:15", fold=fold))
    assert not is_open(rule, BERLIN, local("2026-10-25T02:30", fold=1))
    assert not is_open(rule, BERLIN, local("2026-10-25T01:59"))


def test_a_window_in_a_skipped_hour_begins_later() -> None:
    # On 2026-03-29 in Berlin, 02:00 to 03:00 does not come.
    utc = dt.datetime(2026, 3, 29, 1, 0, tzinfo=dt.UTC)
    assert not is_open([window("02:15", "02:45")], BERLIN, utc)
    assert is_open([window("02:15", "02:45")], BERLIN, utc + dt.timedelta(minutes=20))
    assert not is_open([window("02:15", "02:45")], BERLIN, utc + dt.timedelta(minutes=45))
    assert is_open([window("02:00", "05:00")], BERLIN, utc)


clocks = st.times().map(lambda time: f"{time:%H:%M}")
day_lists = st.lists(st.sampled_from(DAYS), min_size=1, max_size=7, unique=True)
rules = st.tuples(clocks, clocks, day_lists).map(lambda drawn: window(drawn[0], drawn[1], *drawn[2]))
moments = st.datetimes(dt.datetime(2025, 1, 1), dt.datetime(2028, 1, 1)).map(lambda when: when.replace(tzinfo=dt.UTC))


@given(st.lists(rules, min_size=1, max_size=3), st.sampled_from(ZONES), moments)
@settings(max_examples=300, deadline=None)
def test_a_window_opens_at_the_next_opening_and_not_before(windows: list[Window], zone: str, now: dt.datetime) -> None:
    opening = next_opening(windows, zone, now)
    if opening is None:
        # The only window without an opening within a week lies in the skipped hour.
        assert is_open(windows, zone, now) or len({day for window in windows for day in window.days}) < 7
        return
    assert now < opening <= now + dt.timedelta(days=9)
    assert is_open(windows, zone, opening)
    if is_open(windows, zone, now):
        return
    # Closed now: closed until right before the opening.
    step = (opening - now) / 50
    assert not any(is_open(windows, zone, now + step * number) for number in range(50))
    assert not is_open(windows, zone, opening - dt.timedelta(microseconds=1))


@given(rules, st.sampled_from(ZONES), moments)
@settings(max_examples=300, deadline=None)
def test_without_clock_changes_a_window_follows_the_local_clock(rule: Window, zone: str, now: dt.datetime) -> None:
    there = now.astimezone(ZoneInfo(zone))
    offsets = {(there + dt.timedelta(days=days)).utcoffset() for days in (-2, -1, 0, 1, 2)}
    if len(offsets) > 1:
        return
    clock, today = f"{there:%H:%M:%S.%f}", DAYS[there.weekday()]
    yesterday = DAYS[there.weekday() - 1]
    if rule.start < rule.end:
        expected = today in rule.days and rule.start <= clock < rule.end
    else:
        expected = (today in rule.days and clock >= rule.start) or (yesterday in rule.days and clock < rule.end)
    assert is_open([rule], zone, now) is expected
