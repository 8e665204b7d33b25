"""The structured form of a filter: EventFilters, built of parameters, and as a tree. Pure.

All parts must hold; within a part any value may hold; the time range is half-open. Errors are
EventFilterException, reason INVALID_FILTER or that of a limit; their metadata names the part as `field`, such as
type_patterns[3], and for the expression the place (`problems`).
"""

import datetime as dt
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from shared.errors import EventValidationException
from shared.events.model import EventFilters
from shared.events.timestamps import to_nanoseconds
from shared.filters.checks import check_like_pattern, check_regex, check_text
from shared.filters.limits import LIST_VALUES_MAX
from shared.filters.parser import check_comparisons, parse_filter
from shared.filters.patterns import exact_text
from shared.filters.problems import FilterProblem, invalid_part
from shared.filters.tree import (
    Comparison,
    Field,
    FieldName,
    In,
    Instant,
    Like,
    Matches,
    Operator,
    Text,
    Tree,
    all_of,
    any_of,
)

_V = TypeVar("_V")
_T = TypeVar("_T")

# Flags of Python's expressions that RE2 writes as letters, and those that change nothing for it.
_FLAGS = {re.IGNORECASE: "i", re.MULTILINE: "m", re.DOTALL: "s"}
_MEANINGLESS_FLAGS = re.UNICODE | re.ASCII


def build_filter(
    type_pattern: str | None = None,
    time_range: tuple[dt.datetime | None, dt.datetime | None] | None = None,
    source: str | None = None,
    content_regex: str | re.Pattern[str] | None = None,
    *,
    correlation_id: str | None = None,
    expression: str = "",
) -> EventFilters:
    """Return the filter of what is given; nothing given matches everything.

    type_pattern: * is any run of characters, ? any one. time_range: start inclusive, end exclusive, None
    for no bound; times without a zone are UTC. Raises EventFilterException if something is wrong.
    """
    filters = EventFilters(
        type_patterns=[] if type_pattern is None else [type_pattern],
        time_range=time_range,
        sources=[] if source is None else [source],
        correlation_ids=[] if correlation_id is None else [correlation_id],
        content_patterns=[] if content_regex is None else [content_regex],
        expression=expression,
    )
    filters_to_tree(filters)
    return filters


def filters_to_tree(filters: EventFilters) -> Tree:
    """Return the tree of a structured filter: the AND of its parts and its expression. Raises EventFilterException."""
    start, end = filters.time_range or (None, None)
    with _part("time_range"):
        start_ns, end_ns = _nanoseconds(start), _nanoseconds(end)
    return parts_to_tree(
        type_patterns=filters.type_patterns,
        start_ns=start_ns,
        end_ns=end_ns,
        sources=filters.sources,
        correlation_ids=filters.correlation_ids,
        content_patterns=filters.content_patterns,
        expression=filters.expression,
    )


def parts_to_tree(
    *,
    type_patterns: Sequence[str] = (),
    start_ns: int | None = None,
    end_ns: int | None = None,
    sources: Sequence[str] = (),
    correlation_ids: Sequence[str] = (),
    content_patterns: Sequence[str | re.Pattern[str]] = (),
    expression: str = "",
) -> Tree:
    """Return the tree of the parts of a structured filter; times in nanoseconds since the epoch, of 64 bits.

    Raises EventFilterException.
    """
    parts = [
        *_alternatives("type_patterns", type_patterns, _type_is),
        *_time_bound(">=", start_ns),
        *_time_bound("<", end_ns),
        *_one_of("source", _read_each("sources", sources, _text)),
        *_one_of("correlation_id", _read_each("correlation_ids", correlation_ids, _text)),
        *_alternatives("content_patterns", content_patterns, _content_matches),
        parse_filter(expression),
    ]
    tree = all_of(parts)
    with _part(""):
        check_comparisons(tree)
    return tree


@contextmanager
def _part(field: str) -> Iterator[None]:
    """Say of a problem in which part it is; "" is the whole."""
    try:
        yield
    except FilterProblem as problem:
        raise invalid_part(field, problem) from problem


def _read_each(field: str, values: Sequence[_V], read: Callable[[_V], _T]) -> list[_T]:
    """Read the values of a part, and say of a problem at which it is."""
    with _part(field):
        _check_count(len(values))
    found = []
    for index, value in enumerate(values):
        with _part(f"{field}[{index}]"):
            found.append(read(value))
    return found


def _check_count(count: int) -> None:
    if count > LIST_VALUES_MAX:
        raise FilterProblem(
            f"there are {count} values, at most {LIST_VALUES_MAX} are allowed: ask several times",
            reason="FILTER_LIST_TOO_LONG",
            limit=LIST_VALUES_MAX,
        )


def _alternatives(field: str, values: Sequence[_V], read: Callable[[_V], Tree]) -> list[Tree]:
    trees = _read_each(field, values, read)
    return [any_of(trees)] if trees else []


def _one_of(name: FieldName, texts: Sequence[Text]) -> list[Tree]:
    if len(texts) == 1:
        return [Comparison(Field(name), "=", texts[0])]
    return [In(Field(name), tuple(texts))] if texts else []


def _type_is(pattern: str) -> Tree:
    check_text(pattern)
    check_like_pattern(pattern)
    text = exact_text(pattern)
    return Like(Field("type"), pattern) if text is None else Comparison(Field("type"), "=", Text(text))


def _nanoseconds(moment: dt.datetime | None) -> int | None:
    try:
        return None if moment is None else to_nanoseconds(moment)
    except EventValidationException as error:
        raise FilterProblem(str(error), expected="times from 1677-09-22 to 2262-04-11") from error


def _time_bound(operator: Operator, nanoseconds: int | None) -> list[Tree]:
    return [] if nanoseconds is None else [Comparison(Field("timestamp"), operator, Instant(nanoseconds))]


def _text(text: str) -> Text:
    check_text(text)
    return Text(text)


def _content_matches(pattern: str | re.Pattern[str]) -> Tree:
    text = pattern if isinstance(pattern, str) else _with_flags(pattern)
    check_text(text)
    check_regex(text)
    return Matches(Field("payload"), text)


def _with_flags(pattern: re.Pattern[str]) -> str:
    """Return a compiled expression as RE2 writes it: its flags in front."""
    unknown = re.RegexFlag(pattern.flags) & ~_MEANINGLESS_FLAGS
    letters = ""
    for flag, letter in _FLAGS.items():
        if unknown & flag:
            letters += letter
            unknown &= ~flag
    if unknown:
        raise FilterProblem(
            f"RE2 has no {unknown!r}: compile the expression without it", expected="the flags I, M and S only"
        )
    return f"(?{letters}){pattern.pattern}" if letters else pattern.pattern
