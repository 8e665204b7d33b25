"""The outbox: which request goes next, and what a failure does to its events. Pure: no I/O, no clock.

One outbox belongs to one logger. A *submission* is what one call handed over: one event, or the events of
one log_batch; its events always travel in one request, so they are committed together or not at all.

Invariants
  - Each submission that was taken in leaves exactly once: acknowledged, failed or dropped.
  - Submissions leave towards the server in the order in which they were taken in, and at most one request is
    under way: so no retry can put one event behind a later one.
  - A request that may have been logged is only ever repeated unchanged under its request id, so nothing is
    logged twice.
  - What waits is bounded: once `events_max` or `bytes_max` is reached nothing is taken in. The last one taken
    in may exceed the bound by its own size, and what a refused request puts back by the size of a request.

Not thread-safe: whoever drives it holds a lock or lives in one event loop. It does not make events, does not
talk to a server and does not tell anybody: it returns what became of each submission.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic

from shared.client.back_off import BackOff
from shared.client.event_buffer import EventBuffer
from shared.client.refusal import Refusal, RefusalKind, error_of_guilty
from shared.client.statistics import ClientStatistics
from shared.client.submission import Failed, HandleT, Limits, OverflowPolicy, Request, Submission
from shared.errors import BufferFull, EventException, StorageUnavailable


@dataclass(slots=True)
class _Counters:
    logged: int = 0
    failed: int = 0
    dropped: int = 0
    requests: int = 0
    retries: int = 0
    duplicates: int = 0


class Verdict(Enum):
    """What became of an offer."""

    TAKEN = "taken"
    WAIT = "wait"  # BLOCK: offer again when there is space
    DROPPED = "dropped"  # DROP_NEWEST: the offered submission is gone
    RAISE = "raise"  # RAISE: tell the caller


@dataclass(slots=True)
class Outbox(Generic[HandleT]):
    """See the module."""

    limits: Limits
    back_off: BackOff
    new_request_id: Callable[[], str]
    _buffer: EventBuffer[HandleT] = field(init=False)
    _under_way: Request[HandleT] | None = None
    # When the request under way may be sent again; None while its answer is awaited.
    _retry_s: float | None = None
    # The last answer, where it was a failure that a retry may mend.
    _failing: EventException | None = None
    # Shrinks when the server finds requests too large.
    _request_bytes_max: int = field(init=False)
    _counters: _Counters = field(default_factory=_Counters)

    def __post_init__(self) -> None:
        self._buffer = EventBuffer(self.limits)
        self._request_bytes_max = self.limits.request_bytes_max

    # What producers do.

    def offer(self, submission: Submission[HandleT], now_s: float) -> tuple[Verdict, list[Failed[HandleT]]]:
        """Take a submission in, or say why not; also returns what had to give way (DROP_OLDEST)."""
        dropped: list[Failed[HandleT]] = []
        if self.full:
            policy = self.limits.overflow_policy
            if policy is OverflowPolicy.BLOCK:
                return Verdict.WAIT, dropped
            if policy is OverflowPolicy.RAISE:
                return Verdict.RAISE, dropped
            if policy is OverflowPolicy.DROP_NEWEST:
                self._counters.dropped += submission.count
                return Verdict.DROPPED, dropped
            while self.full:
                dropped.append(self._drop_oldest())
        submission.taken_s = now_s
        self._buffer.push(submission)
        return Verdict.TAKEN, dropped

    def urge(self) -> list[Submission[HandleT]]:
        """Make everything that waits due now. Returns what waits and what is under way, oldest first."""
        return [*(self._under_way.submissions if self._under_way else ()), *self._buffer.urge()]

    # What the sender does.

    def take(self, now_s: float) -> Request[HandleT] | None:
        """Request to send now, None where nothing is due. It stays under way until its outcome is told."""
        if self._under_way is not None:
            if self._retry_s is None or now_s < self._retry_s:
                return None
            self._retry_s = None
            self._counters.retries += 1
            return self._under_way
        due_s = self._buffer.due_s(self._request_bytes_max)
        if due_s is None or now_s < due_s:
            return None
        chosen = self._buffer.pop_request(self._request_bytes_max)
        self._under_way = Request(self.new_request_id(), chosen)
        self._counters.requests += 1
        return self._under_way

    def due_s(self) -> float | None:
        """When take() has something; None where it has nothing before the next offer or outcome."""
        if self._under_way is not None:
            return self._retry_s
        return self._buffer.due_s(self._request_bytes_max)

    def acknowledged(self, request: Request[HandleT], *, duplicate: bool) -> None:
        """The request is logged."""
        self._finish(request)
        self._failing = None
        self._counters.logged += request.count
        if duplicate:
            self._counters.duplicates += request.count

    def refused(self, request: Request[HandleT], refusal: Refusal, now_s: float) -> list[Failed[HandleT]]:
        """The request failed. Returns the submissions that fail with it; the others go on."""
        assert request is self._under_way, request.request_id
        request.failures += 1
        request.ambiguous |= refusal.ambiguous
        kind = refusal.kind
        if kind is RefusalKind.PERHAPS_TOO_LARGE:
            divisible = len(request.submissions) > 1 and not request.ambiguous
            kind = RefusalKind.TOO_LARGE if divisible else RefusalKind.RETRY
        if kind is RefusalKind.RETRY:
            return self._retry_or_give_up(request, refusal, now_s)
        self._finish(request)
        self._failing = None
        if kind is RefusalKind.TOO_LARGE and len(request.submissions) > 1:
            self._request_bytes_max = max(request.size // 2, 1)
            self._buffer.put_back(request.submissions)
            return []
        if kind is RefusalKind.INVALID and refusal.violations:
            return self._fail_guilty(request, refusal)
        return self._fail(request.submissions, refusal.error)

    def expired(self, now_s: float) -> list[Failed[HandleT]]:
        """Submissions that waited too long behind a server that fails. They were never sent."""
        failed: list[Failed[HandleT]] = []
        if self._failing is None or self._under_way is not None:
            return failed
        while (oldest_s := self._buffer.oldest_taken_s()) is not None:
            if now_s - oldest_s < self.limits.give_up_after_s:
                break
            error = StorageUnavailable(
                f"not sent within {self.limits.give_up_after_s:g} s because the ingest service fails, "
                f"and so not logged: {self._failing}"
            )
            failed += self._fail([self._buffer.pop()], error)
        return failed

    def abandon(self, error: EventException) -> list[Failed[HandleT]]:
        """Give up everything that waits or is under way."""
        left: list[Submission[HandleT]] = []
        if self._under_way is not None:
            left += self._under_way.submissions
            self._finish(self._under_way)
        while self._buffer:
            left.append(self._buffer.pop())
        return self._fail(left, error)

    # What anybody may ask.

    @property
    def full(self) -> bool:
        """Whether nothing more is taken in."""
        return self._buffer.full

    @property
    def empty(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not self._buffer and self._under_way is None

    def statistics(self) -> ClientStatistics:
        """What happened so far."""
        counters = self._counters
        return ClientStatistics(
            logged_events=counters.logged,
            failed_events=counters.failed,
            dropped_events=counters.dropped,
            duplicate_events=counters.duplicates,
            requests=counters.requests,
            retries=counters.retries,
            waiting_events=self._buffer.events,
            waiting_bytes=self._buffer.bytes,
            under_way_events=self._under_way.count if self._under_way else 0,
        )

    # How it is done.

    def _retry_or_give_up(self, request: Request[HandleT], refusal: Refusal, now_s: float) -> list[Failed[HandleT]]:
        self._failing = refusal.error
        retry_s = now_s + self.back_off.delay_s(request.failures, at_least_s=refusal.retry_after_s)
        if retry_s - request.newest_s < self.limits.give_up_after_s:
            self._retry_s = retry_s
            return []
        self._finish(request)
        may = "they may have been logged all the same" if request.ambiguous else "they were not logged"
        error = StorageUnavailable(
            f"gave up after {request.failures} attempts to send {request.count} events as request "
            f"{request.request_id}; {may}: {refusal.error}",
            reason=refusal.error.reason,
            request_id=request.request_id,
        )
        return self._fail(request.submissions, error)

    def _fail_guilty(self, request: Request[HandleT], refusal: Refusal) -> list[Failed[HandleT]]:
        failed: list[Failed[HandleT]] = []
        innocent: list[Submission[HandleT]] = []
        first = 0
        for submission in request.submissions:
            error = error_of_guilty(refusal, submission, first)
            first += submission.count
            if error is None:
                innocent.append(submission)
            else:
                failed += self._fail([submission], error)
        if not failed:  # the indices lie outside of the request: nobody can be found innocent
            return self._fail(request.submissions, refusal.error)
        self._buffer.put_back(innocent)
        return failed

    def _fail(self, submissions: Iterable[Submission[HandleT]], error: EventException) -> list[Failed[HandleT]]:
        failed = [Failed(submission, error) for submission in submissions]
        self._counters.failed += sum(each.submission.count for each in failed)
        return failed

    def _finish(self, request: Request[HandleT]) -> None:
        assert request is self._under_way, request.request_id
        self._under_way = None
        self._retry_s = None

    def _drop_oldest(self) -> Failed[HandleT]:
        submission = self._buffer.pop()
        self._counters.dropped += submission.count
        error = BufferFull(
            f"dropped because {self.limits.events_max} events or {self.limits.bytes_max} bytes were waiting "
            "(policy DROP_OLDEST); raise logging.buffer_size, or choose BLOCK"
        )
        return Failed(submission, error)
