"""The maxima of filters. Each has its own error, whose metadata names it as `limit`. Bytes are those of UTF-8."""

EXPRESSION_BYTES_MAX = 8 * 1024
# Parentheses and NOT inside of each other.
NESTING_MAX = 64
# Comparisons of a whole filter; an IN list is one.
COMPARISONS_MAX = 256
# Values of one IN list, and of one part of the structured form.
LIST_VALUES_MAX = 1_000
# A regular expression, or the pattern of a LIKE.
PATTERN_BYTES_MAX = 1_000
# Keys and indexes below payload.
PATH_SEGMENTS_MAX = 16
# A number is 0, or from 1e-9999 to below 1e10000 in size.
EXPONENT_MAX = 9_999
