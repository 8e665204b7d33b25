"""What the requests of subscriptions and of replays have in common, checked. No I/O.

An error is EventValidationException (INVALID_FIELD) and names the field.
"""

from eventlog.v1 import stream_service_pb2

from shared.errors import EventValidationException, FieldViolation
from stream_service.saved_positions import NAME_BYTES_MAX


def check_start(start: stream_service_pb2.StreamStart) -> None:
    """Refuse more than one way to begin."""
    given = [field.name for field, _ in start.ListFields()]
    if len(given) > 1:
        raise invalid("start", f"has {' and '.join(given)}: set one of them")
    if start.checkpoint:
        check_name("start.checkpoint", start.checkpoint)


def check_name(field: str, name: str) -> None:
    """Refuse what cannot be the name of a subscription, a consumer or a saved position."""
    check_text(field, name, NAME_BYTES_MAX)


def check_text(field: str, text: str, bytes_max: int) -> None:
    """Refuse a text that is empty or too long."""
    length = len(text.encode())
    if not 1 <= length <= bytes_max:
        raise invalid(field, f"has {length} bytes; write 1 to {bytes_max}")


def invalid(field: str, problem: str) -> EventValidationException:
    """The error for a wrong field."""
    return EventValidationException(
        f"{field} {problem}", violations=[FieldViolation(field, problem)], reason="INVALID_FIELD"
    )
