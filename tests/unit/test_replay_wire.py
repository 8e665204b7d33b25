"""Requests for replays: what they mean, and which field is wrong where they mean nothing."""

import math

import pytest
from eventlog.v1 import event_pb2, stream_service_pb2

from shared.errors import EventValidationException
from stream_service import replay_wire, request_checks
from stream_service.replay_bounds import ReplayBounds

Request = stream_service_pb2.ReplayRequest
Start = stream_service_pb2.StreamStart
RECORDED_AT = stream_service_pb2.REPLAY_CLOCK_RECORDED_AT


def asked(**fields):
    return replay_wire.replay_asked(Request(**fields), speed_max=100.0)


def filters_of(found):
    return event_pb2.EventFilters.FromString(found.filters)


def wrong_field(call):
    with pytest.raises(EventValidationException) as caught:
        call()
    assert caught.value.reason == "INVALID_FIELD"
    return caught.value.violations[0].field


def test_empty_request_is_the_whole_log_at_its_own_pace():
    """Nothing set: from the first kept event, at speed 1, by when it happened, without limits."""
    found = asked()
    assert (found.bounds, found.speed, found.by_recorded_at) == (ReplayBounds(), 1.0, False)
    assert (found.gap_max_ns, found.events_per_second_max, found.filters) == (None, None, b"")


def test_times_of_timestamps_narrow_the_filter():
    """By when it happened, bounds in time are a part of the filter: the narrower of both counts, on each side."""
    filters = event_pb2.EventFilters(sources=["a"])
    filters.time_range.start.seconds = 10
    filters.time_range.end.seconds = 20
    found = asked(filters=filters, start={"time": {"seconds": 15}}, until_time={"seconds": 30})
    narrowed = filters_of(found)
    assert (narrowed.time_range.start.seconds, narrowed.time_range.end.seconds) == (15, 20)
    assert list(narrowed.sources) == ["a"]
    assert found.bounds == ReplayBounds()


def test_times_of_recording_are_bounds():
    """By when the log recorded it, bounds in time are turned into positions later, and the filter stays."""
    found = asked(clock=RECORDED_AT, start={"time": {"seconds": 15}}, until_time={"seconds": 30, "nanos": 1})
    assert found.bounds == ReplayBounds(recorded_since_ns=15 * 10**9, recorded_until_ns=30 * 10**9 + 1)
    assert (found.by_recorded_at, found.filters) == (True, b"")


def test_saved_position_brings_its_filters_and_speed():
    """A replay from a checkpoint begins behind it, with what was saved where the request leaves it out."""
    saved = stream_service_pb2.ReplayState(position=41, speed=7.0, filters={"sources": ["a"]})
    request = Request(start=Start(checkpoint="x"))
    completed = replay_wire.with_saved(request, saved)
    assert (completed.start.position, completed.speed, completed.filters.sources) == (42, 7.0, ["a"])
    request = Request(start=Start(checkpoint="x"), speed=0.0, filters={})
    completed = replay_wire.with_saved(request, saved)
    assert (completed.speed, completed.filters.ByteSize()) == (0.0, 0)


@pytest.mark.parametrize("speed", [-1.0, 0.05, 100.1, math.nan, math.inf])
def test_speed_has_a_range(speed):
    """A speed is 0, or from 0.1 to the configured maximum."""
    assert wrong_field(lambda: asked(speed=speed)) == "speed"
    assert [asked(speed=fits).speed for fits in (0.0, 0.1, 100.0)] == [0.0, 0.1, 100.0]


@pytest.mark.parametrize("rate", [-1.0, 1e-9, 2e6, math.nan, math.inf])
def test_rate_has_a_range(rate):
    """A limit of events a second is positive and finite."""
    assert wrong_field(lambda: asked(events_per_second_max=rate)) == "events_per_second_max"


@pytest.mark.parametrize("gap", [{"seconds": -1}, {"nanos": -1}, {"seconds": 10**9}])
def test_gap_has_a_range(gap):
    """A longest pause is not negative, and no more than ten years; none at all is allowed."""
    assert wrong_field(lambda: asked(gap_max=gap)) == "gap_max"
    assert asked(gap_max={}).gap_max_ns == 0


@pytest.mark.parametrize("time", [{"seconds": 10**11}, {"nanos": -1}, {"seconds": -(10**10)}])
def test_times_have_a_range(time):
    """A time that no event can have is refused, with the field that holds it."""
    assert wrong_field(lambda: asked(until_time=time)) == "until_time"
    assert wrong_field(lambda: asked(start={"time": time})) == "start.time"
    assert wrong_field(lambda: asked(filters={"time_range": {"start": time}})) == "filters.time_range.start"


def test_start_is_one():
    """More than one way to begin is refused."""
    assert wrong_field(lambda: request_checks.check_start(Start(earliest=True, position=5))) == "start"
    assert wrong_field(lambda: request_checks.check_start(Start(checkpoint="x" * 129))) == "start.checkpoint"
    request_checks.check_start(Start(position=5))


@pytest.mark.parametrize("session_id", ["", "x" * 256])
def test_session_is_named(session_id):
    """A session id has 1 to 255 bytes."""
    request = stream_service_pb2.ReplaySessionRequest(session_id=session_id)
    assert wrong_field(lambda: replay_wire.session_asked(request, speed_max=1.0)) == "session_id"


def test_state_to_save_is_bounded():
    """A state with a speed out of range, or larger than 64 KiB, is not saved."""
    state = stream_service_pb2.ReplayState(speed=1.0, filters={"sources": ["x" * 1000] * 70})
    assert wrong_field(lambda: replay_wire.checked_state(state, speed_max=1.0)) == "state"
    state = stream_service_pb2.ReplayState(speed=5.0)
    assert wrong_field(lambda: replay_wire.checked_state(state, speed_max=1.0)) == "speed"
