"""Reads events by ascending position: streams each step, so that nothing waits for what comes after it."""

from collections.abc import Iterator

import pyarrow as pa

from query_service.matching import in_order, matching
from query_service.planner import Decision, narrowed
from query_service.position_reading import PositionReading
from query_service.reading import Chunk, nothing
from query_service.statements import Window
from shared.log.segment_columns import ArrowColumns, Columns
from shared.log.types import Position

# Positions that are read at once where the files of several retention classes are merged in memory.
MERGED_ROWS = 65_536


class AscendingReading(PositionReading):
    """A pass from `start` up. See Reading."""

    @property
    def _finished(self) -> Position:
        return self._question.until

    def _begin(self) -> Position:
        first, until = narrowed(self._question, first=self.outcome.resume, until=self._question.until)
        self.outcome.resume = first
        return until

    def _is_before(self, end: Position) -> bool:
        return self.outcome.resume < end

    def _decision(self, end: Position) -> Decision | None:
        return self._walk.decision_from(self.outcome.resume, until=end)

    def _behind(self, decision: Decision) -> Position:
        return decision.until

    def _after(self, position: int) -> Position:
        return Position(position + 1)

    def _step(self, decision: Decision) -> Iterator[Chunk[Position]]:
        began_s = self._clock.monotonic_s()
        at, segment = decision.first, decision.segment
        rows = min(self._pace.rows(self._work.left_s), segment.rows_max)
        until = min(decision.until, at + (min(rows, MERGED_ROWS) if len(decision.files) > 1 else rows))
        columns, until = self._columns(decision, at, Position(until))
        outside_s = 0.0
        for found in self._matching(columns, at, until, self._projection.chunk_rows(segment.row_bytes)):
            events = found if self._left is None else found.slice(0, self._left)
            self._found(events)
            yielded_s = self._clock.monotonic_s()
            yield Chunk(events, self.outcome.resume)
            outside_s += self._clock.monotonic_s() - yielded_s
            if self._left == 0:
                return
        self.outcome.costs.scanned(until - at, segment.row_bytes)
        self._reached(until)
        self._pace.observe(until - at, self._clock.monotonic_s() - began_s - outside_s)
        yield Chunk(nothing(self._projection.schema), until)

    def _matching(
        self, columns: list[Columns], first: Position, until: Position, rows: int
    ) -> Iterator[pa.RecordBatch]:
        """What matches in a step, in order, in batches of about `rows`."""
        window = Window(first, until)
        results = (self._batches(each, window, rows) for each in columns)
        if len(columns) > 1 and not _are_disjoint(columns):
            batches = [batch for result in results for batch in result]
            merged = in_order(batches, ["position"], descending=False, schema=self._projection.schema)
            yield from (merged.slice(start, rows) for start in range(0, merged.num_rows, rows))
            return
        for result in results:
            yield from result

    def _batches(self, columns: Columns, window: Window, rows: int) -> Iterator[pa.RecordBatch]:
        question, projection = self._question, self._projection
        database, work = self._engine.database, self._work
        return matching(
            database, columns, question, window, projection=projection, work=work, rows=rows, limit=self._left
        )


def _are_disjoint(columns: list[Columns]) -> bool:
    """Whether one relation comes after the other: those in memory do, files of retention classes are mixed."""
    return all(isinstance(each, ArrowColumns) for each in columns)
