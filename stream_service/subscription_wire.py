"""Between the messages of subscriptions and what they mean. No I/O.

Invariants: every field is checked here; an error is EventValidationException (INVALID_FIELD) and names the field.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeVar

from eventlog.v1 import event_pb2, stream_service_pb2

from shared.clock import Clock
from shared.columns.encoded_events import event_batch_field, joined_event_batch
from shared.errors import EventStreamException
from shared.filters.tree import Tree
from shared.rpc.filters import nanoseconds, tree_of
from shared.rpc.page_tokens import decode_page_token, encode_page_token
from stream_service.failures import Parked
from stream_service.group import Group
from stream_service.group_consumer import Share, ShareDelivery
from stream_service.message_builder import Message
from stream_service.replay_wire import check_start, check_text, invalid
from stream_service.ring import Ring
from stream_service.starts import Start, StartAsked
from stream_service.subscriber import Beat, Delivery, History, Subscriber
from stream_service.subscription import CaughtUp, Closing, Dropped, FellBehind, Policy

NAME_BYTES_MAX = 128
BUFFER_SIZE_MAX = 10_000_000
POSITIONS_MAX = 10_000
RETRIES_MAX = 1_000
FAILURE_BYTES_MAX = 255
PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1_000

T = TypeVar("T")

_NANOS_PER_SECOND = 1_000_000_000
_EVENTS_FIELD = stream_service_pb2.SubscribeResponse.EVENTS_FIELD_NUMBER
_POLICIES = {
    stream_service_pb2.OVERFLOW_POLICY_DROP_OLDEST: Policy.DROP_OLDEST,
    stream_service_pb2.OVERFLOW_POLICY_CATCH_UP: Policy.CATCH_UP,
    stream_service_pb2.OVERFLOW_POLICY_DISCONNECT: Policy.DISCONNECT,
}
_LIST_KEY = blake2b(b"lists of the stream service", digest_size=32).digest()
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
            check_text(field, getattr(request, field), NAME_BYTES_MAX)
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


def replaced(consumer: str) -> EventStreamException:
    """The error for a consumer whose place another one took."""
    return EventStreamException(
        f"another consumer named {consumer!r} has connected and taken this one's place: give each its own name",
        reason="CONSUMER_REPLACED",
    )


def check_subscription(name: str) -> None:
    """Refuse what cannot be the name of a durable subscription."""
    check_text("subscription", name, NAME_BYTES_MAX)


def check_acknowledgement(request: stream_service_pb2.AcknowledgeRequest) -> None:
    """Refuse an acknowledgement of nothing, or of too much."""
    check_subscription(request.subscription)
    for field in ("positions", "failed_positions"):
        if len(getattr(request, field)) > POSITIONS_MAX:
            raise invalid(field, f"has {len(getattr(request, field))} positions; at most {POSITIONS_MAX}")
    if not (request.positions or request.failed_positions or request.up_to_position):
        raise invalid("positions", "or up_to_position or failed_positions: set at least one of them")
    if set(request.positions) & set(request.failed_positions):
        raise invalid("failed_positions", "holds a position that is acknowledged too: write it in one of them")
    if len(request.failure.encode()) > FAILURE_BYTES_MAX:
        raise invalid("failure", f"has more than {FAILURE_BYTES_MAX} bytes")


def parked_event(position: int, parked: Parked) -> stream_service_pb2.ParkedEvent:
    """A parked event."""
    event = stream_service_pb2.ParkedEvent(position=position, failed_deliveries=parked.failures, failure=parked.failure)
    event.parked_at.FromNanoseconds(parked.parked_ns)
    return event


def parked_positions(request: stream_service_pb2.RetryParkedEventsRequest, parked: Mapping[int, Parked]) -> list[int]:
    """The positions that a request is to retry."""
    if len(request.positions) > RETRIES_MAX:
        raise invalid("positions", f"has {len(request.positions)} positions; at most {RETRIES_MAX}")
    unknown = [position for position in request.positions if position not in parked]
    if unknown:
        raise invalid("positions", f"holds {unknown[0]}, which is not parked")
    return sorted(set(request.positions) or parked)[:RETRIES_MAX]


def status_of_group(group: Group, ring: Ring) -> stream_service_pb2.SubscriptionStatus:
    """How a durable subscription is doing."""
    ledger = group.ledger
    checkpoint = ledger.checkpoint
    held = list(ledger.consumers.values())
    status = stream_service_pb2.SubscriptionStatus(
        subscription=group.name,
        durable=True,
        state=group.state,
        checkpoint_position=checkpoint,
        lag_events=max(ring.end - 1 - checkpoint, 0),
        buffered_events=sum(len(parcel.events) for consumer in held for parcel in consumer.waiting),
        buffer_size=sum(consumer.credit for consumer in held),
        consumers=sorted(group.consumers),
        unacknowledged_events=ledger.unacknowledged,
        parked_events=len(ledger.parked),
        under_pressure=any(consumer.unacknowledged >= consumer.credit for consumer in held),
    )
    status.created_at.FromNanoseconds(group.created_ns)
    status.lag.FromNanoseconds(group.lag_ns())
    return status


def status_of_subscriber(subscriber: Subscriber) -> stream_service_pb2.SubscriptionStatus:
    """How an ephemeral subscription is doing."""
    subscription, beat = subscriber.subscription, subscriber.beat()
    status = stream_service_pb2.SubscriptionStatus(
        subscription=subscriber.name,
        state=subscription.state.value,
        checkpoint_position=max(beat.resume_position - 1, 0),
        lag_events=beat.lag_events,
        buffered_events=subscription.buffered,
        buffer_size=subscription.buffer_size,
        consumers=[subscriber.name],
        under_pressure=beat.under_pressure,
    )
    status.created_at.FromNanoseconds(subscriber.created_ns)
    status.lag.FromNanoseconds(beat.lag_ns)
    return status


def page_of(
    found: Sequence[T],
    request: stream_service_pb2.ListSubscriptionsRequest | stream_service_pb2.ListParkedEventsRequest,
    *,
    what: str,
) -> tuple[Sequence[T], str]:
    """One page of a list, and the token of the next; what: names the list, to which its tokens are bound."""
    if request.page_size < 0:
        raise invalid("page_size", "must not be negative")
    size = min(request.page_size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)
    query = what.encode()
    first = int(decode_page_token(request.page_token, query, key=_LIST_KEY)["first"]) if request.page_token else 0
    following = first + size
    token = encode_page_token(query, {"first": following}, key=_LIST_KEY) if following < len(found) else ""
    return found[first:following], token


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
