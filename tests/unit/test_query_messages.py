"""Requests as the words of the engine: what is refused by field, and what a token is bound to."""

from collections.abc import Callable
from typing import Any

import pytest
from eventlog.v1 import event_pb2
from eventlog.v1 import query_service_pb2 as pb
from google.protobuf.message import Message

from query_service import messages
from query_service.messages import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, Ticket, ticket_of
from shared.errors import EventException, EventValidationException
from shared.events.ids import format_event_id
from shared.log.committed_position import Committed
from shared.log.types import Nanoseconds, Offset, Position

_LOG_ID = "TEST0001"
_KEY = bytes(range(32))
_COMMITTED = Committed(_LOG_ID, Position(90), Nanoseconds(5), Position(61), Offset(1000))
_TICKET = Ticket(Position(90), 1234, Position(7), 5)


def _filtered(expression: str = "payload.n > 1", **fields: Any) -> pb.EventSelection:
    return pb.EventSelection(filters=event_pb2.EventFilters(expression=expression), **fields)


def _read(request: Message, token: str) -> Ticket:
    return ticket_of(request, token, _COMMITTED, key=_KEY, now_ns=99, limit=3)


def test_without_a_token_an_answer_begins() -> None:
    """Up to what is committed now."""
    assert _read(pb.QueryRequest(), "") == Ticket(Position(90), 99, None, 3)


@pytest.mark.parametrize("place", [Position(7), (-5, Position(2)), (2**63 - 1, Position(2**62))])
def test_a_token_gives_back_its_ticket(place: Any) -> None:
    """Also a place in the order of timestamps."""
    ticket = Ticket(Position(90), 1234, place, None)
    request = pb.QueryRequest(selection=_filtered())
    assert _read(request, ticket.token(request, _KEY)) == ticket


def test_what_may_differ_between_calls_does() -> None:
    """The page size, the token itself, what to wait for, how long to take; even where no selection is left."""
    token = _TICKET.token(pb.ListEventsRequest(selection=_filtered()), _KEY)
    other = pb.ListEventsRequest(selection=_filtered(min_position=4), page_size=9, page_token="x")
    other.selection.time_budget.FromMilliseconds(50)
    assert _read(other, token) == _TICKET
    token = _TICKET.token(pb.QueryRequest(), _KEY)
    hurried = pb.QueryRequest()
    hurried.selection.time_budget.FromMilliseconds(50)
    assert _read(hurried, token) == _TICKET


@pytest.mark.parametrize(
    "other",
    [
        pb.ListEventsRequest(selection=_filtered("payload.n > 2"), order=2),
        pb.ListEventsRequest(selection=_filtered(until_position=5), order=2),
        pb.ListEventsRequest(selection=_filtered(), order=1),
        # The bytes of this one are those of the first.
        pb.QueryRequest(selection=_filtered(), payload_form=2),
        pb.CountEventsRequest(selection=_filtered()),
    ],
)
def test_a_token_belongs_to_its_question(other: Message) -> None:
    """With another one, or asked of another method, it is refused."""
    token = _TICKET.token(pb.ListEventsRequest(selection=_filtered(), order=2), _KEY)
    with pytest.raises(EventValidationException) as refusal:
        _read(other, token)
    assert refusal.value.reason == "INVALID_PAGE_TOKEN"


def test_a_token_signed_with_another_key_is_refused() -> None:
    """Nobody can make one from what is public, such as the log's id."""
    forged = _TICKET.token(pb.QueryRequest(), _LOG_ID.encode().ljust(32, b"\0"))
    with pytest.raises(EventValidationException) as refusal:
        _read(pb.QueryRequest(), forged)
    assert refusal.value.reason == "INVALID_PAGE_TOKEN"


@pytest.mark.parametrize(("limit", "expected"), [(0, None), (1, 1), (10**9, 10**9), (2**62, None), (2**64 - 1, None)])
def test_a_limit_beyond_any_log_is_none(limit: int, expected: int | None) -> None:
    """So that no number of a request is too large for the engine."""
    assert messages.limit_of(limit) == expected


def test_page_sizes_are_capped() -> None:
    """Zero is the default."""
    assert [messages.page_size_of(size) for size in (0, 1, 10**9)] == [PAGE_SIZE_DEFAULT, 1, PAGE_SIZE_MAX]


def _budget(seconds: int, nanos: int = 0) -> pb.EventSelection:
    selection = pb.EventSelection()
    selection.time_budget.seconds, selection.time_budget.nanos = seconds, nanos
    return selection


@pytest.mark.parametrize(
    ("ask", "reason"),
    [
        (lambda: messages.page_size_of(-1), "INVALID_FIELD"),
        (lambda: messages.order_of(9), "INVALID_FIELD"),
        (lambda: messages.wants_structs(9), "INVALID_FIELD"),
        (lambda: messages.budget_s(_budget(0)), "INVALID_FIELD"),
        (lambda: messages.budget_s(_budget(-1)), "INVALID_FIELD"),
        (lambda: messages.position_of(pb.GetEventRequest(), _COMMITTED), "INVALID_FIELD"),
        (lambda: messages.position_of(pb.GetEventRequest(id="evt_1"), _COMMITTED), "INVALID_FIELD"),
        (lambda: messages.position_of(pb.GetEventRequest(id="x", position=1), _COMMITTED), "INVALID_FIELD"),
        (lambda: messages.position_of(pb.GetEventRequest(position=91), _COMMITTED), "EVENT_NOT_FOUND"),
        (lambda: messages.position_of(pb.GetEventRequest(position=2**64 - 1), _COMMITTED), "EVENT_NOT_FOUND"),
        (
            lambda: messages.position_of(pb.GetEventRequest(id=format_event_id("TEST0002", 7)), _COMMITTED),
            "EVENT_NOT_FOUND",
        ),
    ],
)
def test_what_is_wrong_has_a_reason(ask: Callable[[], object], reason: str) -> None:
    """A field that is out of range names itself; what is not there says so."""
    with pytest.raises(EventException) as refusal:
        ask()
    assert refusal.value.reason == reason


def test_positions_of_a_question_stop_at_the_snapshot() -> None:
    """Whatever end is asked for; a first position of 0 is none."""
    for asked, until in ((0, 91), (50, 50), (2**64 - 1, 91)):
        question = messages.question_of(_filtered(until_position=asked), _TICKET, _LOG_ID)
        assert (question.first, question.until) == (None, until)
