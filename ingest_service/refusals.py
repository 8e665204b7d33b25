"""Why a request that was well-formed is not answered with positions."""

from collections.abc import Sequence

from shared.errors import EventException, EventValidationException, FieldViolation, StorageUnavailable

# A refused request names this many wrong fields and says how many more there are.
VIOLATIONS_MAX = 20


def draining() -> StorageUnavailable:
    """The error for requests that come while the service shuts down."""
    return StorageUnavailable(
        "the service is shutting down: retry, another instance may answer", reason="SERVER_DRAINING"
    )


def unavailable(error: EventException | None) -> StorageUnavailable:
    """The error for a request whose events were not synced in time; error is what the storage said, if it fails."""
    because = f": {error}" if error else ""
    return StorageUnavailable(
        f"not synced in time{because}. The events may still be committed: retry with the same request id"
    )


def internal_fault() -> EventException:
    """The error for a request that met a bug of ours; what it was stands in the service's log."""
    return EventException("the request could not be logged because of a fault in the service", reason="INTERNAL")


def invalid_events(found: Sequence[FieldViolation]) -> EventValidationException:
    """The error for a request with wrong events; found are all of their wrong fields, at least one."""
    first = found[0]
    others = f" (and {len(found) - 1} more wrong fields)" if len(found) > 1 else ""
    message = f"nothing was logged: {first.field} {first.description}{others}"
    error = EventValidationException(message, violations=found[:VIOLATIONS_MAX])
    if len(found) > VIOLATIONS_MAX:
        error.metadata["violations_left_out"] = str(len(found) - VIOLATIONS_MAX)
    return error
