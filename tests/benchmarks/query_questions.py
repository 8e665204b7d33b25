"""The questions of the query benchmark, as the query service and as ClickHouse are asked them.

Each question is asked many times with other values; both are asked the same ones, and must answer the same.
"""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

from eventlog.v1 import event_pb2, query_service_pb2

from tests.support.reference_events import SOURCES, TYPES

SEED = 20240120
# The reference events begin at 10:30 and come ten thousand a second: both hours hold events.
_HOURS = (("2024-01-20T10:00:00", "2024-01-20T11:00:00"), ("2024-01-20T10:30:00", "2024-01-20T11:30:00"))
_COLUMNS = (
    "position, recorded_at, timestamp, type, source, correlation_id, payload, host, version, user, session_id, tags"
)


@dataclass(frozen=True, slots=True)
class Question:
    """One way of asking: the request to us, the statement to ClickHouse.

    A GetEventRequest or QueryRequest wants events, a CountEventsRequest their number.
    """

    request: query_service_pb2.GetEventRequest | query_service_pb2.QueryRequest | query_service_pb2.CountEventsRequest
    statement: str


def by_id(events: Sequence[event_pb2.Event]) -> list[Question]:
    """Each of these events by its id; to ClickHouse by its position, which it is ordered by."""
    return [
        Question(
            query_service_pb2.GetEventRequest(id=event.id),
            f"SELECT {_COLUMNS} FROM events WHERE position = {event.position}",
        )
        for event in events
    ]


def by_correlation_id(events: Sequence[event_pb2.Event]) -> list[Question]:
    """The chains of these events."""
    return [
        _query(f"correlation_id = '{event.correlation_id}'", f"correlation_id = '{event.correlation_id}'")
        for event in events
    ]


def by_type_hour_and_payload(count: int) -> list[Question]:
    """Types, an hour, and slow ones only: the first 100."""
    chance = random.Random(SEED)
    questions = []
    for kind, (start, end) in itertools.islice(itertools.cycle(itertools.product(TYPES, _HOURS)), count):
        slow = chance.randrange(4_000, 4_900)
        within = f"type = '{kind}' AND timestamp >= '{start}' AND timestamp < '{end}' AND payload.duration_ms"
        questions.append(_query(f"{within} > {slow}", f"{within}.:Int64 > {slow}", limit=100))
    return questions


def newest(count: int) -> list[Question]:
    """The newest 100."""
    return [_query("", "1", limit=100, newest_first=True)] * count


def count_promoted(count: int) -> list[Question]:
    """How many took longer than so much, which is a promoted key."""
    return [
        _count(f"payload.duration_ms > {slow}", f"payload.duration_ms.:Int64 > {slow}")
        for slow in range(4_000, 4_000 + count)
    ]


def count_compound(count: int) -> list[Question]:
    """The specification's compound example, with the words of the reference events."""
    questions = []
    for slow, source in zip(range(1_000, 1_000 + count), itertools.cycle(SOURCES), strict=False):
        before, after = (
            "(type = 'process.synthesis.completed' AND payload.duration_ms",
            f"> {slow}) OR source = '{source}'",
        )
        questions.append(_count(f"{before} {after}", f"{before}.:Int64 {after}"))
    return questions


def _query(expression: str, where: str, *, limit: int = 0, newest_first: bool = False) -> Question:
    order = (
        query_service_pb2.EVENT_ORDER_POSITION_DESCENDING
        if newest_first
        else query_service_pb2.EVENT_ORDER_POSITION_ASCENDING
    )
    statement = f"SELECT {_COLUMNS} FROM events WHERE {where} ORDER BY position {'DESC' if newest_first else 'ASC'}"
    return Question(
        query_service_pb2.QueryRequest(selection=_selection(expression), limit=limit, order=order),
        f"{statement} LIMIT {limit}" if limit else statement,
    )


def _count(expression: str, where: str) -> Question:
    return Question(
        query_service_pb2.CountEventsRequest(selection=_selection(expression)),
        f"SELECT count() FROM events WHERE {where}",
    )


def _selection(expression: str) -> query_service_pb2.EventSelection:
    return query_service_pb2.EventSelection(filters=event_pb2.EventFilters(expression=expression))
