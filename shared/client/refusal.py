"""What a failed request means for its events: the words between the wire and the outbox. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from shared.client.submission import HandleT, Submission
from shared.errors import EventException, EventValidationException, FieldViolation


class RefusalKind(Enum):
    """What to do with the events of a request that failed."""

    RETRY = "retry"  # send the same request again, later
    TOO_LARGE = "too large"  # nothing was logged: send smaller requests
    PERHAPS_TOO_LARGE = "perhaps too large"  # a bound was hit that names no reason: smaller, or later
    INVALID = "invalid"  # nothing was logged: the guilty events fail, the others go again
    FINAL = "final"  # nothing was logged, and no repetition would change that


@dataclass(frozen=True, slots=True)
class Refusal:
    """One failed attempt to send a request."""

    kind: RefusalKind
    error: EventException
    # Seconds the server asked to wait before the next attempt.
    retry_after_s: float = 0.0
    # Whether the events may have been logged all the same: the answer was lost or late.
    ambiguous: bool = False
    # INVALID: what is wrong, by the event's index in the request. Field paths begin at the event ("type").
    violations: Mapping[int, tuple[FieldViolation, ...]] = field(default_factory=dict)


def error_of_guilty(refusal: Refusal, submission: Submission[HandleT], first: int) -> EventValidationException | None:
    """Error of a submission whose events begin at index `first` of the refused request; None if innocent.

    The field paths become those that its caller knows: "type" for one event, "events[1].type" in a batch.
    """
    violations: list[FieldViolation] = []
    for index in range(first, first + submission.count):
        prefix = f"events[{index - first}]." if submission.count > 1 else ""
        violations += [
            FieldViolation(prefix + violation.field, violation.description)
            for violation in refusal.violations.get(index, ())
        ]
    if not violations:
        return None
    told = "; ".join(f"{violation.field}: {violation.description}" for violation in violations[:5])
    subject = "the batch" if submission.count > 1 else "the event"
    return EventValidationException(
        f"the ingest service refused {subject}: {told}", violations=violations, reason=refusal.error.reason
    )
