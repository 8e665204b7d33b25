"""Between the outbox and IngestService: requests out, answers and errors in. No I/O."""

import re
from collections import defaultdict

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from eventlog.v1 import error_reason_pb2, ingest_service_pb2
from shared.client.options import Durability
from shared.client.refusal import Refusal, RefusalKind
from shared.client.submission import HandleT, Request
from shared.errors import EventStorageException, FieldViolation
from shared.events.ids import following_event_ids
from shared.rpc.status import from_rpc_error

LOG_BATCH = "/eventlog.v1.IngestService/LogBatch"
FLUSH = "/eventlog.v1.IngestService/Flush"

_DETAILS_KEY = "grpc-status-details-bin"
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
    rest = ingest_service_pb2.LogBatchRequest(
        request_id=request.request_id, durability=_DURABILITIES[durability]
    )
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
    return following_event_ids(response.first_event_id, response.count)


def refusal_of(error: grpc.RpcError) -> Refusal:
    """What a failed call means for the events of its request."""
    code = error.code()
    details = _Details(error)
    known = _retryable(details.reason)
    exception = from_rpc_error(error)
    if details.reason in _INVALID_REASONS:
        return Refusal(RefusalKind.INVALID, exception, violations=details.violations)
    if details.reason == "BATCH_TOO_LARGE":
        return Refusal(RefusalKind.TOO_LARGE, exception)
    exhausted = code is grpc.StatusCode.RESOURCE_EXHAUSTED
    if known is None and exhausted:
        # gRPC itself says so of a message above the server's limit, and of too many calls.
        kind = RefusalKind.PERHAPS_TOO_LARGE
    elif known or (known is None and code in _RETRYABLE_CODES):
        kind = RefusalKind.RETRY
    else:
        kind = RefusalKind.FINAL
    ambiguous = kind is RefusalKind.RETRY and not exhausted
    return Refusal(kind, exception, retry_after_s=details.retry_after_s, ambiguous=ambiguous)


def _retryable(reason: str) -> bool | None:
    """Whether the protos call the reason retryable; None for a reason that they do not know."""
    value = error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name.get(f"ERROR_REASON_{reason}")
    if value is None:
        return None
    return bool(value.GetOptions().Extensions[error_reason_pb2.retryable])


class _Details:
    """Reason, retry delay and violations of an error."""

    def __init__(self, error: grpc.RpcError) -> None:
        self.reason = ""
        self.retry_after_s = 0.0
        by_index: defaultdict[int, list[FieldViolation]] = defaultdict(list)
        for detail in _status_of(error).details:
            info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            bad = error_details_pb2.BadRequest()
            if detail.Unpack(info):
                self.reason = info.reason
            elif detail.Unpack(retry):
                self.retry_after_s = max(retry.retry_delay.ToNanoseconds() / 1e9, 0.0)
            elif detail.Unpack(bad):
                for violation in bad.field_violations:
                    if match := _EVENT_FIELD.fullmatch(violation.field):
                        index, name = int(match[1]), match[2] or "event"
                        by_index[index].append(FieldViolation(name, violation.description))
        self.violations = {index: tuple(found) for index, found in by_index.items()}


def _status_of(error: grpc.RpcError) -> status_pb2.Status:
    """The rich status of an error; an empty one where it has none that can be read."""
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break
    return status_pb2.Status()
