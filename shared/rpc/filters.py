"""The EventFilters of a request as the tree of a filter.

Times keep their nanoseconds, which the model's datetimes would lose.
"""

from eventlog.v1 import event_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from shared.errors import EventFilterException, EventValidationException, FieldViolation
from shared.filters.structured import parts_to_tree
from shared.filters.tree import Tree

_NANOS_PER_SECOND = 1_000_000_000


def tree_of(filters: event_pb2.EventFilters, *, field: str = "filters") -> Tree:
    """Return the tree of a structured filter; an empty one holds for every event.

    field: path of the message in its request. Errors name the wrong part below it, such as filters.type_patterns[3],
    in their violations and as `field` in their metadata: EventFilterException, whose metadata `shared.filters.problems`
    describes, and EventValidationException (INVALID_FIELD) for a time out of range.
    """
    time_range = filters.time_range
    start_ns = nanoseconds(time_range.start, f"{field}.time_range.start") if time_range.HasField("start") else None
    end_ns = nanoseconds(time_range.end, f"{field}.time_range.end") if time_range.HasField("end") else None
    try:
        return parts_to_tree(
            type_patterns=filters.type_patterns,
            start_ns=start_ns,
            end_ns=end_ns,
            sources=filters.sources,
            correlation_ids=filters.correlation_ids,
            content_patterns=filters.content_patterns,
            expression=filters.expression,
        )
    except EventFilterException as error:
        raise _in_request(error, field) from error


def nanoseconds(time: Timestamp, field: str) -> int:
    """Return a time in nanoseconds since the epoch. Raises EventValidationException (INVALID_FIELD)."""
    found = time.seconds * _NANOS_PER_SECOND + time.nanos
    if not -(2**63) <= found < 2**63 or not 0 <= time.nanos < _NANOS_PER_SECOND:
        problem = "must lie between 1677-09-22 and 2262-04-11, with nanos from 0 to 999999999"
        raise EventValidationException(
            f"{field} {problem}", violations=[FieldViolation(field, problem)], reason="INVALID_FIELD"
        )
    return found


def _in_request(error: EventFilterException, field: str) -> EventFilterException:
    """Return the error with the path of its part in the request."""
    part = error.metadata.get("field")
    path = f"{field}.{part}" if part else field
    problem = str(error).removeprefix(f"{part}: ")
    return EventFilterException(
        f"{path}: {problem}",
        reason=error.reason,
        violations=[FieldViolation(path, problem)],
        **error.metadata | {"field": path},
    )
