"""What makes sense in a comparison: fields, operators and literals together. Pure.

The expression and the structured form are checked alike. All functions raise FilterProblem.

An operator that can never hold for a field is refused, because it is a mistake. A literal of another type
than the field's is not: the comparison is just false, as it is for values inside the payload. Times are
the exception: what is compared with a time must be one.
"""

import re
from decimal import Decimal, InvalidOperation

from shared.errors import EventValidationException
from shared.events.timestamps import parse_timestamp
from shared.filters.durations import DURATION_DAYS_MAX, parse_duration
from shared.filters.fields import FIELD_NAMES, FieldProblem, kind_of, print_field, read_field
from shared.filters.limits import EXPONENT_MAX, PATH_SEGMENTS_MAX, PATTERN_BYTES_MAX, REGEX_MEMORY_BYTES_MAX
from shared.filters.patterns import split_pattern
from shared.filters.problems import FilterProblem, shorten
from shared.filters.regular_expressions import compile_regex, too_large
from shared.filters.tree import (
    Between,
    Contains,
    Exists,
    Field,
    Instant,
    IsNull,
    Leaf,
    Like,
    Matches,
    Now,
    Number,
    Text,
    Value,
)
from shared.suggestion import nearest

_TIME_EXPECTED = "a time such as '2024-01-20T10:30:00Z', '2024-01-20' or now() - 15m"
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def parse_field(text: str) -> Field:
    """Read a field of an expression."""
    field = read_field(text)
    if field is FieldProblem.UNKNOWN:
        raise _no_field(text)
    if isinstance(field, FieldProblem):
        raise FilterProblem(
            f"the index of an array is a number from 0 to {2**31 - 1}; elements cannot be counted from the end",
            expected="an index from 0",
        )
    if len(field.path) > PATH_SEGMENTS_MAX:
        raise FilterProblem(
            f"the path has {len(field.path)} segments, at most {PATH_SEGMENTS_MAX} are allowed: filter by a key "
            "higher up",
            reason="FILTER_PATH_TOO_LONG",
            limit=PATH_SEGMENTS_MAX,
        )
    return field


def parse_number(text: str) -> Number:
    """Read a number of an expression."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        # Its exponent has more than 18 digits.
        value = None
    if value is None or (value != 0 and abs(value.adjusted()) > EXPONENT_MAX):
        raise FilterProblem(
            f"the number is out of range: write one between 1e-{EXPONENT_MAX} and 1e{EXPONENT_MAX}",
            reason="FILTER_NUMBER_OUT_OF_RANGE",
            limit=EXPONENT_MAX,
        )
    return Number(value)


def parse_now(sign: str | None, duration: str | None) -> Now:
    """Read now() with what follows it."""
    if sign is None or duration is None:
        return Now()
    length = parse_duration(duration)
    if length is None:
        raise FilterProblem(
            f"a duration is at most {DURATION_DAYS_MAX}d: write the time itself",
            reason="FILTER_DURATION_TOO_LONG",
            limit=DURATION_DAYS_MAX,
        )
    return Now(-length if sign == "-" else length)


def parse_time(text: str) -> Instant:
    """Read a time that a field is compared with: RFC 3339; without a zone it is UTC, a date alone its midnight."""
    try:
        return Instant(parse_timestamp(f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text))
    except EventValidationException as error:
        raise FilterProblem(
            f"{shorten(text)} is no time; write {_TIME_EXPECTED}, from 1677-09-22 to 2262-04-11",
            expected=_TIME_EXPECTED,
        ) from error


def value_for(field: Field, value: Value) -> Value:
    """Return what a field is compared with where a literal is written: a time for a time."""
    if kind_of(field) == "time":
        if isinstance(value, Text):
            return parse_time(value.value)
        if not isinstance(value, Now | Instant):
            raise FilterProblem(f"{field.name} is a time; compare it with {_TIME_EXPECTED}", expected=_TIME_EXPECTED)
    elif isinstance(value, Now | Instant):
        raise FilterProblem(
            f"{print_field(field)} is no time; only timestamp and recorded_at compare with now()",
            expected="a string, a number, TRUE or FALSE",
        )
    return value


def check_text(text: str) -> None:
    """Refuse what is no Unicode text. An expression as a whole is checked before it is read."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise FilterProblem("half a surrogate pair is no character", expected="Unicode text") from error


def check_like_pattern(pattern: str) -> None:
    """Refuse a pattern of LIKE that is too long or ends in the middle of an escape."""
    _check_length(pattern, "the pattern")
    try:
        split_pattern(pattern)
    except ValueError as error:
        raise FilterProblem(f"{error}: write two of them for a backslash", expected="a pattern") from error


def check_regex(pattern: str) -> None:
    """Refuse a regular expression that RE2 does not take."""
    _check_length(pattern, "the regular expression")
    try:
        compile_regex(pattern)
    except ValueError as error:
        if too_large(str(error)):
            raise FilterProblem(
                "the regular expression needs too much memory: repeat less, or use smaller character classes",
                reason="FILTER_REGEX_TOO_LARGE",
                limit=REGEX_MEMORY_BYTES_MAX,
            ) from error
        raise FilterProblem(
            f"RE2 does not take the regular expression: {shorten(str(error))}", expected="an RE2 regular expression"
        ) from error


def check_leaf(leaf: Leaf) -> None:
    """Refuse a comparison that can never hold, whatever the event, because of its operator."""
    kind = kind_of(leaf.field)
    if kind in {"text", "value"} or isinstance(leaf, IsNull | Exists):
        pass
    elif kind == "tags":
        if not isinstance(leaf, Contains):
            raise FilterProblem(
                "metadata.tags is a list: write metadata.tags CONTAINS 'prod'", expected="CONTAINS, IS NULL or EXISTS"
            )
    elif kind == "payload":
        _check_whole_payload(leaf)
    elif isinstance(leaf, Like | Contains | Matches):
        raise FilterProblem(
            f"{leaf.field.name} is no text: compare it with = != < <= > >= IN or BETWEEN",
            expected="= != < <= > >= IN BETWEEN",
        )
    if isinstance(leaf, Between) and kind != "time" and type(leaf.low) is not type(leaf.high):
        raise FilterProblem(
            "both ends of BETWEEN must be of the same type: two strings, two numbers or two times",
            expected="two literals of the same type",
        )


def _check_whole_payload(leaf: Leaf) -> None:
    searches = isinstance(leaf, Matches) or (isinstance(leaf, Contains) and isinstance(leaf.value, Text))
    if not searches:
        raise FilterProblem(
            "the whole payload is searched as text: write payload CONTAINS 'timeout' or payload MATCHES 'time.*out', "
            "or name a key such as payload.status",
            expected="CONTAINS or MATCHES with a string, or a key of the payload",
        )


def _check_length(pattern: str, what: str) -> None:
    size = len(pattern.encode())
    if size > PATTERN_BYTES_MAX:
        raise FilterProblem(
            f"{what} has {size} bytes, at most {PATTERN_BYTES_MAX} are allowed: shorten it",
            reason="FILTER_PATTERN_TOO_LONG",
            limit=PATTERN_BYTES_MAX,
        )


def _no_field(text: str) -> FilterProblem:
    """Say that a name is no field, and which one was probably meant: a key of the payload if none is near."""
    meant, key = _meant_field(text), f"payload.{text}"
    hint = f"did you mean {shorten(meant)}?" if meant else f"a key of the payload is written {shorten(key)}"
    suggestion = meant or key
    return FilterProblem(
        f"{shorten(text)} is no field; {hint}",
        # A cut one could not be taken over.
        suggestion=suggestion if suggestion == shorten(suggestion) else "",
        expected=", ".join(FIELD_NAMES),
    )


def _meant_field(text: str) -> str:
    """Return the nearest field to a name that is none; empty where none is near."""
    root, dot, rest = text.partition(".")
    if dot and root not in {"payload", "metadata"} and (near := nearest(root, ["payload", "metadata"])):
        return f"{near}.{rest}"
    shorter = {name.removeprefix("metadata."): name for name in FIELD_NAMES}
    return shorter.get(text) or nearest(text, FIELD_NAMES)
