"""A query service in memory, for the faults that a real one cannot be made to have at a chosen event.

It knows events of the type "test.event" at positions from 1, and no filters. For each call it does what its `script`
says: the next entry is taken for each, and once the script is over calls succeed.
"""

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from eventlog.v1 import event_pb2, query_service_pb2, query_service_pb2_grpc

from shared.errors import EventException
from shared.rpc.status import to_status

BATCH_EVENTS = 3


@dataclass
class Fault:
    """What goes wrong in one call, after so many events (or pieces of an export)."""

    after: int
    # None: the answer is partial. A code: the call fails without a reason. "silence": it ends without a summary.
    error: EventException | grpc.StatusCode | str | None = None
    partial_reason: str = "DEADLINE"
    token: bool = True


@dataclass
class FakeQuery(query_service_pb2_grpc.QueryServiceServicer):
    """Holds `count` events."""

    count: int = 10
    script: list[Fault] = field(default_factory=list)
    requests: list[query_service_pb2.QueryRequest] = field(default_factory=list)
    export_requests: list[query_service_pb2.ExportRequest] = field(default_factory=list)

    def Query(self, request, context):  # noqa: N802 — gRPC's name
        """Stream the events of a selection in batches."""
        self.requests.append(request)
        fault = self.script.pop(0) if self.script else None
        positions = self._positions(request)
        sent = positions if fault is None else positions[: fault.after]
        for start in range(0, len(sent), BATCH_EVENTS):
            events = [_event(position) for position in sent[start : start + BATCH_EVENTS]]
            yield query_service_pb2.QueryResponse(events=events)
        if fault is not None and not self._goes_on(fault, context):
            return
        summary = query_service_pb2.ReadSummary(matched_events=len(sent), snapshot_position=self.count)
        if fault is not None:
            summary.partial, summary.partial_reason = True, fault.partial_reason
            summary.resume_token = f"before {positions[len(sent)]}" if fault.token else ""
        yield query_service_pb2.QueryResponse(summary=summary)

    def Export(self, request, context):  # noqa: N802 — gRPC's name
        """Stream the numbers of the events as a file of lines."""
        self.export_requests.append(request)
        fault = self.script.pop(0) if self.script else None
        last = self.count if fault is None else fault.after
        for number in range(1, last + 1):
            yield query_service_pb2.ExportResponse(data=f"{number}\n".encode(), exported_events=number)
        if fault is not None and not self._goes_on(fault, context):
            return
        summary = query_service_pb2.ReadSummary(snapshot_position=self.count)
        if fault is not None:
            summary.partial, summary.partial_reason = True, fault.partial_reason
        yield query_service_pb2.ExportResponse(exported_events=last, summary=summary)

    def CountEvents(self, request, context):  # noqa: N802 — gRPC's name
        """Count the events that were not counted before."""
        fault = self.script.pop(0) if self.script else None
        counted = int(request.resume_token or 0)
        if fault is None:
            return query_service_pb2.CountEventsResponse(count=self.count - counted)
        self._goes_on(fault, context)
        token = str(counted + fault.after) if fault.token else ""
        summary = query_service_pb2.ReadSummary(partial=True, partial_reason=fault.partial_reason, resume_token=token)
        return query_service_pb2.CountEventsResponse(count=fault.after, summary=summary)

    def _positions(self, request):
        selection = request.selection
        first = selection.from_position or 1
        positions = list(range(first, min(selection.until_position or self.count + 1, self.count + 1)))
        if request.order == query_service_pb2.EVENT_ORDER_POSITION_DESCENDING:
            positions.reverse()
        if request.resume_token:
            positions = positions[positions.index(int(request.resume_token.split()[1])) :]
        return positions[: request.limit or None]

    @staticmethod
    def _goes_on(fault, context):
        """Whether the answer is to end with a summary."""
        if isinstance(fault.error, EventException):
            context.abort_with_status(to_status(fault.error))
        if isinstance(fault.error, grpc.StatusCode):
            context.abort(fault.error, "as the script says")
        return fault.error is None


def _event(position: int) -> event_pb2.Event:
    event = event_pb2.Event(id=f"evt_{position}", position=position, type="test.event", payload_json="{}")
    event.timestamp.seconds = position
    return event


@contextmanager
def serving(query: FakeQuery) -> Iterator[str]:
    """Serve on a free port; yields the address."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    query_service_pb2_grpc.add_QueryServiceServicer_to_server(query, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
