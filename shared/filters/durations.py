"""Durations of the filter language: a whole number and a unit. Pure."""

_UNITS_NS = {"d": 86_400 * 10**9, "h": 3_600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6}

# Any time of this age or that far ahead fits 64 bits of nanoseconds, from 1778 to 2162.
DURATION_DAYS_MAX = 36_525
DURATION_MAX_NS = DURATION_DAYS_MAX * _UNITS_NS["d"]


def parse_duration(text: str) -> int | None:
    """Return the nanoseconds of digits and a unit, such as 15m or 500ms; None if it is more than 100 years."""
    digits = text.rstrip("dhms")
    # Python reads no number of more than 4300 digits.
    if len(digits.lstrip("0")) > 19:
        return None
    duration = int(digits) * _UNITS_NS[text[len(digits) :]]
    return duration if duration <= DURATION_MAX_NS else None


def format_duration(duration_ns: int) -> str:
    """Return the text of a whole number of milliseconds, in the largest unit that is exact."""
    assert 0 <= duration_ns <= DURATION_MAX_NS
    assert duration_ns % _UNITS_NS["ms"] == 0
    unit, length = next((unit, length) for unit, length in _UNITS_NS.items() if duration_ns % length == 0)
    return f"{duration_ns // length}{unit}"
