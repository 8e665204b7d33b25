"""From a group of waiting requests to one frame: who is in it, at which positions.

Invariants: positions are given in the order in which requests came, without a gap, and only to a
frame that was serialized; a request is in one frame, whole, or in none; what one request does wrong
changes nothing for the others.

Not safe for several threads; the preparing thread owns it.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from ingest_service.enrichment import Enricher, Proposed
from ingest_service.pending import Acknowledgement, Outcome, PendingFrame, PendingRequest
from ingest_service.request_memory import RequestMemory
from shared.clock import Clock
from shared.errors import EventException, EventStorageException, EventValidationException
from shared.log.frame import Frame, RequestMark, serialize_frame
from shared.log.recovery import RememberedRequest
from shared.log.types import Nanoseconds, Position, PositionRange

# Time servers set clocks back by less, all the time.
_BEHIND_TOLD_NS = 1_000_000_000

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Built:
    """What became of a group: a frame unless nothing is to be logged, refusals, and repeats of known requests."""

    frame: PendingFrame | None = None
    refused: list[Outcome] = field(default_factory=list)
    repeated: list[tuple[PendingRequest, Acknowledgement]] = field(default_factory=list)


@dataclass(slots=True)
class _Placement:
    """Requests placed so far in the frame being built. `streams` are those of which a request was refused."""

    proposed: Proposed
    recorded_at: Nanoseconds
    next_position: Position
    streams: set[int]
    built: Built = field(default_factory=Built)
    rows: list[tuple[int, int]] = field(default_factory=list)
    waiting: list[tuple[PendingRequest, Acknowledgement]] = field(default_factory=list)
    named: dict[str, RememberedRequest] = field(default_factory=dict)
    marks: list[RequestMark] = field(default_factory=list)
    row: int = 0


class FrameBuilder:
    """Gives positions to requests."""

    def __init__(
        self,
        enricher: Enricher,
        memory: RequestMemory,
        clock: Clock,
        *,
        last_position: Position,
        recorded_at: Nanoseconds,
    ) -> None:
        """Continue after last_position, whose event was recorded at recorded_at."""
        self._enricher = enricher
        self._memory = memory
        self._clock = clock
        self.last_position = last_position
        self._recorded_at = recorded_at
        self._is_behind = False

    def build(self, requests: Sequence[PendingRequest]) -> Built:
        """Build one frame of the requests. Raises only on a bug, and then nothing has changed."""
        recorded_at = self._recorded_now()
        proposed = self._enricher.propose([request.body for request in requests], recorded_at)
        failed = {id(request.stream) for request in requests if request.stream is not None and request.stream.failed}
        placement = _Placement(proposed, recorded_at, Position(self.last_position + 1), failed)
        for index, request in enumerate(requests):
            try:
                self._place(index, request, placement)
            except EventException as error:
                placement.built.refused.append((request, error))
                if request.stream is not None:
                    placement.streams.add(id(request.stream))
        if placement.waiting:
            placement.built.frame = self._frame(placement)
            self._recorded_at = recorded_at
            self.last_position = Position(placement.next_position - 1)
            now_s = self._clock.monotonic_s()
            self._memory.remember(placement.named.values(), now_s)
            self._memory.forget_expired(now_s)
        for request, _ in placement.built.refused:
            if request.stream is not None:
                request.stream.failed = True
        return placement.built

    def _recorded_now(self) -> Nanoseconds:
        """The time of day, or that of the newest event where the clock was set back behind it."""
        now = self._clock.now_ns()
        is_behind = now < self._recorded_at - _BEHIND_TOLD_NS
        if is_behind and not self._is_behind:
            seconds = (self._recorded_at - now) / 1e9
            _log.warning("the clock is behind the newest event, whose time is given on", extra={"seconds": seconds})
        self._is_behind = is_behind
        return Nanoseconds(max(now, self._recorded_at))

    def _place(self, index: int, request: PendingRequest, placement: _Placement) -> None:
        """Give a request its positions, or recognise it as a repeated one. Raises what refuses it."""
        if id(request.stream) in placement.streams:
            raise _after_refused()
        proposed = placement.proposed
        if rejection := proposed.rejections.get(index):
            raise rejection
        start, end = proposed.offsets[index], proposed.offsets[index + 1]
        assert end - start == request.head.count
        request_id = request.head.request_id
        if request_id and (known := self._memory.find(request_id, end - start, placement.named)):
            positions, recorded_at = known
            acknowledgement = Acknowledgement(positions, recorded_at, request.durable, duplicate=True)
            placement.built.repeated.append((request, acknowledgement))
            return
        first = placement.next_position
        expected = request.head.expected_last_position
        if expected is not None and expected != first - 1:
            raise _position_mismatch(expected, first - 1)
        positions = PositionRange(first, Position(first + end - start - 1))
        if request_id:
            placement.named[request_id] = RememberedRequest(request_id, first, end - start, placement.recorded_at)
            placement.marks.append(RequestMark(request_id, placement.row, end - start))
        placement.rows.append((start, end))
        placement.row += end - start
        placement.next_position = Position(positions.last + 1)
        placement.waiting.append((request, Acknowledgement(positions, placement.recorded_at, request.durable)))

    def _frame(self, placement: _Placement) -> PendingFrame:
        events = placement.proposed.events
        if placement.row != events.num_rows:
            events = _select(events, placement.rows)
        first = Position(self.last_position + 1)
        serialized = serialize_frame(Frame(first, placement.recorded_at, events, tuple(placement.marks)))
        return PendingFrame(serialized, sum(request.cost for request, _ in placement.waiting), placement.waiting)


def _select(events: pa.RecordBatch, rows: list[tuple[int, int]]) -> pa.RecordBatch:
    pieces = [events.slice(start, end - start) for start, end in rows]
    return pa.Table.from_batches(pieces).combine_chunks().to_batches()[0]


def _position_mismatch(expected: int, last: int) -> EventStorageException:
    return EventStorageException(
        f"the log's last position is {last}, not {expected} as expected: read what was logged since, then decide",
        reason="EXPECTED_POSITION_MISMATCH",
        last_position=last,
    )


def _after_refused() -> EventValidationException:
    return EventValidationException(
        "not logged, because an earlier batch of the same stream was refused: open a new stream",
        reason="INVALID_EVENT",
    )
