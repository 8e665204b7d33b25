"""What is charged is what waits, and every request is answered once, whatever happens to it."""

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ingest_service.commit_queue import CommitQueue, GroupCommitLimits, Signal
from ingest_service.frame_builder import Built
from ingest_service.pending import Acknowledgement, Outcome, PendingFrame, PendingRequest
from ingest_service.refusals import internal_fault
from shared.columns.wire import RequestHead
from shared.errors import BufferFull, StorageUnavailable
from shared.log.frame import SerializedFrame
from shared.log.types import Nanoseconds, Position, PositionRange
from tests.support.fake_clock import FakeClock
from tests.support.log_requests import pending

_LIMITS = GroupCommitLimits(frame_bytes_max=150_000, buffered_bytes_max=400_000)
_FATES = st.sampled_from(["framed", "framed", "refused", "repeated", "repeated of this frame", "abandoned"])


def _request(size: int, *, durable: bool) -> PendingRequest:
    request = pending(b"", durable=durable)
    request.body = bytes(size)
    request.head = RequestHead(1, "", 0, None)
    return request


def _serialized(first: int, count: int) -> SerializedFrame:
    return SerializedFrame(PositionRange(Position(first), Position(first + count - 1)), Nanoseconds(0), 0, b"")


@dataclass
class _Model:
    """What waits where, and who was answered what."""

    intake: list[PendingRequest] = field(default_factory=list)
    group: list[PendingRequest] | None = None
    group_cost: int = 0
    frames: list[PendingFrame] = field(default_factory=list)
    repeats: list[PendingRequest] = field(default_factory=list)
    answered: dict[int, int] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)
    taken: list[PendingRequest] = field(default_factory=list)

    @property
    def charged(self) -> int:
        """Bytes of all that waits."""
        waiting = sum(request.cost for request in [*self.intake, *self.repeats])
        return waiting + self.group_cost + sum(frame.cost for frame in self.frames)


class CommitQueueMachine(RuleBasedStateMachine):
    """Every interleaving of the three threads, one call at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = CommitQueue(FakeClock(), _LIMITS, last_position=Position(0))
        self.model = _Model()
        self.last = 0
        self.failing = False

    @rule(size=st.sampled_from([0, 100, 40_000, 200_000, 500_000]), durable=st.booleans())
    def submit(self, size: int, *, durable: bool) -> None:
        """Take a request, or refuse it where it does not fit beside what waits."""
        request = _request(size, durable=durable)
        fits = not self.model.charged or self.model.charged + request.cost <= _LIMITS.buffered_bytes_max
        if fits:
            self.queue.submit(request)
            self.model.intake.append(request)
            self.model.taken.append(request)
            return
        with pytest.raises(BufferFull) as caught:
            self.queue.submit(request)
        assert caught.value.reason == ("BUFFER_FULL" if self.failing else "APPEND_QUEUE_FULL")

    @precondition(lambda self: self.model.group is None and self.model.intake and self.queue._may_prepare())
    @rule()
    def take_group(self) -> None:
        """Requests leave in order, together no larger than a frame may be."""
        group = self.queue.take_group()
        assert group
        assert group == self.model.intake[: len(group)]
        assert len(group) == 1 or sum(len(request.body) for request in group) <= _LIMITS.frame_bytes_max
        del self.model.intake[: len(group)]
        self.model.group = group
        self.model.group_cost = sum(request.cost for request in group)

    @precondition(lambda self: self.model.group is not None)
    @rule(data=st.data())
    def accept(self, data: st.DataObject) -> None:
        """Any fate of the requests of a group."""
        group, self.model.group, self.model.group_cost = self.model.group or [], None, 0
        built = Built()
        waiting: list[tuple[PendingRequest, Acknowledgement]] = []
        first = self.last + 1
        for request in group:
            fate = data.draw(_FATES)
            if fate == "framed":
                self.last += 1
                waiting.append((request, self._ack(self.last, request)))
            elif fate == "refused":
                built.refused.append((request, internal_fault()))
            elif fate == "abandoned":
                request.abandoned = True
                self.model.dropped.add(id(request))
            elif self.last:
                position = self.last if fate == "repeated of this frame" else data.draw(st.integers(1, self.last))
                built.repeated.append((request, self._ack(position, request)))
            else:
                built.refused.append((request, internal_fault()))
        if waiting:
            cost = sum(request.cost for request, _ in waiting)
            built.frame = PendingFrame(_serialized(first, len(waiting)), cost, waiting)
            self.model.frames.append(built.frame)
        committed = self.queue.status().committed_position
        outcomes, _ = self.queue.accept([built], group)
        self.model.repeats += [
            request for request, ack in built.repeated if request.durable and ack.positions.last > committed
        ]
        self._answer(outcomes)

    @precondition(lambda self: self.model.frames)
    @rule()
    def finish(self) -> None:
        """The oldest frame is synced; those who wait for it, and only those, are answered."""
        work = self.queue.next_work()
        assert work is self.model.frames[0]
        frame = self.model.frames.pop(0)
        outcomes, failed = self.queue.finish(frame)
        assert failed == self.failing
        self.failing = False
        answered = [request for request, _ in outcomes]
        assert all(request.durable for request in answered)
        assert {id(request) for request, _ in frame.waiting if request.durable} <= {id(each) for each in answered}
        self.model.repeats = [request for request in self.model.repeats if request not in answered]
        self._answer(outcomes)

    @precondition(lambda self: self.model.frames)
    @rule()
    def fail(self) -> None:
        """The oldest frame cannot be appended."""
        assert self.queue.note_failure(StorageUnavailable("no")) is not self.failing
        self.failing = True
        self.model.dropped |= {id(request) for request in self.model.repeats if request.abandoned}
        self.model.repeats = [request for request in self.model.repeats if not request.abandoned]

    @precondition(lambda self: self.model.repeats)
    @rule(data=st.data())
    def lose_patience(self, data: st.DataObject) -> None:
        """Whoever repeated a request waits no longer."""
        data.draw(st.sampled_from(self.model.repeats)).abandoned = True

    @invariant()
    def charged_is_what_waits(self) -> None:
        """The books are right at any moment."""
        status = self.queue.status()
        assert status.buffered_bytes == self.model.charged
        assert status.last_position == self.last
        assert (status.storage_error is not None) == self.failing

    def teardown(self) -> None:
        """At the end nothing is charged, and everybody was answered once."""
        if self.model.group is not None:
            self._answer(self.queue.accept([], self.model.group)[0])
            self.model.dropped |= {id(request) for request in self.model.group}
        self.queue.close(0)
        assert self.queue.next_work() is Signal.END
        assert self.queue.take_group() is None
        left = self.queue.take_abandoned()
        assert self.queue.status().buffered_bytes == 0
        for request in left:
            # A buffered request of a frame had its answer from memory.
            self.model.answered.setdefault(id(request), 1)
        waited = [request for request in self.model.taken if id(request) not in self.model.dropped]
        assert [self.model.answered.get(id(request), 0) for request in waited] == [1] * len(waited)

    def _ack(self, position: int, request: PendingRequest) -> Acknowledgement:
        return Acknowledgement(PositionRange(Position(position), Position(position)), Nanoseconds(0), request.durable)

    def _answer(self, outcomes: list[Outcome]) -> None:
        for request, outcome in outcomes:
            self.model.answered[id(request)] = self.model.answered.get(id(request), 0) + 1
            if isinstance(outcome, Acknowledgement) and outcome.durable:
                assert outcome.positions.last <= self.queue.status().committed_position


CommitQueueMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30)
test_commit_queue = CommitQueueMachine.TestCase
