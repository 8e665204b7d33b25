"""The maxima of filters. Each has its own reason of error. Bytes are those of UTF-8."""

EXPRESSION_BYTES_MAX = 8 * 1024
# Parentheses and NOT inside of each other.
NESTING_MAX = 64
# Comparisons of a whole filter; an IN list is one.
COMPARISONS_MAX = 256
# Values of one IN list, and of one part of the structured form.
LIST_VALUES_MAX = 1_000
# A regular expression, or the pattern of a LIKE.
PATTERN_BYTES_MAX = 1_000
# Of RE2, which refuses programs beyond a quarter of it: about 10,000 steps at most for each byte of a text.
REGEX_MEMORY_BYTES_MAX = 1 << 20
# Keys and indexes below payload.
PATH_SEGMENTS_MAX = 16
# A number is 0, or from 1e-9999 to below 1e10000 in size.
EXPONENT_MAX = 9_999
