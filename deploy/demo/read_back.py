"""Reads events back through the query service and compares them, field by field, with what was logged."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import grpc
from eventlog.v1 import event_pb2, query_service_pb2, query_service_pb2_grpc
from google.protobuf.message import Message
from google.protobuf.text_format import MessageToString

from deploy.demo.producer import Acknowledged
from shared.events.ids import following_event_ids

_PAGE_EVENTS = 5_000
_TIMEOUT_S = 30.0
_DIFFERENCES_MAX = 5


@dataclass(slots=True)
class Comparison:
    """How many events were compared, and the first few that differ, in words."""

    events: int = 0
    different: int = 0
    differences: list[str] = field(default_factory=list)

    def compare(self, expected: Message, read: Message, what: str) -> None:
        """Compare all fields of two messages."""
        self.events += 1
        if expected != read:
            logged, got = (MessageToString(message, as_one_line=True) for message in (expected, read))
            self.differs(f"{what} differs\n    logged: {logged[:500]}\n    read:   {got[:500]}")

    def differs(self, difference: str) -> None:
        """Count a difference, and keep its words if there are not too many already."""
        self.different += 1
        if len(self.differences) < _DIFFERENCES_MAX:
            self.differences.append(difference)


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the ingest service fills in where a producer gave nothing."""

    host: str
    version: str


def compare_range(channel: grpc.Channel, acknowledged: Sequence[Acknowledged], defaults: Defaults) -> Comparison:
    """Read the whole log, page by page, and compare it with all that was acknowledged.

    Raises grpc.RpcError where a read fails.
    """
    comparison = Comparison()
    in_order = sorted(acknowledged, key=lambda each: each.answer.first_position)
    expected = chain.from_iterable(expected_events(each, defaults) for each in in_order)
    last = max((each.answer.first_position + each.answer.count - 1 for each in in_order), default=0)
    for read in _read_all(query_service_pb2_grpc.QueryServiceStub(channel), min_position=last):
        wanted = next(expected, None)
        if wanted is None:
            comparison.differs(f"position {read.position} was never logged")
        else:
            comparison.compare(wanted, read, f"position {wanted.position}")
    missing = sum(1 for _ in expected)
    if missing:
        comparison.differs(f"{missing} acknowledged events are not there")
    return comparison


def compare_single(
    channel: grpc.Channel, acknowledged: Sequence[Acknowledged], defaults: Defaults, count: int
) -> Comparison:
    """Read `count` events of the whole log one by one, by id and by position in turn, and compare each.

    Raises grpc.RpcError where a read fails.
    """
    comparison = Comparison()
    stub = query_service_pb2_grpc.QueryServiceStub(channel)
    for number in range(count):
        each = acknowledged[number * len(acknowledged) // count]
        expected = list(expected_events(each, defaults))
        wanted = expected[number % len(expected)]
        by_id = query_service_pb2.GetEventRequest(id=wanted.id)
        by_position = query_service_pb2.GetEventRequest(position=wanted.position)
        answer = stub.GetEvent(by_position if number % 2 else by_id, timeout=_TIMEOUT_S)
        comparison.compare(wanted, answer.event, f"{wanted.id} at position {wanted.position}")
    return comparison


def expected_events(acknowledged: Acknowledged, defaults: Defaults) -> Iterator[event_pb2.Event]:
    """The events of a request as they must be read: what was proposed, the defaults, and what was acknowledged."""
    answer = acknowledged.answer
    ids = following_event_ids(answer.first_event_id, answer.count)
    for index, (proposed, event_id) in enumerate(zip(acknowledged.request.events, ids, strict=True)):
        event = event_pb2.Event(
            id=event_id,
            position=answer.first_position + index,
            timestamp=proposed.timestamp if proposed.HasField("timestamp") else answer.recorded_at,
            recorded_at=answer.recorded_at,
            type=proposed.type,
            source=proposed.source or "unknown",
            correlation_id=proposed.correlation_id or None,
            payload_json=proposed.payload_json,
            metadata=proposed.metadata,
        )
        event.metadata.host = proposed.metadata.host or defaults.host
        event.metadata.version = proposed.metadata.version or defaults.version
        yield event


def _read_all(stub: query_service_pb2_grpc.QueryServiceStub, *, min_position: int) -> Iterator[event_pb2.Event]:
    token = ""
    while True:
        page = stub.ListEvents(
            query_service_pb2.ListEventsRequest(
                selection=query_service_pb2.EventSelection(from_position=1, min_position=min_position),
                page_size=_PAGE_EVENTS,
                page_token=token,
            ),
            timeout=_TIMEOUT_S,
        )
        yield from page.events
        token = page.next_page_token
        if not token:
            return
