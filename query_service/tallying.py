"""Passes that want sums of the events that match, not the events: many files in one statement where time allows.

What counts and aggregates have in common: segment by segment from a position on, until the end, the deadline or
damage.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from query_service.pace import Pace
from query_service.planner import Decision, narrowed
from query_service.question import Question
from query_service.reading import DAMAGE, DEADLINE, Costs, Engine
from query_service.statements import Window
from query_service.walk import Walk
from query_service.work import Work, WorkExpired
from shared.clock import Clock
from shared.errors import LogCorrupted
from shared.log.committed_position import Committed
from shared.log.json_path import JsonPath
from shared.log.segment_columns import Columns, ParquetColumns
from shared.log.types import Position

# Relations of one statement: its text has the condition once for each.
_PARTS_MAX = 64


@dataclass(slots=True)
class Reached:
    """How far a pass came: to the positions below `resume`, which is the end unless there is a partial reason."""

    resume: Position
    partial_reason: str
    costs: Costs
    damage: LogCorrupted | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """Where to look: a relation and its window, which is unbounded for a whole file."""

    columns: Columns
    window: Window


@dataclass(frozen=True, slots=True)
class Errand:
    """What a pass is about, in what time it is done, and at which position it begins."""

    engine: Engine
    question: Question
    committed: Committed
    work: Work
    clock: Clock
    start: Position


class Tallying(ABC):
    """A pass from a position on. One thread at a time may use it."""

    def __init__(self, errand: Errand, paths: tuple[JsonPath, ...]) -> None:
        """paths: those of the payload that are read."""
        self._engine = errand.engine
        self._question = errand.question
        self._work = errand.work
        self._clock = errand.clock
        self._paths = paths
        self._walk = Walk(errand.engine.reader, errand.question, errand.committed)
        self._pace = Pace()
        self.reached = Reached(errand.start, "", Costs())

    def step(self) -> bool:
        """Look at some more segments; whether there is more to look at. See `reached`.

        Raises LogCorrupted where it would begin with damage, PositionTrimmed, WorkCancelled, OSError.
        """
        reached = self.reached
        first, until = narrowed(self._question, first=reached.resume, until=self._question.until)
        reached.resume = first
        try:
            if first < until and self._work.is_over:
                reached.partial_reason = DEADLINE
            elif first < until:
                self._pass_on(until)
        except FileNotFoundError as error:
            self._walk.changed(error)
        except WorkExpired:
            reached.partial_reason = DEADLINE
        except LogCorrupted as damage:
            if not self._work.has_progress:
                raise
            reached.partial_reason, reached.damage = DAMAGE, damage
        reached.costs.take(self._walk)
        if reached.partial_reason:
            return False
        if reached.resume < until:
            return True
        reached.resume = self._question.until
        return False

    @abstractmethod
    def _tally(self, parts: list[Part]) -> tuple[int, bool]:
        """Look at some relations: how many events match, and whether all of them were asked. Raises as Database.rows.

        What was remembered says nothing about how long it takes to ask.
        """

    def _rows_max(self, row_bytes: int) -> int:  # noqa: ARG002 — sums need no room
        """How many positions to look at in a step over events that take so many bytes."""
        return self._pace.rows(self._work.left_s)

    def _pass_on(self, until: Position) -> None:
        began_s = self._clock.monotonic_s()
        parts, rows, at = self._parts(until)
        matched, was_asked = self._tally(parts) if parts else (0, True)
        if was_asked:
            self._pace.observe(rows, self._clock.monotonic_s() - began_s)
        self.reached.costs.matched_events += matched
        self.reached.resume = at
        self._work.has_progress = True
        self._walk.progressed()

    def _parts(self, until: Position) -> tuple[list[Part], int, Position]:
        """The relations of one statement, their positions, and how far they reach.

        Damage ends them, or comes first and is raised.
        """
        parts: list[Part] = []
        rows, rows_max, at = 0, 1, self.reached.resume
        while at < until and rows < rows_max and len(parts) < _PARTS_MAX:
            try:
                decision = self._walk.decision_from(at, until=until)
                if decision is None or not decision.read:
                    at = until if decision is None else decision.until
                    continue
                rows_max = self._rows_max(decision.segment.row_bytes)
                end = min(decision.until, decision.first + min(max(rows_max - rows, 1), decision.segment.rows_max))
                columns, reached = self._columns(decision, Position(end))
            except LogCorrupted:
                if at == self.reached.resume:
                    raise
                break
            parts += [_part(decision, each, reached) for each in columns]
            self.reached.costs.scanned(reached - decision.first, decision.segment.row_bytes)
            rows += reached - decision.first
            at = reached
        return parts, rows, at

    def _columns(self, decision: Decision, until: Position) -> tuple[list[Columns], Position]:
        return self._engine.reader.columns(
            decision.segment,
            decision.files,
            from_position=decision.first,
            until=until,
            committed=self._walk.committed,
            wanted=self._question.may_hold,
            paths=self._paths,
        )


def _part(decision: Decision, columns: Columns, until: Position) -> Part:
    segment = decision.segment
    # Tables hold the positions in question only.
    is_whole = (decision.first, until) == (segment.first, segment.until)
    return Part(
        columns, Window() if is_whole or not isinstance(columns, ParquetColumns) else Window(decision.first, until)
    )
