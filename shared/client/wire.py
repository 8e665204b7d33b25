"""Between the outbox and IngestService: requests out, answers and errors in. No I/O."""

import re
from collections import defaultdict
from collections.abc import Iterable

import grpc
from eventlog.v1 import ingest_service_pb2

from shared.client.options import Durability
from shared.client.refusal import Refusal, RefusalKind
from shared.client.submission import HandleT, Request
from shared.errors import EventStorageException, EventValidationException, FieldViolation
from shared.events.ids import following_event_ids
from shared.rpc.status import from_rpc_error

LOG_BATCH = "/eventlog.v1.IngestService/LogBatch"
FLUSH = "/eventlog.v1.IngestService/Flush"

_EVENT_FIELD = re.compile(r"events\[(\d{1,9})\]\.?(.*)", re.DOTALL)
_INVALID_REASONS = frozenset({"INVALID_EVENT", "INVALID_FIELD"})

# Codes that come without a reason from the network or a proxy, where the same request may succeed later.
_RETRYABLE_CODES = frozenset(
    {
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
    }
)

_DURABILITIES = {
    Durability.DURABLE: ingest_service_pb2.DURABILITY_DURABLE,
    Durability.BUFFERED: ingest_service_pb2.DURABILITY_BUFFERED,
}


def encode_request(request: Request[HandleT], durability: Durability) -> bytes:
    """The LogBatchRequest. Its events are encoded already: fields of a message may simply be joined."""
    rest = ingest_service_pb2.LogBatchRequest(request_id=request.request_id, durability=_DURABILITIES[durability])
    return b"".join([*(each.fragment for each in request.submissions), rest.SerializeToString()])


def ids_of(
    response: ingest_service_pb2.LogBatchResponse, request: Request[HandleT]
) -> list[str] | EventStorageException:
    """Ids of the request's events in their order; an error where the answer does not fit the request."""
    if response.count != request.count:
        return EventStorageException(
            f"the ingest service acknowledged {response.count} events of request {request.request_id}, which "
            f"has {request.count}; is there a proxy between that answers for it?"
        )
    try:
        return following_event_ids(response.first_event_id, response.count)
    except EventValidationException as error:
        return EventStorageException(
            f"the ingest service acknowledged request {request.request_id} with a bad id: {error}"
        )


def refusal_of(error: grpc.RpcError) -> Refusal:
    """What a failed call means for the events of its request."""
    remote = from_rpc_error(error)
    if remote.reason in _INVALID_REASONS:
        return Refusal(RefusalKind.INVALID, remote, violations=_by_index(remote.violations))
    if remote.reason == "BATCH_TOO_LARGE":
        return Refusal(RefusalKind.TOO_LARGE, remote)
    retry_after_s = remote.retry_delay_s or 0.0
    exhausted = remote.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    # Without a reason of ours the name of the code stands in its place.
    if exhausted and remote.reason == remote.code.name:
        # gRPC itself says so of a message above the server's limit, and of too many calls.
        return Refusal(RefusalKind.PERHAPS_TOO_LARGE, remote, retry_after_s=retry_after_s)
    unreasoned = remote.reason in (remote.code.name, "DEPENDENCY_UNAVAILABLE")
    if remote.retryable or (unreasoned and remote.code in _RETRYABLE_CODES):
        return Refusal(RefusalKind.RETRY, remote, retry_after_s=retry_after_s, ambiguous=not exhausted)
    return Refusal(RefusalKind.FINAL, remote)


def _by_index(violations: Iterable[FieldViolation]) -> dict[int, tuple[FieldViolation, ...]]:
    """Violations by the index of their event; those of the request itself are left out."""
    by_index: defaultdict[int, list[FieldViolation]] = defaultdict(list)
    for violation in violations:
        if match := _EVENT_FIELD.fullmatch(violation.field):
            name = match[2] or "event"
            by_index[int(match[1])].append(FieldViolation(name, violation.description))
    return {index: tuple(found) for index, found in by_index.items()}
