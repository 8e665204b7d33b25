"""Between the messages that manage subscriptions, and what they mean. No I/O.

Invariants: every field is checked here; an error is EventValidationException (INVALID_FIELD) and names the field.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import TypeVar

from eventlog.v1 import stream_service_pb2

from shared.rpc.page_tokens import decode_page_token, encode_page_token
from stream_service.failures import Parked
from stream_service.group import Group
from stream_service.request_checks import check_name, invalid
from stream_service.ring import Ring
from stream_service.subscriber import Subscriber

POSITIONS_MAX = 10_000
RETRIES_MAX = 1_000
FAILURE_BYTES_MAX = 255
PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1_000

T = TypeVar("T")

_LIST_KEY = blake2b(b"lists of the stream service", digest_size=32).digest()


def check_subscription(name: str) -> None:
    """Refuse what cannot be the name of a durable subscription."""
    check_name("subscription", name)


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
        parked_events=len(ledger.failures.parked),
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
