"""Between the messages of Subscribe and what they mean. No I/O.

Invariants: every field is checked here; an error is EventValidationException (INVALID_FIELD) and names the field.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from eventlog.v1 import event_pb2, stream_service_pb2

from shared.clock import Clock
from shared.columns.encoded_events import event_batch_field, joined_event_batch
from shared.filters.tree import Tree
from shared.rpc.filters import nanoseconds, tree_of
from stream_service.group_consumer import Share, ShareDelivery
from stream_service.message_builder import Message
from stream_service.request_checks import check_name, check_start, invalid
from stream_service.starts import Start, StartAsked
from stream_service.subscriber import Beat, Delivery, History
from stream_service.subscription import CaughtUp, Closing, Dropped, FellBehind, Policy

BUFFER_SIZE_MAX = 10_000_000
_NANOS_PER_SECOND = 1_000_000_000
_EVENTS_FIELD = stream_service_pb2.SubscribeResponse.EVENTS_FIELD_NUMBER
_POLICIES = {
    stream_service_pb2.OVERFLOW_POLICY_DROP_OLDEST: Policy.DROP_OLDEST,
    stream_service_pb2.OVERFLOW_POLICY_CATCH_UP: Policy.CATCH_UP,
    stream_service_pb2.OVERFLOW_POLICY_DISCONNECT: Policy.DISCONNECT,
}
_POLICY_NUMBERS = {policy: number for number, policy in _POLICIES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionAsked:
    """A request for a subscription, checked. `subscription` is empty where it is ephemeral."""

    subscription: str
    consumer: str
    start: StartAsked
    # An encoded EventFilters, and what it means.
    filters: bytes
    tree: Tree
    buffer_size: int
    policy: Policy
    payload_form: event_pb2.PayloadForm.ValueType


def subscription_asked(request: stream_service_pb2.SubscribeRequest, *, default_buffer_size: int) -> SubscriptionAsked:
    """What a SubscribeRequest asks for."""
    for field in ("subscription", "consumer"):
        if getattr(request, field):
            check_name(field, getattr(request, field))
    if request.buffer_size > BUFFER_SIZE_MAX:
        raise invalid("buffer_size", f"is {request.buffer_size}; write 1 to {BUFFER_SIZE_MAX}, or 0 for the default")
    return SubscriptionAsked(
        subscription=request.subscription,
        consumer=request.consumer,
        start=start_asked(request.start),
        filters=request.filters.SerializeToString(deterministic=True),
        tree=tree_of(request.filters),
        buffer_size=request.buffer_size or default_buffer_size,
        policy=_policy(request),
        payload_form=request.payload_form,
    )


def start_asked(start: stream_service_pb2.StreamStart) -> StartAsked:
    """What a StreamStart says."""
    check_start(start)
    time_ns = None
    if start.HasField("time"):
        time_ns = nanoseconds(start.time, "start.time")
    return StartAsked(
        earliest=start.earliest,
        position=start.position or None,
        time_ns=time_ns,
        checkpoint=start.checkpoint or None,
    )


def made_name() -> str:
    """A name for whoever has given none."""
    return f"sub_{secrets.token_urlsafe(9)}"


def confirmed(name: str, asked: SubscriptionAsked, start: Start, *, heartbeat_s: float) -> bytes:
    """The first message of a subscription."""
    message = stream_service_pb2.SubscriptionConfirmed(
        subscription=asked.subscription or name,
        consumer=name,
        start_position=start.position,
        buffer_size=asked.buffer_size,
        overflow_policy=_POLICY_NUMBERS[asked.policy],
        clamped_position=start.clamped_position,
    )
    message.heartbeat_interval.FromNanoseconds(round(heartbeat_s * _NANOS_PER_SECOND))
    return stream_service_pb2.SubscribeResponse(confirmed=message).SerializeToString()


def joined(pieces: Sequence[bytes], resume_position: int) -> bytes:
    """Events as one message of a subscription."""
    return joined_event_batch(_EVENTS_FIELD, pieces, resume_position=resume_position)


def message_of(what: Delivery, clock: Clock) -> bytes:
    """What a subscriber is told, as a message. The bytes of events are passed on as they are."""
    if isinstance(what, Message):
        return what.data
    if isinstance(what, History):
        return event_batch_field(_EVENTS_FIELD, what.events, resume_position=what.until)
    message = stream_service_pb2.SubscribeResponse()
    if isinstance(what, Beat):
        _fill_heartbeat(message.heartbeat, what, clock)
    elif isinstance(what, CaughtUp):
        message.caught_up.position = what.position
    elif isinstance(what, FellBehind):
        message.fell_behind.position = what.position
    elif isinstance(what, Dropped):
        dropped = stream_service_pb2.Dropped(
            first_position=what.first, last_position=what.last, count=what.count, reason=what.reason
        )
        message.dropped.CopyFrom(dropped)
    else:
        assert isinstance(what, Closing)
        message.closing.reason, message.closing.resume_position = what.error.reason, what.resume_position
    # An empty message in a oneof is a message all the same.
    return message.SerializeToString()


def share_message_of(what: ShareDelivery, clock: Clock) -> bytes:
    """What a consumer of a group is told, as a message."""
    if not isinstance(what, Share):
        return message_of(what, clock)
    rest = stream_service_pb2.EventBatch(
        redeliveries=[
            stream_service_pb2.Redelivery(position=each.position, failed_deliveries=each.failures)
            for each in what.redelivered
        ]
    )
    last = max(int(parcel.positions[-1]) for parcel in what.parcels)
    pieces = [parcel.events.data for parcel in what.parcels]
    return joined_event_batch(_EVENTS_FIELD, pieces, resume_position=last + 1, rest=rest.SerializeToString())


def _fill_heartbeat(heartbeat: stream_service_pb2.Heartbeat, beat: Beat, clock: Clock) -> None:
    heartbeat.head_position = beat.head
    heartbeat.resume_position = beat.resume_position
    heartbeat.lag_events = beat.lag_events
    heartbeat.under_pressure = beat.under_pressure
    heartbeat.server_time.FromNanoseconds(clock.now_ns())
    heartbeat.lag.FromNanoseconds(beat.lag_ns)


def _policy(request: stream_service_pb2.SubscribeRequest) -> Policy:
    given = request.overflow_policy
    if given == stream_service_pb2.OVERFLOW_POLICY_UNSPECIFIED:
        return Policy.CATCH_UP if request.subscription else Policy.DROP_OLDEST
    if given not in _POLICIES:
        raise invalid("overflow_policy", f"is {given}, which this version does not know")
    if request.subscription and _POLICIES[given] is not Policy.CATCH_UP:
        raise invalid("overflow_policy", "must be CATCH_UP, or left out: a durable subscription loses nothing")
    return _POLICIES[given]
