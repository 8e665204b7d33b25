"""Statuses to exceptions, on the side of a client: every failed call becomes an exception of shared.errors.

The reason decides the class, never the text. Invariants: no status, however damaged, makes this raise
anything else; an exception from here is both a RemoteError and of the class that its reason has in the tree:

    try:
        ...
    except StorageUnavailable as error: ...   # by what went wrong
    except RemoteError as error: ...          # anything a call can fail with; has code and retry_delay_s

The way there is `shared.rpc.status`.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType
from typing import cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from shared.errors import (
    BufferFull,
    EventAnalysisException,
    EventException,
    EventFilterException,
    EventStorageException,
    EventStreamException,
    EventValidationException,
    FieldViolation,
    LogCorrupted,
    PositionTrimmed,
    StorageUnavailable,
)
from shared.rpc.reasons import DOMAIN, reason_named

DETAILS_KEY = "grpc-status-details-bin"

# Every reason of the protos; a test holds this complete.
CLASS_BY_REASON: Mapping[str, type[EventException]] = MappingProxyType(
    {
        "MALFORMED_REQUEST": EventValidationException,
        "INVALID_FIELD": EventValidationException,
        "INVALID_EVENT": EventValidationException,
        "BATCH_TOO_LARGE": EventValidationException,
        "EXPECTED_POSITION_MISMATCH": EventStorageException,
        "REQUEST_ID_REUSED": EventValidationException,
        "APPEND_QUEUE_FULL": BufferFull,
        "BUFFER_FULL": BufferFull,
        "STORAGE_UNAVAILABLE": StorageUnavailable,
        "SERVER_DRAINING": EventException,
        "EVENT_NOT_FOUND": EventStorageException,
        "POSITION_TRIMMED": PositionTrimmed,
        "LOG_CORRUPTED": LogCorrupted,
        "POSITION_NOT_REACHED": EventStorageException,
        "INVALID_PAGE_TOKEN": EventValidationException,
        "NOT_IMPLEMENTED": EventException,
        "INTERNAL": EventException,
        "INVALID_FILTER": EventFilterException,
        "TOO_MANY_REQUESTS": EventException,
        "SUBSCRIPTION_NOT_FOUND": EventStreamException,
        "TOO_MANY_SUBSCRIBERS": EventStreamException,
        "POSITION_NOT_DELIVERED": EventStreamException,
        "CHECKPOINT_NOT_FOUND": EventStreamException,
        "ANALYSIS_NOT_FOUND": EventAnalysisException,
        "DEPENDENCY_UNAVAILABLE": EventException,
        "LOG_UNAVAILABLE": StorageUnavailable,
        "FILTER_TOO_LONG": EventFilterException,
        "FILTER_TOO_DEEP": EventFilterException,
        "FILTER_TOO_MANY_COMPARISONS": EventFilterException,
        "FILTER_LIST_TOO_LONG": EventFilterException,
        "FILTER_PATTERN_TOO_LONG": EventFilterException,
        "FILTER_REGEX_TOO_LARGE": EventFilterException,
        "FILTER_PATH_TOO_LONG": EventFilterException,
        "FILTER_NUMBER_OUT_OF_RANGE": EventFilterException,
        "FILTER_DURATION_TOO_LONG": EventFilterException,
        "REPLAY_NOT_FOUND": EventStreamException,
        "SESSION_TOO_LARGE": EventStreamException,
        "CHECKPOINT_DAMAGED": EventStreamException,
        "TOO_MANY_CHECKPOINTS": EventStreamException,
        "SLOW_CONSUMER": EventStreamException,
        "TOO_MANY_SUBSCRIPTIONS": EventStreamException,
        "SUBSCRIPTION_MOVED": EventStreamException,
        "CONSUMER_REPLACED": EventStreamException,
        "ACKNOWLEDGEMENT_OVERDUE": EventStreamException,
    }
)

# Reasons of statuses that came without one: from the network, a proxy, or gRPC itself.
_REASON_BY_CODE = {
    grpc.StatusCode.UNAVAILABLE: "DEPENDENCY_UNAVAILABLE",
    grpc.StatusCode.UNIMPLEMENTED: "NOT_IMPLEMENTED",
}


class RemoteError(EventException):
    """A call failed. `reason` is one of ErrorReason, or the name of `code` where the peer gave none."""

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN
    # Seconds that the service asks to wait before a retry; None where it said nothing.
    retry_delay_s: float | None = None

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later without a change."""
        known = reason_named(self.reason)
        return self.retry_delay_s is not None or (known is not None and known.retryable)


def from_rpc_error(error: grpc.RpcError) -> RemoteError:
    """Return the exception that a failed call stands for, synchronous or asyncio."""
    code = _code_of(error)
    info, retry, bad_request = _details_of(error)
    reason = info.reason if info.domain == DOMAIN and info.reason else _REASON_BY_CODE.get(code, code.name)
    remote_class = _remote_classes()[CLASS_BY_REASON.get(reason, EventException)]
    remote = remote_class(_message_of(error, code), reason=reason)
    remote.metadata = dict(info.metadata)
    remote.code = code
    if retry is not None:
        remote.retry_delay_s = max(retry.retry_delay.ToNanoseconds() / 1e9, 0.0)
    remote.violations = tuple(FieldViolation(each.field, each.description) for each in bad_request.field_violations)
    return remote


@cache
def _remote_classes() -> Mapping[type[EventException], type[RemoteError]]:
    """Return, by class of the tree, the class that is both it and a RemoteError, and has its name."""
    found: dict[type[EventException], type[RemoteError]] = {EventException: RemoteError}
    for base in set(CLASS_BY_REASON.values()) - set(found):
        members = {"__doc__": base.__doc__, "__module__": __name__}
        found[base] = type(base.__name__, (RemoteError, base), members)
    return found


def _code_of(error: grpc.RpcError) -> grpc.StatusCode:
    # A bare RpcError has no code: grpc raises one where a call never began.
    code = error.code() if hasattr(error, "code") else None
    return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN


def _message_of(error: grpc.RpcError, code: grpc.StatusCode) -> str:
    details = error.details() if hasattr(error, "details") else None
    return details or f"the call failed with {code.name}; the peer did not say why"


def _details_of(
    error: grpc.RpcError,
) -> tuple[error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo | None, error_details_pb2.BadRequest]:
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    found_retry: error_details_pb2.RetryInfo | None = None
    try:
        for detail in _status_of(error).details:
            retry = error_details_pb2.RetryInfo()
            if detail.Unpack(retry):
                found_retry = retry
            else:
                detail.Unpack(info) or detail.Unpack(bad_request)
    except DecodeError:
        pass  # a detail that cannot be read is a detail that is not there
    return info, found_retry, bad_request


def _status_of(error: grpc.RpcError) -> status_pb2.Status:
    """Return the google.rpc.Status of an error; an empty one where there is none that can be read."""
    trailing = error.trailing_metadata() if hasattr(error, "trailing_metadata") else None
    for key, value in cast("Iterable[tuple[str, bytes]]", trailing or ()):
        if key == DETAILS_KEY:
            try:
                return status_pb2.Status.FromString(value)
            except (DecodeError, TypeError):
                break
    return status_pb2.Status()
