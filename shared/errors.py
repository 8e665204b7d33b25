"""The exceptions of eventlog.

    EventException
    ├── EventConfigException        the configuration is wrong
    ├── EventValidationException    an event or a request is wrong: the caller's doing
    ├── EventStorageException       the log cannot be written or read
    │   ├── StorageUnavailable      for now: a retry may help
    │   ├── BufferFull              for now: too much waits to be written
    │   ├── LogLocked               another writer holds the log
    │   ├── LogCorrupted            committed bytes are damaged
    │   ├── PositionTrimmed         the position was removed by retention
    │   └── UnsupportedFormat       the file was written by a newer version
    ├── EventStreamException        streaming
    ├── EventFilterException        filters and queries
    └── EventAnalysisException      analysis

Each carries `reason`, the name of an `ErrorReason` of the protos without its prefix, and `metadata`,
strings that go into `google.rpc.ErrorInfo.metadata`. Clients branch on the reason, never on the text.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field of a request: its path, such as "events[3].type", and what is wrong with it."""

    field: str
    description: str


class EventException(Exception):  # noqa: N818 — the specification names the tree
    """Base of all exceptions of eventlog. `violations` names each wrong field, where it is fields that are wrong."""

    reason: str = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        violations: Sequence[FieldViolation] = (),
        reason: str | None = None,
        **metadata: object,
    ) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason
        self.violations = tuple(violations)
        self.metadata = {key: str(value) for key, value in metadata.items()}


class EventConfigException(EventException):
    """The configuration is wrong; the message says where and what to write instead."""


class EventValidationException(EventException):
    """An event or a request is wrong."""

    reason = "INVALID_EVENT"


def invalid_field(field: str, problem: str) -> EventValidationException:
    """The refusal of a field of a request (INVALID_FIELD). problem: goes on after the field's name."""
    return EventValidationException(
        f"{field} {problem}", violations=[FieldViolation(field, problem)], reason="INVALID_FIELD"
    )


class EventStorageException(EventException):
    """The log cannot be written or read."""


class StorageUnavailable(EventStorageException):
    """The storage fails for now. Nothing was lost; a retry may succeed."""

    reason = "STORAGE_UNAVAILABLE"


class BufferFull(EventStorageException):
    """Too many bytes wait to be written. Try again later."""

    reason = "BUFFER_FULL"


class LogLocked(EventStorageException):
    """Another process writes this log; the message names it."""


class LogCorrupted(EventStorageException):
    """Committed bytes are damaged. `metadata` holds first_position and last_position of the damage."""

    reason = "LOG_CORRUPTED"


class PositionTrimmed(EventStorageException):
    """The position was removed by retention. `metadata` holds first_position, the oldest kept."""

    reason = "POSITION_TRIMMED"


class UnsupportedFormat(EventStorageException):
    """The file was written by a newer version of eventlog."""


class EventStreamException(EventException):
    """Streaming failed."""


class EventFilterException(EventException):
    """A filter or query is wrong or failed."""

    reason = "INVALID_FILTER"


class EventAnalysisException(EventException):
    """An analysis failed."""
