"""Reads events by descending position: windows from the end on, small where few events are wanted.

A window is read in ascending order and turned round, so what it may hold in memory bounds it.
"""

from collections.abc import Generator, Iterator

import pyarrow as pa

from query_service.matching import in_order, matching
from query_service.pace import ROWS_MIN, Pace
from query_service.planner import Decision, narrowed
from query_service.question import Question
from query_service.reading import DAMAGE, DEADLINE, Chunk, Engine, Outcome, nothing
from query_service.statements import Projection, Window
from query_service.walk import Walk
from query_service.work import Work, WorkExpired
from shared.clock import Clock
from shared.errors import LogCorrupted
from shared.filters.tree import Everything
from shared.log.committed_position import Committed
from shared.log.segment_columns import Columns
from shared.log.types import Position

# Bytes of the events of one window, if all of them match.
_WINDOW_BYTES = 64 * 1024 * 1024
_GROWTH = 8


class DescendingReading:
    """A pass from below `start` down. See Reading; it goes on below `resume`."""

    def __init__(
        self,
        engine: Engine,
        question: Question,
        committed: Committed,
        work: Work,
        clock: Clock,
        *,
        start: Position,
        projection: Projection,
        limit: int | None = None,
    ) -> None:
        """limit: most events that are wanted, None for all."""
        self._engine = engine
        self._question = question
        self._work = work
        self._clock = clock
        self._projection = projection
        self._left = limit
        self._walk = Walk(engine.reader, question, committed)
        self._pace = Pace(for_a_page=limit is not None)
        self._window_rows = _first_window_rows(question, limit)
        self.outcome: Outcome[Position] = Outcome(start)

    def chunks(self) -> Generator[Chunk[Position], None, None]:
        """Yield what matches. See Reading."""
        question = self._question
        first, until = narrowed(question, first=self._first(), until=self.outcome.resume)
        self.outcome.resume = until
        try:
            while self.outcome.resume > first and self._left != 0:
                if self._work.is_over:
                    self.outcome.partial_reason = DEADLINE
                    break
                yield from self._segment(first)
        except WorkExpired:
            self.outcome.partial_reason = DEADLINE
        except LogCorrupted as damage:
            if not self._work.has_progress:
                raise
            self.outcome.partial_reason, self.outcome.damage = DAMAGE, damage
        self.outcome.costs.take(self._walk)
        if not self.outcome.partial_reason and self.outcome.resume <= first:
            self.outcome.resume = Position(0)

    def _first(self) -> Position:
        """Where the pass ends: the first position asked for, or the first one kept. Raises PositionTrimmed."""
        kept = self._engine.reader.first_position()
        if self._question.first is None:
            return kept
        if self._question.first < kept:
            self._engine.reader.span_of(self._question.first, self._walk.committed)
        return self._question.first

    def _segment(self, first: Position) -> Iterator[Chunk[Position]]:
        until = self.outcome.resume
        decision = self._walk.decision_below(until, first=first)
        if decision is None:
            self._reached(first)
            return
        if not decision.read:
            self._reached(decision.first)
            return
        try:
            yield from self._step(decision)
        except FileNotFoundError as error:
            self._walk.changed(error)
        else:
            self._walk.progressed()

    def _step(self, decision: Decision) -> Iterator[Chunk[Position]]:
        began_s = self._clock.monotonic_s()
        segment, until = decision.segment, decision.until
        fitting = max(_WINDOW_BYTES // segment.row_bytes, ROWS_MIN)
        rows = min(self._window_rows, self._pace.rows(self._work.left_s), fitting, segment.rows_max)
        columns, first = self._columns(decision, Position(max(decision.first, until - rows)), until)
        found = self._matching(columns, Window(first, until), rows)
        self.outcome.costs.scanned(until - first, segment.row_bytes)
        self._pace.observe(until - first, self._clock.monotonic_s() - began_s)
        self._window_rows *= _GROWTH
        size = self._projection.chunk_rows(segment.row_bytes)
        for start in range(0, found.num_rows, size):
            events = found.slice(start, size)
            self._found(events)
            yield Chunk(events, self.outcome.resume)
        if self._left != 0:
            self._reached(first)
            yield Chunk(nothing(self._projection.schema), first)

    def _columns(self, decision: Decision, first: Position, until: Position) -> tuple[list[Columns], Position]:
        """What holds the positions up to until, from `first` on or from behind the damage that lies in between.

        Raises LogCorrupted where the damage reaches up to until.
        """
        while True:
            try:
                columns, reached = self._read(decision, first, until)
            except LogCorrupted as damage:
                reached = Position(int(damage.metadata["last_position"]) + 1)
                if reached >= until:
                    raise
            else:
                if reached >= until:
                    return columns, first
            first = reached

    def _read(self, decision: Decision, first: Position, until: Position) -> tuple[list[Columns], Position]:
        return self._engine.reader.columns(
            decision.segment,
            decision.files,
            from_position=first,
            until=until,
            committed=self._walk.committed,
            wanted=self._question.may_hold,
            paths=self._question.payload_paths,
        )

    def _matching(self, columns: list[Columns], window: Window, rows: int) -> pa.RecordBatch:
        """The last events that match in a window, as many as are wanted, newest first."""
        question, projection = self._question, self._projection
        database, work = self._engine.database, self._work
        batches = [
            batch
            for each in columns
            for batch in matching(database, each, question, window, projection=projection, work=work, rows=rows)
        ]
        found = in_order(batches, ["position"], descending=True, schema=projection.schema)
        return found if self._left is None else found.slice(0, self._left)

    def _found(self, events: pa.RecordBatch) -> None:
        if self._left is not None:
            self._left -= events.num_rows
        self.outcome.costs.found(events)
        self._reached(Position(int(events.column("position")[-1].as_py())))

    def _reached(self, position: Position) -> None:
        self.outcome.resume = position
        self._work.has_progress = True


def _first_window_rows(question: Question, limit: int | None) -> int:
    """Positions of the first window; where every event matches, it need hold no more than are wanted."""
    if limit is None:
        return ROWS_MIN
    return max(limit, 1) if isinstance(question.tree, Everything) else max(2 * limit, ROWS_MIN)
