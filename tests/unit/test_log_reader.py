"""Reading a log while it is appended to, rotated, sealed, damaged and trimmed."""

import threading
from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest

from shared.columns.schema import FRAME_SCHEMA
from shared.errors import EventStorageException, LogCorrupted, PositionTrimmed
from shared.log.committed_position import Committed, CommittedPositionWriter, read_committed
from shared.log.frame import EncodedFrame, Frame, encode_frame
from shared.log.log_reader import LocalLogReader
from shared.log.log_writer import LocalLogWriter
from shared.log.names import COMMITTED, SEGMENTS, list_segments, log_name
from shared.log.sealing import SealOrder, seal_segment
from shared.log.segment_summary import SegmentState, summarize
from shared.log.types import Nanoseconds, Offset, Position
from tests.support.builders import LOG_ID, event_batch, numbered_frame, open_writer, payload
from tests.support.fake_clock import START_NS
from tests.support.log_reading import read_events
from tests.support.memory_file_system import MemoryFileSystem


class _Log:
    """A log that grows by frames of three events, and its reader."""

    def __init__(self) -> None:
        self.fs = MemoryFileSystem()
        self.writer: LocalLogWriter = open_writer(self.fs)
        self.reader = LocalLogReader(self.fs)

    @property
    def last(self) -> int:
        return self.writer.last_position

    def append(self, frames: int = 1) -> "_Log":
        for _ in range(frames):
            self.writer.append(numbered_frame(self.last + 1, 3))
        return self

    def rotate(self) -> "_Log":
        assert self.writer.rotate()
        return self

    def seal(self, first: int) -> "_Log":
        segments = list_segments(self.fs.list(SEGMENTS))
        at = next(index for index, segment in enumerate(segments) if segment.first == first)
        seal_segment(self.fs, seal_order(first, segments[at + 1].first))
        return self

    def read(self, first: int = 1, until: int = 1 << 62) -> dict[int, str]:
        found: dict[int, str] = {}
        for batch in read_events(self.reader, first, until):
            rows = zip(batch.column("position").to_pylist(), batch.column("payload").to_pylist(), strict=True)
            for position, text in rows:
                assert position not in found
                found[position] = text
        assert list(found) == sorted(found)
        return found


def seal_order(first: int, until: int, **by_type_s: int) -> SealOrder:
    """An order to seal a segment of these tests."""
    return SealOrder(
        base_path="",
        log_id=LOG_ID,
        first=first,
        until=until,
        retention_default_s=1,
        retention_by_type_s=by_type_s,
        promoted_paths=[],
        compress=True,
        write_index=True,
    )


def _expected(first: int, last: int) -> dict[int, str]:
    return {position: payload(f"event {position}") for position in range(first, last + 1)}


@pytest.fixture
def log() -> Iterator[_Log]:
    """An empty log."""
    made = _Log()
    yield made
    made.writer.close()


def _active(log: _Log) -> None:
    log.append(6)


def _rotated(log: _Log) -> None:
    log.append(2).rotate().append(2).rotate().append(2)


def _sealed(log: _Log) -> None:
    log.append(2).rotate().append(2).rotate().append(2).rotate().seal(1).seal(7).seal(13)


def _mixed(log: _Log) -> None:
    log.append(2).rotate().append(2).rotate().append(2).seal(1)


def _left_over(log: _Log) -> None:
    """As a crash between sealing and the removal of the .log leaves it."""
    log.append(2).rotate()
    left = log.fs.files()[log_name(Position(1))]
    log.seal(1).append(4)
    log.fs.put(log_name(Position(1)), left)


_FORMS: list[Callable[[_Log], None]] = [_active, _rotated, _sealed, _mixed, _left_over]


@pytest.mark.parametrize("make", _FORMS)
def test_every_range_is_read_exactly(log: _Log, make: Callable[[_Log], None]) -> None:
    """Whatever form the segments have, each event of a range comes once and in order."""
    make(log)
    assert log.reader.first_position() == 1
    for first in range(1, 20):
        for until in (first, first + 1, first + 4, 19, 100):
            assert log.read(first, until) == _expected(first, min(until - 1, 18))


def test_an_empty_log_has_no_events(log: _Log) -> None:
    """Nothing is committed, and that is no error."""
    assert log.read() == {}
    assert log.reader.first_position() == 1
    assert log.reader.segments(log.reader.committed()) == []
    assert log.reader.holes(log.reader.committed()) == []


def test_where_there_is_no_log_it_says_so() -> None:
    """A query service may be started first."""
    with pytest.raises(EventStorageException) as caught:
        LocalLogReader(MemoryFileSystem()).committed()
    assert caught.value.reason == "LOG_UNAVAILABLE"


def test_a_reader_goes_on_with_what_it_knows_where_the_promise_is_gone(log: _Log) -> None:
    """A promise holds for ever: without the file nothing older than the last one seen is answered."""
    log.append(2)
    assert log.read() == _expected(1, 6)
    for spoil in (lambda: log.fs.delete(COMMITTED), lambda: log.fs.put(COMMITTED, b"no promise")):
        spoil()
        assert log.read() == _expected(1, log.last)
        log.writer.tend()
        log.append(1)
        assert log.read() == _expected(1, log.last)


def test_a_new_reader_waits_until_the_promise_is_made_anew(log: _Log) -> None:
    """The writer notices that its file is gone; who asks meanwhile is answered a little later."""
    log.append(1)
    log.fs.delete(COMMITTED)
    found: list[dict[int, str]] = []
    reading = threading.Thread(target=lambda: found.append(log.read()))
    before = log.fs.operations
    reading.start()
    while log.fs.operations < before + 5:
        reading.join(0.001)
    assert found == []
    log.writer.tend()
    reading.join()
    assert found == [_expected(1, 3)]


def test_a_new_reader_gives_up_where_nobody_writes(log: _Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits no longer than it says."""
    monkeypatch.setattr("shared.log.log_reader._PROMISE_PAUSE_S", 0.0)
    log.append(1)
    log.fs.delete(COMMITTED)
    with pytest.raises(EventStorageException) as caught:
        log.read()
    assert caught.value.reason == "LOG_UNAVAILABLE"


def test_nothing_beyond_the_committed_position_is_returned(log: _Log) -> None:
    """Bytes that are written and not committed are on disk already, and not to be seen."""
    log.append(2)
    known = read_committed(log.fs)
    assert known is not None
    log.append(1)
    writer = CommittedPositionWriter(log.fs)
    writer.publish(known)
    assert log.read() == _expected(1, 6)
    writer.publish(Committed(LOG_ID, Position(9), known.recorded_at, known.active_first, Offset(1 << 40)))
    assert log.read() == _expected(1, 9)
    writer.close()


def test_a_reader_follows_the_log_as_it_grows(log: _Log) -> None:
    """One reader sees appends, rotations and seals as they come."""
    for frames, first in ((1, 1), (2, None), (1, 4)):
        log.append(frames)
        assert log.read() == _expected(1, log.last)
        log.rotate()
        assert log.read() == _expected(1, log.last)
        if first is not None:
            log.seal(first)
            assert log.read() == _expected(1, log.last)


@pytest.mark.parametrize("batches_before", [0, 1, 2])
def test_a_segment_may_be_sealed_while_it_is_read(log: _Log, batches_before: int) -> None:
    """Between the listing and the opening, or between two frames: nothing is missed, nothing comes twice."""
    log.append(3).rotate().append(1)
    batches = read_events(log.reader, 1, 100)
    found = [next(batches) for _ in range(batches_before)]
    log.seal(1)
    found += batches
    assert [position for batch in found for position in batch.column("position").to_pylist()] == list(range(1, 13))


def test_a_log_removed_between_listing_and_opening_is_looked_for_again(log: _Log) -> None:
    """The listing of a moment ago names a file that is gone: the next one names what it became."""
    log.append(3).rotate().append(1)
    listings = 0

    def seal_after_the_listing() -> None:
        nonlocal listings
        if log.fs.trace and log.fs.trace[-1] == f"list {SEGMENTS}":
            listings += 1
            if listings == 1:
                log.fs.watch = None
                log.seal(1)

    log.fs.trace.clear()
    log.fs.watch = seal_after_the_listing
    assert log.read() == _expected(1, 12)
    assert listings == 1


def test_a_file_that_never_comes_back_is_an_error(log: _Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader does not look for ever."""
    log.append(1)
    read = log.fs.read

    def missing(name: str, offset: int = 0, size: int | None = None) -> bytes:
        if name.endswith(".log"):
            raise FileNotFoundError(name)
        return read(name, offset, size)

    monkeypatch.setattr(log.fs, "read", missing)
    with pytest.raises(FileNotFoundError):
        log.read()


def _frame_offset(log: _Log, name: str, number: int) -> int:
    """Where the body of a frame lies."""
    data, at = log.fs.files()[name], 0
    for _ in range(number + 1):
        at = data.index(b"EVFR", at + 1)
    return at + 60


def _read_to_damage(log: _Log, first: int = 1) -> tuple[dict[int, str], tuple[int, int]]:
    found: dict[int, str] = {}

    def read() -> None:
        for batch in read_events(log.reader, first):
            found.update(zip(batch.column("position").to_pylist(), batch.column("payload").to_pylist(), strict=True))

    with pytest.raises(LogCorrupted) as caught:
        read()
    metadata = caught.value.metadata
    return found, (int(metadata["first_position"]), int(metadata["last_position"]))


@pytest.mark.parametrize("rotated", [True, False])
def test_a_reader_is_told_of_a_damaged_frame_and_may_go_on_behind_it(log: _Log, *, rotated: bool) -> None:
    """What comes before is read, what comes behind too, and what is between is named."""
    log.append(3)
    if rotated:
        log.rotate().append(1)
    log.fs.flip(log_name(Position(1)), _frame_offset(log, log_name(Position(1)), 1))
    assert _read_to_damage(log) == (_expected(1, 3), (4, 6))
    assert _read_to_damage(log, 5) == ({}, (5, 6))
    assert log.read(7) == _expected(7, log.last)
    span = log.reader.segments(log.reader.committed())[0]
    (damage,) = log.reader.damage(span, log.reader.committed())
    assert (damage.positions.first, damage.positions.last) == (4, 6)


def test_damage_found_after_a_frame_was_indexed_is_told_too(log: _Log) -> None:
    """An index made earlier does not hide what happened since."""
    log.append(3)
    assert log.read() == _expected(1, 9)
    log.fs.flip(log_name(Position(1)), _frame_offset(log, log_name(Position(1)), 1))
    assert _read_to_damage(log) == (_expected(1, 3), (4, 6))


def test_damage_that_was_sealed_is_told(log: _Log) -> None:
    """A gap that damage made is no gap that retention made."""
    log.append(3).rotate().append(1)
    log.fs.flip(log_name(Position(1)), _frame_offset(log, log_name(Position(1)), 1))
    log.seal(1)
    assert _read_to_damage(log) == (_expected(1, 3), (4, 6))
    assert _read_to_damage(log, 6) == ({}, (6, 6))
    assert log.read(7) == _expected(7, 12)
    assert log.read(1, 4) == _expected(1, 3)


def _destroy(fs: MemoryFileSystem, name: str) -> bytes:
    """Damage a sealed file beyond repair; return what it was."""
    whole = fs.files()[name]
    fs.put(name, whole[: len(whole) // 2])
    fs.delete(name.replace(".parquet", ".par"))
    return whole


def test_a_destroyed_sealed_file_is_told_until_it_is_restored(log: _Log) -> None:
    """Restoring the file from a backup is enough: no reader has to be restarted."""
    log.append(2).rotate().append(2).rotate().seal(1).seal(7)
    name = next(name for name in log.fs.list(SEGMENTS) if name.endswith(".parquet"))
    whole = _destroy(log.fs, name)
    assert _read_to_damage(log) == ({}, (1, 6))
    assert log.read(7) == _expected(7, 12)
    log.fs.put(name, whole)
    assert log.read() == _expected(1, 12)


def _typed_frame(first: int, types: list[str]) -> EncodedFrame:
    events = event_batch([payload(f"event {first + row}") for row in range(len(types))])
    column = FRAME_SCHEMA.get_field_index("type")
    events = events.set_column(column, FRAME_SCHEMA.field("type"), pa.array(types))
    return encode_frame(Frame(Position(first), Nanoseconds(START_NS), events))


def _two_classes(log: _Log) -> tuple[str, str]:
    """A sealed segment of the classes audit (2, 3, 6) and default (1, 4, 5), then 7 to 9. Names of its files."""
    log.writer.append(_typed_frame(1, ["a", "audit.login", "audit"]))
    log.writer.append(_typed_frame(4, ["a", "b", "audit"]))
    log.rotate().append(1)
    seal_segment(log.fs, seal_order(1, 7, audit=9))
    audit, default = (name for name in log.fs.list(SEGMENTS) if name.endswith(".parquet"))
    return audit, default


def test_classes_are_merged_into_the_order_of_positions(log: _Log) -> None:
    """A segment of several files reads like one."""
    _two_classes(log)
    assert log.read() == _expected(1, 9)
    assert log.read(3, 6) == _expected(3, 5)


def test_positions_removed_by_retention_are_skipped(log: _Log) -> None:
    """Where a class has expired the others are read on, without an error."""
    _, default = _two_classes(log)
    log.fs.delete(default)
    assert list(log.read()) == [2, 3, 6, 7, 8, 9]
    assert list(log.read(4, 6)) == []


def test_damage_of_one_class_is_told_at_each_of_its_gaps(log: _Log) -> None:
    """Where a file is destroyed, what lies between the events of the others may be lost."""
    _, default = _two_classes(log)
    _destroy(log.fs, default)
    assert _read_to_damage(log) == ({}, (1, 1))
    assert _read_to_damage(log, 2) == (_expected(2, 3), (4, 5))
    assert log.read(6) == _expected(6, 9)


def _delete_segment(log: _Log, first: int) -> None:
    for name in log.fs.list(SEGMENTS):
        if name.startswith(f"{SEGMENTS}/{first:020d}"):
            log.fs.delete(name)


def test_what_lies_before_the_oldest_segment_was_trimmed(log: _Log) -> None:
    """A reader that begins there is told where the log begins now."""
    _mixed(log)
    _delete_segment(log, 1)
    assert log.reader.first_position() == 7
    with pytest.raises(PositionTrimmed) as caught:
        log.read(3)
    assert caught.value.metadata["first_position"] == "7"
    assert log.read(7) == _expected(7, 18)
    assert log.reader.holes(log.reader.committed()) == []


@pytest.mark.parametrize(("first", "missing"), [(7, (7, 12)), (13, (13, 18))])
def test_a_segment_that_is_missing_behind_a_sealed_one_is_damage(
    log: _Log, first: int, missing: tuple[int, int]
) -> None:
    """What was committed and is nowhere is reported, not skipped."""
    _sealed(log)
    _delete_segment(log, first)
    log.fs.delete(log_name(Position(19)))
    assert _read_to_damage(log) == (_expected(1, first - 1), missing)
    (hole,) = log.reader.holes(log.reader.committed())
    assert (hole.positions.first, hole.positions.last) == missing
    assert log.read(missing[1] + 1) == _expected(missing[1] + 1, 18)


def test_a_log_without_any_segment_is_damage(log: _Log) -> None:
    """The committed position knows that there was something."""
    log.append(2)
    _delete_segment(log, 1)
    assert _read_to_damage(log) == ({}, (1, 6))
    assert [hole.positions.count for hole in log.reader.holes(log.reader.committed())] == [6]


def test_a_listing_that_misses_a_segment_is_not_believed_at_once(log: _Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory read while files come and go may show neither the old nor the new."""
    _sealed(log)
    list_files = log.fs.list
    torn = [name for name in list_files(SEGMENTS) if f"/{7:020d}" not in name]
    answers = [torn, torn]

    def listed(directory: str) -> list[str]:
        return answers.pop() if answers and directory == SEGMENTS else list_files(directory)

    monkeypatch.setattr(log.fs, "list", listed)
    assert log.read(7, 13) == _expected(7, 12)
    answers.append(torn)
    assert log.reader.holes(log.reader.committed()) == []


def test_segments_are_summarised_in_every_state(log: _Log) -> None:
    """State, positions, files, bytes and times, without the events."""
    _two_classes(log)
    log.rotate().append(2)
    committed = log.reader.committed()
    summaries = [summarize(log.fs, log.reader, span, committed) for span in log.reader.segments(committed)]
    assert [summary.state for summary in summaries] == [SegmentState.SEALED, SegmentState.ROTATED, SegmentState.ACTIVE]
    assert [(each.positions.first, each.positions.last) for each in summaries] == [(1, 6), (7, 9), (10, 15)]
    files = [[(file.retention_class, file.events) for file in summary.files] for summary in summaries]
    assert files == [[("audit", 3), ("default", 3)], [("", 3)], [("", 6)]]
    assert all(summary.recorded_at == (START_NS, START_NS) for summary in summaries)
    assert all(file.bytes >= log.fs.size(file.name) for summary in summaries for file in summary.files)


def test_few_sealed_segments_are_kept_open(log: _Log) -> None:
    """What is in memory is bounded, however much is read."""
    for _ in range(7):
        log.append(1).rotate()
    for first in range(1, 20, 3):
        log.seal(first)
    assert log.read() == _expected(1, 21)
    assert len(log.reader._sealed) == 4
    assert len(log.reader._indexes) <= 1
