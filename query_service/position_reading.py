"""What readings by position have in common: segment by segment, until the end, the limit, the deadline or damage."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator

import pyarrow as pa

from query_service.pace import Pace
from query_service.planner import Decision
from query_service.reading import DAMAGE, DEADLINE, Assignment, Chunk, Outcome
from query_service.walk import Walk
from query_service.work import WorkExpired
from shared.errors import LogCorrupted
from shared.log.segment_columns import Columns
from shared.log.types import Position


class PositionReading(ABC):
    """A pass from `start` on. See Reading."""

    def __init__(self, assignment: Assignment, *, start: Position) -> None:
        self._engine = assignment.engine
        self._question = assignment.question
        self._work = assignment.work
        self._clock = assignment.clock
        self._projection = assignment.projection
        self._left = assignment.limit
        self._walk = Walk(assignment.engine.reader, assignment.question, assignment.committed)
        self._pace = Pace(for_a_page=assignment.limit is not None)
        self.outcome: Outcome[Position] = Outcome(start)

    def chunks(self) -> Generator[Chunk[Position], None, None]:
        """Yield what matches. See Reading."""
        end = self._begin()
        try:
            while self._is_before(end) and self._left != 0:
                if self._work.is_over:
                    self.outcome.partial_reason = DEADLINE
                    break
                yield from self._segment(end)
        except WorkExpired:
            self.outcome.partial_reason = DEADLINE
        except LogCorrupted as damage:
            if not self._work.has_progress:
                raise
            self.outcome.partial_reason, self.outcome.damage = DAMAGE, damage
        self.outcome.costs.take(self._walk)
        if not self.outcome.partial_reason and not self._is_before(end):
            self.outcome.resume = self._finished

    def _segment(self, end: Position) -> Iterator[Chunk[Position]]:
        decision = self._decision(end)
        if decision is None or not decision.read:
            self._reached(end if decision is None else self._behind(decision))
            return
        try:
            yield from self._step(decision)
        except FileNotFoundError as error:
            self._walk.changed(error)
        else:
            self._walk.progressed()

    def _columns(self, decision: Decision, first: Position, until: Position) -> tuple[list[Columns], Position]:
        """What holds the positions of [first, until), and how far. Raises as ColumnReader.columns."""
        return self._engine.reader.columns(
            decision.segment,
            decision.files,
            from_position=first,
            until=until,
            committed=self._walk.committed,
            wanted=self._question.may_hold,
            paths=self._question.payload_paths + self._projection.payload_paths,
        )

    def _found(self, events: pa.RecordBatch) -> None:
        if self._left is not None:
            self._left -= events.num_rows
        self.outcome.costs.found(events)
        self._reached(self._after(int(events.column("position")[-1].as_py())))

    def _reached(self, position: Position) -> None:
        self.outcome.resume = position
        self._work.has_progress = True

    @property
    @abstractmethod
    def _finished(self) -> Position:
        """Where nothing is left to read."""

    @abstractmethod
    def _begin(self) -> Position:
        """Go to where the pass begins; return where it ends. Raises PositionTrimmed."""

    @abstractmethod
    def _is_before(self, end: Position) -> bool:
        """Whether there are positions left before the end."""

    @abstractmethod
    def _decision(self, end: Position) -> Decision | None:
        """Decide about the next segment; None where nothing is kept up to the end."""

    @abstractmethod
    def _behind(self, decision: Decision) -> Position:
        """Where to go on behind a segment."""

    @abstractmethod
    def _after(self, position: int) -> Position:
        """Where to go on after an event."""

    @abstractmethod
    def _step(self, decision: Decision) -> Iterator[Chunk[Position]]:
        """Read a part of a segment."""
