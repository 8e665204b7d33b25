"""Numbers and durations as people say them, for descriptions."""

_UNITS = ((86_400.0, "days"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"))


def duration_in_words(seconds: float) -> str:
    """Such as "3.2 h", "450 ms"; "no time" below a microsecond."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{number_in_words(seconds / size)} {unit}"
    return f"{seconds * 1e3:.2g} ms" if seconds >= 1e-6 else "no time"


def number_in_words(number: float) -> str:
    """Three significant digits, whole numbers as they are up to a million."""
    if number == round(number) and abs(number) < 1e6:
        return f"{number:.0f}"
    return f"{number:.3g}" if abs(number) < 1000 else f"{number:,.0f}"
