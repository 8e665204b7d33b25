"""The structured form of a filter: what its parts mean, and which part is wrong."""

import datetime as dt
import re

import pytest

from shared.errors import EventFilterException
from shared.events.model import EventFilters
from shared.filters.printer import print_filter
from shared.filters.structured import build_filter, filters_to_tree


def printed(**parts) -> str:
    return print_filter(filters_to_tree(EventFilters(**parts)))


def test_parts_are_joined():
    """All parts must hold; within a part one value is enough; the range of time ends before its end."""
    day = dt.datetime(2024, 1, 20, tzinfo=dt.UTC)
    assert printed(
        type_patterns=["a.*", "b"],
        time_range=(day, day + dt.timedelta(days=1)),
        sources=["x", "y"],
        correlation_ids=["c"],
        content_patterns=["e+", "f"],
        expression="payload.n = 1 OR payload.n = 2",
    ) == (
        "(type LIKE 'a.*' OR type = 'b') AND timestamp >= '2024-01-20T00:00:00Z' AND timestamp < '2024-01-21T00:00:00Z'"
        " AND source IN ('x', 'y') AND correlation_id = 'c' AND (payload MATCHES 'e+' OR payload MATCHES 'f')"
        " AND (payload.n = 1 OR payload.n = 2)"
    )
    assert printed() == ""
    assert printed(time_range=(None, None)) == ""
    assert printed(time_range=(None, day)) == "timestamp < '2024-01-20T00:00:00Z'"


def test_build_filter_takes_one_value_of_each():
    """As the specification has it; times without a zone are UTC."""
    start = dt.datetime(2024, 1, 20)  # noqa: DTZ001 — what a caller may write
    filters = build_filter(
        "a.*", (start, None), "x", re.compile("E+", re.IGNORECASE), correlation_id="c", expression="id = 'i'"
    )
    assert print_filter(filters_to_tree(filters)) == (
        "type LIKE 'a.*' AND timestamp >= '2024-01-20T00:00:00Z' AND source = 'x' AND correlation_id = 'c'"
        " AND payload MATCHES '(?i)E+' AND id = 'i'"
    )
    assert build_filter() == EventFilters()


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (re.compile("a"), "a"),
        (re.compile("a", re.MULTILINE | re.DOTALL | re.IGNORECASE), "(?ims)a"),
        (re.compile("a", re.ASCII), "a"),
        ("a", "a"),
    ],
)
def test_flags_of_compiled_expressions_count(pattern, text):
    """Those that RE2 has are written in front."""
    assert printed(content_patterns=[pattern]) == f"payload MATCHES '{text}'"


@pytest.mark.parametrize(
    ("parts", "field", "reason"),
    [
        ({"type_patterns": ["a", "b\\"]}, "type_patterns[1]", "INVALID_FILTER"),
        ({"type_patterns": ["a" * 1_001]}, "type_patterns[0]", "FILTER_PATTERN_TOO_LONG"),
        ({"sources": ["a", "b", "\ud800"]}, "sources[2]", "INVALID_FILTER"),
        ({"correlation_ids": ["a"] * 1_001}, "correlation_ids", "FILTER_LIST_TOO_LONG"),
        ({"content_patterns": ["(a"]}, "content_patterns[0]", "INVALID_FILTER"),
        ({"content_patterns": [re.compile("a", re.VERBOSE)]}, "content_patterns[0]", "INVALID_FILTER"),
        ({"content_patterns": [re.compile("(?<=a)b")]}, "content_patterns[0]", "INVALID_FILTER"),
        ({"content_patterns": ["((\\pL{9}){9}){9}"]}, "content_patterns[0]", "FILTER_REGEX_TOO_LARGE"),
        ({"time_range": (None, dt.datetime(9999, 1, 1, tzinfo=dt.UTC))}, "time_range", "INVALID_FILTER"),
        ({"expression": "tpye = 'a'"}, "expression", "INVALID_FILTER"),
        ({"type_patterns": ["a*"] * 200, "content_patterns": ["a"] * 57}, None, "FILTER_TOO_MANY_COMPARISONS"),
    ],
    ids=range(11),
)
def test_wrong_part_is_named(parts, field, reason):
    """The error says which part and which of its values; the whole has no name."""
    with pytest.raises(EventFilterException) as raised:
        filters_to_tree(EventFilters(**parts))
    assert (raised.value.metadata.get("field"), raised.value.reason) == (field, reason)
    str(raised.value).encode()
