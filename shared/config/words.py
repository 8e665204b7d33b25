"""Sizes and durations in words: `100MB`, `64MiB`, `30d`, `1.5s`. Pure.

A number and a unit, with or without a space between. Units of sizes ignore case, units of durations do not
(`m` is minutes). Arithmetic is decimal, so `0.1s` is exactly 100 ms. Numbers are not negative.
"""

import re
from decimal import Decimal

KB, MB, GB, TB = 1000, 1000**2, 1000**3, 1000**4
KIB, MIB, GIB, TIB = 1024, 1024**2, 1024**3, 1024**4

MINUTE, HOUR, DAY, WEEK = 60.0, 3600.0, 86400.0, 604800.0

SIZE_UNITS = {"B": 1, "KB": KB, "KiB": KIB, "MB": MB, "MiB": MIB, "GB": GB, "GiB": GIB, "TB": TB, "TiB": TIB}
DURATION_UNITS = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
    "w": Decimal(604800),
}

_SIZE_UNITS_BY_LOWER = {unit.lower(): factor for unit, factor in SIZE_UNITS.items()}
_WORDS = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)\s*")


def parse_size(text: str) -> int:
    """Bytes of a size such as "100MB". A bare number is bytes.

    Raises ValueError where the text is no size, or not a whole number of bytes.
    """
    number, unit = _split(text)
    factor = _SIZE_UNITS_BY_LOWER.get((unit or "B").lower())
    if factor is None:
        raise ValueError(f"{unit} is no unit of size")
    size = number * factor
    if size != int(size):
        raise ValueError(f"{text} is not a whole number of bytes")
    return int(size)


def parse_duration(text: str) -> float:
    """Seconds of a duration such as "30d". A bare number is seconds.

    Raises ValueError where the text is no duration.
    """
    number, unit = _split(text)
    factor = DURATION_UNITS.get(unit or "s")
    if factor is None:
        raise ValueError(f"{unit} is no unit of time")
    return float(number * factor)


def format_size(size: int) -> str:
    """The shortest words for a number of bytes that say it exactly: parse_size gives it back."""
    if size == 0:
        return "0B"
    return min((f"{size // factor}{unit}" for unit, factor in SIZE_UNITS.items() if size % factor == 0), key=len)


def format_duration(seconds: float) -> str:
    """Words for a duration in whole milliseconds; below that it is rounded. parse_duration gives it back."""
    milliseconds = round(seconds * 1000)
    if milliseconds == 0:
        return "0s"
    for unit in ("d", "h", "m", "s"):
        factor = int(DURATION_UNITS[unit] * 1000)
        if milliseconds % factor == 0:
            return f"{milliseconds // factor}{unit}"
    return f"{milliseconds}ms"


def _split(text: str) -> tuple[Decimal, str]:
    match = _WORDS.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a number with a unit")
    return Decimal(match[1]), match[2]
