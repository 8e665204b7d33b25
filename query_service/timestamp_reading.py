"""Reads events in the order of their timestamps, equal ones in that of their positions.

Nothing is sorted but keys, and of those no more at a time than a chunk has. A chunk takes three steps: a stretch
of time that holds so many events, by what is known of the segments; the keys of those that match, the first of
each segment merged; and the events that have them.

Invariants: each event that matches comes once; memory holds the keys and the events of one chunk. Damage has no
place in this order: coming to it is an error.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from query_service.matching import in_order, matching
from query_service.pace import ROWS_MIN, Pace
from query_service.planner import Decision, narrowed
from query_service.reading import DEADLINE, Assignment, Chunk, Outcome, nothing
from query_service.statements import Key, Window, first_keys
from query_service.time_windows import FIRST_NS, LAST_NS, Part, TimeWindows
from query_service.walk import Walk
from query_service.work import WorkExpired
from shared.log.segment_columns import Columns
from shared.log.tail_columns import TailBlock
from shared.log.types import Position

LOWEST: Key = (FIRST_NS, Position(0))
HIGHEST: Key = (LAST_NS, Position(2**63 - 1))
# Events in the first stretch of time of a pass that is to give all events.
_STEP_ROWS = 65_536
_GROWTH = 8
_KEYS = np.dtype([("timestamp", np.int64), ("position", np.uint64)])


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A segment: its positions of [first, until) may hold matching events. And the times of its parts."""

    first: Position
    until: Position
    row_bytes: int
    parts: tuple[Part, ...]

    def holds_any(self, positions: npt.NDArray[np.uint64]) -> bool:
        """Whether any of the positions is in the segment."""
        return bool(((positions >= self.first) & (positions < self.until)).any())


class TimestampReading:
    """A pass from a key on, or from below it down. See Reading."""

    def __init__(self, assignment: Assignment, *, start: Key, descending: bool) -> None:
        """start: LOWEST or HIGHEST for a whole pass. The projection has timestamps."""
        self._engine = assignment.engine
        self._question = assignment.question
        self._work = assignment.work
        self._clock = assignment.clock
        self._projection = assignment.projection
        self._left = assignment.limit
        self._descending = descending
        self._walk = Walk(assignment.engine.reader, assignment.question, assignment.committed)
        self._pace = Pace(for_a_page=assignment.limit is not None)
        self._step_rows = _STEP_ROWS if assignment.limit is None else max(2 * assignment.limit, ROWS_MIN)
        self._finished: Key = LOWEST if descending else HIGHEST
        self.outcome: Outcome[Key] = Outcome(start)

    def chunks(self) -> Generator[Chunk[Key], None, None]:
        """Yield what matches. See Reading."""
        try:
            candidates = self._candidates()
            windows = self._windows(candidates)
            while self.outcome.resume != self._finished and self._left != 0:
                if self._work.is_over:
                    self.outcome.partial_reason = DEADLINE
                    break
                chunk = self._chunk(candidates, windows)
                self._work.has_progress = True
                self.outcome.resume = chunk.resume
                yield chunk
        except WorkExpired:
            self.outcome.partial_reason = DEADLINE
        self.outcome.costs.take(self._walk)

    def _candidates(self) -> list[_Candidate]:
        question = self._question
        kept = self._engine.reader.first_position()
        first, until = narrowed(question, first=question.first or kept, until=question.until)
        found, at = [], first
        while at < until:
            decision = self._walk.decision_from(at, until=until)
            if decision is None:
                break
            if decision.read:
                try:
                    parts = self._parts(decision)
                except FileNotFoundError as error:
                    self._walk.changed(error)
                    continue
                self._walk.progressed()
                found.append(_Candidate(decision.first, decision.until, decision.segment.row_bytes, parts))
            at = decision.until
        return found

    def _parts(self, decision: Decision) -> tuple[Part, ...]:
        """The times of the parts of a segment; of one that holds damage nothing is known."""
        times = self._engine.reader.times(decision.segment, decision.files, self._walk.committed)
        if times is None:
            return (Part(FIRST_NS, LAST_NS, decision.until - decision.first),)
        return tuple(Part(bounds.first_ns, bounds.last_ns, rows) for bounds, rows in times)

    def _windows(self, candidates: list[_Candidate]) -> TimeWindows:
        return TimeWindows([part for each in candidates for part in each.parts], descending=self._descending)

    def _chunk(self, candidates: list[_Candidate], windows: TimeWindows) -> Chunk[Key]:
        """The next events, maybe none, and where to go on."""
        began_s = self._clock.monotonic_s()
        start_ns = self._start_ns()
        # Twice: for the keys, and for the events that have them.
        rows_max = min(self._step_rows, self._pace.rows(self._work.left_s) // 2)
        end_ns = windows.end_of(start_ns, rows_max)
        last_ns = self._finished[0] if end_ns is None else end_ns
        ends = min(start_ns, last_ns), max(start_ns, last_ns)
        active = [each for each in candidates if any(part.overlaps(*ends) for part in each.parts)]
        if not active:
            return Chunk(nothing(self._projection.schema), self._behind(end_ns))
        size = min(self._projection.chunk_rows(each.row_bytes) for each in active)
        size = size if self._left is None else min(size, self._left)
        keys = self._keys(active, self._window(self._behind(end_ns)), size)
        if len(keys) < size:
            resume = self._behind(end_ns)
            self._step_rows *= _GROWTH
        else:
            timestamp, position = int(keys[-1]["timestamp"]), int(keys[-1]["position"])
            resume = (timestamp, Position(position if self._descending else position + 1))
        holding = [each for each in active if each.holds_any(keys["position"])]
        events = self._events(holding, self._window(resume), size)
        rows = windows.rows_between(start_ns, last_ns)
        self._pace.observe(2 * rows, self._clock.monotonic_s() - began_s)
        self.outcome.costs.scanned(rows, max(each.row_bytes for each in active))
        if self._left is not None:
            self._left -= events.num_rows
        self.outcome.costs.found(events)
        return Chunk(events, resume)

    def _start_ns(self) -> int:
        """The first timestamp that is left to read."""
        timestamp, position = self.outcome.resume
        return timestamp - 1 if self._descending and position == 0 and timestamp > FIRST_NS else timestamp

    def _behind(self, end_ns: int | None) -> Key:
        """The place behind a timestamp."""
        if end_ns is None or end_ns == self._finished[0]:
            return self._finished
        return (end_ns if self._descending else end_ns + 1), Position(0)

    def _window(self, end: Key) -> Window:
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

        def ask(columns: Columns) -> Iterator[pa.RecordBatch]:
            statement = first_keys(columns, self._question, window, limit=size, descending=self._descending)
            return iter([self._engine.database.few(statement, self._work)])

        best = np.zeros(0, _KEYS)
        for batch in self._found(active, window, ask):
            merged = np.sort(np.concatenate([best, _as_keys(batch)]))
            best = (merged[::-1] if self._descending else merged)[:size]
        return best

    def _events(self, active: list[_Candidate], window: Window, size: int) -> pa.RecordBatch:
        """The events of a window, in order."""
        question, projection = self._question, self._projection
        database, work = self._engine.database, self._work

        def ask(columns: Columns) -> Iterator[pa.RecordBatch]:
            return matching(database, columns, question, window, projection=projection, work=work, rows=size)

        batches = list(self._found(active, window, ask))
        return in_order(batches, ["timestamp", "position"], descending=self._descending, schema=projection.schema)

    def _found(
        self, active: list[_Candidate], window: Window, ask: Callable[[Columns], Iterator[pa.RecordBatch]]
    ) -> Iterator[pa.RecordBatch]:
        """What is answered by all that the segments are read as, for a window. Raises LogCorrupted."""
        wanted = self._block_filter(window)
        for candidate in active:
            at = candidate.first
            while at < candidate.until:
                # Decided anew each time: the segment may have been sealed, or removed.
                decision = self._walk.decision_from(at, until=candidate.until)
                if decision is None or not decision.read:
                    at = candidate.until if decision is None else decision.until
                    continue
                try:
                    columns, reached = self._columns(decision, wanted)
                    found = [batch for each in columns for batch in ask(each)]
                except FileNotFoundError as error:
                    self._walk.changed(error)
                    continue
                self._walk.progressed()
                yield from found
                at = reached

    def _columns(self, decision: Decision, wanted: Callable[[TailBlock], bool]) -> tuple[list[Columns], Position]:
        return self._engine.reader.columns(
            decision.segment,
            decision.files,
            from_position=decision.first,
            until=Position(min(decision.until, decision.first + decision.segment.rows_max)),
            committed=self._walk.committed,
            wanted=wanted,
            paths=self._question.payload_paths,
        )

    def _block_filter(self, window: Window) -> Callable[[TailBlock], bool]:
        """Tells of a block of unsealed events whether it can have any of a window."""
        first_ns = FIRST_NS if window.low is None else window.low[0]
        last_ns = LAST_NS if window.high is None else window.high[0]

        def wanted(block: TailBlock) -> bool:
            times = block.timestamps
            return times.first_ns <= last_ns and times.last_ns >= first_ns and self._question.may_hold(block)

        return wanted


def _as_keys(batch: pa.RecordBatch) -> npt.NDArray[np.void]:
    keys = np.empty(batch.num_rows, _KEYS)
    keys["timestamp"] = batch.column(0).cast(pa.int64()).to_numpy()
    keys["position"] = batch.column(1).to_numpy()
    return keys
