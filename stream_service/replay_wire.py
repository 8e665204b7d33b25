"""Between the messages of replays and what they mean. No I/O.

Invariants: every field is checked here; an error is EventValidationException (INVALID_FIELD) and names the field, but
for filters, whose errors are those of the filter language.
"""

import math
from dataclasses import dataclass

from eventlog.v1 import event_pb2, stream_service_pb2
from google.protobuf.duration_pb2 import Duration

from shared.clock import Clock
from shared.columns.encoded_events import event_batch_field
from shared.rpc.filters import nanoseconds, tree_of
from stream_service.pacing import UNPACED
from stream_service.query_history import Extent
from stream_service.replay_bounds import ReplayBounds
from stream_service.replay_run import Beat, Delivery, Ending, Progress, ReplayPlan
from stream_service.request_checks import check_text, invalid
from stream_service.saved_positions import STATE_BYTES_MAX

SPEED_MIN = 0.1
EVENTS_PER_SECOND_MIN = 0.001
EVENTS_PER_SECOND_MAX = 1_000_000.0
GAP_S_MAX = 10 * 366 * 86_400
SESSION_ID_BYTES_MAX = 255

_NANOS_PER_SECOND = 1_000_000_000
_EVENTS_FIELD = stream_service_pb2.ReplayResponse.EVENTS_FIELD_NUMBER


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayAsked:
    """A request for a replay, checked."""

    bounds: ReplayBounds
    speed: float
    by_recorded_at: bool
    gap_max_ns: int | None
    payload_form: event_pb2.PayloadForm.ValueType
    events_per_second_max: float | None = None
    filters: bytes = b""

    def plan(self, first: int, until: int) -> ReplayPlan:
        """The replay of these positions, as asked for."""
        return ReplayPlan(
            from_position=first,
            until_position=until,
            speed=self.speed,
            by_recorded_at=self.by_recorded_at,
            gap_max_ns=self.gap_max_ns,
            events_per_second_max=self.events_per_second_max,
        )


def with_saved(
    request: stream_service_pb2.ReplayRequest, saved: stream_service_pb2.ReplayState
) -> stream_service_pb2.ReplayRequest:
    """The request with what was saved in the place of its checkpoint: begin behind it, with its filters and speed."""
    completed = stream_service_pb2.ReplayRequest()
    completed.CopyFrom(request)
    completed.start.checkpoint = ""
    completed.start.position = saved.position + 1
    if not request.HasField("filters"):
        completed.filters.CopyFrom(saved.filters)
    if not request.HasField("speed"):
        completed.speed = saved.speed
    return completed


def replay_asked(request: stream_service_pb2.ReplayRequest, *, speed_max: float) -> ReplayAsked:
    """What a ReplayRequest without a checkpoint to begin at asks for.

    Raises EventFilterException too, for a filter that is wrong: so nothing begins before it is known to be right.
    """
    tree_of(request.filters)
    by_recorded_at = request.clock == stream_service_pb2.REPLAY_CLOCK_RECORDED_AT
    since_ns = nanoseconds(request.start.time, "start.time") if request.start.HasField("time") else None
    until_ns = nanoseconds(request.until_time, "until_time") if request.HasField("until_time") else None
    filters = event_pb2.EventFilters()
    filters.CopyFrom(request.filters)
    if not by_recorded_at:
        _narrow(filters, since_ns, until_ns)
    return ReplayAsked(
        bounds=ReplayBounds(
            from_position=request.start.position or None,
            until_position=request.until_position or None,
            recorded_since_ns=since_ns if by_recorded_at else None,
            recorded_until_ns=until_ns if by_recorded_at else None,
        ),
        speed=checked_speed(request.speed if request.HasField("speed") else 1.0, speed_max),
        by_recorded_at=by_recorded_at,
        gap_max_ns=_gap(request.gap_max) if request.HasField("gap_max") else None,
        payload_form=request.payload_form,
        events_per_second_max=_rate(request.events_per_second_max),
        filters=filters.SerializeToString(),
    )


def session_asked(request: stream_service_pb2.ReplaySessionRequest, *, speed_max: float) -> ReplayAsked:
    """What a ReplaySessionRequest asks for, apart from the session."""
    check_text("session_id", request.session_id, SESSION_ID_BYTES_MAX)
    return ReplayAsked(
        bounds=ReplayBounds(from_position=request.from_position or None, until_position=request.until_position or None),
        speed=checked_speed(request.speed if request.HasField("speed") else 1.0, speed_max),
        by_recorded_at=request.clock == stream_service_pb2.REPLAY_CLOCK_RECORDED_AT,
        gap_max_ns=_gap(request.gap_max) if request.HasField("gap_max") else None,
        payload_form=request.payload_form,
    )


def checked_speed(speed: float, speed_max: float) -> float:
    """A speed that may be."""
    if speed != UNPACED and not SPEED_MIN <= speed <= speed_max:
        raise invalid("speed", f"is {speed:g}; write {SPEED_MIN:g} to {speed_max:g}, or 0 for as fast as it goes")
    return speed


def checked_state(state: stream_service_pb2.ReplayState, *, speed_max: float) -> bytes:
    """A state to save, encoded."""
    checked_speed(state.speed, speed_max)
    encoded = state.SerializeToString()
    if len(encoded) > STATE_BYTES_MAX:
        raise invalid("state", f"has {len(encoded)} bytes; at most {STATE_BYTES_MAX} can be saved: shorten its filters")
    return encoded


def state_of(
    progress: Progress, filters: bytes, *, speed: float, paused: bool = False
) -> stream_service_pb2.ReplayState:
    """Where a replay is."""
    state = stream_service_pb2.ReplayState(position=progress.position, speed=speed, paused=paused)
    state.filters.MergeFromString(filters)
    if progress.time_ns is not None:
        state.timestamp.FromNanoseconds(progress.time_ns)
    return state


def started(replay_id: str, plan: ReplayPlan) -> bytes:
    """The first message of a replay."""
    message = stream_service_pb2.ReplayStarted(
        replay_id=replay_id, start_position=plan.from_position, until_position=plan.until_position
    )
    return stream_service_pb2.ReplayResponse(started=message).SerializeToString()


def message_of(what: Delivery | Beat | Ending, plan: ReplayPlan, extent: Extent, clock: Clock) -> bytes:
    """What a replay does, as a message. The bytes of events are passed on as they are."""
    if isinstance(what, Delivery):
        return event_batch_field(_EVENTS_FIELD, what.events, resume_position=what.resume_position)
    if isinstance(what, Ending):
        closing = stream_service_pb2.Closing(reason=what.reason, resume_position=what.resume_position)
        return stream_service_pb2.ReplayResponse(closing=closing).SerializeToString()
    beat = stream_service_pb2.Heartbeat(
        head_position=extent.committed_position,
        resume_position=what.resume_position,
        lag_events=max(plan.until_position - what.resume_position, 0),
    )
    beat.server_time.FromNanoseconds(clock.now_ns())
    return stream_service_pb2.ReplayResponse(heartbeat=beat).SerializeToString()


def _narrow(filters: event_pb2.EventFilters, since_ns: int | None, until_ns: int | None) -> None:
    """Narrow the time range of a filter down to these bounds, where they are the narrower ones."""
    given = filters.time_range
    if given.HasField("start"):
        since_ns = max(nanoseconds(given.start, "filters.time_range.start"), -(2**63) if since_ns is None else since_ns)
    if given.HasField("end"):
        until_ns = min(nanoseconds(given.end, "filters.time_range.end"), 2**63 if until_ns is None else until_ns)
    if since_ns is not None:
        filters.time_range.start.FromNanoseconds(since_ns)
    if until_ns is not None:
        filters.time_range.end.FromNanoseconds(until_ns)


def _gap(gap: Duration) -> int:
    if not 0 <= gap.seconds <= GAP_S_MAX or not 0 <= gap.nanos < _NANOS_PER_SECOND:
        raise invalid("gap_max", f"must be 0 to {GAP_S_MAX} seconds, about 10 years")
    return gap.seconds * _NANOS_PER_SECOND + gap.nanos


def _rate(events_per_second: float) -> float | None:
    if events_per_second == 0:
        return None
    if math.isnan(events_per_second) or not EVENTS_PER_SECOND_MIN <= events_per_second <= EVENTS_PER_SECOND_MAX:
        raise invalid(
            "events_per_second_max",
            f"is {events_per_second:g}; write {EVENTS_PER_SECOND_MIN:g} to {EVENTS_PER_SECOND_MAX:.0f}, "
            "or 0 for no limit",
        )
    return events_per_second
