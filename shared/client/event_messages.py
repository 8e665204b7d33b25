"""Between the messages of events and filters and their models. No I/O."""

import datetime as dt

from eventlog.v1 import event_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from shared.events import EventFilters, EventMetadata, RecordedEvent
from shared.events.timestamps import to_datetime, to_nanoseconds
from shared.filters.structured import filters_to_tree
from shared.filters.tree import Matches

_NANOS_PER_SECOND = 1_000_000_000


def event_of(message: event_pb2.Event) -> RecordedEvent:
    """The event of a message whose payload is JSON text."""
    metadata = message.metadata
    return RecordedEvent(
        id=message.id,
        timestamp_ns=_nanoseconds(message.timestamp),
        type=message.type,
        source=message.source,
        correlation_id=message.correlation_id if message.HasField("correlation_id") else None,
        payload_json=message.payload_json,
        metadata=EventMetadata(
            host=metadata.host if metadata.HasField("host") else None,
            version=metadata.version if metadata.HasField("version") else None,
            user=metadata.user if metadata.HasField("user") else None,
            session_id=metadata.session_id if metadata.HasField("session_id") else None,
            tags=list(metadata.tags),
        ),
        position=message.position,
        recorded_at_ns=_nanoseconds(message.recorded_at),
    )


def filters_message(filters: EventFilters) -> event_pb2.EventFilters:
    """The message of a filter. Raises EventFilterException, EventValidationException where it is wrong."""
    start, end = filters.time_range or (None, None)
    message = event_pb2.EventFilters(
        type_patterns=filters.type_patterns,
        sources=filters.sources,
        correlation_ids=filters.correlation_ids,
        content_patterns=map(_pattern_text, filters.content_patterns),
        expression=filters.expression,
    )
    if start is not None:
        message.time_range.start.CopyFrom(timestamp_message(start))
    if end is not None:
        message.time_range.end.CopyFrom(timestamp_message(end))
    return message


def filters_of(message: event_pb2.EventFilters) -> EventFilters:
    """The filter of a message."""
    time_range = message.time_range
    start = to_datetime(_nanoseconds(time_range.start)) if time_range.HasField("start") else None
    end = to_datetime(_nanoseconds(time_range.end)) if time_range.HasField("end") else None
    return EventFilters(
        type_patterns=list(message.type_patterns),
        time_range=None if start is None and end is None else (start, end),
        sources=list(message.sources),
        correlation_ids=list(message.correlation_ids),
        content_patterns=list(message.content_patterns),
        expression=message.expression,
    )


def timestamp_message(moment: dt.datetime) -> Timestamp:
    """The message of a time; one without a zone is UTC. Raises EventValidationException."""
    message = Timestamp()
    message.FromNanoseconds(to_nanoseconds(moment))
    return message


def _nanoseconds(time: Timestamp) -> int:
    return time.seconds * _NANOS_PER_SECOND + time.nanos


def _pattern_text(pattern: object) -> str:
    """The text of a content pattern, with the flags of a compiled one in front, as RE2 reads them."""
    if isinstance(pattern, str):
        return pattern
    matches = filters_to_tree(EventFilters(content_patterns=[pattern]))  # type: ignore[list-item]
    assert isinstance(matches, Matches)
    return matches.pattern
