"""Times as nanoseconds, text and datetime."""

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import EventValidationException
from shared.events import format_timestamp, parse_timestamp, to_datetime, to_nanoseconds
from shared.events.timestamps import NANOSECONDS_MAX, NANOSECONDS_MIN

SECOND = 1_000_000_000
NANOSECONDS = st.integers(NANOSECONDS_MIN, NANOSECONDS_MAX)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00", 0),
        ("1970-01-01t00:00:00z", 0),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1970-01-01T00:00:00.1Z", 100_000_000),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("2024-01-20T10:30:00Z", 1_705_746_600 * SECOND),
        ("2024-01-20T12:00:00.5+01:30", 1_705_746_600 * SECOND + SECOND // 2),
        ("2024-01-20T05:30:00-05:00", 1_705_746_600 * SECOND),
        ("2024-01-20T10:30:00-00:00", 1_705_746_600 * SECOND),
        ("2024-02-29T00:00:00Z", 1_709_164_800 * SECOND),
        ("2262-04-11T23:47:16.854775807Z", NANOSECONDS_MAX),
        ("1677-09-21T00:12:43.145224192Z", NANOSECONDS_MIN),
    ],
)
def test_timestamps_are_read_exactly(text, nanoseconds):
    """Offsets, fractions, leap days and the ends of the range."""
    assert parse_timestamp(text) == nanoseconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2024-01-20",
        "2024-01-20 10:30:00Z",
        "2024-1-20T10:30:00Z",
        "2024-01-20T10:30Z",
        "2024-01-20T10:30:00.Z",
        "2024-01-20T10:30:00.1234567890Z",
        "2024-01-20T10:30:00,5Z",
        "2024-01-20T24:00:00Z",
        "2024-01-20T10:30:60Z",
        "2023-02-29T00:00:00Z",
        "2024-01-20T10:30:00+24:00",
        "2024-01-20T10:30:00+01:60",
        "2024-01-20T10:30:00+0100",
        "2024-01-20T10:30:00Z ",
        "2024-01-20T10:30:00Z\n",
        "0000-01-01T00:00:00Z",
        "2262-04-11T23:47:16.854775808Z",
        "1677-09-21T00:12:43.145224191Z",
        "٢٠٢٤-01-20T10:30:00Z",
    ],
)
def test_anything_else_is_refused(text):
    """What is not RFC 3339, or does not fit 64 bits of nanoseconds, is an error that names the field."""
    with pytest.raises(EventValidationException, match="write RFC 3339") as caught:
        parse_timestamp(text, field="start")
    assert caught.value.violations[0].field == "start"


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (SECOND + 100_000_000, "1970-01-01T00:00:01.100Z"),
        (123_456_000, "1970-01-01T00:00:00.123456Z"),
        (7, "1970-01-01T00:00:00.000000007Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
    ],
)
def test_timestamps_are_written_with_0_3_6_or_9_digits(nanoseconds, text):
    """As few fractional digits as are exact."""
    assert format_timestamp(nanoseconds) == text


@settings(deadline=None)
@given(NANOSECONDS)
def test_text_round_trips(nanoseconds):
    """Text carries every nanosecond of the range."""
    assert parse_timestamp(format_timestamp(nanoseconds)) == nanoseconds


@settings(deadline=None)
@given(st.integers(NANOSECONDS_MIN + 1000, NANOSECONDS_MAX))
def test_datetime_is_cut_off_to_microseconds(nanoseconds):
    """A datetime loses less than a microsecond, always towards the past."""
    assert to_nanoseconds(to_datetime(nanoseconds)) == nanoseconds // 1000 * 1000


@settings(deadline=None)
@given(st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2250, 1, 1)), st.integers(-1439, 1439))  # noqa: DTZ001
def test_text_agrees_with_the_standard_library(moment, offset_minutes):
    """isoformat of a datetime in any zone is read as the same instant."""
    aware = moment.replace(tzinfo=dt.timezone(dt.timedelta(minutes=offset_minutes)))
    assert parse_timestamp(aware.isoformat()) == to_nanoseconds(aware)


def test_a_datetime_without_a_zone_is_utc():
    """Nobody's local time zone changes an event."""
    assert to_nanoseconds(dt.datetime(2024, 1, 20, 10, 30)) == 1_705_746_600 * SECOND  # noqa: DTZ001


@pytest.mark.parametrize("year", [1, 1677, 2263, 9999])
def test_a_datetime_beyond_the_range_is_refused(year):
    """What does not fit is an error that names the field, not another time."""
    with pytest.raises(EventValidationException, match="from 1677-09-22") as caught:
        to_nanoseconds(dt.datetime(year, 1, 1, tzinfo=dt.UTC), field="end")
    assert caught.value.violations[0].field == "end"
