"""Drives an outbox on behalf of a logger: everything that its threaded and its asyncio form share. No I/O.

Both forms wait in their own way, send in their own way, and call the methods here in between. Not thread-safe:
the threaded form holds its lock around each call. What is to be told to waiting callers comes back as a
Settlement, to be told outside of that lock, because it runs their code.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
from eventlog.v1 import ingest_service_pb2

from shared.client.acknowledgement import Acknowledgement, LossReporter, resolve_all
from shared.client.options import LoggerOptions
from shared.client.outbox import Outbox, Verdict
from shared.client.refusal import Refusal, RefusalKind
from shared.client.statistics import ClientStatistics
from shared.client.submission import Failed, Limits, Request, Submission
from shared.client.wire import encode_request, ids_of, refusal_of
from shared.clock import Clock
from shared.errors import BufferFull, EventException, EventStorageException, StorageUnavailable

AckRequest = Request[Acknowledgement]
AckSubmission = Submission[Acknowledgement]

# The last attempt before giving up gets at least this long.
ATTEMPT_S_MIN = 1.0


@dataclass(slots=True)
class Settlement:
    """What became of some submissions."""

    reporter: LossReporter
    failed: list[Failed[Acknowledgement]] = field(default_factory=list)
    logged: AckRequest | None = None
    ids: list[str] = field(default_factory=list)
    told: bool = False

    def tell(self) -> None:
        """Tell those who wait. Runs the callbacks of their futures."""
        if self.logged is not None:
            resolve_all(self.logged, self.ids)
        self.reporter.fail_all(self.failed)
        self.told = True

    def submissions(self) -> list[AckSubmission]:
        """What is settled by it."""
        logged = self.logged.submissions if self.logged is not None else ()
        return [*logged, *(each.submission for each in self.failed)]


class OutboxDriver:
    """See the module."""

    def __init__(self, limits: Limits, options: LoggerOptions, clock: Clock, new_request_id: Callable[[], str]) -> None:
        self._options = options
        self._clock = clock
        self._outbox: Outbox[Acknowledgement] = Outbox(limits, options.back_off, new_request_id)
        self._reporter = LossReporter(clock, options.on_lost)
        self._under_way: AckRequest | None = None
        self._untold: list[Settlement] = []
        self._closed: EventException | None = None
        # Until when the sender sleeps; None where it sleeps until it is woken.
        self._sleeps_until_s: float | None = None

    # What producers do.

    def offer(self, submission: AckSubmission) -> Settlement | None:
        """Hand over events. None means: wait until there is space, then offer again.

        Raises BufferFull (policy RAISE), and EventStorageException where the logger is closed.
        """
        if self._closed is not None:
            raise self._closed
        limits = self._outbox.limits
        verdict, failed = self._outbox.offer(submission, self._clock.monotonic_s())
        if verdict is Verdict.WAIT:
            return None
        if verdict is Verdict.RAISE:
            raise BufferFull(_full(limits) + " (policy RAISE); log later, or raise logging.buffer_size")
        if verdict is Verdict.DROPPED:
            why = _full(limits) + " (policy DROP_NEWEST); raise logging.buffer_size, or choose BLOCK"
            failed = [Failed(submission, BufferFull("dropped because " + why))]
        return self._settlement(failed)

    def urge(self) -> list[AckSubmission]:
        """Make everything that waits due now. Returns what nobody has been told about yet."""
        untold = [each for settlement in self._untold if not settlement.told for each in settlement.submissions()]
        return untold + self._outbox.urge()

    def should_wake_sender(self) -> bool:
        """Whether something is due before the sender would wake by itself."""
        due_s = self._outbox.due_s()
        return due_s is not None and (self._sleeps_until_s is None or due_s < self._sleeps_until_s)

    def close(self) -> None:
        """Take nothing more in, and make what waits due now."""
        if self._closed is None:
            self._closed = EventStorageException("the logger is closed; make a new one")
        self._outbox.urge()

    def abandon(self, why: str) -> Settlement:
        """Take nothing more in, and fail everything that is not settled."""
        self._closed = self._closed or EventStorageException(f"the logger is closed: {why}; make a new one")
        self._under_way = None
        error = StorageUnavailable(f"{why}; the event may have been logged all the same")
        return self._settlement(self._outbox.abandon(error))

    # What the sender does.

    def next_request(self) -> tuple[AckRequest | None, Settlement]:
        """Request to send now, None where nothing is due; and what waited too long."""
        now_s = self._clock.monotonic_s()
        failed = self._outbox.expired(now_s)
        self._under_way = self._outbox.take(now_s)
        return self._under_way, self._settlement(failed)

    def wait_s(self) -> float | None:
        """Seconds until next_request() has something; None where it needs an offer first. Asked before sleeping."""
        due_s = self._sleeps_until_s = self._outbox.due_s()
        return None if due_s is None else max(due_s - self._clock.monotonic_s(), 0.0)

    def encode(self, request: AckRequest) -> tuple[bytes, float]:
        """The request's bytes, and the seconds that this attempt may take."""
        left_s = self._options.give_up_after_s - (self._clock.monotonic_s() - request.newest_s)
        timeout_s = min(self._options.request_timeout_s, max(left_s, ATTEMPT_S_MIN))
        return encode_request(request, self._options.durability), timeout_s

    def answered(self, request: AckRequest, response: ingest_service_pb2.LogBatchResponse) -> Settlement:
        """The request is acknowledged."""
        if request is not self._under_way:  # abandoned meanwhile
            return self._settlement([])
        self._under_way = None
        ids = ids_of(response, request)
        if isinstance(ids, EventException):
            refusal = Refusal(RefusalKind.FINAL, ids)
            return self._settlement(self._outbox.refused(request, refusal, self._clock.monotonic_s()))
        self._outbox.acknowledged(request, duplicate=response.duplicate)
        return self._settlement([], request, ids)

    def refused(self, request: AckRequest, error: grpc.RpcError) -> Settlement:
        """The attempt failed."""
        if request is not self._under_way:
            return self._settlement([])
        self._under_way = None
        return self._settlement(self._outbox.refused(request, refusal_of(error), self._clock.monotonic_s()))

    # What anybody may ask.

    @property
    def finished(self) -> bool:
        """Whether nothing is taken in any more and all is settled."""
        return self._closed is not None and self._outbox.empty

    @property
    def closed(self) -> bool:
        """Whether nothing more is taken in."""
        return self._closed is not None

    def statistics(self) -> ClientStatistics:
        """What happened so far."""
        return self._outbox.statistics()

    def report_rest(self) -> None:
        """Warn of the losses that came too soon after the last warning."""
        self._reporter.report_rest()

    def _settlement(
        self,
        failed: list[Failed[Acknowledgement]],
        logged: AckRequest | None = None,
        ids: list[str] | None = None,
    ) -> Settlement:
        settlement = Settlement(self._reporter, failed, logged, ids or [])
        if failed or logged is not None:
            self._untold = [each for each in self._untold if not each.told]
            self._untold.append(settlement)
        return settlement


def _full(limits: Limits) -> str:
    return f"{limits.events_max} events or {limits.bytes_max} bytes are waiting to be sent"


def not_flushed(timeout_s: float | None, pending: list[AckSubmission]) -> StorageUnavailable:
    """The error of a flush that ran out of time."""
    left = sum(each.count for each in pending if not each.handle.future.done())
    return StorageUnavailable(
        f"{left} events were not acknowledged within {timeout_s:g} s; they are still being sent: flush again, "
        "or see statistics()"
    )


def first_failure(pending: list[AckSubmission]) -> BaseException | None:
    """The first error among submissions that are all settled."""
    for each in pending:
        error = each.handle.future.exception()
        if error is not None:
            return error
    return None
