"""Requests made in advance, so that building them is no part of what the demo measures."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from eventlog.v1 import event_pb2, ingest_service_pb2

from shared.events.document import parse_document

EVENTS_MAX = 500
_BYTES_MAX = 2 * 1024 * 1024
_SECOND_NS = 1_000_000_000


@dataclass(slots=True)
class Batches:
    """The requests of one source of events. json_bytes: size of its documents as JSON lines."""

    name: str
    requests: list[ingest_service_pb2.LogBatchRequest] = field(default_factory=list)
    events: int = 0
    json_bytes: int = 0


def make_batches(name: str, documents: Iterable[bytes]) -> Batches:
    """Make requests of up to EVENTS_MAX events from documents, each with an id of its own.

    Raises EventValidationException where a line is no document.
    """
    batches = Batches(name)
    events: list[event_pb2.NewEvent] = []
    size = 0
    for document in documents:
        if len(events) == EVENTS_MAX or size + len(document) > _BYTES_MAX:
            _close(batches, events)
            events, size = [], 0
        events.append(new_event(document))
        size += len(document)
        batches.json_bytes += len(document) + 1
    if events:
        _close(batches, events)
    return batches


def new_event(document: bytes) -> event_pb2.NewEvent:
    """The event of a document, as it is proposed to the log. Raises EventValidationException."""
    event = parse_document(document)
    metadata = event.metadata
    proposed = event_pb2.NewEvent(
        type=event.type,
        source=event.source or "",
        correlation_id=event.correlation_id,
        payload_json=event.payload_json,
        metadata=event_pb2.EventMetadata(
            host=metadata.host,
            version=metadata.version,
            user=metadata.user,
            session_id=metadata.session_id,
            tags=metadata.tags,
        ),
    )
    if event.timestamp_ns is not None:
        proposed.timestamp.seconds, proposed.timestamp.nanos = divmod(event.timestamp_ns, _SECOND_NS)
    return proposed


def _close(batches: Batches, events: list[event_pb2.NewEvent]) -> None:
    request_id = f"demo {batches.name} {len(batches.requests)}"
    batches.requests.append(ingest_service_pb2.LogBatchRequest(events=events, request_id=request_id))
    batches.events += len(events)
