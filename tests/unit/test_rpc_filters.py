"""The EventFilters of a request become a tree, or an error that names the wrong part of the request."""

import pytest
from eventlog.v1 import event_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2

from shared.errors import EventFilterException, EventValidationException
from shared.filters.printer import print_filter
from shared.filters.problems import EXCERPT_BYTES_MAX
from shared.rpc.filters import tree_of
from shared.rpc.status import VALUE_BYTES_MAX, rich_status


def details_of(filters: event_pb2.EventFilters, field: str = "filters"):
    """What a caller reads of the refusal: ErrorInfo and BadRequest."""
    with pytest.raises(EventFilterException) as raised:
        tree_of(filters, field=field)
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    first, second = rich_status(raised.value).details
    assert first.Unpack(info)
    assert second.Unpack(bad_request)
    return info, bad_request.field_violations


def test_all_parts_must_hold():
    """Parts are joined by AND, the values of a part by OR; times keep their nanoseconds."""
    filters = event_pb2.EventFilters(
        type_patterns=["pipeline.*", "hook.executed"],
        time_range=event_pb2.TimeRange(start=Timestamp(seconds=1, nanos=1), end=Timestamp(seconds=2)),
        sources=["a"],
        correlation_ids=["x", "y"],
        content_patterns=["time.*out"],
        expression="payload.n > 1 OR payload.m = 2",
    )
    assert print_filter(tree_of(filters)) == (
        "(type LIKE 'pipeline.*' OR type = 'hook.executed') AND timestamp >= '1970-01-01T00:00:01.000000001Z' AND "
        "timestamp < '1970-01-01T00:00:02Z' AND source = 'a' AND correlation_id IN ('x', 'y') AND "
        "payload MATCHES 'time.*out' AND (payload.n > 1 OR payload.m = 2)"
    )


def test_empty_filter_holds_for_every_event():
    """A message without parts is the filter that matches everything."""
    assert print_filter(tree_of(event_pb2.EventFilters())) == ""


def test_error_of_an_expression_carries_its_place():
    """ErrorInfo says where the expression is wrong, shows it, and what was probably meant."""
    filters = event_pb2.EventFilters(expression="payload.a = 1\n  AND timestmp > '2024-01-20'")
    info, violations = details_of(filters, "selection.filters")
    assert info.reason == "INVALID_FILTER"
    assert dict(info.metadata) == {
        "field": "selection.filters.expression",
        "line": "2",
        "column": "7",
        "suggestion": "timestamp",
        "expected": info.metadata["expected"],
        "excerpt": "  AND timestmp > '2024-01-20'\n      ^^^^^^^^",
    }
    assert info.metadata["expected"].startswith("id, position, timestamp, ")
    assert [each.field for each in violations] == ["selection.filters.expression"]


def test_error_of_a_part_names_the_value():
    """Which value of a list is wrong is in the path, and a limit is said as a number."""
    info, violations = details_of(event_pb2.EventFilters(content_patterns=["a", "(", "b"]))
    assert (info.reason, info.metadata["field"]) == ("INVALID_FILTER", "filters.content_patterns[1]")
    assert [each.field for each in violations] == ["filters.content_patterns[1]"]
    info, _ = details_of(event_pb2.EventFilters(sources=["a"] * 1_001))
    assert (info.reason, info.metadata["field"], info.metadata["limit"]) == (
        "FILTER_LIST_TOO_LONG",
        "filters.sources",
        "1000",
    )
    info, _ = details_of(event_pb2.EventFilters(type_patterns=["a*"] * 257))
    assert (info.reason, info.metadata["field"]) == ("FILTER_TOO_MANY_COMPARISONS", "filters")


@pytest.mark.parametrize("filler", ["a", "é", "\U00010400"])
def test_excerpt_of_a_long_line_travels_whole(filler):
    """However wide its characters are, the excerpt keeps its carets below the place."""
    expression = f"source = '{filler * 300}' AND nosuch{filler * 200} = 1"
    info, _ = details_of(event_pb2.EventFilters(expression=expression))
    shown, carets = info.metadata["excerpt"].split("\n")
    assert len(info.metadata["excerpt"].encode()) <= EXCERPT_BYTES_MAX == VALUE_BYTES_MAX
    assert shown[carets.index("^") :].startswith("nosuch")
    assert info.metadata["suggestion"] == ""


@pytest.mark.parametrize("time", [Timestamp(seconds=2**40), Timestamp(nanos=-1), Timestamp(nanos=10**9)])
def test_time_out_of_range_is_a_wrong_field(time):
    """A time that 64 bits of nanoseconds cannot hold, or that is none, is refused by its path."""
    with pytest.raises(EventValidationException) as raised:
        tree_of(event_pb2.EventFilters(time_range=event_pb2.TimeRange(end=time)), field="filters")
    assert raised.value.reason == "INVALID_FIELD"
    assert [each.field for each in raised.value.violations] == ["filters.time_range.end"]
