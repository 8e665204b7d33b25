"""How many events fell into each hour, in UTC or as the clocks of a time zone show it.

An hour is named by its local start and the offset from UTC that held for the events in it. So the hour that is
repeated when daylight saving ends is two hours with different offsets, and the one that is left out does not occur.

Events come counted by quarters of an hour, in UTC. With them begin and end the hours of all time zones today; where the
offset was another one once, as in Kiritimati until 1979, the hours of then are right to the quarter.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from analysis_service.columns import Integers
from analysis_service.statistics.sketch import weighted_counts
from shared.errors import invalid_field

BUCKET_S = 900
_HOUR_S = 3600
_SECOND_NS = 1_000_000_000
# In place of an hour: the event is in another piece.
ELSEWHERE = -(1 << 62)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOURS_A_WEEK = 168
# The epoch was a Thursday; weeks begin on Monday.
_EPOCH_HOUR_OF_WEEK = 3 * 24


class Hour(NamedTuple):
    """One hour. local: hours since 1970-01-01T00 by the local clock. offset_s: what is added to UTC for it."""

    local: int
    offset_s: int

    def format(self) -> str:
        """Its start in RFC 3339, such as "2024-01-20T10:00:00Z" or "2024-01-20T11:00:00+01:00"."""
        start = datetime.fromtimestamp(self.local * _HOUR_S - self.offset_s, UTC)
        if not self.offset_s:
            return start.strftime("%Y-%m-%dT%H:%M:%SZ")
        return start.astimezone(timezone(timedelta(seconds=self.offset_s))).isoformat(timespec="seconds")


def check_time_zone(name: str) -> str:
    """The name itself. Raises EventValidationException (INVALID_FIELD) where there is no such time zone."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        problem = f"is {name!r}; write a name of the tz database, such as Europe/Berlin or UTC"
        raise invalid_field("time_zone", problem) from None
    return name


def hours_of(times: Integers, time_zone: str = "UTC") -> list[tuple[int, Integers]]:
    """Local hour of each event, in one piece for each offset from UTC that occurs: offset in seconds, hours.

    A piece has one value for each of `times` (nanoseconds): ELSEWHERE where another piece has the hour of the event.
    """
    seconds = times // _SECOND_NS
    if time_zone == "UTC":
        return [(0, seconds // _HOUR_S)]
    quarters, which = np.unique(seconds // BUCKET_S, return_inverse=True)
    zone = ZoneInfo(time_zone)
    offsets = np.array([_offset_s(zone, each) for each in quarters.tolist()], np.int64)[which]
    hours = (seconds + offsets) // _HOUR_S
    return [(int(offset), np.where(offsets == offset, hours, ELSEWHERE)) for offset in np.unique(offsets)]


def _offset_s(zone: ZoneInfo, quarter: int) -> int:
    """What is added to UTC in a quarter of an hour, by their number since 1970, in seconds."""
    offset = (_EPOCH + timedelta(seconds=quarter * BUCKET_S)).astimezone(zone).utcoffset()
    return 0 if offset is None else round(offset.total_seconds())


def count_hours(
    pieces: Iterable[tuple[int, Integers]], numbers: Integers, rows: Integers | slice = slice(None)
) -> Counter[Hour]:
    """Events in each hour, of the rows chosen; numbers: of the events of each row."""
    counts: Counter[Hour] = Counter()
    for offset_s, all_hours in pieces:
        here = all_hours[rows] != ELSEWHERE
        found, which = np.unique(all_hours[rows][here], return_inverse=True)
        sums = weighted_counts(which, numbers[rows][here])
        for hour, events in zip(found.tolist(), sums.tolist(), strict=True):
            counts[Hour(hour, offset_s)] += events
    return counts


def by_hour_of_week(counts: Counter[Hour]) -> list[int]:
    """Events by hour of the local week, 168 numbers from Monday 00:00."""
    week = [0] * _HOURS_A_WEEK
    for hour, number in counts.items():
        week[(hour.local + _EPOCH_HOUR_OF_WEEK) % _HOURS_A_WEEK] += number
    return week
