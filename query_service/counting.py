"""Counts the events that match: many files in one statement where time allows.

Counts of whole sealed files are remembered: the files never change.
"""

from dataclasses import dataclass
from hashlib import blake2b

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

# A count that is remembered: of a file, by the digest of a condition.
CountCache = BoundedCache[tuple[str, Identity, str], int]
COUNTS_MAX = 100_000
# Relations of one statement: its text has the condition once for each.
_PARTS_MAX = 64


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
    """Where to count; and under which key its count is remembered, if it is that of a whole file, and as what."""

    columns: Columns
    window: Window
    key: tuple[str, Identity, str] | None
    known: int | None


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
        # Expressions may be long, and there may be as many as counts are kept.
        self._condition = blake2b(print_filter(question.tree).encode(), digest_size=16).hexdigest()
        self._walk = Walk(engine.reader, question, committed)
        self._pace = Pace()
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
        parts, rows, at = self._parts(until)
        asked = [part for part in parts if part.known is None]
        found = sum(part.known or 0 for part in parts) + self._ask(asked)
        if len(asked) == len(parts):
            # What was remembered says nothing about how long it takes to count.
            self._pace.observe(rows, self._clock.monotonic_s() - began_s)
        self.counted.count += found
        self.counted.costs.matched_events += found
        self.counted.resume = at
        self._work.has_progress = True
        self._walk.progressed()

    def _parts(self, until: Position) -> tuple[list[_Part], int, Position]:
        """The relations of one statement, their positions, and how far they reach.

        Damage ends them, or comes first and is raised.
        """
        parts: list[_Part] = []
        rows, rows_max, at = 0, self._pace.rows(self._work.left_s), self.counted.resume
        while at < until and rows < rows_max and len(parts) < _PARTS_MAX:
            try:
                decision = self._walk.decision_from(at, until=until)
                if decision is None or not decision.read:
                    at = until if decision is None else decision.until
                    continue
                end = min(decision.until, decision.first + min(rows_max - rows, decision.segment.rows_max))
                columns, reached = self._columns(decision, Position(end))
            except LogCorrupted:
                if at == self.counted.resume:
                    raise
                break
            parts += [self._part(decision, each, reached) for each in columns]
            self.counted.costs.scanned(reached - decision.first, decision.segment.row_bytes)
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
            paths=self._question.payload_paths,
        )

    def _part(self, decision: Decision, columns: Columns, until: Position) -> _Part:
        segment = decision.segment
        if not isinstance(columns, ParquetColumns):
            # Tables hold the positions in question only.
            return _Part(columns, Window(), None, None)
        if (decision.first, until) != (segment.first, segment.until):
            return _Part(columns, Window(decision.first, until), None, None)
        key = columns.name, columns.identity, self._condition
        return _Part(columns, Window(), key, self._cache.get(key))

    def _ask(self, parts: list[_Part]) -> int:
        """Count in some relations, and remember what they say of whole files."""
        if not parts:
            return 0
        statement = counts([(part.columns, part.window) for part in parts], self._question)
        found = dict(self._engine.database.rows(statement, self._work))
        for number, part in enumerate(parts):
            if part.key is not None:
                self._cache.put(part.key, found.get(number, 0))
        return sum(found.values())
