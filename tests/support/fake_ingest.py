"""An ingest service in memory, for the faults that a real one cannot be made to have.

It speaks gRPC, remembers request ids, and does with each LogBatch what its `script` says: the next entry is
taken for each call, and once the script is over calls succeed. `gate` holds calls until it is set.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from eventlog.v1 import event_pb2, ingest_service_pb2, ingest_service_pb2_grpc

from shared.errors import EventException, EventValidationException, FieldViolation
from shared.events.ids import format_event_id
from shared.rpc.status import to_status

LOG_ID = "0TEST001"


@dataclass
class Fault:
    """What goes wrong in one call."""

    # Logged before the call fails: the answer is lost.
    logged: bool = False
    # Fails with this; None hangs until the caller's deadline.
    error: EventException | grpc.StatusCode | None = None


@dataclass
class FakeIngest(ingest_service_pb2_grpc.IngestServiceServicer):
    """Holds what was logged. Thread-safe."""

    script: list[Fault] = field(default_factory=list)
    events: list[event_pb2.NewEvent] = field(default_factory=list)
    # Every LogBatchRequest received, failed ones too, and the first position of each that was logged.
    requests: list[ingest_service_pb2.LogBatchRequest] = field(default_factory=list)
    first_positions: dict[str, int] = field(default_factory=dict)
    flushes: int = 0
    # Types of events that are called invalid.
    refused_types: set[str] = field(default_factory=set)
    batch_events_max: int = 10_000
    gate: threading.Event = field(default_factory=threading.Event)
    received: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def LogBatch(self, request, context):  # noqa: N802 — gRPC's name
        """Log a batch, or do what the script says."""
        with self.lock:
            self.requests.append(request)
            fault = self.script.pop(0) if self.script else None
        self.received.release()
        self.gate.wait()
        if fault is None or fault.logged:
            answer = self._log(request, context)
        if fault is None:
            return answer
        if isinstance(fault.error, EventException):
            context.abort_with_status(to_status(fault.error))
        if fault.error is None:
            self.stopped.wait(context.time_remaining())
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "hung")
        context.abort(fault.error, "as the script says")
        return None

    def Flush(self, request, context):  # noqa: N802 — gRPC's name
        """Count the call."""
        self.flushes += 1
        return ingest_service_pb2.FlushResponse(committed_position=len(self.events))

    def _log(self, request, context):
        with self.lock:
            first = self.first_positions.get(request.request_id)
            duplicate = first is not None
            if not duplicate:
                self._check(request, context)
                first = len(self.events) + 1
                self.first_positions[request.request_id] = first
                self.events.extend(request.events)
        count = len(request.events)
        return ingest_service_pb2.LogBatchResponse(
            first_position=first,
            count=count,
            first_event_id=format_event_id(LOG_ID, first),
            last_event_id=format_event_id(LOG_ID, first + count - 1),
            duplicate=duplicate,
            durability=request.durability,
        )

    def _check(self, request, context) -> None:
        if len(request.events) > self.batch_events_max:
            context.abort_with_status(to_status(EventValidationException("too many", reason="BATCH_TOO_LARGE")))
        violations = [
            FieldViolation(f"events[{index}].type", "is refused here")
            for index, event in enumerate(request.events)
            if event.type in self.refused_types
        ]
        if violations:
            context.abort_with_status(to_status(EventValidationException("invalid", violations=violations)))

    def types(self) -> list[str]:
        """Types of the events logged, in order."""
        with self.lock:
            return [event.type for event in self.events]


@contextmanager
def serving(ingest: FakeIngest, address: str = "127.0.0.1:0") -> Iterator[str]:
    """Serve it on loopback; yields the address."""
    server = grpc.server(
        futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 20 << 20)]
    )
    ingest_service_pb2_grpc.add_IngestServiceServicer_to_server(ingest, server)
    port = server.add_insecure_port(address)
    server.start()
    try:
        yield f"{address.rpartition(':')[0]}:{port}"
    finally:
        ingest.stopped.set()
        ingest.gate.set()
        server.stop(grace=None).wait()


def wait_until(holds: Callable[[], bool], *, timeout_s: float = 10.0) -> None:
    """Wait for a condition; fails after the time."""
    pause = threading.Event()
    for _ in range(int(timeout_s / 0.005)):
        if holds():
            return
        pause.wait(0.005)
    raise AssertionError("the condition did not come true in time")
