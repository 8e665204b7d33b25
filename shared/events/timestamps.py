"""Times as nanoseconds since the epoch (UTC), as RFC 3339 text and as datetime. Pure.

Nanoseconds are exact and fit 64 bits: 1677-09-21T00:12:43.145224192Z to 2262-04-11T23:47:16.854775807Z. Text
carries them exactly. A datetime has microseconds: what is below is cut off, towards the past.
"""

import datetime as dt
import re

from shared.errors import EventValidationException, FieldViolation

NANOSECONDS_MIN = -(2**63)
NANOSECONDS_MAX = 2**63 - 1

_SECOND = 1_000_000_000
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_TEXT = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:[Zz]|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))?"
)


def parse_timestamp(text: str, *, field: str = "timestamp") -> int:
    """Nanoseconds of an RFC 3339 text: date, T, time, up to 9 fractional digits, then Z, an offset or nothing.

    Nothing means UTC. Leap seconds are not known. field: what the error calls it.
    Raises EventValidationException.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise _refusal(field, text)
    year, month, day, hour, minute, second, fraction, sign, offset_hours, offset_minutes = match.groups()
    try:
        moment = dt.datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), tzinfo=dt.UTC)
    except ValueError as error:
        raise _refusal(field, text) from error
    since = moment - _EPOCH
    seconds = since.days * 86_400 + since.seconds
    if sign:
        offset = int(offset_hours) * 3600 + int(offset_minutes) * 60
        seconds += offset if sign == "-" else -offset
    nanoseconds = seconds * _SECOND + (int(fraction.ljust(9, "0")) if fraction else 0)
    if not NANOSECONDS_MIN <= nanoseconds <= NANOSECONDS_MAX:
        raise _refusal(field, text)
    return nanoseconds


def format_timestamp(nanoseconds: int) -> str:
    """RFC 3339 text with Z and as few of 0, 3, 6 or 9 fractional digits as are exact."""
    assert NANOSECONDS_MIN <= nanoseconds <= NANOSECONDS_MAX, nanoseconds
    seconds, rest = divmod(nanoseconds, _SECOND)
    # isoformat drops the zone of a naive datetime, and pads the year.
    text = (_EPOCH + dt.timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()
    if rest == 0:
        return f"{text}Z"
    if rest % 1_000_000 == 0:
        return f"{text}.{rest // 1_000_000:03d}Z"
    if rest % 1_000 == 0:
        return f"{text}.{rest // 1_000:06d}Z"
    return f"{text}.{rest:09d}Z"


def to_nanoseconds(moment: dt.datetime, *, field: str = "timestamp") -> int:
    """Nanoseconds of a datetime. One without a time zone is UTC. field: what the error calls it.

    Raises EventValidationException where they do not fit 64 bits.
    """
    aware = moment.replace(tzinfo=dt.UTC) if moment.utcoffset() is None else moment
    nanoseconds = (aware - _EPOCH) // _MICROSECOND * 1_000
    if not NANOSECONDS_MIN <= nanoseconds <= NANOSECONDS_MAX:
        raise _refusal(field, moment.isoformat())
    return nanoseconds


def to_datetime(nanoseconds: int) -> dt.datetime:
    """UTC datetime of nanoseconds, cut off to microseconds."""
    return _EPOCH + dt.timedelta(microseconds=nanoseconds // 1_000)


def _refusal(field: str, text: str) -> EventValidationException:
    problem = (
        f"is {text[:60]!r}; write RFC 3339 such as 2024-01-20T10:30:00Z or 2024-01-20T11:30:00.123456789+01:00, "
        "from 1677-09-22 to 2262-04-11"
    )
    return EventValidationException(f"{field} {problem}", violations=[FieldViolation(field, problem)])
