"""The events that wait to be sent: a first-in first-out queue of submissions, bounded and counted. Pure."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic

from shared.client.submission import HandleT, Limits, Submission


@dataclass(slots=True)
class EventBuffer(Generic[HandleT]):
    """Submissions in the order in which they were taken in. It does not decide what to do when full."""

    limits: Limits
    _waiting: deque[Submission[HandleT]] = field(default_factory=deque)
    _events: int = 0
    _bytes: int = 0
    _urgent: int = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def events(self) -> int:
        """Events that wait."""
        return self._events

    @property
    def bytes(self) -> int:
        """Their encoded size."""
        return self._bytes

    @property
    def full(self) -> bool:
        """Whether a bound is reached."""
        return self._events >= self.limits.events_max or self._bytes >= self.limits.bytes_max

    def push(self, submission: Submission[HandleT]) -> None:
        """Add at the end."""
        self._waiting.append(submission)
        self._count(submission, 1)

    def put_back(self, submissions: Iterable[Submission[HandleT]]) -> None:
        """Add at the front, in their order, and due at once: they have waited already."""
        for submission in reversed(list(submissions)):
            submission.urgent = True
            self._waiting.appendleft(submission)
            self._count(submission, 1)

    def pop(self) -> Submission[HandleT]:
        """Remove the oldest. The buffer must not be empty."""
        submission = self._waiting.popleft()
        self._count(submission, -1)
        return submission

    def pop_request(self, bytes_max: int) -> tuple[Submission[HandleT], ...]:
        """Remove the oldest ones that fit into one request of bytes_max; at least one."""
        chosen = [self.pop()]
        count, size = chosen[0].count, len(chosen[0].fragment)
        while self._waiting:
            count += self._waiting[0].count
            size += len(self._waiting[0].fragment)
            if count > self.limits.request_events_max or size > bytes_max:
                break
            chosen.append(self.pop())
        return tuple(chosen)

    def urge(self) -> list[Submission[HandleT]]:
        """Make all due now; returns them, oldest first."""
        for submission in self._waiting:
            submission.urgent = True
        self._urgent = len(self._waiting)
        return list(self._waiting)

    def oldest_taken_s(self) -> float | None:
        """When the oldest was taken in; None if nothing waits."""
        return self._waiting[0].taken_s if self._waiting else None

    def due_s(self, request_bytes_max: int) -> float | None:
        """When the next request is due: at once if somebody waits or one is full. None if nothing waits."""
        if not self._waiting:
            return None
        at_once = (
            self._urgent > 0
            or self._events >= self.limits.request_events_max
            or self._bytes >= request_bytes_max
            or self.full
        )
        return self._waiting[0].taken_s + (0.0 if at_once else self.limits.flush_interval_s)

    def _count(self, submission: Submission[HandleT], sign: int) -> None:
        self._events += sign * submission.count
        self._bytes += sign * len(submission.fragment)
        self._urgent += sign * submission.urgent
