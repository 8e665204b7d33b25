"""What a program asks of replays, and what it gets, survives the wire."""

import datetime as dt
import re

import pytest
from eventlog.v1 import event_pb2, stream_service_pb2

from shared.client.event_messages import event_of, filters_message, filters_of
from shared.client.replay_messages import replay_request, session_request, state_message, state_of
from shared.client.replay_options import ReplayPace
from shared.errors import EventStreamException
from shared.events import EventFilters, EventMetadata, RecordedEvent, ReplayState

START = dt.datetime(2024, 1, 20, 10, 30, tzinfo=dt.UTC)
FILTERS = EventFilters(
    type_patterns=["pipeline.*"],
    time_range=(START, None),
    sources=["a", "b"],
    correlation_ids=["c"],
    content_patterns=["time.?out"],
    expression="payload.n > 3",
)


def test_filter_survives_the_wire():
    """Each part of a filter comes back as it was; a compiled pattern as its text, with its flags in front."""
    assert filters_of(filters_message(FILTERS)) == FILTERS
    assert filters_of(filters_message(EventFilters())) == EventFilters()
    compiled = EventFilters(content_patterns=[re.compile("oops", re.IGNORECASE)])
    assert filters_of(filters_message(compiled)).content_patterns == ["(?i)oops"]


def test_state_survives_the_wire():
    """A position comes back with its time, filters and speed; one without a time too."""
    state = ReplayState(position=7, timestamp=START, filters=FILTERS, speed=2.5)
    assert state_of(state_message(state)) == state
    assert state_of(state_message(ReplayState())) == ReplayState()


def test_event_is_exact():
    """Nanoseconds, payload text and what is not set are as the log has them."""
    message = event_pb2.Event(
        id="evt_1", position=3, type="t", source="s", payload_json='{"n": 1.0}', metadata={"host": "h", "tags": ["x"]}
    )
    message.timestamp.FromNanoseconds(-1)
    message.recorded_at.FromNanoseconds(1_700_000_000_123_456_789)
    assert event_of(message) == RecordedEvent(
        id="evt_1",
        timestamp_ns=-1,
        type="t",
        source="s",
        payload_json='{"n": 1.0}',
        metadata=EventMetadata(host="h", tags=["x"]),
        position=3,
        recorded_at_ns=1_700_000_000_123_456_789,
    )


def test_start_by_when_it_happened_is_a_part_of_the_filter():
    """So a replay that is taken up at a position keeps it; the later of two starts counts, with or without a zone."""
    later = START.replace(tzinfo=None) + dt.timedelta(hours=1)
    request = replay_request(later, FILTERS, 1.0, ReplayPace())
    assert not request.start.ListFields()
    assert filters_of(request.filters).time_range == (later.replace(tzinfo=dt.UTC), None)
    request = replay_request(START - dt.timedelta(hours=1), FILTERS, 1.0, ReplayPace())
    assert filters_of(request.filters) == FILTERS


def test_start_by_when_it_was_recorded_is_a_start():
    """Then the service finds its position."""
    request = replay_request(START, EventFilters(), 0.0, ReplayPace(by_recorded_at=True))
    assert request.start.time.ToDatetime(dt.UTC) == START
    assert request.filters == event_pb2.EventFilters()
    assert request.clock == stream_service_pb2.REPLAY_CLOCK_RECORDED_AT


def test_pace_is_asked_for():
    """Limits and ends are in the request; without them, none."""
    pace = ReplayPace(gap_max=dt.timedelta(seconds=1.5), events_per_second_max=10.0, until_position=9, until_time=START)
    request = replay_request(None, EventFilters(), 3.0, pace)
    assert (request.gap_max.ToTimedelta(), request.events_per_second_max) == (pace.gap_max, 10.0)
    assert (request.until_position, request.until_time.ToDatetime(dt.UTC), request.speed) == (9, START, 3.0)
    assert not replay_request(None, EventFilters(), 1.0, ReplayPace()).HasField("gap_max")


def test_session_has_no_limits_that_it_cannot_keep():
    """A session's pace is asked for; a limit that it does not have is refused, not forgotten."""
    pace = ReplayPace(gap_max=dt.timedelta(seconds=2), until_position=9, by_recorded_at=True)
    request = session_request("s", include_related=False, speed=0.0, pace=pace)
    assert (request.session_id, request.include_related, request.until_position) == ("s", False, 9)
    assert (request.gap_max.seconds, request.clock) == (2, stream_service_pb2.REPLAY_CLOCK_RECORDED_AT)
    for wrong in (ReplayPace(events_per_second_max=1.0), ReplayPace(until_time=START)):
        with pytest.raises(EventStreamException):
            session_request("s", include_related=False, speed=0.0, pace=wrong)
