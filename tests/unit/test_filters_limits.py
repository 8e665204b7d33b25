"""Nothing hostile takes long, or gets into SQL."""

import time

import pytest

from shared.errors import EventFilterException
from shared.events.model import EventFilters
from shared.filters.live_event import LiveEvent
from shared.filters.parser import parse_filter
from shared.filters.predicate import compile_predicate
from shared.filters.sql import to_sql
from shared.filters.structured import filters_to_tree


def test_structured_filter_has_limits_too():
    """A part of the structured form takes 1,000 values, and the whole filter 256 comparisons."""
    filters_to_tree(EventFilters(sources=["a"] * 1_000))
    for filters, part in (
        (EventFilters(sources=["a"] * 1_001), "sources"),
        (EventFilters(type_patterns=["a*"] * 257), None),
    ):
        with pytest.raises(EventFilterException) as raised:
            filters_to_tree(filters)
        assert raised.value.metadata.get("field") == part
        assert raised.value.reason in {"FILTER_LIST_TOO_LONG", "FILTER_TOO_MANY_COMPARISONS"}


def test_catastrophic_expression_returns_at_once():
    """What takes a backtracking engine for ever takes RE2 linear time."""
    holds = compile_predicate(parse_filter("payload.text MATCHES '^(a+)+$' OR payload.text LIKE '*a*a*a*a*a*a*a*b'"), 0)
    started = time.process_time()
    assert not holds(LiveEvent(payload='{"text": "' + "a" * 100_000 + '!"}'))
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    "expression",
    [
        "payload.\"x' OR 1=1 --\" = 'y'",
        'payload."x""; DROP TABLE events; --" = \'y\'',
        "payload.a = 'x'' OR 1=1 --'",
        "source = '$f0'",
        "type MATCHES '''; SELECT 1'",
        "type LIKE '*''); COPY events TO ''x''; --'",
        'payload."$.a[*]" = 1',
    ],
)
def test_nothing_of_a_filter_gets_into_sql(expression):
    """Names, strings, patterns and paths are parameters; the SQL has only our own words."""
    sql = to_sql(parse_filter(expression), log_id="AAAAAAAA")
    for piece in ("1=1", "DROP", "COPY", "SELECT 1", "--", ";", "x'"):
        assert piece not in sql.text
    assert sql.parameters
