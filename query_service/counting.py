"""Counts the events that match: many files in one statement where time allows.

Counts of whole sealed files are remembered: the files never change.
"""

from dataclasses import dataclass

from query_service.pace import Pace
from query_service.planner import Decision, narrowed
from query_service.question import Question
from query_service.reading import DAMAGE, DEADLINE, Costs, Engine
from query_service.statements import Window, counts
from query_service.walk import Walk
from query_service.work import Work, WorkExpired
from shared.clock import Clock
from shared.errors import LogCorrupted
from shared.filters.printer import print_filter
from shared.log.bounded_cache import BoundedCache
from shared.log.committed_position import Committed
from shared.log.sealed_files import Identity
from shared.log.segment_columns import Columns, ParquetColumns
from shared.log.types import Position

# A count that is remembered: of a file, by a condition.
CountCache = BoundedCache[tuple[str, Identity, str], int]
COUNTS_MAX = 100_000


@dataclass(slots=True)
class Counted:
    """Events counted at positions below `resume`, which is the end unless there is a partial reason."""

    count: int
    resume: Position
    partial_reason: str
    costs: Costs
    damage: LogCorrupted | None = None


@dataclass(slots=True)
class _Part:
    """One relation to count in, and under which key to remember the count, if it is that of a whole file."""

    columns: Columns
    key: tuple[str, Identity, str] | None


class Counting:
    """Counts from a position on. One thread at a time may use it."""

    def __init__(
        self,
        engine: Engine,
        question: Question,
        committed: Committed,
        work: Work,
        clock: Clock,
        *,
        start: Position,
        cache: CountCache,
    ) -> None:
        self._engine = engine
        self._question = question
        self._work = work
        self._clock = clock
        self._cache = cache
        self._condition = print_filter(question.tree)
        self._walk = Walk(engine.reader, question, committed)
        self._pace = Pace(in_a_hurry=work.left_s is not None)
        self.counted = Counted(0, start, "", Costs())

    def step(self) -> bool:
        """Count in some more segments; whether there is more to count. See `counted`.

        Raises LogCorrupted where it would begin with damage, PositionTrimmed, WorkCancelled, OSError.
        """
        counted = self.counted
        first, until = narrowed(self._question, first=counted.resume, until=self._question.until)
        counted.resume = first
        try:
            if first < until and self._work.is_over:
                counted.partial_reason = DEADLINE
            elif first < until:
                self._count(until)
        except FileNotFoundError as error:
            self._walk.changed(error)
        except WorkExpired:
            counted.partial_reason = DEADLINE
        except LogCorrupted as damage:
            if not self._work.has_progress:
                raise
            counted.partial_reason, counted.damage = DAMAGE, damage
        counted.costs.take(self._walk)
        if counted.partial_reason:
            return False
        if counted.resume < until:
            return True
        counted.resume = self._question.until
        return False

    def _count(self, until: Position) -> None:
        began_s = self._clock.monotonic_s()
        parts, at = self._parts(until)
        window = Window(self.counted.resume, at)
        found = self._count_parts(parts, window)
        self._pace.observe(at - self.counted.resume, self._clock.monotonic_s() - began_s)
        self.counted.count += found
        self.counted.costs.matched_events += found
        self.counted.resume = at
        self._work.has_progress = True
        self._walk.progressed()

    def _parts(self, until: Position) -> tuple[list[_Part], Position]:
        """The relations of one statement, and how far they reach. Damage ends them, or comes first and is raised."""
        parts: list[_Part] = []
        at = self.counted.resume
        rows_left = self._pace.rows(self._work.left_s)
        while at < until and rows_left > 0:
            decision = self._walk.decision_at(at, first=at, until=until)
            if not decision.read:
                at = decision.until
                continue
            end = min(decision.until, at + min(rows_left, decision.segment.rows_max))
            try:
                columns, reached = self._columns(decision, at, Position(end))
            except LogCorrupted:
                if not parts and at == self.counted.resume:
                    raise
                break
            parts += [_Part(each, self._key(decision, each, at, reached)) for each in columns]
            self.counted.costs.scanned_events += reached - at
            rows_left -= reached - at
            at = reached
        return parts, at

    def _columns(self, decision: Decision, at: Position, until: Position) -> tuple[list[Columns], Position]:
        return self._engine.reader.columns(
            decision.segment,
            decision.files,
            from_position=at,
            until=until,
            committed=self._walk.committed,
            wanted=self._question.may_hold,
        )

    def _key(
        self, decision: Decision, columns: Columns, at: Position, until: Position
    ) -> tuple[str, Identity, str] | None:
        segment = decision.segment
        if not isinstance(columns, ParquetColumns) or (at, until) != (segment.first, segment.until):
            return None
        return columns.name, columns.identity, self._condition

    def _count_parts(self, parts: list[_Part], window: Window) -> int:
        known = {id(part): count for part in parts if part.key and (count := self._cache.get(part.key)) is not None}
        asked = [part for part in parts if id(part) not in known]
        if not asked:
            return sum(known.values())
        statement = counts([[part.columns] for part in asked], self._question, window)
        found = dict(self._engine.database.rows(statement, self._work))
        for number, part in enumerate(asked):
            if part.key is not None:
                self._cache.put(part.key, found[number])
        return sum(known.values()) + sum(found.values())
