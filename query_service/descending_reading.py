"""Reads events by descending position: windows from the end on, small where few events are wanted.

A window is read in ascending order and turned round, so what it may hold in memory bounds it.
"""

from collections.abc import Iterator

import pyarrow as pa

from query_service.matching import in_order, matching
from query_service.pace import ROWS_MIN
from query_service.planner import Decision, narrowed
from query_service.position_reading import PositionReading
from query_service.question import Question
from query_service.reading import Assignment, Chunk, nothing
from query_service.statements import Window
from shared.errors import LogCorrupted
from shared.filters.tree import Everything
from shared.log.segment_columns import Columns
from shared.log.types import Position

# Bytes of the events of one window, if all of them match.
_WINDOW_BYTES = 64 * 1024 * 1024
_GROWTH = 8


class DescendingReading(PositionReading):
    """A pass from below `start` down. See Reading; it goes on below `resume`."""

    def __init__(self, assignment: Assignment, *, start: Position) -> None:
        super().__init__(assignment, start=start)
        self._window_rows = _first_window_rows(assignment.question, assignment.limit)

    @property
    def _finished(self) -> Position:
        return Position(0)

    def _begin(self) -> Position:
        first, until = narrowed(self._question, first=self._first(), until=self.outcome.resume)
        self.outcome.resume = until
        return first

    def _first(self) -> Position:
        """The first position asked for, or the first one kept. Raises PositionTrimmed."""
        kept = self._engine.reader.first_position()
        if self._question.first is None:
            return kept
        if self._question.first < kept:
            self._engine.reader.span_of(self._question.first, self._walk.committed)
        return self._question.first

    def _is_before(self, end: Position) -> bool:
        return self.outcome.resume > end

    def _decision(self, end: Position) -> Decision | None:
        return self._walk.decision_below(self.outcome.resume, first=end)

    def _behind(self, decision: Decision) -> Position:
        return decision.first

    def _after(self, position: int) -> Position:
        return Position(position)

    def _step(self, decision: Decision) -> Iterator[Chunk[Position]]:
        began_s = self._clock.monotonic_s()
        segment, until = decision.segment, decision.until
        fitting = max(_WINDOW_BYTES // segment.row_bytes, ROWS_MIN)
        rows = min(self._window_rows, self._pace.rows(self._work.left_s), fitting, segment.rows_max)
        columns, first = self._columns_below(decision, Position(max(decision.first, until - rows)), until)
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

    def _columns_below(self, decision: Decision, first: Position, until: Position) -> tuple[list[Columns], Position]:
        """What holds the positions up to until, from `first` on or from behind the damage that lies in between.

        Raises LogCorrupted where the damage reaches up to until.
        """
        while True:
            try:
                columns, reached = self._columns(decision, first, until)
            except LogCorrupted as damage:
                reached = Position(int(damage.metadata["last_position"]) + 1)
                if reached >= until:
                    raise
            else:
                if reached >= until:
                    return columns, first
            first = reached

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


def _first_window_rows(question: Question, limit: int | None) -> int:
    """Positions of the first window; where every event matches, it need hold no more than are wanted."""
    if limit is None:
        return ROWS_MIN
    return max(limit, 1) if isinstance(question.tree, Everything) else max(2 * limit, ROWS_MIN)
