"""Goes through the segments of a log in the order of positions, and finds its way where they change meanwhile.

Invariant: every position of the range is in exactly one decision, or is told to be damaged or trimmed. Segments
that are sealed, archived or removed while the walk is on its way are looked up anew.
"""

from query_service.planner import Decision, decide
from query_service.question import Question
from shared.errors import PositionTrimmed
from shared.log.committed_position import Committed
from shared.log.log_reader import SegmentSpan
from shared.log.segment_columns import ColumnReader
from shared.log.types import Position

# A segment may change between the look and the reading, but not again and again.
_CHANGES_MAX = 10


class Walk:
    """The segments that a question is about, as far as `committed`. One thread may use it."""

    def __init__(self, reader: ColumnReader, question: Question, committed: Committed) -> None:
        self._reader = reader
        self._question = question
        self._committed = committed
        self._spans = reader.segments(committed)
        self._changes = 0
        self.read_segments: set[Position] = set()
        self.pruned_segments: set[Position] = set()

    @property
    def committed(self) -> Committed:
        """As far as the log is looked at."""
        return self._committed

    def decision_from(self, position: Position, *, until: Position) -> Decision | None:
        """Decide about the first segment of [position, until); see decision_at.

        Where the question names no first position, what was removed meanwhile is passed over; None where that is all.
        """
        try:
            return self.decision_at(position, first=position, until=until)
        except PositionTrimmed as trimmed:
            first = Position(int(trimmed.metadata["first_position"]))
            if self._question.first is not None:
                raise
            return self.decision_from(first, until=until) if first < until else None

    def decision_below(self, position: Position, *, first: Position) -> Decision | None:
        """Decide about the last segment of [first, position); as decision_from."""
        try:
            return self.decision_at(Position(position - 1), first=first, until=position)
        except PositionTrimmed:
            if self._question.first is not None:
                raise
            return None

    def decision_at(self, position: Position, *, first: Position, until: Position) -> Decision:
        """Decide about the segment that holds a position, within [first, until).

        Raises PositionTrimmed, LogCorrupted where no segment holds it, OSError, UnsupportedFormat.
        """
        while True:
            span = self._span_of(position)
            try:
                segment = self._reader.describe(span, self._committed)
            except FileNotFoundError as error:
                self.changed(error)
                continue
            decision = decide(segment, self._question, first=max(first, segment.first), until=min(until, segment.until))
            (self.read_segments if decision.read else self.pruned_segments).add(segment.first)
            return decision

    def changed(self, error: FileNotFoundError) -> None:
        """Look anew: a file is gone. Raises the error itself where that happens again and again."""
        self._changes += 1
        if self._changes > _CHANGES_MAX:
            raise error
        self._spans = self._reader.segments(self._committed)

    def progressed(self) -> None:
        """What was looked up could be read."""
        self._changes = 0

    def _span_of(self, position: Position) -> SegmentSpan:
        for span in self._spans:
            if span.files.first <= position < span.until:
                return span
        span = self._reader.span_of(position, self._committed)
        self._spans = self._reader.segments(self._committed)
        return span
