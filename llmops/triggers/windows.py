"""Maintenance windows: when a trigger's rollout may start. Pure.

Windows are clock times in a zone. When clocks go back, a time that comes twice is in the window both times. When they
go forward, a window whose start is skipped starts that much later.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from zoneinfo import ZoneInfo

from llmops.config.catalog.spec import DAYS, Window

_DAY = datetime.timedelta(days=1)
# A week and a day: the window of today may have begun already.
_DAYS_AHEAD = 8


def is_open(windows: Sequence[Window], timezone: str, now: datetime.datetime) -> bool:
    """Whether a rollout may start at `now`; without windows it always may.

    Args:
        windows: Times of the week.
        timezone: Of their clocks, a name of the IANA database.
        now: With a time zone.
    """
    return not windows or any(start <= now < end for start, end in _spans(windows, timezone, now))


def next_opening(windows: Sequence[Window], timezone: str, now: datetime.datetime) -> datetime.datetime | None:
    """When the next window begins after `now`, in `timezone`; None without windows, or if none begins within a week.

    Args:
        windows: Times of the week.
        timezone: Of their clocks, a name of the IANA database.
        now: With a time zone.
    """
    starts = [start for start, end in _spans(windows, timezone, now) if now < start < end]
    return min(starts).astimezone(ZoneInfo(timezone)) if starts else None


def _spans(
    windows: Sequence[Window], timezone: str, now: datetime.datetime
) -> Iterator[tuple[datetime.datetime, datetime.datetime]]:
    """Beginning and end, in UTC, of every window from yesterday's on."""
    zone = ZoneInfo(timezone)
    today = now.astimezone(zone).date()
    for offset in range(-1, _DAYS_AHEAD):
        day = today + offset * _DAY
        for window in windows:
            if DAYS[day.weekday()] in window.days:
                last = day if window.start < window.end else day + _DAY
                yield _moment(day, window.start, zone, 0), max(_moment(last, window.end, zone, fold) for fold in (0, 1))


def _moment(day: datetime.date, clock: str, zone: ZoneInfo, fold: int) -> datetime.datetime:
    local = datetime.datetime.combine(day, datetime.time.fromisoformat(clock), zone)
    return local.replace(fold=fold).astimezone(datetime.UTC)
