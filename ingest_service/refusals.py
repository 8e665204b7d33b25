"""Why a request that was well-formed is not answered with positions."""

from shared.errors import EventException, StorageUnavailable


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
