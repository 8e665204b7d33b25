"""Asks an engine about a small log, in every way in which the query service does, and knows the naive answers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pyarrow as pa
from hypothesis import strategies as st

from query_service.aggregating import Aggregating
from query_service.aggregation import Aggregation
from query_service.asked_columns import asked_columns
from query_service.counting import COUNTS_MAX, CountCache, Counting
from query_service.database import Database
from query_service.event_projection import EVENTS
from query_service.question import Order, Question
from query_service.reading import DAMAGE, DEADLINE, Engine
from query_service.readings import Asked, Place, open_reading, read_page
from query_service.scan_projection import ScanProjection
from query_service.tallying import Errand, Tallying
from query_service.work import Work
from shared.clock import Clock
from shared.columns.schema import EVENT_SCHEMA
from shared.errors import LogCorrupted
from shared.filters.resolution import resolve_now
from shared.filters.tree import Everything, Tree
from shared.log.log_reader import LocalLogReader
from shared.log.segment_columns import ColumnReader
from shared.log.types import Position
from tests.support.fake_clock import FakeClock
from tests.support.filter_strategies import LOG_ID, NOW_NS, trees
from tests.support.reference_filter import reference_holds
from tests.support.small_logs import SmallLog

BY_POSITION = (Order.POSITION_ASCENDING, Order.POSITION_DESCENDING)
MIB = 1024 * 1024

T = TypeVar("T", bound=Tallying)


@dataclass(frozen=True)
class Asking:
    """A question to a small log: a filter and a range of positions, 0 for no bound."""

    tree: Tree
    first: int = 0
    until: int = 0


_ends = st.just(0) | st.integers(1, 30)
askings = st.builds(Asking, trees | st.just(Everything()), _ends, _ends)


class _Plain(ColumnReader):
    """Knows of no promoted columns."""

    def columns(self, *args: Any, **kwargs: Any) -> Any:
        found, until = super().columns(*args, **kwargs)
        return [replace(each, promoted=()) for each in found], until


class Asker:
    """Asks an engine about a small log, and knows the naive answers."""

    def __init__(self, log: SmallLog, database: Database, *, plain: bool = False) -> None:
        """plain: without sidecars, promoted columns and kept blocks."""
        self.log = log
        reader = LocalLogReader(log.fs)
        columns = (_Plain if plain else ColumnReader)(
            log.fs, reader, tail_bytes_max=0 if plain else MIB, use_sidecars=not plain
        )
        self.engine = Engine(database, columns)
        self.committed = reader.committed()
        self.counts: CountCache = CountCache(COUNTS_MAX)
        self.clock: Clock = FakeClock()

    def question(self, asking: Asking) -> Question:
        """The question in the words of the engine."""
        end = self.log.last + 1
        first = Position(asking.first) if asking.first else None
        tree = resolve_now(asking.tree, NOW_NS)
        return Question(LOG_ID, tree, first, Position(min(asking.until or end, end)))

    def expected(self, asking: Asking, order: Order) -> list[int]:
        """Positions of the readable events that match, in order."""
        found = [
            event
            for event in self.log.readable()
            if asking.first <= event["position"] < (asking.until or self.log.last + 1)
            and reference_holds(asking.tree, event, NOW_NS)
        ]
        by_time = order in {Order.TIMESTAMP_ASCENDING, Order.TIMESTAMP_DESCENDING}
        found.sort(key=lambda event: (event["timestamp"] if by_time else 0, event["position"]), reverse=order.descends)
        return [event["position"] for event in found]

    def damage_within(self, asking: Asking) -> bool:
        """Whether the range holds damage."""
        end = asking.until or self.log.last + 1
        return any(asking.first <= position < end for position in self.log.damaged)

    def asked(self, asking: Asking, order: Order, place: Place | None, limit: int | None) -> Asked:
        """A part of an answer."""
        return Asked(self.question(asking), self.committed, order, place, limit)

    def stream(self, asking: Asking, order: Order, *, limit: int | None = None, works: Iterator[Work]) -> list[int]:
        """The answer as Query gives it, resumed while it is partial, and led past damage as a client is."""
        found: list[int] = []
        place: Place | None = None
        for work in works:
            left = None if limit is None else limit - len(found)
            asked = self.asked(asking, order, place, left)
            reading = open_reading(self.engine, self.clock, asked, work, EVENTS)
            try:
                batches = [chunk.events for chunk in reading.chunks()]
            except LogCorrupted as damage:
                place = self._behind(damage, order, place)
                continue
            found += self.positions(batches)
            if not reading.outcome.partial_reason:
                return found
            assert reading.outcome.partial_reason in {DAMAGE, DEADLINE}
            assert reading.outcome.resume != place, "every call gets somewhere"
            place = reading.outcome.resume
        raise AssertionError("there was always more")

    def pages(self, asking: Asking, order: Order, *, size: int, bytes_max: int) -> list[int]:
        """The answer as ListEvents gives it, page by page."""
        found: list[int] = []
        place: Place | None = None
        for work in self.patient():
            asked = self.asked(asking, order, place, size)
            reading = open_reading(self.engine, self.clock, asked, work, EVENTS)
            try:
                page = read_page(reading, asked, self.clock, bytes_max=bytes_max)
            except LogCorrupted as damage:
                place = self._behind(damage, order, place)
                continue
            assert page.events.num_rows <= size
            found += self.positions([page.events])
            place = page.next_place
            if place is None:
                return found
            assert page.events.num_rows or self.log.damaged, "an empty page is the last"
        raise AssertionError("there was always another page")

    def count(self, asking: Asking, *, works: Iterator[Work]) -> int:
        """The count, with those that go on from it."""

        def counting(errand: Errand) -> Counting:
            return Counting(errand, self.counts)

        def run(pass_: Counting) -> None:
            while pass_.step():
                pass

        return sum(pass_.reached.costs.matched_events for pass_ in self._passes(asking, works, counting, run))

    def aggregate(self, asking: Asking, aggregation: Aggregation, *, works: Iterator[Work]) -> list[dict[str, Any]]:
        """The rows of an aggregation, with those that go on from it."""
        rows: list[dict[str, Any]] = []

        def aggregating(errand: Errand) -> Aggregating:
            return Aggregating(errand, aggregation)

        def run(pass_: Aggregating) -> None:
            for groups in pass_.steps():
                assert groups.schema.equals(aggregation.schema)
                times = [field.name for field in groups.schema if field.type == EVENT_SCHEMA.field("timestamp").type]
                columns = {name: groups.column(name) for name in groups.schema.names}
                columns |= {name: columns[name].cast(pa.int64()) for name in times}
                rows.extend(pa.table(columns).to_pylist())

        passes = self._passes(asking, works, aggregating, run)
        assert sum(row["count"] for row in rows) == sum(pass_.reached.costs.matched_events for pass_ in passes)
        return rows

    def _passes(
        self,
        asking: Asking,
        works: Iterator[Work],
        begin: Callable[[Errand], T],
        run: Callable[[T], None],
    ) -> list[T]:
        """The passes of an answer: each goes on where the one before ended, the damage between them aside."""
        found: list[T] = []
        first = Position(asking.first) or self.engine.reader.first_position()
        for work in works:
            pass_ = begin(Errand(self.engine, self.question(asking), self.committed, work, self.clock, first))
            try:
                run(pass_)
            except LogCorrupted as damage:
                first = self._behind(damage, Order.POSITION_ASCENDING, None)
                continue
            found.append(pass_)
            reached = pass_.reached
            if not reached.partial_reason:
                return found
            assert reached.resume > first, "every call gets somewhere"
            first = reached.resume
        raise AssertionError("there was always more")

    def scan(self, asking: Asking, order: Order) -> list[tuple[str, int, str]]:
        """Ids, positions and types by a scan, led past damage."""
        projection = ScanProjection(asked_columns(["id", "position", "type"]), log_id=LOG_ID)
        found: list[tuple[str, int, str]] = []
        place: Place | None = None
        for work in self.patient():
            reading = open_reading(self.engine, self.clock, self.asked(asking, order, place, None), work, projection)
            try:
                for chunk in reading.chunks():
                    rows = projection.finish(chunk.events).to_pylist()
                    found += [(row["id"], row["position"], row["type"]) for row in rows]
            except LogCorrupted as damage:
                place = self._behind(damage, order, place)
                continue
            if not reading.outcome.partial_reason:
                return found
            place = reading.outcome.resume
        raise AssertionError("there was always more")

    def patient(self) -> Iterator[Work]:
        """Works without a bound on their time, as many as an answer may need."""
        for _ in range(1000):
            yield Work(self.clock)

    def positions(self, batches: list[pa.RecordBatch]) -> list[int]:
        """Positions of events, each of which is as it was written."""
        found = []
        for batch in batches:
            assert batch.schema.equals(EVENT_SCHEMA)
            times = {name: batch.column(name).cast(pa.int64()).to_pylist() for name in ("timestamp", "recorded_at")}
            for number, row in enumerate(batch.drop_columns(list(times)).to_pylist()):
                event = self.log.events[row["position"] - 1]
                row |= {name: values[number] for name, values in times.items()}
                assert row == {name: event[name] for name in EVENT_SCHEMA.names}
                found.append(row["position"])
        return found

    def _behind(self, damage: LogCorrupted, order: Order, place: Place | None) -> Position:
        """Where to go on behind damage; all that is left out is damaged."""
        first, last = (int(damage.metadata[f"{end}_position"]) for end in ("first", "last"))
        assert set(range(first, last + 1)) <= self.log.damaged
        assert order in BY_POSITION, "damage has no place in the order of timestamps"
        if place is not None:
            edge = int(place) - 1 if order.descends else int(place)  # type: ignore[arg-type]
            assert first <= edge <= last, "what lies before the damage was given"
        return Position(first if order.descends else last + 1)
