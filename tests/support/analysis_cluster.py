"""Events logged through a cluster, and an analysis service that reads them."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from eventlog.v1 import event_pb2, ingest_service_pb2
from eventlog.v1.analysis_service_pb2_grpc import AnalysisServiceStub
from google.protobuf.timestamp_pb2 import Timestamp

from shared.rpc.channel import connect_sync
from tests.support.cluster import CALL_S_MAX
from tests.support.event_columns import nanoseconds
from tests.support.service_process import ServiceProcess

_SECOND = 1_000_000_000
_BATCH = 5_000


def timestamp(ns: int) -> Timestamp:
    """Nanoseconds since the epoch as a message."""
    return Timestamp(seconds=ns // _SECOND, nanos=ns % _SECOND)


def time_range(start: int, end: int) -> event_pb2.TimeRange:
    """A range of nanoseconds as a message."""
    return event_pb2.TimeRange(start=timestamp(start), end=timestamp(end))


def log_documents(cluster: Any, documents: Iterable[Mapping[str, Any]]) -> None:
    """Log documents; their timestamps are texts, or nanoseconds since the epoch."""
    events = [_new_event(document) for document in documents]
    for start in range(0, len(events), _BATCH):
        request = ingest_service_pb2.LogBatchRequest(events=events[start : start + _BATCH])
        cluster.appends.LogBatch(request, timeout=CALL_S_MAX)


@contextmanager
def analysis_of(cluster: Any, directory: Path, **settings: Any) -> Iterator[AnalysisServiceStub]:
    """An analysis service that reads from a cluster's query service."""
    analysis = {"query_address": cluster.query.address, **settings}
    service = ServiceProcess("analysis_service", directory, settings={"analysis": analysis})
    with service, connect_sync(service.address) as channel:
        yield AnalysisServiceStub(channel)


def _new_event(document: Mapping[str, Any]) -> event_pb2.NewEvent:
    when = document["timestamp"]
    metadata = {name: value for name, value in (document.get("metadata") or {}).items() if value}
    return event_pb2.NewEvent(
        type=document["type"],
        source=document.get("source") or "",
        correlation_id=document.get("correlation_id"),
        timestamp=timestamp(nanoseconds(when) if isinstance(when, str) else when),
        payload_json=orjson.dumps(document.get("payload") or {}).decode(),
        metadata=event_pb2.EventMetadata(**metadata),
    )
