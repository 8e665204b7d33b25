"""The nouns of the outbox: submissions, the requests they travel in, and the bounds of both."""

from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from shared.errors import EventException

HandleT = TypeVar("HandleT")


class OverflowPolicy(Enum):
    """What happens to an event that comes when the buffer is full."""

    BLOCK = "block"  # the caller waits for space: nothing is lost
    DROP_OLDEST = "drop_oldest"  # the oldest waiting event gives way
    DROP_NEWEST = "drop_newest"  # the new event is dropped
    RAISE = "raise"  # the caller gets BufferFull


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of an outbox. All are at least 1."""

    events_max: int
    bytes_max: int
    request_events_max: int
    request_bytes_max: int
    # Longest that an event waits before it is sent when nobody waits for it.
    flush_interval_s: float
    # How long an event is tried before it fails.
    give_up_after_s: float
    overflow_policy: OverflowPolicy = OverflowPolicy.BLOCK


@dataclass(slots=True, eq=False)
class Submission(Generic[HandleT]):
    """What one call handed over."""

    # The events as the encoded `events` field of a LogBatchRequest.
    fragment: bytes
    count: int
    handle: HandleT
    # Whether somebody waits for it, so that it must not wait for flush_interval.
    urgent: bool = False
    taken_s: float = 0.0


@dataclass(slots=True, eq=False)
class Request(Generic[HandleT]):
    """Submissions that travel together."""

    request_id: str
    submissions: tuple[Submission[HandleT], ...]
    # Attempts that failed, and whether one of them may have logged the events.
    failures: int = 0
    ambiguous: bool = False

    @property
    def count(self) -> int:
        """Number of events."""
        return sum(submission.count for submission in self.submissions)

    @property
    def size(self) -> int:
        """Encoded size of the events in bytes."""
        return sum(len(submission.fragment) for submission in self.submissions)

    @property
    def newest_s(self) -> float:
        """When the last of its submissions was taken in. Those put back keep their time."""
        return self.submissions[-1].taken_s


@dataclass(frozen=True, slots=True)
class Failed(Generic[HandleT]):
    """A submission that left without being acknowledged, and why."""

    submission: Submission[HandleT]
    error: EventException
