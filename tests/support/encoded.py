"""Answers of the query service, and events as bytes, without a query service."""

from collections.abc import Sequence

from eventlog.v1 import query_service_pb2

from shared.columns.encoded_events import EncodedEvents, read_answer
from shared.events.ids import format_event_id


def answer(
    positions: Sequence[int], sizes: Sequence[int] = (), *, summary: bool = False
) -> query_service_pb2.QueryResponse:
    """An answer of the query service with events of these positions."""
    message = query_service_pb2.QueryResponse()
    for row, position in enumerate(positions):
        size = sizes[row % len(sizes)] if sizes else 5
        event = message.events.add(
            id=format_event_id("AAAAAAAA", position), position=position, type="t", payload_json='"' + "x" * size
        )
        if position % 3:
            event.correlation_id = f"chain-{position % 3}"
        event.timestamp.FromNanoseconds(position * 1_500_000_001 - 10**9)
        event.recorded_at.FromNanoseconds(position * 10**9)
    if summary:
        message.summary.matched_events = len(positions)
    return message


def batch(*positions: int) -> EncodedEvents:
    """Events of these positions, as history gives them."""
    return read_answer(answer(positions).SerializeToString())[0]
