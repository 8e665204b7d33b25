"""The messages of QueryService as the words of the engine, and back.

A token holds where an answer goes on, what now() meant when it began, and the position up to which it looks: so
pages do not shift while events are logged. It is bound to the rest of the request.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eventlog.v1 import event_pb2
from eventlog.v1 import query_service_pb2 as pb
from google.protobuf.message import Message

from query_service.aggregation import Aggregation, check_aggregation
from query_service.question import Order, Question
from query_service.reading import Costs
from query_service.statements import Key
from shared.errors import EventStorageException, EventValidationException, invalid_field
from shared.events.ids import parse_event_id
from shared.filters.resolution import resolve_now
from shared.log.committed_position import Committed
from shared.log.types import Position
from shared.rpc.filters import tree_of
from shared.rpc.page_tokens import decode_page_token, encode_page_token

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 10_000
TIME_BUCKET_NS_MIN, TIME_BUCKET_NS_MAX = 1_000_000, 366 * 86_400 * 10**9
# No log has so many events.
_POSITIONS_END = 2**62

Place = Position | Key

_ORDERS = {
    pb.EVENT_ORDER_UNSPECIFIED: Order.POSITION_ASCENDING,
    pb.EVENT_ORDER_POSITION_ASCENDING: Order.POSITION_ASCENDING,
    pb.EVENT_ORDER_POSITION_DESCENDING: Order.POSITION_DESCENDING,
    pb.EVENT_ORDER_TIMESTAMP_ASCENDING: Order.TIMESTAMP_ASCENDING,
    pb.EVENT_ORDER_TIMESTAMP_DESCENDING: Order.TIMESTAMP_DESCENDING,
}


@dataclass(frozen=True, slots=True)
class Ticket:
    """Where an answer goes on: None at its beginning. `left`: events still wanted, None for all."""

    snapshot: Position
    now_ns: int
    place: Place | None
    left: int | None

    def token(self, request: Message, key: bytes) -> str:
        """Return it as a token that goes with a request."""
        place = list(self.place) if isinstance(self.place, tuple) else self.place
        state = {"snapshot": self.snapshot, "now": self.now_ns, "place": place, "left": self.left}
        return encode_page_token(_bound_to(request), state, key=key)


def ticket_of(
    request: Message, token: str, committed: Committed, *, key: bytes, now_ns: int, limit: int | None
) -> Ticket:
    """The ticket of a request: that of its token, which was signed with the key, or one for the beginning.

    Raises EventValidationException (INVALID_PAGE_TOKEN).
    """
    if not token:
        return Ticket(committed.position, now_ns, None, limit)
    state = decode_page_token(token, _bound_to(request), key=key)
    place: Any = state["place"]
    found = (int(place[0]), Position(place[1])) if isinstance(place, list) else Position(place)
    return Ticket(Position(state["snapshot"]), state["now"], found, state["left"])


def question_of(selection: pb.EventSelection, ticket: Ticket, log_id: str) -> Question:
    """What a selection asks for. Raises EventFilterException, EventValidationException (INVALID_FIELD)."""
    tree = resolve_now(tree_of(selection.filters, field="selection.filters"), ticket.now_ns)
    end = ticket.snapshot + 1
    first = Position(selection.from_position) if selection.from_position else None
    return Question(log_id, tree, first, Position(min(selection.until_position or end, end)))


def aggregation_of(request: pb.AggregateRequest) -> Aggregation:
    """What Aggregate asks for. Raises EventValidationException (INVALID_FIELD)."""
    bucket_ns = 0
    if request.HasField("time_bucket"):
        bucket_ns = request.time_bucket.ToNanoseconds()
        if not TIME_BUCKET_NS_MIN <= bucket_ns <= TIME_BUCKET_NS_MAX:
            raise invalid_field("time_bucket", "must be from a millisecond to 366 days")
    return check_aggregation(
        request.group_by,
        time_bucket_ns=bucket_ns,
        value_field=request.value_field,
        by_value=request.by_value,
        value_error=request.value_error,
    )


def order_of(order: int) -> Order:
    """The order that a request asks for. Raises EventValidationException (INVALID_FIELD)."""
    if order not in _ORDERS:
        raise invalid_field("order", f"has the unknown value {order}")
    return _ORDERS[pb.EventOrder.ValueType(order)]


def budget_s(selection: pb.EventSelection) -> float | None:
    """Seconds that the request gives the answer; None where it does not say. Raises EventValidationException."""
    if not selection.HasField("time_budget"):
        return None
    seconds = selection.time_budget.seconds + selection.time_budget.nanos / 1e9
    if seconds <= 0:
        raise invalid_field("selection.time_budget", "must be more than 0")
    return seconds


def page_size_of(page_size: int) -> int:
    """Most events of a page. Raises EventValidationException (INVALID_FIELD)."""
    if page_size < 0:
        raise invalid_field("page_size", "must not be negative")
    return min(page_size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)


def limit_of(limit: int) -> int | None:
    """Most events of an answer; None for all, which is what a limit beyond any log means."""
    return limit if 0 < limit < _POSITIONS_END else None


def position_of(request: pb.GetEventRequest, committed: Committed) -> Position:
    """The position that GetEvent asks for.

    Raises EventValidationException (INVALID_FIELD), EventStorageException (EVENT_NOT_FOUND).
    """
    if bool(request.id) == bool(request.position):
        raise invalid_field("id", "and position: set exactly one of them")
    position = Position(request.position)
    if request.id:
        try:
            log_id, found = parse_event_id(request.id)
        except EventValidationException as error:
            raise EventValidationException(str(error), violations=error.violations, reason="INVALID_FIELD") from None
        if log_id != committed.log_id:
            raise not_found(f"{request.id} belongs to another log than this one, {committed.log_id}")
        position = Position(found)
    if position > committed.position:
        raise not_found(f"position {position} is not committed; the last one is {committed.position}")
    return position


def wants_structs(form: int) -> bool:
    """Whether payloads are wanted as structures. Raises EventValidationException (INVALID_FIELD)."""
    if form not in event_pb2.PayloadForm.values():
        raise invalid_field("payload_form", f"has the unknown value {form}")
    return form == event_pb2.PAYLOAD_FORM_STRUCT


def summary_of(
    costs: Costs, *, elapsed_s: float, snapshot: Position, partial_reason: str, resume_token: str = ""
) -> pb.ReadSummary:
    """What an answer cost, as a message."""
    summary = pb.ReadSummary(
        matched_events=costs.matched_events,
        scanned_events=costs.scanned_events,
        pruned_segments=costs.pruned_segments,
        read_segments=costs.read_segments,
        partial=bool(partial_reason),
        partial_reason=partial_reason,
        resume_token=resume_token,
        snapshot_position=snapshot,
    )
    summary.elapsed.FromNanoseconds(round(elapsed_s * 1e9))
    return summary


def not_found(message: str) -> EventStorageException:
    """The error for an event that is not there."""
    return EventStorageException(f"{message}: check the id or position", reason="EVENT_NOT_FOUND")


# What may differ between the calls of one answer.
_FREE: Sequence[str] = ("page_token", "resume_token", "page_size")


def _bound_to(request: Message) -> bytes:
    query = type(request)()
    query.CopyFrom(request)
    for name in _FREE:
        if name in query.DESCRIPTOR.fields_by_name:
            query.ClearField(name)
    selection: pb.EventSelection = query.selection  # type: ignore[attr-defined]
    selection.ClearField("min_position")
    selection.ClearField("time_budget")
    if not selection.ByteSize():
        query.ClearField("selection")
    # Requests of different methods may have the same bytes.
    return query.DESCRIPTOR.full_name.encode() + b"\0" + query.SerializeToString(deterministic=True)
