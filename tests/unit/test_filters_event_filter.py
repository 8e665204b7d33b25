"""The specification's EventFilter."""

import pytest

from shared.errors import EventFilterException
from shared.events.model import Event, EventFilters, EventMetadata, RecordedEvent
from shared.filters.event_filter import EventFilter
from tests.support.fake_clock import START_NS, FakeClock

EVENT = Event(
    type="pipeline.stage.completed",
    source="synthesis",
    correlation_id="pipe_1",
    payload={"status": "error", "message": "timeout after 30 s", "big": 2**53 + 1, "é": [1, {"a": None}]},
    metadata=EventMetadata(host="worker-01", version="1.0.0", user=None, session_id=None, tags=["prod"]),
)
RECORDED = RecordedEvent(
    id="evt_AAAAAAAA0000000000007",
    timestamp_ns=START_NS,
    type="hook.executed",
    source="hooks",
    payload_json='{"n": 1}',
    position=7,
    recorded_at_ns=START_NS + 1,
)


@pytest.mark.parametrize(
    ("expression", "matches"),
    [
        ("type LIKE 'pipeline.*' AND payload.message CONTAINS 'timeout'", True),
        ("payload.big = 9007199254740993 AND payload.é[0] = 1 AND EXISTS payload.é[1].a", True),
        ("metadata.tags CONTAINS 'prod' AND metadata.user IS NULL", True),
        ('payload CONTAINS \'"status":"error"\'', True),
        ("id = 'x' OR position > 0 OR recorded_at > '1970-01-01' OR timestamp > '1970-01-01'", False),
        ("NOT position > 0", True),
        ("", True),
    ],
)
def test_proposed_event_is_matched(expression, matches):
    """What it does not have yet, it lacks."""
    filters = EventFilter().parse_expression(expression)
    assert EventFilter().match(EVENT, filters) is matches


@pytest.mark.parametrize(
    "expression",
    [
        "position = 7 AND id > 'evt_AAAAAAAA'",
        "recorded_at = '2024-01-20T10:30:00.000000001Z' AND timestamp = '2024-01-20T10:30:00Z'",
        "payload.n = 1.0",
        "payload CONTAINS '{\"n\":1}'",
    ],
)
def test_recorded_event_is_matched(expression):
    """With its position, its times to the nanosecond, and its payload as compact text."""
    assert EventFilter().match(RECORDED, EventFilters(expression=expression))


def test_now_is_asked_at_each_match():
    """A filter that says now() is not kept as it once was."""
    clock = FakeClock()
    event_filter, filters = EventFilter(clock), EventFilters(expression="timestamp > now() - 1h")
    assert event_filter.match(RECORDED, filters)
    clock.advance(7_200)
    assert not event_filter.match(RECORDED, filters)


def test_filter_may_change_between_matches():
    """Its lists are looked at anew each time."""
    filters = EventFilters(sources=["a"])
    assert not EventFilter().match(EVENT, filters)
    filters.sources.append("synthesis")
    assert EventFilter().match(EVENT, filters)


def test_wrong_filters_are_refused():
    """When they are built, when they are read, and when they are matched."""
    for refuse in (
        lambda: EventFilter().build_filter(content_regex="("),
        lambda: EventFilter().parse_expression("tpye = 'a'"),
        lambda: EventFilter().match(EVENT, EventFilters(expression="(")),
    ):
        with pytest.raises(EventFilterException):
            refuse()
