"""Reads events by ascending position: streams each step, so that nothing waits for what comes after it."""

from collections.abc import Generator, Iterator

import pyarrow as pa

from query_service.matching import in_order, matching
from query_service.pace import Pace
from query_service.planner import Decision, narrowed
from query_service.question import Question
from query_service.reading import DAMAGE, DEADLINE, Chunk, Engine, Outcome, nothing
from query_service.statements import Projection, Window
from query_service.walk import Walk
from query_service.work import Work, WorkExpired
from shared.clock import Clock
from shared.errors import LogCorrupted
from shared.log.committed_position import Committed
from shared.log.segment_columns import ArrowColumns, Columns
from shared.log.types import Position

# Positions that are read at once where the files of several retention classes are merged in memory.
MERGED_ROWS = 65_536


class AscendingReading:
    """A pass from `start` on. See Reading."""

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
        self.outcome: Outcome[Position] = Outcome(start)

    def chunks(self) -> Generator[Chunk[Position], None, None]:
        """Yield what matches. See Reading."""
        first, until = narrowed(self._question, first=self.outcome.resume, until=self._question.until)
        self.outcome.resume = first
        try:
            while self.outcome.resume < until and self._left != 0:
                if self._work.is_over:
                    self.outcome.partial_reason = DEADLINE
                    break
                yield from self._segment(until)
        except WorkExpired:
            self.outcome.partial_reason = DEADLINE
        except LogCorrupted as damage:
            if not self._work.has_progress:
                raise
            self.outcome.partial_reason, self.outcome.damage = DAMAGE, damage
        self.outcome.costs.take(self._walk)
        if not self.outcome.partial_reason and self.outcome.resume >= until:
            self.outcome.resume = self._question.until

    def _segment(self, until: Position) -> Iterator[Chunk[Position]]:
        decision = self._walk.decision_from(self.outcome.resume, until=until)
        if decision is None or not decision.read:
            self._reached(until if decision is None else decision.until)
            return
        try:
            yield from self._step(decision)
        except FileNotFoundError as error:
            self._walk.changed(error)
        else:
            self._walk.progressed()

    def _step(self, decision: Decision) -> Iterator[Chunk[Position]]:
        began_s = self._clock.monotonic_s()
        at, segment = decision.first, decision.segment
        rows = min(self._pace.rows(self._work.left_s), segment.rows_max)
        until = min(decision.until, at + (min(rows, MERGED_ROWS) if len(decision.files) > 1 else rows))
        columns, until = self._engine.reader.columns(
            segment,
            decision.files,
            from_position=at,
            until=Position(until),
            committed=self._walk.committed,
            wanted=self._question.may_hold,
            paths=self._question.payload_paths,
        )
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

    def _found(self, events: pa.RecordBatch) -> None:
        if self._left is not None:
            self._left -= events.num_rows
        self.outcome.costs.found(events)
        self._reached(Position(int(events.column("position")[-1].as_py()) + 1))

    def _reached(self, position: Position) -> None:
        self.outcome.resume = position
        self._work.has_progress = True


def _are_disjoint(columns: list[Columns]) -> bool:
    """Whether one relation comes after the other: those in memory do, files of retention classes are mixed."""
    return all(isinstance(each, ArrowColumns) for each in columns)
