"""Pages of events: the same events whatever the size of the pages, up to damage and beyond it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query_service.event_reader import EventReader, PageRequest
from shared.columns.schema import EVENT_SCHEMA
from shared.errors import EventStorageException, LogCorrupted, PositionTrimmed
from shared.log.committed_position import Committed
from shared.log.frame_index import corrupted
from shared.log.types import Damage, Nanoseconds, Offset, Position, PositionRange


@dataclass
class _Log:
    """A log of `last` events in batches of three; the timestamp of an event is ten times its position."""

    last: int = 20
    first: int = 1
    damaged: tuple[int, int] = (0, 0)
    gone: frozenset[int] = frozenset()
    payload_bytes: int = 2
    reads: list[tuple[int, int]] = field(default_factory=list)

    def committed(self) -> Committed:
        return Committed("TEST0001", Position(self.last), Nanoseconds(0), Position(1), Offset(0))

    def first_position(self) -> Position:
        return Position(self.first)

    def read(self, from_position: Position, until: Position) -> Iterator[pa.RecordBatch]:
        self.reads.append((from_position, until))
        if from_position < min(self.first, until):
            raise PositionTrimmed("gone", first_position=self.first)
        positions: list[int] = []
        for position in range(from_position, min(until, self.last + 1)):
            if self.damaged[0] <= position <= self.damaged[1]:
                if positions:
                    yield self._batch(positions)
                last = Position(min(self.damaged[1], until - 1))
                raise corrupted(Damage(PositionRange(Position(position), last), "file", "bad"))
            if position not in self.gone:
                positions.append(position)
            if position % 3 == 0 and positions:
                yield self._batch(positions)
                positions = []
        if positions:
            yield self._batch(positions)

    def _batch(self, positions: list[int]) -> pa.RecordBatch:
        rows = [
            {
                "position": position,
                "recorded_at": position,
                "timestamp": 10 * position,
                "type": "a",
                "source": "s",
                "payload": "{" + " " * (self.payload_bytes - 2) + "}",
                "host": "h",
                "version": "1",
                "tags": ["t"],
            }
            for position in positions
        ]
        return pa.RecordBatch.from_pylist(rows, schema=EVENT_SCHEMA)


def _pages(
    log: _Log, request: PageRequest, stopped: Callable[[], bool] = lambda: False
) -> tuple[list[list[int]], tuple[int, int] | None]:
    """Positions by page, to the end or to damage; and the damage."""
    reader = EventReader(log)
    pages = []
    at: Position | None = request.from_position
    while at is not None:
        asked = PageRequest(at, request.until, request.limit, request.start_ns, request.end_ns, request.bytes_max)
        try:
            page = reader.page(asked, stopped=stopped)
        except LogCorrupted as error:
            return pages, (int(error.metadata["first_position"]), int(error.metadata["last_position"]))
        pages.append(page.events.column("position").to_pylist())
        assert page.events.schema.equals(EVENT_SCHEMA)
        assert len(pages[-1]) <= request.limit
        assert page.next_position is None or page.next_position > at
        at = page.next_position
    return pages, None


@settings(max_examples=200)
@given(
    st.integers(1, 24),
    st.integers(1, 24),
    st.integers(1, 30),
    st.one_of(st.none(), st.integers(0, 220)),
    st.one_of(st.none(), st.integers(0, 220)),
    st.sets(st.integers(1, 20)),
    st.sampled_from([1, 300, 700, 10_000]),
    st.sampled_from([2, 200]),
    st.booleans(),
)
def test_pages_of_any_size_are_the_same_events(
    first: int,
    until: int,
    limit: int,
    start: int | None,
    end: int | None,
    gone: set[int],
    bytes_max: int,
    payload_bytes: int,
    hurried: bool,  # noqa: FBT001 — given by hypothesis, by position
) -> None:
    """Joined, they hold each event of the ranges once and in order, with gaps, time ranges and early ends."""
    log = _Log(gone=frozenset(gone), payload_bytes=payload_bytes)
    request = PageRequest(Position(first), Position(until), limit, start, end, bytes_max)
    pages, damage = _pages(log, request, lambda: hurried)
    expected = [
        position
        for position in range(first, min(until, 21))
        if position not in gone and (start is None or 10 * position >= start) and (end is None or 10 * position < end)
    ]
    assert damage is None
    assert [position for page in pages for position in page] == expected


def test_a_full_page_ends_with_a_place_to_go_on_from() -> None:
    """The last page has none, also where it is exactly full."""
    reader = EventReader(_Log(last=6))
    page = reader.page(PageRequest(Position(1), Position(7), 4))
    assert (page.events.num_rows, page.next_position) == (4, 5)
    page = reader.page(PageRequest(Position(3), Position(7), 4))
    assert (page.events.num_rows, page.next_position) == (4, None)


def test_a_page_is_bounded_in_bytes() -> None:
    """Large payloads make short pages, and one that is larger than a page comes alone."""
    pages, _ = _pages(_Log(last=7, payload_bytes=1000), PageRequest(Position(1), Position(8), 100, bytes_max=2500))
    assert [len(page) for page in pages] == [2, 2, 2, 1]
    pages, _ = _pages(_Log(last=3, payload_bytes=5000), PageRequest(Position(1), Position(4), 100, bytes_max=2500))
    assert pages == [[1], [2], [3]]


def test_a_page_that_does_not_fill_is_read_no_further_than_needed() -> None:
    """A page reads one stretch of the log, not one for each event."""
    log = _Log()
    EventReader(log).page(PageRequest(Position(4), Position(21), 5))
    assert log.reads == [(4, 21)]


def test_what_comes_before_damage_is_a_page_of_its_own() -> None:
    """The page after it begins with the damage and says so; behind it reading goes on."""
    log = _Log(damaged=(8, 11))
    pages, damage = _pages(log, PageRequest(Position(1), Position(21), 100))
    assert (pages, damage) == ([[1, 2, 3, 4, 5, 6, 7]], (8, 11))
    assert _pages(log, PageRequest(Position(9), Position(21), 100)) == ([], (9, 11))
    assert _pages(log, PageRequest(Position(12), Position(21), 5))[0] == [[12, 13, 14, 15, 16], [17, 18, 19, 20]]
    assert _pages(log, PageRequest(Position(1), Position(8), 100)) == ([[1, 2, 3, 4, 5, 6, 7]], None)


def test_a_time_range_does_not_hide_damage() -> None:
    """What was at those positions may have been in the range: an empty page comes first, then the damage."""
    request = PageRequest(Position(1), Position(21), 100, start_ns=1_000)
    assert _pages(_Log(damaged=(8, 11)), request) == ([[]], (8, 11))


def test_a_page_before_the_oldest_event_is_refused() -> None:
    """It says where the log begins now."""
    with pytest.raises(PositionTrimmed):
        EventReader(_Log(first=5)).page(PageRequest(Position(1), Position(21), 5))


def test_one_event_is_found_by_its_position() -> None:
    """One row, the right one."""
    event = EventReader(_Log()).get(Position(7))
    assert event.column("position").to_pylist() == [7]


@pytest.mark.parametrize(("log", "position"), [(_Log(gone=frozenset({7})), 7), (_Log(first=9), 7), (_Log(), 21)])
def test_an_event_that_is_not_there_is_not_found(log: _Log, position: int) -> None:
    """Expired, trimmed, or never logged."""
    with pytest.raises(EventStorageException) as caught:
        EventReader(log).get(Position(position))
    assert caught.value.reason == "EVENT_NOT_FOUND"


def test_a_damaged_event_is_said_to_be_damaged() -> None:
    """It is not simply not found."""
    with pytest.raises(LogCorrupted):
        EventReader(_Log(damaged=(7, 7))).get(Position(7))
