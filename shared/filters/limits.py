"""The maxima of filters. Each has its own error, whose metadata names it as `limit`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FilterLimits:
    """How much a filter may hold. Bytes are those of UTF-8."""

    expression_bytes: int = 8 * 1024
    # Parentheses and NOT inside of each other.
    nesting: int = 64
    # Comparisons of the whole filter; one IN list is one.
    comparisons: int = 256
    # Values of one IN list, or of one part of the structured form.
    list_values: int = 1_000
    # A regular expression, or the pattern of a LIKE.
    pattern_bytes: int = 1_000
    # Keys and indexes below payload.
    path_segments: int = 16
    # A number is 0 or between 1e-9999 and 1e9999 in size.
    exponent: int = 9_999


DEFAULT_LIMITS = FilterLimits()
# For text that this package printed itself from a tree that kept the limits.
PRINTED_LIMITS = FilterLimits(expression_bytes=1 << 30, pattern_bytes=1 << 30)

# Printing at most doubles the quotation marks of a string.
assert PRINTED_LIMITS.expression_bytes >= 2 * DEFAULT_LIMITS.expression_bytes
