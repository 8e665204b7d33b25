"""Whatever the log and the question: pages, streams, counts and scans are what a naive reading of it gives."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from query_service.counting import COUNTS_MAX, CountCache, Counting
from query_service.database import Database
from query_service.event_projection import EVENTS
from query_service.question import Order, Question
from query_service.reading import DAMAGE, DEADLINE, Engine
from query_service.readings import Asked, Place, open_reading, read_page
from query_service.scan_projection import ScanProjection, scan_columns
from query_service.work import Work, WorkExpired
from shared.clock import Clock
from shared.columns.schema import EVENT_SCHEMA
from shared.errors import LogCorrupted
from shared.filters.printer import print_filter
from shared.filters.resolution import resolve_now
from shared.filters.tree import Everything, Tree
from shared.log.log_reader import LocalLogReader
from shared.log.segment_columns import ColumnReader
from shared.log.types import Position
from tests.support.fake_clock import FakeClock
from tests.support.filter_strategies import LOG_ID, NOW_NS, trees
from tests.support.reference_filter import reference_holds
from tests.support.small_logs import SmallLog, plans, small_steps, write_log

SETTINGS = settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
BY_POSITION = (Order.POSITION_ASCENDING, Order.POSITION_DESCENDING)
MIB = 1024 * 1024


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


class _Interrupting(Work):
    """Is interrupted at chosen statements and fetches, as soon as it has progress."""

    def __init__(self, clock: Clock, chosen: set[int]) -> None:
        super().__init__(clock, budget_s=1e9)
        self._chosen = chosen
        self._runs = 0

    def running(self, thing: Any) -> Any:
        self._runs += 1
        if self.has_progress and self._runs in self._chosen:
            raise WorkExpired
        return super().running(thing)


class _Ticking(FakeClock):
    """A clock that moves whenever somebody looks."""

    def monotonic_s(self) -> float:
        self.advance(0.01)
        return super().monotonic_s()


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
        total, place = 0, None
        for work in works:
            first = place or asking.first or self.engine.reader.first_position()
            counting = Counting(
                self.engine,
                self.question(asking),
                self.committed,
                work,
                self.clock,
                start=Position(first),
                cache=self.counts,
            )
            try:
                while counting.step():
                    pass
            except LogCorrupted as damage:
                place = self._behind(damage, Order.POSITION_ASCENDING, None)
                continue
            counted = counting.counted
            total += counted.count
            if not counted.partial_reason:
                return total
            assert counted.resume > first, "every call gets somewhere"
            place = counted.resume
        raise AssertionError("there was always more")

    def scan(self, asking: Asking, order: Order) -> list[tuple[str, int, str]]:
        """Ids, positions and types by a scan, led past damage."""
        projection = ScanProjection(scan_columns(["id", "position", "type"]), log_id=LOG_ID)
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


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A directory for all logs, so that one database reads them."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(scope="module")
def database(folder: Path) -> Iterator[Database]:
    """One database for all logs."""
    with Database(folder, threads=1, memory_bytes_max=256 * MIB) as opened, small_steps():
        yield opened


@pytest.fixture(scope="module")
def make_log(folder: Path) -> Any:
    """Writes a log as planned."""
    return lambda plan: write_log(Path(tempfile.mkdtemp(dir=folder)), plan)


def check(asker: Asker, asking: Asking, data: st.DataObject) -> None:
    """Compare every kind of answer with the naive one."""
    why = print_filter(asking.tree)
    for order in Order:
        expected = asker.expected(asking, order)
        limit = data.draw(st.none() | st.integers(1, 6))
        size, bytes_max = data.draw(st.integers(1, 7)), data.draw(st.sampled_from([1, 500, MIB]))
        if order not in BY_POSITION and asker.damage_within(asking):
            continue
        wanted = expected if limit is None else expected[:limit]
        assert asker.stream(asking, order, limit=limit, works=asker.patient()) == wanted, why
        assert asker.pages(asking, order, size=size, bytes_max=bytes_max) == expected, why
        if order in BY_POSITION:
            scanned = [(e["id"], e["position"], e["type"]) for p in expected for e in [asker.log.events[p - 1]]]
            assert asker.scan(asking, order) == scanned, why
    assert asker.count(asking, works=asker.patient()) == len(asker.expected(asking, Order.POSITION_ASCENDING)), why


@settings(SETTINGS, max_examples=12)
@given(plans, askings, st.data())
def test_answers_are_the_naive_ones(database, make_log, plan, asking, data):
    """Cold, warm, and with everything off that only makes it faster."""
    log = make_log(plan)
    asker, plain = Asker(log, database), Asker(log, database, plain=True)
    for each in (asker, asker, plain):
        check(each, asking, data)


@SETTINGS
@given(plans, askings, st.data())
def test_interrupted_answers_joined_are_the_whole(database, make_log, plan, asking, data):
    """Whatever is interrupted once something was reached: the parts add up, and each gets somewhere."""
    asker = Asker(make_log(plan), database)

    def works() -> Iterator[Work]:
        for _ in range(1000):
            yield _Interrupting(asker.clock, data.draw(st.sets(st.integers(1, 12), max_size=6)))

    for order in Order:
        if order in BY_POSITION or not asker.damage_within(asking):
            limit = data.draw(st.none() | st.integers(1, 6))
            assert asker.stream(asking, order, limit=limit, works=works()) == asker.expected(asking, order)[:limit]
    assert asker.count(asking, works=works()) == len(asker.expected(asking, Order.POSITION_ASCENDING))


@SETTINGS
@given(plans, askings, st.floats(0.01, 0.5))
def test_answers_in_a_hurry_joined_are_the_whole(database, make_log, plan, asking, budget_s):
    """Where the time is up again and again, the parts add up, and each gets somewhere."""
    asker = Asker(make_log(plan), database)
    asker.clock = _Ticking()

    def works() -> Iterator[Work]:
        for _ in range(1000):
            yield Work(asker.clock, budget_s)

    for order in Order:
        if order in BY_POSITION or not asker.damage_within(asking):
            assert asker.stream(asking, order, works=works()) == asker.expected(asking, order)
    assert asker.count(asking, works=works()) == len(asker.expected(asking, Order.POSITION_ASCENDING))
