"""Exceptions to statuses, on the side of a service: google.rpc.Status with the details that clients read.

Each status has an ErrorInfo; a BadRequest where fields are wrong; a RetryInfo where a retry may help.
Invariant: the details fit the 8 KiB that peers accept in trailing metadata, whatever the exception holds:
beyond, texts are shortened and violations left out, and ErrorInfo.metadata["violations_omitted"] counts them.
(gRPC drops a longer status and reports a resource error in its place, which hides what was wrong.)
The way back is `shared.rpc.remote_error`.
"""

from collections.abc import Iterable, Mapping

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from shared.errors import EventException, FieldViolation
from shared.rpc.reasons import DOMAIN, INTERNAL, Reason, all_reasons, reason_named
from shared.rpc.remote_error import RemoteError, from_rpc_error

__all__ = ["RemoteError", "from_rpc_error", "internal_error", "reason_of", "rich_status", "to_status"]

MESSAGE_BYTES_MAX = 768
METADATA_BYTES_MAX = 1024
VALUE_BYTES_MAX = 256
STATUS_BYTES_MAX = 3584
# The message travels twice: percent-encoded, up to three bytes for one, and in the status, base64-encoded.
assert MESSAGE_BYTES_MAX * 3 + STATUS_BYTES_MAX * 4 // 3 + 512 <= 8192
assert MESSAGE_BYTES_MAX + METADATA_BYTES_MAX + 512 <= STATUS_BYTES_MAX

# Seconds until a retry is worth while, where the exception has no retry_delay_s of its own.
_RETRY_DELAY_S = {"APPEND_QUEUE_FULL": 0.1, "TOO_MANY_REQUESTS": 0.25, "POSITION_NOT_REACHED": 0.1}
_RETRY_DELAY_DEFAULT_S = 1.0


def reason_of(error: EventException) -> Reason:
    """Return the reason of an exception; INTERNAL where the protos do not know it."""
    return reason_named(error.reason) or all_reasons()[INTERNAL]


def internal_error(request_id: str) -> EventException:
    """Return what a caller is told of a fault of ours: nothing but where to find it in the log."""
    return EventException(
        f"the service failed; its log tells why, under request id {request_id}",
        reason=INTERNAL,
        request_id=request_id,
    )


def to_status(error: EventException) -> grpc.Status:
    """Return the status that ends a call: code, message, and trailing metadata with the details."""
    return rpc_status.to_status(rich_status(error))


def rich_status(error: EventException) -> status_pb2.Status:
    """Return the google.rpc.Status of an exception, such as one in the answer of a stream."""
    reason = reason_of(error)
    message = _shortened(str(error), MESSAGE_BYTES_MAX)
    status = status_pb2.Status(code=reason.code.value[0], message=message)
    info = error_details_pb2.ErrorInfo(reason=reason.name, domain=DOMAIN, metadata=_bounded(error.metadata))
    details: list[Message] = []
    if reason.retryable:
        delay_s = getattr(error, "retry_delay_s", None) or _RETRY_DELAY_S.get(reason.name)
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int((delay_s or _RETRY_DELAY_DEFAULT_S) * 1e9))
        details.append(retry)
    if error.violations:
        room = STATUS_BYTES_MAX - 256 - len(message.encode()) - info.ByteSize()
        bad_request = _bad_request(error.violations, room)
        omitted = len(error.violations) - len(bad_request.field_violations)
        if omitted:
            info.metadata["violations_omitted"] = str(omitted)
        details.append(bad_request)
    for detail in (info, *details):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    assert status.ByteSize() <= STATUS_BYTES_MAX, status.ByteSize()
    return status


def _bad_request(violations: Iterable[FieldViolation], bytes_max: int) -> error_details_pb2.BadRequest:
    """Return the first violations, as many as fit."""
    bad_request = error_details_pb2.BadRequest()
    size = 0
    for violation in violations:
        one = error_details_pb2.BadRequest.FieldViolation(
            field=_shortened(violation.field, VALUE_BYTES_MAX),
            description=_shortened(violation.description, VALUE_BYTES_MAX),
        )
        size += one.ByteSize() + 4  # tag and length
        if size > bytes_max:
            break
        bad_request.field_violations.append(one)
    return bad_request


def _bounded(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the first entries, as many as fit, each value shortened."""
    kept: dict[str, str] = {}
    size = 0
    for key, value in metadata.items():
        short_key, short_value = _shortened(key, 64), _shortened(value, VALUE_BYTES_MAX)
        size += len(short_key.encode()) + len(short_value.encode()) + 8
        if size > METADATA_BYTES_MAX:
            break
        kept[short_key] = short_value
    return kept


def _shortened(text: str, bytes_max: int) -> str:
    """Return text that UTF-8 can hold, in at most bytes_max bytes; a cut is marked with an ellipsis."""
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= bytes_max:
        return encoded.decode()
    return encoded[: bytes_max - 3].decode("utf-8", "ignore") + "…"
