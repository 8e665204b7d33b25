"""Between the messages of replays and what a program asks for. No I/O."""

import datetime as dt
from dataclasses import replace

from eventlog.v1 import stream_service_pb2
from google.protobuf.duration_pb2 import Duration

from shared.client.event_messages import filters_message, filters_of, timestamp_message
from shared.client.replay_options import ReplayPace
from shared.errors import EventStreamException
from shared.events import EventFilters, ReplayState
from shared.events.timestamps import to_datetime


def replay_request(
    start_time: dt.datetime | None, filters: EventFilters, speed: float, pace: ReplayPace
) -> stream_service_pb2.ReplayRequest:
    """The request for a replay from a time on; None for the first event kept."""
    request = stream_service_pb2.ReplayRequest(
        filters=filters_message(filters if pace.by_recorded_at else _since(filters, start_time)),
        speed=speed,
        clock=_clock(pace),
        gap_max=_gap(pace),
        events_per_second_max=pace.events_per_second_max or 0.0,
        until_position=pace.until_position or 0,
    )
    if pace.by_recorded_at and start_time is not None:
        request.start.time.CopyFrom(timestamp_message(start_time))
    if pace.until_time is not None:
        request.until_time.CopyFrom(timestamp_message(pace.until_time))
    return request


def session_request(
    session_id: str, *, include_related: bool, speed: float, pace: ReplayPace
) -> stream_service_pb2.ReplaySessionRequest:
    """The request for a replay of a session. Raises EventStreamException for a pace that a session cannot have."""
    if pace.events_per_second_max is not None or pace.until_time is not None:
        raise EventStreamException("a session has no events_per_second_max and no until_time: leave them out")
    return stream_service_pb2.ReplaySessionRequest(
        session_id=session_id,
        include_related=include_related,
        speed=speed,
        clock=_clock(pace),
        gap_max=_gap(pace),
        until_position=pace.until_position or 0,
    )


def state_message(state: ReplayState) -> stream_service_pb2.ReplayState:
    """The message of a state."""
    message = stream_service_pb2.ReplayState(
        position=state.position, filters=filters_message(state.filters), speed=state.speed
    )
    if state.timestamp is not None:
        message.timestamp.CopyFrom(timestamp_message(state.timestamp))
    return message


def state_of(message: stream_service_pb2.ReplayState) -> ReplayState:
    """The state of a message."""
    time = to_datetime(message.timestamp.ToNanoseconds()) if message.HasField("timestamp") else None
    return ReplayState(
        position=message.position, timestamp=time, filters=filters_of(message.filters), speed=message.speed
    )


def _since(filters: EventFilters, start_time: dt.datetime | None) -> EventFilters:
    """The filter for what of it happened since a time, so that a replay that goes on elsewhere keeps that bound."""
    if start_time is None:
        return filters
    start, end = filters.time_range or (None, None)
    start = start_time if start is None else max(start, start_time, key=_aware)
    return replace(filters, time_range=(start, end))


def _aware(moment: dt.datetime) -> dt.datetime:
    return moment.replace(tzinfo=dt.UTC) if moment.utcoffset() is None else moment


def _clock(pace: ReplayPace) -> stream_service_pb2.ReplayClock.ValueType:
    if pace.by_recorded_at:
        return stream_service_pb2.REPLAY_CLOCK_RECORDED_AT
    return stream_service_pb2.REPLAY_CLOCK_TIMESTAMP


def _gap(pace: ReplayPace) -> Duration | None:
    if pace.gap_max is None:
        return None
    gap = Duration()
    gap.FromTimedelta(pace.gap_max)
    return gap
