"""The reasons of errors, as error_reason.proto annotates them. There is no second table of codes.

A reason is written as in ErrorInfo.reason: the name of an ErrorReason without its prefix ERROR_REASON_.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import grpc
from eventlog.v1 import error_reason_pb2

# ErrorInfo.domain of every error that a service of eventlog gives.
DOMAIN = "eventlog"

INTERNAL = "INTERNAL"

_PREFIX = "ERROR_REASON_"


@dataclass(frozen=True, slots=True)
class Reason:
    """What the protos say of one reason."""

    name: str
    code: grpc.StatusCode
    # Whether the same request may succeed later without a change.
    retryable: bool


@cache
def all_reasons() -> Mapping[str, Reason]:
    """Return every reason that may be sent, by name."""
    found: dict[str, Reason] = {}
    for value in error_reason_pb2.ErrorReason.DESCRIPTOR.values:
        if value.number == error_reason_pb2.ERROR_REASON_UNSPECIFIED:
            continue
        options = value.GetOptions()
        name = value.name.removeprefix(_PREFIX)
        code = grpc.StatusCode[options.Extensions[error_reason_pb2.grpc_code]]
        found[name] = Reason(name, code, retryable=options.Extensions[error_reason_pb2.retryable])
    return MappingProxyType(found)


def reason_named(name: str) -> Reason | None:
    """Return what the protos say of a reason; None where they do not know it."""
    return all_reasons().get(name)
