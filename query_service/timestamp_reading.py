"""Reads events in the order of their timestamps, equal ones in that of their positions.

Nothing is sorted but keys, and of those no more at a time than a chunk has. A chunk takes three steps: which
segments can hold the next keys, by the bounds of their timestamps; the keys themselves, the first of each
segment merged; and the events that have them.

Invariants: each event that matches comes once; memory holds the keys and the events of one chunk. Damage has no
place in this order: coming to it is an error.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from query_service.matching import in_order, matching
from query_service.planner import Decision, narrowed
from query_service.question import Question
from query_service.reading import DEADLINE, Chunk, Engine, Outcome, nothing
from query_service.statements import Key, Projection, Window, first_keys
from query_service.walk import Walk
from query_service.work import Work, WorkExpired
from shared.log.committed_position import Committed
from shared.log.segment_columns import Columns
from shared.log.types import Position

_FIRST_NS, _LAST_NS = -(2**63), 2**63 - 1
LOWEST: Key = (_FIRST_NS, Position(0))
HIGHEST: Key = (_LAST_NS, Position(2**63 - 1))
_KEYS = np.dtype([("timestamp", np.int64), ("position", np.uint64)])


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A segment that may hold matching events with timestamps of [first_ns, last_ns]."""

    decision: Decision
    first_ns: int
    last_ns: int


class TimestampReading:
    """A pass from a key on, or from below it down. See Reading."""

    def __init__(
        self,
        engine: Engine,
        question: Question,
        committed: Committed,
        work: Work,
        *,
        start: Key,
        projection: Projection,
        descending: bool,
        limit: int | None = None,
    ) -> None:
        """start: LOWEST or HIGHEST for a whole pass. The projection has timestamps. limit: None for all events."""
        self._engine = engine
        self._question = question
        self._work = work
        self._projection = projection
        self._descending = descending
        self._left = limit
        self._walk = Walk(engine.reader, question, committed)
        self.outcome: Outcome[Key] = Outcome(start)

    def chunks(self) -> Iterator[Chunk[Key]]:
        """Yield what matches. See Reading."""
        try:
            candidates = self._candidates()
            while candidates and self._left != 0:
                if self._work.is_over:
                    self.outcome.partial_reason = DEADLINE
                    break
                try:
                    chunk = self._chunk(candidates)
                except FileNotFoundError as error:
                    self._walk.changed(error)
                    candidates = self._candidates()
                    continue
                self._walk.progressed()
                self._work.has_progress = True
                self.outcome.resume = chunk.resume
                yield chunk
                candidates = self._ahead(candidates)
        except WorkExpired:
            self.outcome.partial_reason = DEADLINE
        self.outcome.costs.take(self._walk)
        if not self.outcome.partial_reason and self._left != 0:
            self.outcome.resume = LOWEST if self._descending else HIGHEST

    def _candidates(self) -> list[_Candidate]:
        question = self._question
        kept = self._engine.reader.first_position()
        first, until = narrowed(question, first=question.first or kept, until=question.until)
        found, at = [], first
        while at < until:
            decision = self._walk.decision_from(at, until=until)
            if decision is None:
                break
            bounds = decision.segment.timestamps if not decision.segment.is_careful else None
            if decision.read:
                ends = (bounds.first_ns, bounds.last_ns) if bounds else (_FIRST_NS, _LAST_NS)
                found.append(_Candidate(decision, *ends))
            at = decision.until
        return self._ahead(found)

    def _ahead(self, candidates: list[_Candidate]) -> list[_Candidate]:
        """Those that can hold keys from where the pass is on."""
        at_ns, finished = self.outcome.resume[0], LOWEST if self._descending else HIGHEST
        if self.outcome.resume == finished:
            return []
        if self._descending:
            return [each for each in candidates if each.first_ns <= at_ns]
        return [each for each in candidates if each.last_ns >= at_ns]

    def _chunk(self, candidates: list[_Candidate]) -> Chunk[Key]:
        """The next events, maybe none, and where to go on."""
        active, horizon = self._active(candidates)
        size = min(self._projection.chunk_rows(each.decision.segment.row_bytes) for each in active)
        size = size if self._left is None else min(size, self._left)
        window = self._window(horizon)
        keys = self._keys(active, window, size)
        if len(keys) < size:
            resume = horizon or (LOWEST if self._descending else HIGHEST)
        else:
            timestamp, position = int(keys[-1]["timestamp"]), int(keys[-1]["position"])
            resume = (timestamp, Position(position if self._descending else position + 1))
            window = self._window(resume)
        if not len(keys):
            return Chunk(nothing(self._projection.schema), resume)
        events = self._events(active, window, size)
        if self._left is not None:
            self._left -= events.num_rows
        self.outcome.costs.found(events)
        return Chunk(events, resume)

    def _active(self, candidates: list[_Candidate]) -> tuple[list[_Candidate], Key | None]:
        """The segments that hold the next keys, and the key from which on others may too; None if there are none."""
        at_ns = self.outcome.resume[0]
        if self._descending:
            start = max(min(each.last_ns, at_ns) for each in candidates)
            others = [each.last_ns for each in candidates if each.last_ns < start]
            horizon = (max(others) + 1, Position(0)) if others else None
            return [each for each in candidates if each.last_ns >= start], horizon
        start = min(max(each.first_ns, at_ns) for each in candidates)
        others = [each.first_ns for each in candidates if each.first_ns > start]
        horizon = (min(others), Position(0)) if others else None
        return [each for each in candidates if each.first_ns <= start], horizon

    def _window(self, end: Key | None) -> Window:
        """The keys from where the pass is up to an end."""
        question, at = self._question, self.outcome.resume
        low, high = (end, at) if self._descending else (at, end)
        return Window(
            question.first,
            question.until,
            low=None if low == LOWEST else low,
            high=None if high == HIGHEST else high,
        )

    def _keys(self, active: list[_Candidate], window: Window, size: int) -> npt.NDArray[np.void]:
        """The first keys of a window, at most `size`, in order."""
        best = np.zeros(0, _KEYS)
        for columns in self._pieces(active):
            statement = first_keys(columns, self._question, window, limit=size, descending=self._descending)
            found = self._engine.database.batches(statement, self._work, rows=size)
            merged = np.sort(np.concatenate([best, *map(_as_keys, found)]))
            best = (merged[::-1] if self._descending else merged)[:size]
        self.outcome.costs.scanned_events += sum(each.decision.until - each.decision.first for each in active)
        return best

    def _events(self, active: list[_Candidate], window: Window, size: int) -> pa.RecordBatch:
        """The events of a window, in order."""
        question, projection = self._question, self._projection
        database, work = self._engine.database, self._work
        batches = [
            batch
            for columns in self._pieces(active)
            for batch in matching(database, columns, question, window, projection=projection, work=work, rows=size)
        ]
        return in_order(batches, ["timestamp", "position"], descending=self._descending, schema=projection.schema)

    def _pieces(self, active: list[_Candidate]) -> Iterator[Columns]:
        """What the segments are read as. Raises LogCorrupted, FileNotFoundError."""
        for candidate in active:
            decision = candidate.decision
            at = decision.first
            while at < decision.until:
                until = min(decision.until, at + decision.segment.rows_max)
                columns, at = self._engine.reader.columns(
                    decision.segment,
                    decision.files,
                    from_position=at,
                    until=Position(until),
                    committed=self._walk.committed,
                    wanted=self._question.may_hold,
                )
                yield from columns


def _as_keys(batch: pa.RecordBatch) -> npt.NDArray[np.void]:
    keys = np.empty(batch.num_rows, _KEYS)
    keys["timestamp"] = batch.column(0).cast(pa.int64()).to_numpy()
    keys["position"] = batch.column(1).to_numpy()
    return keys
